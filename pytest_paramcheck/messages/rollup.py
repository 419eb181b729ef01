"""Many findings as few rows: modules all of whose parameters share a reason, folded names."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import NamedTuple

from .findings import Finding, SubjectNames
from .folding import Folded, fold, fold_short, template_of
from .wording import printable, shorten

#: How many names one row or a headline shows.
NAMES = 4
#: Up to this many rows of one reason are shown by name: they say more than their module does.
FEW_ROWS = 4

#: A dotted name in a text.
_MENTION = re.compile(r"(?<![\w.])\w+(?:\.\w+)+(?![\w.])")


class Row(NamedTuple):
    """A label, a text, and how many findings it stands for."""

    label: str
    text: str
    findings: int


class Whole:
    """The names of everything in the subject, as they are shown, counted where it is asked."""

    def __init__(self, names: SubjectNames) -> None:
        self.parameters = tuple(map(printable, names.parameters))
        self.buffers = tuple(map(printable, names.buffers))

    @cached_property
    def _buffers(self) -> frozenset[str]:
        return frozenset(self.buffers)

    @cached_property
    def _both(self) -> frozenset[str]:
        return self._buffers.union(self.parameters)

    @cached_property
    def templates(self) -> Counter[tuple[str, ...]]:
        """How many names there are of each template."""
        return Counter(map(template_of, (*self.parameters, *self.buffers)))

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


def rows_of(findings: Sequence[Finding], whole: Whole, *, everything: bool) -> list[Row]:
    """Return the rows of findings of one problem that have no details of their own.

    With ``everything`` no name is left out: names fold, and nothing else.
    """
    texts = _relative([(finding.names, finding.text()) for finding in findings])
    if everything:
        return [
            Row(label, text, count)
            for label, text, count in fold((", ".join(names), text) for names, text in texts)
        ]
    by_text: dict[str, list[tuple[str, ...]]] = {}
    for names, text in texts:
        by_text.setdefault(text, []).append(names)
    modules: dict[str, dict[tuple[str, ...], tuple[str, int]]] = {
        text: _full_modules(group, whole)
        for text, group in by_text.items()
        if len(group) > FEW_ROWS and _fold_to_many(group)
    }
    items: dict[tuple[str, str, int], int] = {}
    for names, text in texts:
        label, size = modules.get(text, {}).get(names) or (_label(names), 0)
        items[label, text, size] = items.get((label, text, size), 0) + 1
    folded = fold_short((label, (text, size, n)) for (label, text, size), n in items.items())
    return [_row(row, whole) for row in folded]


def _row(row: Folded[tuple[str, int, int]], whole: Whole) -> Row:
    text, size, findings = row.value
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


def _fold_to_many(group: Sequence[tuple[str, ...]]) -> bool:
    labels = [", ".join(names) for names in group]
    templates = set()
    for label in labels:
        templates.add(template_of(label))
        if len(templates) > FEW_ROWS:
            return True
    return len(fold_short((label, None) for label in labels)) > FEW_ROWS


def _full_modules(
    group: Sequence[tuple[str, ...]], whole: Whole
) -> dict[tuple[str, ...], tuple[str, int]]:
    """For names of one reason, the outermost module all of whose names share it, and how many.

    The module is written as the pattern that selects what is below it.
    """
    around, _ = whole.around(name for names in group for name in names)
    if not around:
        return {}
    total = _below(around)
    found = _below({name for names in group for name in names})
    full = {}
    for names in group:
        above = {
            next((m for m in modules_above(name) if found[m] == total[m] > 1), None)
            for name in names
        }
        module = above.pop()
        if module is not None and not above:
            full[names] = (module or "*", total[module])
    return full


def _below(names: Iterable[str]) -> Counter[str]:
    """Count the names below each module."""
    counts: Counter[str] = Counter()
    for module, count in Counter(name.rpartition(".")[0] for name in names).items():
        counts[module] += count
        while module:
            module = module.rpartition(".")[0]
            counts[module] += count
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
    for names, text in texts:
        relative = text
        if len(names) == 1 and "." in text and any(map(str.isdigit, names[0])):
            relative = _MENTION.sub(partial(_from, names[0]), text)
        seen.setdefault(relative, set()).add(text)
        written.append((names, text, relative))
    return [
        (names, relative if len(seen[relative]) > 1 else text) for names, text, relative in written
    ]


def _from(name: str, found: re.Match[str]) -> str:
    """Return a mentioned name as seen from the numbered module that it shares with a name."""
    mention = found[0]
    if mention == name:
        return mention
    mine, other = name.split("."), mention.split(".")
    shared = 0
    while shared < min(len(mine), len(other)) and mine[shared] == other[shared]:
        shared += 1
    if not any(any(map(str.isdigit, part)) for part in mine[:shared]):
        return mention  # the same in every row
    if shared < len(other):
        return f"its {'.'.join(other[shared:])}"
    last = max(n for n in range(shared) if any(map(str.isdigit, mine[n])))
    rest = other[last + 1 :]
    return f"its {'.'.join(rest)}" if rest else f"its {'.'.join([*other[:last], 'N'])}"
