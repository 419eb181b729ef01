"""Draws the mutants: some of every file first, then of the core files as many as they need."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from random import Random
from typing import TypeVar

T = TypeVar("T")

PARAMETERS, CHECKS = "pytest_paramcheck/parameters", "pytest_paramcheck/checks"

#: What every verdict rests on: whether two tensors are one, share memory or hold the same; which
#: entries a subject has, and which of them a pattern, a tie or an optimizer means; what a run
#: reaches, leaves behind and has to put back; what a state_dict gives. A fault in any of them is a
#: wrong answer of many assertions at once. The other files each serve a few, and have their share
#: in the sample over the whole package.
CORE = (
    *(
        f"{PARAMETERS}/tensors/{name}.py"
        for name in ("content", "memory", "identity", "overlap", "cover", "finite")
    ),
    *(
        f"{PARAMETERS}/subject/{name}.py"
        for name in (
            *("inventory", "reading", "hidden", "ties"),
            *("patterns", "select", "optimizers"),
        )
    ),
    *(
        f"{PARAMETERS}/running/{name}.py"
        for name in ("preserve", "tensor_state", "kept", "gradstate", "reach", "trace")
    ),
    f"{PARAMETERS}/saving/state_dicts.py",
    *(f"{CHECKS}/{name}.py" for name in ("ties", "same_values", "optimizer", "optimizer_state")),
)


def sample(
    places: Mapping[str, Sequence[Sequence[T]]],
    core: Collection[str],
    *,
    mutants: int,
    per_core_file: int,
    seed: int,
) -> list[T]:
    """Draw mutants from each file's places, each place with its alternatives.

    The first ``mutants`` are spread over the package: one of each file, the others wherever code
    is. After them come those that bring each core file to ``per_core_file``. A run that is cut
    off has therefore seen all rooms.
    """
    # A file's own order hangs on its text alone: an edit elsewhere draws it no other mutants.
    waiting = {
        path: _in_order(places[path], Random(f"{seed}:{path}"))
        for path in sorted(places)
        if places[path]
    }
    random = Random(seed)
    files = list(waiting)
    random.shuffle(files)
    others = [path for path, order in waiting.items() for _ in order[1:]]
    random.shuffle(others)
    spread = (files + others)[:mutants]
    random.shuffle(spread)
    missing = [
        path
        for path in waiting
        if path in core
        for _ in range(min(per_core_file, len(waiting[path])) - spread.count(path))
    ]
    random.shuffle(missing)
    return [waiting[path].pop(0) for path in spread + missing]


def _in_order(places: Sequence[Sequence[T]], random: Random) -> list[T]:
    """Order a file's mutants: one of each place, and only then a second one of any."""
    first: list[T] = []
    later: list[T] = []
    for place in random.sample(list(places), len(places)):
        chosen, *rest = random.sample(list(place), len(place))
        first.append(chosen)
        later += rest
    random.shuffle(later)
    return first + later
