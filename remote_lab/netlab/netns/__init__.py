"""What runs inside a pod: its start, the nodes of its lab, and netlab's provider `netns`.

A pod gets a copy of this package and runs it with the image's Python, so that an upgrade of Remote Lab Manager needs no
new image. Standard library only (and netlab in `provider.py` and `netlab_command.py`); nothing here may import the rest
of Remote Lab Manager.
"""
