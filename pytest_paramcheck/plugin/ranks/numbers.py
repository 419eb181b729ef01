"""How many ranks: what a marker, an option or an ini value says, and where they meet."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from ...messages.wording import join_words, plural

#: Of torch.distributed with gloo on one machine, and so of every number that makes sense here.
_MOST = 4096


def marked_ranks(value: Any) -> tuple[int, ...]:
    """Return the numbers that a marker gives. ValueError says what is wrong with them."""
    numbers = list(value) if isinstance(value, (list, tuple)) else [value]
    if not numbers:
        raise ValueError(f"names no number; {_valid('a list of them')}")
    for number in numbers:
        if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= _MOST:
            raise ValueError(f"{number!r} is not a number of ranks; {_valid('a list of them')}")
    return tuple(dict.fromkeys(numbers))


def written_ranks(values: Iterable[str]) -> tuple[int, ...]:
    """Return the numbers in texts like ``2,4``. ValueError names the first that is none."""
    words = [word for value in values for word in re.split(r"[,\s]+", value) if word]
    if not words:
        raise ValueError(f"names no number; {_valid('several with commas between')}")
    for word in words:
        if not re.fullmatch(r"[0-9]{1,6}", word) or not 1 <= int(word) <= _MOST:
            raise ValueError(
                f"{word!r} is not a number of ranks; {_valid('several with commas between')}"
            )
    return tuple(dict.fromkeys(map(int, words)))


def _valid(several: str) -> str:
    return f"it is a whole number from 1 to {_MOST}, or {several}"


def written_seconds(text: str) -> float:
    """Return a time limit. ValueError where it is no positive number of seconds."""
    try:
        seconds = float(text)
        if not 0 < seconds < 1e7:  # not nan either
            raise ValueError
    except ValueError:
        raise ValueError(
            f"{text!r} is not a time limit; it is a positive number of seconds"
        ) from None
    return seconds


def ranks_to_run(
    chosen: Sequence[int], supported: Sequence[int] | None, launched: int | None = None
) -> tuple[list[int | None], str]:
    """Return the numbers of ranks that a test runs on, and why it cannot run (or ``""``).

    ``launched``: how many torchrun has started, where it has.
    """
    if supported is None:
        return [None], ""
    if launched is not None:
        chosen = [launched]
    found = [number for number in supported if number in chosen] if chosen else [*supported]
    if found:
        return [*found], ""
    runs = f"runs on {join_words([str(n) for n in supported], 'or')} rank"
    runs += "" if list(supported) == [1] else "s"
    if launched is not None:
        return [*supported], f"{runs}; torchrun started {launched}"
    return [*supported], f"{runs}; chosen: {', '.join(map(str, chosen))}"


def too_few_devices(device: str, ranks: int) -> str:
    """Return why a device by its index is none for several ranks, or ``""``."""
    if ranks == 1 or ":" not in device:
        return ""
    return f"runs on {ranks} ranks; {device} is one device"


def too_few_there(device: str, ranks: int) -> str:
    """Return why this machine cannot run a test on its ranks, or ``""``.

    Asks torch how many devices there are and allocates none: the memory belongs to the ranks.
    """
    import torch

    if sys.platform == "win32":
        return "ranks do not run on Windows"
    if not torch.distributed.is_available():
        return "this torch is built without torch.distributed"
    kind = device.partition(":")[0]
    if kind in ("cpu", "meta"):
        return ""
    if kind == "accelerator":
        found = torch.accelerator.current_accelerator()
        kind = found.type if found is not None else kind
    try:
        count = int(torch.get_device_module(kind).device_count())
    except (RuntimeError, AttributeError):
        count = 0
    if count == 0:
        return f"torch sees no {kind}" + ("" if kind == "accelerator" else " device")
    if count < ranks:
        return f"runs on {ranks} ranks; torch sees {plural(count, f'{kind} device')}"
    return ""
