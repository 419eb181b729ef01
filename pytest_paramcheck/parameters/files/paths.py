"""Whether a path can be read or written as a file at all, before anybody opens it."""

from __future__ import annotations

import stat
from pathlib import Path

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import did_you_mean


def is_there(path: Path, shown: str) -> bool:
    """Whether a path is there, as something that a read or a list comes to the end of.

    Raises :class:`ParamCheckUsageError` for what is neither a file nor a folder (to open a pipe
    waits for somebody who writes into it, and a device may never end), and for what the system
    does not let us ask about.
    """
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return False
    except (OSError, ValueError) as error:
        raise ParamCheckUsageError(f"{shown} cannot be read: {reason_of(error)}") from None
    _demand_regular(mode, shown)
    return True


def demand_writable(path: Path, shown: str) -> None:
    """Raise :class:`ParamCheckUsageError` for a path that no file can be written at: a folder, a
    pipe or a device, which a new file would take the place of, and what the system refuses."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    except (OSError, ValueError) as error:
        raise ParamCheckUsageError(f"{shown} cannot be written: {reason_of(error)}") from None
    if stat.S_ISDIR(mode):
        raise ParamCheckUsageError(f"{shown} is a folder: name a file in it")
    _demand_regular(mode, shown)


def _demand_regular(mode: int, shown: str) -> None:
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        kind = next((f": it is a {name}" for is_kind, name in _KINDS if is_kind(mode)), "")
        raise ParamCheckUsageError(f"{shown} is not a regular file{kind}")


def not_there(path: Path, shown: str) -> ParamCheckUsageError:
    """Return the error for a file that does not exist, with the files that it may mean."""
    try:
        siblings = [sibling.name for sibling in path.parent.iterdir()]
    except OSError:
        siblings = []
    near = did_you_mean(path.name, siblings)
    if path.parts[:1] == ("~",):
        near = f" nothing expands the ~: Path({shown!r}).expanduser()"
    elif path.is_symlink():
        near = f" it is a link to {path.readlink()}"
    return ParamCheckUsageError(f"{shown} does not exist{';' if near else ''}{near}")


def reason_of(error: OSError | ValueError) -> str:
    """Return what the system says of a path, without the path: ``File name too long``.

    Python itself refuses a null character, by a ValueError.
    """
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


_KINDS = (
    (stat.S_ISFIFO, "named pipe"),
    (stat.S_ISCHR, "device"),
    (stat.S_ISBLK, "device"),
    (stat.S_ISSOCK, "socket"),
)
