"""Many findings as few rows: modules all of whose parameters share a reason, folded names."""

from __future__ import annotations

import itertools
import operator
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

from .findings import Finding, SubjectNames
from .folding import Folded, Folds, fold, fold_short, folds, templates_of
from .wording import all_printable, shorten

#: How many names one row or a headline shows.
NAMES = 4
#: Up to this many rows of one reason are shown by name: they say more than their module does.
FEW_ROWS = 4

#: A dotted name in a text.
_MENTION = re.compile(r"(?<![\w.])\w+(?:\.\w+)+(?![\w.])")

#: A name up to its first component with a number: ``model.layers.3``.
_NUMBERED = re.compile(r"[^\d.]*(?:\.[^\d.]*)*\d[^.]*")
#: Stands for the numbers of all such modules: digits, two scripts of them, as no name has.
_ANY = "\u0e50\u0b66"


class Row(NamedTuple):
    """A label, a text, and how many findings it stands for."""

    label: str
    text: str
    findings: int


class Whole:
    """The names of everything in the subject, as they are shown, counted where it is asked."""

    def __init__(self, names: SubjectNames) -> None:
        self.folds = Folds()
        self.parameters = tuple(all_printable(names.parameters))
        self.buffers = tuple(all_printable(names.buffers))

    @cached_property
    def _buffers(self) -> frozenset[str]:
        return frozenset(self.buffers)

    @cached_property
    def _both(self) -> frozenset[str]:
        return self._buffers.union(self.parameters)

    @cached_property
    def templates(self) -> Counter[tuple[str, ...]]:
        """How many names there are of each template."""
        return Counter(templates_of((*self.parameters, *self.buffers)))

    @cached_property
    def below(self) -> dict[str, int]:
        """How many parameters are below each module."""
        return _below(self.parameters)

    @cached_property
    def below_with_buffers(self) -> dict[str, int]:
        """How many parameters and buffers are below each module."""
        return _below((*self.parameters, *self.buffers))

    def around(self, names: Iterable[str]) -> tuple[tuple[str, ...], str]:
        """Return what names are some of, the parameters or all, and the word for it.

        Nothing where one of them is not of the subject: then nobody knows of how many.
        """
        given = set(names)
        if not given <= self._both:
            return (), ""
        if self._buffers.isdisjoint(given):
            return self.parameters, "parameters"
        return self.parameters + self.buffers, "parameters and buffers"


def rows_of(findings: Sequence[Finding], whole: Whole, at_most: int | None) -> Iterator[Row]:
    """Yield the rows of findings of one problem that have no details of their own.

    The first ``at_most`` or some more, each made when it is asked for. With None no name is
    left out: names fold, and nothing else.
    """
    texts = _relative([(finding.names, finding.text()) for finding in findings])
    if at_most is None:
        for label, text, count in fold((", ".join(names), text) for names, text in texts):
            yield Row(label, text, count)
        return
    # A text has a row at least: what is said after that many others is not among the first.
    groups: dict[str, list[tuple[str, ...]]] = {}
    for names, text in texts:
        if text in groups:
            groups[text].append(names)
        elif len(groups) < at_most:
            groups[text] = [names]
    modules: dict[str, dict[tuple[str, ...], tuple[str, int]]] = {
        text: _full_modules(group, whole)
        for text, group in groups.items()
        if whole.folds.more_than(FEW_ROWS, [", ".join(names) for names in group])
    }
    items: dict[tuple[str, str, int], int] = {}
    for names, text in texts:
        if text in groups:
            label, size = modules.get(text, {}).get(names) or (_label(names), 0)
            items[label, text, size] = items.get((label, text, size), 0) + 1
    if len(groups) == 1 and not any(modules.values()) and len(items) == len(texts):
        (text,) = groups
        # What the headline has folded.
        for plain in whole.folds.first(len(items), [label for label, _, _ in items]):
            yield _row(plain, (text, 0, 1), whole)
        return
    for row in folds((label, (text, size, n)) for (label, text, size), n in items.items()):
        yield _row(row, row.value, whole)


def _row(row: Folded[Any], value: tuple[str, int, int], whole: Whole) -> Row:
    text, size, findings = value
    label = row.name
    if size:
        label += f" (all {size:,}{' each' if row.count > 1 else ''})"
    elif row.shortened:
        total = whole.templates[row.template]
        label += f" ({row.count:,} of {total:,})" if total else f" ({row.count:,})"
    return Row(label, text, row.count * findings)


def _label(names: Sequence[str]) -> str:
    """Return the names of one parameter; of thousands (a tie group can have them), the first."""
    if len(names) <= NAMES:
        return ", ".join(names)
    return shorten([row.name for row in fold_short((name, None) for name in names)], NAMES)


def _full_modules(
    group: Sequence[tuple[str, ...]], whole: Whole
) -> dict[tuple[str, ...], tuple[str, int]]:
    """For names of one reason, the outermost module all of whose names share it, and how many.

    The module is written as the pattern that selects what is below it.
    """
    given = {name for names in group for name in names}
    around, _ = whole.around(given)
    if not around:
        return {}
    if len(given) == len(around) > 1:
        return dict.fromkeys(group, ("*", len(around)))
    total = whole.below if around is whole.parameters else whole.below_with_buffers
    found = _below(given)
    complete = {module for module, count in found.items() if count == total[module] > 1}
    if not complete:
        return {}
    # The module that a name is in, and the outermost complete one around that.
    own = {name: name.rpartition(".")[0] for name in given}
    outermost = {
        module: next(
            (m for m in modules_above(f"{module}." if module else "") if m in complete), None
        )
        for module in set(own.values())
    }
    full = {}
    for names in group:
        first, *others = (outermost[own[name]] for name in names)
        if first is not None and all(other == first for other in others):
            full[names] = (first or "*", total[first])
    return full


def _below(names: Iterable[str]) -> dict[str, int]:
    """Count the names below each module."""
    counts: dict[str, int] = {}
    added = dict(Counter([name.rpartition(".")[0] for name in names]))
    while added:  # one step up for all of them: each module hands on what it has once
        above: dict[str, int] = {}
        for module, count in added.items():
            counts[module] = counts.get(module, 0) + count
            if module:
                parent = module.rpartition(".")[0]
                above[parent] = above.get(parent, 0) + count
        added = above
    return counts


def modules_above(name: str) -> Iterator[str]:
    """Yield the modules that a name is below, the outermost (``""``) first."""
    yield ""
    dot = name.find(".")
    while dot >= 0:
        yield name[:dot]
        dot = name.find(".", dot + 1)


def _relative(texts: list[tuple[tuple[str, ...], str]]) -> list[tuple[tuple[str, ...], str]]:
    """Write names in a text as seen from the row they are in, where rows become alike by it.

    ``multiplied by blocks.3.lora_B`` of ``blocks.3.lora_A`` is ``multiplied by its lora_B``.
    """
    if len({text for _, text in texts}) < 2:
        return texts
    seen: dict[str, set[str]] = {}
    written = []
    known: dict[tuple[str, str], str] = {}
    for names, text in texts:
        relative = text
        # What shares the numbered module shares what is in front of the first dot.
        if len(names) == 1 and names[0][: names[0].find(".") + 1 or 1] in text:
            relative = _seen_from(names[0], text, known)
        if relative is not text:
            seen.setdefault(relative, set()).add(text)
        written.append((names, text, relative))
    return [
        (names, text if relative is text or len(seen[relative]) == 1 else relative)
        for names, text, relative in written
    ]


def _seen_from(name: str, text: str, known: dict[tuple[str, str], str]) -> str:
    """Return a text with its names as seen from a name; the same object where none changes.

    ``known`` spares doing it for each layer: the numbered module is written as one for all.
    """
    numbered = _NUMBERED.match(name)
    if numbered is None or numbered[0] not in text:
        return text
    module = numbered[0]
    above, dot, _ = module.rpartition(".")
    layer = f"{above}{dot}{_ANY}"
    key = name.replace(module, layer), text.replace(module, layer)
    if key not in known:
        known[key] = _MENTION.sub(partial(_from, key[0], key[0].split("."), layer), key[1])
    relative = known[key].replace(layer, module)
    return text if relative == text else relative


def _from(name: str, mine: Sequence[str], layer: str, found: re.Match[str]) -> str:
    """Return a mentioned name as seen from the numbered module that it shares with a name."""
    mention = found[0]
    if not mention.startswith(layer) or mention == name:
        return mention  # the same in every row
    other = mention.split(".")
    shared = sum(1 for _ in itertools.takewhile(operator.truth, map(operator.eq, mine, other)))
    if shared <= layer.count("."):
        return mention
    if shared < len(other):
        return f"its {'.'.join(other[shared:])}"
    last = max(n for n in range(shared) if any(map(str.isdigit, mine[n])))
    rest = other[last + 1 :]
    return f"its {'.'.join(rest)}" if rest else f"its {'.'.join([*other[:last], 'N'])}"
