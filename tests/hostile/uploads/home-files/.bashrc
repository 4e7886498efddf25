python3 attack.py
