"""Builds the second device: once for each source, compiler and torch, and found again.

``python -m tests.second_device.build`` needs a C++ compiler (``c++`` or ``$CXX``) and ninja, and
takes half a minute. Only this command builds, so no two workers ever do; what runs the tests loads
what it finds.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("twin.cpp")
FLAGS = ("-O0", "-g0", "-Wall", "-Wextra")
#: Where built libraries lie; a tox environment keeps them below its own folder.
FOLDER = "SECOND_DEVICE_DIR"


def compiler() -> str | None:
    """The C++ compiler torch.utils.cpp_extension would call, if there is one."""
    return shutil.which(os.environ.get("CXX", "c++"))


def library() -> Path:
    """Where the library for this source, compiler and torch lies, or will lie."""
    import torch

    command = compiler()
    said = ""
    if command:
        version = subprocess.run([command, "--version"], capture_output=True, text=True, check=True)
        said = version.stdout
    parts = (SOURCE.read_text(), *FLAGS, torch.__version__, sys.version, said)
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    folder = os.environ.get(FOLDER) or Path(tempfile.gettempdir()) / "second_device"
    return Path(folder) / digest / "twin.so"


def why_not() -> str:
    """What keeps the device from being built here, or nothing."""
    if sys.platform != "linux":
        return f"it is built on Linux, not on {sys.platform}"
    if compiler() is None:
        return "no C++ compiler (apt-get install g++, or set CXX)"
    if shutil.which("ninja") is None:
        return "no ninja (pip install ninja)"
    return ""


def build() -> Path:
    """Return the library, built if it is not there. Another run never sees half of it."""
    found = library()
    if found.exists():
        return found
    from torch.utils.cpp_extension import load

    found.parent.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=found.parent.parent) as scratch:
        load(
            "twin",
            [str(SOURCE)],
            extra_cflags=list(FLAGS),
            build_directory=scratch,
            is_python_module=False,
        )
        found.parent.mkdir(exist_ok=True)
        (Path(scratch) / found.name).replace(found)
    return found


if __name__ == "__main__":
    reason = why_not()
    sys.stdout.write(f"no second device: {reason}\n" if reason else f"second device: {build()}\n")
