"""What a page shows, as numbers and text that its script reads: short, for thousands of rows."""

from __future__ import annotations

import gc
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import torch

from ..messages.wording import printable
from ..parameters.running.gradstate import GradState, grad_state
from ..parameters.subject.inventory import Entry, Inventory
from .compared import Difference
from .rows import ParamRow
from .runs import Measured, held_by_all
from .statistics import TALLEST, Statistics, statistics_of
from .totals import ModuleTotal

#: The states of a gradient, by the number that stands for each.
STATES = [state.value for state in GradState]
#: The height of a histogram's bar is one character.
_HEIGHTS = bytes(ord(c) for c in "0123456789abcdefghijklmnopqrstuvwxyz").ljust(256, b"?")


@dataclass(slots=True)
class Contents:
    """What a page is made of."""

    title: str
    inventory: Inventory
    entries: Sequence[Entry]
    rows: Sequence[ParamRow]
    modules: Mapping[str, ModuleTotal]
    measured: Measured
    groups: Sequence[str] = ()
    before: str = ""
    differences: Sequence[Difference] = ()
    optimized: bool = False
    notes: Sequence[str] = ()
    #: Whether values can be read; of a fake group's tensors they cannot.
    values: bool = True


@contextmanager
def no_collection() -> Iterator[None]:
    """Make many small objects without Python looking for cycles among all there are.

    There are none, and the looking takes a third of the time: 1.45 s of 20,000 parameters are
    0.95 s without.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


@no_collection()
def page_data(page: Contents) -> dict[str, Any]:
    """Return the data of a page; names as they can be shown."""
    words = _Words()
    tensors = [entry.tensor if page.values else None for entry in page.entries]
    values = statistics_of(tensors)
    grads = held_by_all(
        page.measured.grads or [_grad(entry) if page.values else None for entry in page.entries]
    )
    slopes = statistics_of(grads)
    states = _states(page, grads, slopes)
    changes = {d.name: d.change for d in page.differences if d.kind == "values"}
    numbers = {name: number for number, name in enumerate(page.modules)}
    updates = page.measured.updates or [None] * len(tensors)
    places = _places(page)
    parameters = []
    for number, row in enumerate(page.rows):
        module = row.name.rpartition(".")[0]
        number_of = numbers.get(module, 0)
        flags = row.trainable + 2 * row.saved + 4 * (row.name in changes)
        parameters.append(
            _trimmed(
                [
                    printable(row.name[len(module) + 1 :] if number_of else row.name),
                    number_of,
                    ("parameter", "buffer", "tensor").index(row.kind),
                    flags,
                    words.number(row.shape),
                    words.number(row.dtype),
                    words.number(row.device),
                    row.elements,
                    row.bytes,
                    states[number],
                    _statistics(values[number]),
                    _statistics(slopes[number]),
                    _short(updates[number]),
                    _short(changes.get(row.name)),
                    [[printable(name), places.get(name, 0)] for name in row.names[1:]] or None,
                    [page_group(page.groups, label) for label in row.groups] or None,
                    None,  # its findings, which add_checks puts here
                    [STATES.index(s[number].value) for s in page.measured.states.values()] or None,
                ]
            )
        )
    return {
        "title": printable(page.title),
        "model": printable(page.inventory.title),
        "torch": torch.__version__,
        "states": STATES,
        "heights": TALLEST,
        "words": words.listed,
        "modules": [
            [printable(m.name), numbers.get(m.name.rpartition(".")[0], 0), printable(m.kind)]
            for m in page.modules.values()
        ],
        "parameters": parameters,
        "losses": [*map(printable, page.measured.states)],
        "groups": [*map(printable, page.groups)],
        "optimized": page.optimized,
        "findings": [],
        "checks": [],
        "before": printable(page.before),
        "differences": [
            {**asdict(d), "name": printable(d.name), "text": printable(d.text), "change": None}
            for d in page.differences
            if d.kind != "values"
        ],
        "notes": [*map(printable, (*page.measured.notes, *page.notes))],
    }


class _Words:
    """Texts that repeat, each once."""

    def __init__(self) -> None:
        self.listed: list[str] = []
        self._numbers: dict[str, int] = {}

    def number(self, word: str) -> int:
        if word not in self._numbers:
            self._numbers[word] = len(self.listed)
            self.listed.append(word)
        return self._numbers[word]


def page_group(groups: Sequence[str], label: str) -> int:
    """Return the position of the group that is called so."""
    return next(n for n, text in enumerate(groups) if text.startswith(f"{label}:"))


def _state(grad: torch.Tensor | None, slope: Statistics | None) -> GradState:
    """The state of a gradient whose statistics are there already, for most."""
    if grad is None or slope is None:
        return grad_state(grad)
    if slope.not_finite:
        return GradState.NONFINITE
    return GradState.NONZERO if slope.low or slope.high else GradState.ZERO


def _grad(entry: Entry) -> torch.Tensor | None:
    tensor = entry.tensor
    return tensor.grad if tensor is not None and tensor.is_leaf else None


def _states(
    page: Contents, grads: Sequence[torch.Tensor | None], slopes: Sequence[Statistics | None]
) -> list[int | None]:
    """What the losses gave to each parameter together, or what its ``.grad`` is."""
    if not page.measured.states:
        if not any(grad is not None for grad in grads):
            return [None] * len(grads)
        return [
            STATES.index(_state(grad, slope).value) if row.trainable or grad is not None else None
            for row, grad, slope in zip(page.rows, grads, slopes, strict=True)
        ]
    columns = list(page.measured.states.values())
    best = (GradState.NONZERO, GradState.NONFINITE, GradState.ZERO, GradState.NONE)
    return [
        None
        if row.kind == "buffer" or not row.trainable
        else STATES.index(min((column[n] for column in columns), key=best.index).value)
        for n, row in enumerate(page.rows)
    ]


def _places(page: Contents) -> dict[str, int]:
    """Where each second name of a parameter was registered: before the row of that number."""
    seen = {row.name: number for number, row in enumerate(page.rows)}
    places: dict[str, int] = {}
    if not any(len(row.names) > 1 for row in page.rows):
        return places
    number = 0
    for name in page.inventory.known_names:
        number = seen[name] + 1 if name in seen else number
        places[name] = number
    return places


def _statistics(one: Statistics | None) -> list[Any] | None:
    """low, high, mean, std, norm, not finite, sampled, heights; no more than there is to say."""
    if one is None:
        return None
    numbers = [_short(n) for n in (one.low, one.high, one.mean, one.std, one.norm)]
    bars = one.histogram.translate(_HEIGHTS).decode("ascii")
    return [*numbers, one.not_finite, one.sampled, bars]


def _short(number: float | None) -> float | None:
    """Three digits of a number; None where it is none that JSON can hold."""
    if number is None or not math.isfinite(number):
        return None
    return float(f"{number:.3g}")


def _trimmed(values: list[Any]) -> list[Any]:
    while values and values[-1] is None:
        values.pop()
    return values
