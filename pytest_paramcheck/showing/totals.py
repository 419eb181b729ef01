"""What each module holds, in elements and bytes: a tied parameter counts where it comes first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from ..messages.folding import fold_short
from ..messages.wording import printable
from .rows import ParamRow

#: How many rows the short list of modules has at most.
SHORT_LIST = 8


@dataclass(slots=True)
class ModuleTotal:
    """What a module and all below it hold. ``name`` is ``""`` for the whole model.

    ``kind`` is the module's class, ``""`` in a mapping. ``elements`` are those of parameters,
    ``trainable`` of those that ask for a gradient, ``buffers`` those of buffers; ``bytes`` are of
    parameters and buffers. A tied parameter counts in the module of its first name.
    """

    name: str
    kind: str = ""
    tensors: int = 0
    elements: int = 0
    trainable: int = 0
    buffers: int = 0
    bytes: int = 0
    children: list[str] = field(default_factory=list)

    def add(self, row: ParamRow) -> None:
        """Count one tensor."""
        elements = row.elements or 0
        self.tensors += 1
        self.bytes += row.bytes or 0
        if row.kind == "buffer":
            self.buffers += elements
        else:
            self.elements += elements
            self.trainable += elements if row.trainable else 0


def module_totals(rows: Sequence[ParamRow], kinds: Mapping[str, str]) -> dict[str, ModuleTotal]:
    """Return the modules that hold something, by name, a module before those in it.

    ``kinds`` maps the names of modules to their classes. In a mapping the parts of dotted names
    are the modules.
    """
    totals = {"": ModuleTotal("", kinds.get("", ""))}
    above: dict[str, tuple[ModuleTotal, ...]] = {"": (totals[""],)}
    for row in rows:
        module = _module_of(row.name, kinds)
        if module not in above:
            _add_module(module, kinds, totals, above)
        for total in above[module]:
            total.add(row)
    return totals


def _module_of(name: str, kinds: Mapping[str, str]) -> str:
    # A key with a dot in it, written past torch's check, is none of a child's.
    module = name.rpartition(".")[0]
    while module and kinds and module not in kinds:
        module = module.rpartition(".")[0]
    return module


def _add_module(
    module: str,
    kinds: Mapping[str, str],
    totals: dict[str, ModuleTotal],
    above: dict[str, tuple[ModuleTotal, ...]],
) -> None:
    parent = module.rpartition(".")[0]
    if parent not in above:
        _add_module(parent, kinds, totals, above)
    total = totals[module] = ModuleTotal(module, kinds.get(module, ""))
    totals[parent].children.append(module)
    above[module] = (*above[parent], total)


@dataclass(frozen=True, slots=True)
class Part:
    """A line of the short list: modules that fold into one name, and what each holds.

    ``elements`` are those of parameters and buffers, as in the table.
    """

    name: str
    count: int
    elements: int
    bytes: int


def short_list(totals: Mapping[str, ModuleTotal], rows: int) -> list[Part]:
    """Return the model in a few parts that add up to it.

    Nothing where it has none to speak of, or where a table of that many rows is hardly longer.

    From the whole on, all parts are taken apart for as long as there is room. Modules whose own
    modules hold parameters only are not: the table has those.
    """
    parts: list[tuple[str, bool]] = [("", False)]
    folded: list[Part] = []
    while any(_deep(totals, *part) for part in parts):
        parts = [
            piece
            for part in parts
            for piece in (_taken_apart(totals[part[0]]) if _deep(totals, *part) else [part])
        ]
        further = _folded(parts, totals)
        if len(further) > SHORT_LIST:
            break
        folded = further
    return folded if len(folded) > 1 and 2 * len(folded) <= rows else []


def _deep(totals: Mapping[str, ModuleTotal], name: str, own: bool) -> bool:
    return not own and any(totals[child].children for child in totals[name].children)


def _taken_apart(total: ModuleTotal) -> list[tuple[str, bool]]:
    return [(total.name, True), *((child, False) for child in total.children)]


def _folded(parts: Sequence[tuple[str, bool]], totals: Mapping[str, ModuleTotal]) -> list[Part]:
    items = []
    for name, own in parts:
        total = totals[name]
        elements, size, tensors = total.elements + total.buffers, total.bytes, total.tensors
        if own:
            below = [totals[child] for child in total.children]
            elements -= sum(child.elements + child.buffers for child in below)
            size -= sum(child.bytes for child in below)
            tensors -= sum(child.tensors for child in below)
            if not tensors:
                continue
        shown = printable(name)
        items.append(
            (f"{shown} (itself)" if own and name else shown or "(itself)", (elements, size))
        )
    return [Part(row.name, row.count, *row.value) for row in fold_short(items)]


@dataclass(frozen=True, slots=True)
class Contents:
    """What a table is made of: the rows, what modules hold, and what optimizer groups step with."""

    title: str
    rows: tuple[ParamRow, ...]
    modules: Mapping[str, ModuleTotal]
    groups: tuple[str, ...] = ()
