"""Phrases that several messages share: suggestions, counts, folded names."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from operator import eq
from typing import TypeVar

T = TypeVar("T")
#: Digits of the largest number that is taken for the index of a layer.
_LONGEST_INDEX = 18


def did_you_mean(word: str, choices: Iterable[str], *, at_most: int = 3) -> str:
    """Return ``" did you mean 'x' or 'y'?"`` for the choices nearest to a word, or ``""``.

    Nearness is spelling first (:mod:`difflib`), then the last dotted component, so that
    ``head.weights`` finds ``head.weight`` and ``weight`` finds ``head.weight``.
    """
    pool = _worth_comparing(word, list(dict.fromkeys(choices)))
    near = difflib.get_close_matches(word, pool, n=at_most, cutoff=0.6)
    if not near:
        last = word.rpartition(".")[2]
        near = [choice for choice in pool if choice.rpartition(".")[2] == last][:at_most]
    if not near:
        return ""
    return f" did you mean {join_words([repr(choice) for choice in near], 'or')}?"


#: As many names as difflib compares in a tenth of a second.
_MANY = 1500


def _worth_comparing(word: str, pool: list[str]) -> list[str]:
    """Return the choices that may be near, few enough for difflib (60 microseconds each).

    Of repeated layers those with the numbers of the word, or the first ones.
    """
    if len(pool) <= _MANY:
        return pool
    alike: dict[str, list[str]] = {}
    for choice in pool:
        alike.setdefault(_NUMBER.sub("0", choice), []).append(choice)
    plain, numbers = _NUMBER.sub("0", word), _NUMBER.findall(word)
    templates = list(alike)
    if len(templates) > _MANY:
        length = len(plain)
        templates.sort(key=lambda t: abs(len(t) - length) - 4 * sum(map(eq, t, plain)))
    near = difflib.get_close_matches(plain, templates[:_MANY], n=8, cutoff=0.6)
    last = word.rpartition(".")[2]
    near += [t for t in templates if t.rpartition(".")[2] == last][:8]
    chosen = []
    for template in dict.fromkeys(near):
        same = [c for c in alike[template] if _NUMBER.findall(c) == numbers]
        chosen += [*same[:1], *alike[template][:20]]
    return list(dict.fromkeys(chosen))


_NUMBER = re.compile(r"\d+")


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Return ``"a, b and c"``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


def plural(count: int, singular: str, several: str | None = None) -> str:
    """Return ``"1 parameter"`` or ``"2 parameters"``."""
    return f"{count:,} {singular if count == 1 else several or singular + 's'}"


def printable(text: str) -> str:
    """Return the text with what a terminal would act on escaped: ``\\x1b``, ``\\u202e``.

    Names come from files that nobody has read: control characters, bidirectional controls,
    lone surrogates and line breaks are written as Python's ``repr`` writes them.

    >>> printable("w\\x1b[2J"), printable("größe")
    ('w\\\\x1b[2J', 'größe')
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


def cut(text: str, at_most: int) -> str:
    """Return the text, or its beginning and ``...`` where it is longer than ``at_most``."""
    return text if len(text) <= at_most else text[: at_most - 3] + "..."


def first_line(said: object, at_most: int | None = None) -> str:
    """Return the first line of an error's text, or of another one, that says something.

    ``""`` where none does; cut at ``at_most`` characters where it is given.
    """
    line = next((row.strip() for row in str(said).splitlines() if row.strip()), "")
    return line if at_most is None else cut(line, at_most)


def shorten(items: Sequence[str], at_most: int) -> str:
    """Return the items joined by commas, the tail replaced by ``and N more``."""
    if len(items) <= at_most:
        return ", ".join(items)
    return f"{', '.join(items[:at_most])} and {len(items) - at_most} more"


def fold(items: Iterable[tuple[str, T]]) -> list[tuple[str, T, int]]:
    """Fold dotted names that differ by integers only and carry the same value.

    Returns ``(name, value, how many names it stands for)`` in order of first appearance::

        >>> fold([("h.0.w", "a"), ("h.1.w", "a"), ("h.2.w", "a"), ("out.w", "a")])
        [('h.{0..2}.w', 'a', 3), ('out.w', 'a', 1)]
        >>> fold([("h[0].w", "a"), ("h[1].w", "a")])
        [('h[{0,1}].w', 'a', 2)]
    """
    groups: dict[tuple[T, tuple[str | None, ...]], dict[tuple[int, ...], None]] = {}
    for name, value in items:
        parts = _split(name)
        digits = list(map(_is_index, parts))
        template = tuple(None if d else p for p, d in zip(parts, digits, strict=True))
        indices = tuple(int(p) for p, d in zip(parts, digits, strict=True) if d)
        groups.setdefault((value, template), {})[indices] = None
    folded = []
    for (value, template), seen in groups.items():
        for product in _as_products(list(seen)):
            spans = iter(product)
            parts = [_span(next(spans)) if part is None else part for part in template]
            count = 1
            for numbers in product:
                count *= len(numbers)
            folded.append((_joined(parts), value, count))
    return folded


def _is_index(part: str) -> bool:
    """Whether a part is an integer as an index is written: "01" is a name that somebody chose.

    So is one of many digits: Python turns at most 4,300 of them into a number.
    """
    canonical = part.isascii() and part.isdigit() and (part[0] != "0" or part == "0")
    return canonical and len(part) <= _LONGEST_INDEX


def _split(name: str) -> list[str]:
    """Split at dots; the index in ``layers[2]`` is a part of its own."""
    if "[" in name:
        name = name.replace("[", ".[.").replace("]", ".].")
    return name.split(".")


def _joined(parts: Sequence[str]) -> str:
    name = ".".join(parts)
    return name.replace(".[.", "[").replace(".].", "]") if ".[." in name else name


def fold_names(names: Iterable[str]) -> list[str]:
    """Fold dotted names that differ by integers only: ``blocks.{0..31}.mlp.weight``."""
    return [name for name, _, _ in fold((name, None) for name in names)]


def fold_rows(rows: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Fold rows of a name and a text; names that differ by integers only become one row."""
    return tuple((name, text) for name, text, _ in fold(rows))


def _as_products(points: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Write a set of integer tuples as few products of integer sets, last position first."""
    boxes: list[tuple[tuple[int, ...], ...]] = [tuple((i,) for i in point) for point in points]
    positions = range(len(points[0]))
    for position in reversed(positions):
        merged: dict[tuple[tuple[int, ...], ...], list[int]] = {}
        for box in boxes:
            rest = box[:position] + box[position + 1 :]
            merged.setdefault(rest, []).extend(box[position])
        boxes = [
            (*rest[:position], tuple(sorted(numbers)), *rest[position:])
            for rest, numbers in merged.items()
        ]
    return boxes


def _span(numbers: Sequence[int]) -> str:
    if len(numbers) == 1:
        return str(numbers[0])
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    texts = []
    for run in runs:
        if len(run) > 2:
            texts.append(f"{run[0]}..{run[-1]}")
        else:
            texts.extend(map(str, run))
    return "{" + ",".join(texts) + "}"
