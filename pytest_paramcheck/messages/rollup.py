"""Many findings as few rows: modules all of whose parameters share a reason, folded names."""

from __future__ import annotations

import bisect
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from functools import cached_property, partial
from typing import Any, NamedTuple

from .findings import Finding, SubjectNames
from .folding import Folded, Folds, fold, fold_short, folds, templates_of
from .wording import all_printable, common_length, shorten

#: How many names one row or a headline shows.
NAMES = 4
#: Up to this many rows of one reason are shown by name: they say more than their module does.
FEW_ROWS = 4

#: In labels and texts longer than this no measured numbers are looked for.
MEASURED_WIDTH = 300

#: A number in a text that is no part of a name.
_MEASURED = re.compile(r"(?<![\w.])(-?\d{1,17}(?:\.\d{1,17})?(?:e[-+]?\d{1,3})?)(?!\w|\.\w)")

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
    def templates(self) -> Counter[str]:
        """How many names there are of each template."""
        return Counter(templates_of((*self.parameters, *self.buffers)))

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
    texts = _with_ranges(texts)
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


def _with_ranges(texts: list[tuple[tuple[str, ...], str]]) -> list[tuple[tuple[str, ...], str]]:
    """Write one text for rows that differ in what was measured alone: ``std 0.071 to 0.072``.

    Of layers whose names fold. Whole numbers are counts and places: rows that differ in one of
    them stay apart, unless others of the column are not whole.
    """
    if len({text for _, text in texts}) <= FEW_ROWS:
        return texts
    # What has no fraction was counted; in longer texts a number is not what the row is about.
    short = {
        place: ", ".join(names)
        for place, (names, text) in enumerate(texts)
        if "." in text and len(text) <= MEASURED_WIDTH
    }
    short = {place: label for place, label in short.items() if len(label) <= MEASURED_WIDTH}
    alike: dict[tuple[object, ...], list[tuple[int, list[str]]]] = {}
    for place, template in zip(short, templates_of(list(short.values())), strict=True):
        pieces = _MEASURED.split(texts[place][1])
        alike.setdefault((template, *pieces[::2]), []).append((place, pieces[1::2]))
    written = list(texts)
    for (_, *between), rows in alike.items():
        columns = [
            list(dict.fromkeys(column)) for column in zip(*(n for _, n in rows), strict=True)
        ]
        if len(rows) <= FEW_ROWS or not all(map(_is_one_or_measured, columns)):
            continue
        values = [
            column[0]
            if len(column) == 1
            else f"{min(column, key=float)} to {max(column, key=float)}"
            for column in columns
        ]
        text = "".join(
            f"{piece}{value}" for piece, value in zip(between, [*values, ""], strict=True)
        )
        for place, _ in rows:
            written[place] = texts[place][0], text
    return written


def _is_one_or_measured(column: Sequence[str]) -> bool:
    return len(column) == 1 or any("." in number for number in column)


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
    complete = _complete_modules(given, set(around) - given)
    full = {}
    for names in group:
        first, *others = (complete.get(name.rpartition(".")[0]) for name in names)
        if first and all(other == first for other in others):
            full[names] = first
    return full


def _complete_modules(given: set[str], others: set[str]) -> dict[str, tuple[str, int]]:
    """Return, for modules of the given names, the outermost around them without any of the others.

    And how many of the given names it has, where that is more than one. In order, what is below
    a module stands side by side: a module is without the others where its neighbors among them
    are outside of it.
    """
    inside, outside = sorted(given), sorted(others)
    found: dict[str, tuple[str, int]] = {}
    last, size = "\n", 0
    for module in sorted({f"{name.rpartition('.')[0]}." for name in given} - {"."}):
        if not module.startswith(last):
            place = bisect.bisect_left(outside, module)
            near = outside[max(place - 1, 0) : place + 1]
            if near and near[-1].startswith(module):
                continue  # one of the others is in it
            shared = max((common_length(module, other) for other in near), default=0)
            end = module.find(".", module.rfind(".", 0, shared) + 1) + 1
            if not end:
                continue
            last = module[:end]
            # "/" comes right after "." in order.
            size = bisect.bisect_left(inside, f"{last[:-1]}/") - bisect.bisect_left(inside, last)
        if size > 1:
            found[module[:-1]] = last[:-1], size
    return found


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
        known[key] = _MENTION.sub(partial(_from, key[0], layer), key[1])
    relative = known[key].replace(layer, module)
    return text if relative == text else relative


def _from(name: str, layer: str, found: re.Match[str]) -> str:
    """Return a mentioned name as seen from the numbered module that it shares with a name."""
    mention = found[0]
    if not mention.startswith(layer) or mention == name:
        return mention  # the same in every row
    if f"{name}.".startswith(f"{mention}."):  # it is a module around the name
        parts = mention.split(".")
        last = max(n for n, part in enumerate(parts) if any(map(str.isdigit, part)))
        return f"its {'.'.join(parts[last + 1 :] or [*parts[:last], 'N'])}"
    start = mention.rfind(".", 0, common_length(f"{name}.", mention)) + 1
    return f"its {mention[start:]}" if start > len(layer) else mention
