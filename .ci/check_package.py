"""Check what ``python -m build`` made: ``check_package.py DIST [pytest arguments]``.

Metadata and the wheel's contents by their own tools; then the source distribution is unpacked and
its tests run against the installed package, as a packager would.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
from pathlib import Path


def main(dist: Path, args: list[str]) -> None:
    """Stop at the first command that fails."""
    (wheel,) = dist.glob("*.whl")
    (source,) = dist.glob("*.tar.gz")
    python = [sys.executable, "-m"]
    subprocess.run([*python, "twine", "check", "--strict", wheel, source], check=True)
    subprocess.run([*python, "check_wheel_contents", wheel], check=True)
    unpacked = dist / "unpacked"
    shutil.rmtree(unpacked, ignore_errors=True)
    with tarfile.open(source) as archive:
        archive.extractall(unpacked, filter="data")
    (project,) = unpacked.iterdir()
    shutil.rmtree(project / "pytest_paramcheck")  # the installed one is what is tested
    subprocess.run([*python, "pytest", "-n", "2", *args], cwd=project, check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
