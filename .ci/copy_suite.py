"""Copy the project without its package: ``copy_suite.py PROJECT TARGET``."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

LEFT_OUT = ("pytest_paramcheck", ".git", ".tox", ".venv", "build", "dist", "*.egg-info", ".*_cache")

if __name__ == "__main__":
    project, target = map(Path, sys.argv[1:])
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(
        project, target, ignore=shutil.ignore_patterns(*LEFT_OUT, "__pycache__", ".hypothesis")
    )
