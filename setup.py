"""Hands over to setup.cfg, and adds the one thing that it can't say: `find:` together with a mapped package.

migrations/ lies at the top of the tree for whoever works on it and inside remote_lab for whoever installs a wheel.
"""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["remote_lab", "remote_lab.*"]),
        "remote_lab.migrations",
        "remote_lab.migrations.versions",
    ],
)
