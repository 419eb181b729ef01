"""The error for a file that is there and is not what it should be."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeAlias

from ...messages.errors import ParamCheckUsageError

#: ``damaged`` (or another kind of file, or empty), ``code`` (reading would run some), ``pickled``
#: (reading that part would), ``absent`` (a shard that an index names), ``lacking`` (a shard without
#: a tensor it should hold).
Damage: TypeAlias = Literal["damaged", "code", "pickled", "absent", "lacking"]


@contextmanager
def as_wrong_call() -> Iterator[None]:
    """Raise what is wrong with a file as the wrong call that it is for most who read it."""
    try:
        yield
    except DamagedError as damage:
        raise ParamCheckUsageError(*damage.args) from None


class DamagedError(ParamCheckUsageError):
    """What is wrong with a checkpoint's file.

    For nearly every assertion that is a wrong call; for one that is about the file it is what
    was asked, so that ``kind``, ``names`` and ``found`` say it in parts.
    """

    def __init__(
        self,
        file: Path,
        kind: Damage,
        text: str,
        *,
        found: str,
        names: tuple[str, ...] = (),
    ) -> None:
        super().__init__(text)
        self.file = file
        self.kind: Damage = kind
        self.found = found
        self.names = names or (file.name,)


def refused_name(text: str) -> str:
    """Return the class or function that weights_only refused, from torch's message, or ``""``."""
    found = re.search(r"GLOBAL (\S+)", text)
    return found.group(1) if found else ""
