#!/bin/sh
python3 attack.py
