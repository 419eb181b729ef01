"""Names that differ by numbers only, written as one: ``blocks.{0..31}.mlp.weight``."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

#: Nine digits, because Python refuses to read an integer of more than 4,300. Not the number of
#: a subject (``#1.weight``, ``#2.weight``): what is said of two is not one thing said twice.
_NUMBER = re.compile(r"(?<![0-9#])([0-9]{1,9})(?![0-9])")
#: All digits written as one: names that differ by digits only become equal.
_ANY_DIGIT = str.maketrans("123456789", "000000000")
_BRACE_OR_DIGIT = re.compile(r"[{}0-9]")
#: A set of numbers longer than this is shortened where a text may lose some of them.
SPAN_WIDTH = 24
#: How many names are looked at first.
LOOK = 100
#: How many numbers stand before the ``..`` of a shortened set; a regular one shows two.
FIRST_NUMBERS = 3


class Folded(Generic[T]):
    """A folded name, the value of all it stands for, and how many that are.

    ``shortened`` says that its numbers are not all there; ``template`` is the name without
    its numbers, which names that would fold with it have in common.
    """

    __slots__ = ("count", "name", "shortened", "template", "value")

    # No dataclass: making one takes half a millisecond of every pytest start.
    def __init__(
        self, name: str, value: T, count: int, shortened: bool, template: tuple[str, ...]
    ) -> None:
        self.name = name
        self.value = value
        self.count = count
        self.shortened = shortened
        self.template = template


def fold(items: Iterable[tuple[str, T]]) -> list[tuple[str, T, int]]:
    """Fold names that differ by numbers only and carry the same value; nothing is lost.

    Returns ``(name, value, how many names it stands for)`` in order of first appearance::

        >>> fold([("h.0.w", "a"), ("h.1.w", "a"), ("h.2.w", "a"), ("out.w", "a")])
        [('h.{0..2}.w', 'a', 3), ('out.w', 'a', 1)]
        >>> fold([("layer1[0].w", "a"), ("layer1[1].w", "a")])
        [('layer1[{0,1}].w', 'a', 2)]
        >>> fold((f"h.{i}", "a") for i in range(3, 40, 3))
        [('h.{3,6,..,39}', 'a', 13)]
    """
    return [(row.name, row.value, row.count) for row in fold_short(items, width=None)]


def fold_names(names: Iterable[str]) -> list[str]:
    """Fold names that differ by numbers only: ``blocks.{0..31}.mlp.weight``."""
    return [name for name, _, _ in fold((name, None) for name in names)]


def fold_rows(rows: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    """Fold rows of a name and a text; names that differ by numbers only become one row."""
    return tuple((name, text) for name, text, _ in fold(rows))


def fold_to_more_than(at_most: int, names: Sequence[str]) -> bool:
    """Whether names fold to more rows than that; of thousands, the first ones mostly tell."""
    if len(names) <= at_most:
        return False
    if len(set(templates_of(names[:LOOK]))) > at_most:
        return True
    return len(list(itertools.islice(folds((n, None) for n in names), at_most + 1))) > at_most


def template_of(name: str) -> tuple[str, ...]:
    """Return a name without its numbers: the pieces between them."""
    if "{" in name or "}" in name:
        return (name,)  # a name with braces of its own would read as a folded one
    return tuple(_NUMBER.split(name)[::2])


def _by_digit_places(names: Sequence[str]) -> Sequence[str]:
    """Return something for each name that is equal only where templates are.

    Where the numbers are is decided by where the digits are: of names that are equal once each
    digit is a 0, one has to be split. (7,000 names: 1 ms, and 12 ms one by one.) A name with
    braces, or with digits that are not a number, stands for itself.
    """
    plain = "\n".join(names).translate(_ANY_DIGIT).split("\n")
    if len(plain) != len(names):  # a name may have several lines
        return names
    odd = {key for key in set(plain) if _BRACE_OR_DIGIT.search("".join(template_of(key)))}
    if not odd:
        return plain
    return [name if key in odd else key for key, name in zip(plain, names, strict=True)]


def templates_of(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Return the template of each name."""
    keys = _by_digit_places(names)
    templates = {
        key: template_of(name) for key, name in dict(zip(keys, names, strict=True)).items()
    }
    return [templates[key] for key in keys]


def fold_short(items: Iterable[tuple[str, T]], width: int | None = SPAN_WIDTH) -> list[Folded[T]]:
    """Fold as :func:`fold` does, sets of numbers that have no rule cut to ``width``."""
    return list(folds(items, width))


def folds(items: Iterable[tuple[str, T]], width: int | None = SPAN_WIDTH) -> Iterator[Folded[T]]:
    """Yield what :func:`fold_short` returns, each made when it is asked for."""
    pairs = list(items)
    keys = _by_digit_places([name for name, _ in pairs])
    alike: dict[tuple[T, str], list[str]] = {}
    for (name, value), key in zip(pairs, keys, strict=True):
        alike.setdefault((value, key), []).append(name)
    groups: dict[tuple[T, tuple[str, ...]], list[str]] = {}
    for (value, _), names in alike.items():
        groups.setdefault((value, template_of(names[0])), []).extend(names)
    for (value, template), names in groups.items():
        seen = list(dict.fromkeys(names))
        if len(seen) == 1 or len(template) == 1:
            yield from (Folded(name, value, 1, False, template) for name in seen)
            continue
        numbers = iter(_NUMBER.findall("\n".join(seen)))
        points = list(zip(*[numbers] * (len(template) - 1), strict=True))
        for digits, numbered in _by_digits(points):
            for product in _as_products(numbered):
                pieces = [template[0]]
                count, shortened = 1, False
                for among, padded, piece in zip(product, digits, template[1:], strict=True):
                    span, cut = _span(among, padded, width)
                    pieces += span, piece
                    count *= len(among)
                    shortened |= cut
                yield Folded("".join(pieces), value, count, shortened, template)


def _by_digits(
    points: list[tuple[str, ...]],
) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Part numbers by how they are written: to how many digits padded, each, 0 for not.

    ``09`` and ``10`` are of one series, ``9`` and ``10`` of another.
    """
    padded = [
        {len(number) for number in numbers if number[0] == "0" and len(number) > 1}
        for numbers in zip(*points, strict=True)
    ]
    if not any(padded):
        return [((0,) * len(points[0]), [tuple(map(int, point)) for point in points])]
    series: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for point in points:
        pairs = zip(point, padded, strict=True)
        digits = tuple(len(number) if len(number) in widths else 0 for number, widths in pairs)
        series.setdefault(digits, []).append(tuple(map(int, point)))
    return list(series.items())


def _as_products(points: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Write a set of integer tuples as few products of integer sets, last position first."""
    if len(points[0]) == 1:
        return [(tuple(sorted(number for (number,) in points)),)]
    boxes: list[tuple[tuple[int, ...], ...]] = [tuple((i,) for i in point) for point in points]
    if len(points) == 1:
        return boxes
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


def _span(numbers: Sequence[int], digits: int, width: int | None) -> tuple[str, bool]:
    """Return a set of numbers as text, and whether it was shortened."""
    written = [str(number).zfill(digits) for number in numbers]
    if len(numbers) == 1:
        return written[0], False
    steps = {after - before for before, after in itertools.pairwise(numbers)}
    if len(numbers) > 3 and len(steps) == 1 and steps != {1}:
        return f"{{{written[0]},{written[1]},..,{written[-1]}}}", False
    starts = [n for n, number in enumerate(numbers) if n == 0 or numbers[n - 1] != number - 1]
    texts: list[str] = []
    for start, end in itertools.pairwise([*starts, len(numbers)]):
        run = written[start:end]
        texts += [f"{run[0]}..{run[-1]}"] if len(run) > 2 else run
    text = ",".join(texts)
    if width is None or len(text) <= width or len(texts) <= FIRST_NUMBERS + 1:
        return f"{{{text}}}", False
    return f"{{{','.join(texts[:FIRST_NUMBERS])},..,{written[-1]}}}", True
