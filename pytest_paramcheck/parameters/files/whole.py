"""A file written whole or not at all: what is there stays until the new one can take its place."""

from __future__ import annotations

import os
from pathlib import Path


def write_whole(path: Path, data: bytes) -> None:
    """Write a file, its folders created; errors are the system's own.

    A temporary file beside it is renamed onto it, so that an interrupted run, a full disk or two
    workers that write at once never leave half a file behind. Of a symbolic link the target
    is written, and the link stays. Ask ``is_there`` first: a pipe or a device would be replaced.
    """
    target = Path(os.path.realpath(path))
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{os.urandom(8).hex()}.tmp")
    # Not tempfile: its files are their owner's alone, and a committed file is an ordinary one,
    # with the mode that the umask leaves.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
    handle = os.open(temporary, flags, 0o666)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        if target.exists():
            temporary.chmod(target.stat().st_mode & 0o777)
        temporary.replace(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
