"""Where the packages lie; everything else is in pyproject.toml.

``.layout/rlkit``, ``rlkit/agents`` and ``rlkit/envs`` are links that lay the packages out as they are installed: with
them an editable installation is one folder on the search path, which type checkers and editors read too.  Where links
did not survive (Windows, some archives) the folders are named one by one; then it is an import hook.
"""

from pathlib import Path

from setuptools import find_packages, setup

FOLDERS = {"rlkit": "rlkit", "rlkit.agents": "agents", "rlkit.envs": "envs"}

if all(Path(".layout", *name.split(".")).is_dir() for name in FOLDERS):
    setup(package_dir={"": ".layout"}, packages=find_packages(".layout"))
else:
    below = {f"{name}.{package}" for name, folder in FOLDERS.items() for package in find_packages(folder)}
    setup(package_dir=FOLDERS, packages=sorted(below | FOLDERS.keys()))
