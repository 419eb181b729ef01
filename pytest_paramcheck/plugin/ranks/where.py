"""Where a rank is that does not answer: its own traceback, asked for by a signal."""

from __future__ import annotations

import os
import re
import signal
import sysconfig
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ...messages.wording import printable

_LINE = re.compile(r'File "(.*)", line (\d+) in (.*)')
_OURS = str(Path(__file__).parents[2]) + os.sep
_HARNESS = str(Path(__file__).parent) + os.sep


class Frame(NamedTuple):
    """A line of a traceback as faulthandler writes it."""

    file: str
    line: int
    function: str


def where_file(folder: str, rank: int) -> Path:
    """Return the file that a rank writes its traceback into."""
    return Path(folder, f"where{rank}")


def frames_of(pid: int, file: Path) -> list[Frame]:
    """Ask a process where it is; the last call comes first. Empty where it does not say."""
    with suppress(OSError):
        os.kill(pid, signal.SIGUSR1)
    end = time.monotonic() + 1
    text = ""
    while time.monotonic() < end:
        time.sleep(0.01)
        with suppress(OSError):
            before, text = text, file.read_text(encoding="utf-8", errors="replace")
            if text and text == before:
                break
    found = map(_LINE.search, text.splitlines())
    return [Frame(m[1], int(m[2]), m[3]) for m in found if m]


def place_of(frames: list[Frame], below: Path, *, failed: bool) -> tuple[str, bool]:
    """Return where that is in the user's code, in words, and whether it waits for other ranks.

    ``failed``: another rank has, which is why nobody comes to what this one waits in.
    """
    libraries = tuple(_libraries())
    mine = next((i for i, f in enumerate(frames) if not _is_library(f.file, libraries)), None)
    if mine is None:
        return "", False
    own, inner = frames[mine], frames[:mine]
    said = f", at {_shown(own.file, below)}:{own.line} in {own.function}"
    waits = any("/torch/distributed/" in f.file.replace("\\", "/") for f in inner)
    asking = ("assert_", "param_page")
    asserting = [f for f in inner if f.file.startswith(_OURS) and f.function.startswith(asking)]
    if waits and asserting:
        said += f", in {asserting[-1].function}, which talks to the other ranks"
        said += "" if failed else ": call it on every rank"
    elif waits:
        said += f", in a collective ({_collective(inner)})"
    return printable(said), waits


def _collective(inner: Iterable[Frame]) -> str:
    """The function of torch.distributed that was called: the outermost that is no wrapper."""
    named = [f.function for f in inner if "/torch/distributed/" in f.file.replace("\\", "/")]
    return next((name for name in reversed(named) if name != "wrapper"), named[0])


def _is_library(file: str, libraries: tuple[str, ...]) -> bool:
    # Not only this environment's: a user's own and the system's may be on sys.path as well.
    folders = file.replace("\\", "/").split("/")
    return file.startswith(libraries) or not {"site-packages", "dist-packages"}.isdisjoint(folders)


def _libraries() -> Iterable[str]:
    paths = sysconfig.get_paths()
    for name in ("stdlib", "platstdlib", "purelib", "platlib"):
        yield paths[name] + os.sep
    yield _OURS
    yield "<frozen"


def _shown(file: str, below: Path) -> str:
    try:
        return Path(file).relative_to(below).as_posix()
    except ValueError:
        return file
