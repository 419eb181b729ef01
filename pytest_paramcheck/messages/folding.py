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
#: What digits that are not a number look like once each digit is a 0.
_NOT_NUMBERS = ("#0", "0" * 10)
#: Names longer than this fold where all of their digits are numbers: the pattern is slow.
LONG_NAME = 300
#: A set of numbers longer than this is shortened where a text may lose some of them.
SPAN_WIDTH = 24
#: Pieces of names longer than this are taken out before numbers are looked for.
LONG_PIECE = 12
_DIGIT_OR_HASH = re.compile(r"[0-9#]")
#: How many names are looked at first.
LOOK = 100
#: Of names with more numbers than this, the first ones tell which of them differ.
MANY_NUMBERS = 8
#: Names that differ in more places than this are not one thing said of many: each is written.
MANY_PLACES = 12
#: How many numbers stand before the ``..`` of a shortened set; a regular one shows two.
FIRST_NUMBERS = 3


class Folded(Generic[T]):
    """A folded name, the value of all it stands for, and how many that are.

    ``shortened`` says that its numbers are not all there; ``template`` is the name without
    its numbers, which names that would fold with it have in common.
    """

    __slots__ = ("count", "name", "shortened", "template", "value")

    # No dataclass: making one takes half a millisecond of every pytest start.
    def __init__(self, name: str, value: T, count: int, shortened: bool, template: str) -> None:
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


class Folds:
    """Names as they fold, each row made when it is asked for, and once for all who ask."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, ...], tuple[Iterator[Folded[None]], list[Folded[None]]]] = {}

    def first(self, count: int, names: Iterable[str]) -> list[Folded[None]]:
        """Return the first rows that names fold to."""
        key = tuple(names)
        if key not in self._rows:
            self._rows[key] = folds((name, None) for name in key), []
        coming, made = self._rows[key]
        made.extend(itertools.islice(coming, max(count - len(made), 0)))
        return made[:count]

    def more_than(self, at_most: int, names: Sequence[str]) -> bool:
        """Whether names fold to more rows than that; of thousands, the first ones mostly tell."""
        if len(names) <= at_most:
            return False
        if len(set(templates_of(names[:LOOK]))) > at_most:
            return True
        return len(self.first(at_most + 1, names)) > at_most


def template_of(name: str) -> str:
    """Return a name with a 0 for each of its numbers."""
    if "{" in name or "}" in name:
        return name  # a name with braces of its own would read as a folded one
    if len(name) > LONG_NAME and _is_odd(name.translate(_ANY_DIGIT)):
        return name
    return _NUMBER.sub("0", name)


def _is_odd(text: str) -> bool:
    """Whether a text, with a 0 for each digit, has braces or digits that are not a number."""
    return "{" in text or "}" in text or any(digits in text for digits in _NOT_NUMBERS)


def templates_of(names: Sequence[str]) -> list[str]:
    """Return the template of each name."""
    keys, templates = _by_digit_places(names)
    return [templates[key] for key in keys]


def _by_digit_places(names: Sequence[str]) -> tuple[Sequence[str], dict[str, str]]:
    """Return something for each name that is equal only where templates are, and its template.

    Where the numbers are is decided by where the digits are: it is the name with a 0 for each
    digit. A name with braces, or with digits that are not a number, stands for itself. (Of all
    names at once: those of 2,000 characters, one by one, took half a second for a thousand.)
    """
    text = "\n".join(names).translate(_ANY_DIGIT)
    plain = text.split("\n")
    if len(plain) != len(names):  # a name may have several lines
        return names, {name: template_of(name) for name in names}
    if not _is_odd(text):
        return plain, _regular_templates(dict.fromkeys(plain))
    distinct = dict.fromkeys(plain)
    odd = set(filter(_is_odd, distinct))
    keys = [name if key in odd else key for key, name in zip(plain, names, strict=True)]
    templates = _regular_templates(key for key in distinct if key not in odd)
    return keys, {key: templates.get(key) or template_of(key) for key in dict.fromkeys(keys)}


def _regular_templates(keys: Iterable[str]) -> dict[str, str]:
    given = list(keys)
    text = "\n".join(given)
    while "00" in text:
        text = text.replace("00", "0")
    return dict(zip(given, text.split("\n"), strict=bool(given)))


def fold_short(items: Iterable[tuple[str, T]], width: int | None = SPAN_WIDTH) -> list[Folded[T]]:
    """Fold as :func:`fold` does, sets of numbers that have no rule cut to ``width``."""
    return list(folds(items, width))


def folds(items: Iterable[tuple[str, T]], width: int | None = SPAN_WIDTH) -> Iterator[Folded[T]]:
    """Yield what :func:`fold_short` returns, each made when it is asked for."""
    pairs = list(items)
    keys, templates = _by_digit_places([name for name, _ in pairs])
    alike: dict[tuple[T, str], list[str]] = {}
    for (name, value), key in zip(pairs, keys, strict=True):
        alike.setdefault((value, key), []).append(name)
    groups: dict[tuple[T, str], list[str]] = {}
    for (value, key), names in alike.items():
        groups.setdefault((value, templates[key]), []).extend(names)
    for (value, template), names in groups.items():
        seen = list(dict.fromkeys(names))
        pieces, columns = ([], []) if len(seen) == 1 else _columns(seen)
        if not 0 < len(columns) <= MANY_PLACES:
            yield from (Folded(name, value, 1, False, template) for name in seen)
            continue
        for digits, numbered in _by_digits(columns):
            for product in _as_products(numbered):
                written = [pieces[0]]
                count, shortened = 1, False
                for among, padded, piece in zip(product, digits, pieces[1:], strict=True):
                    span, cut = _span(among, padded, width)
                    written += span, piece
                    count *= len(among)
                    shortened |= cut
                yield Folded("".join(written), value, count, shortened, template)


def _columns(names: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the numbers of names of one template, place by place, and what is between them.

    Where a number is the same in all of them is no place: it is in the pieces between.
    """
    if len(names) > LOOK and len(_NUMBER.findall(names[0])) > MANY_NUMBERS:
        return _columns_from_some(names)
    return _columns_of_all(names)


def _columns_of_all(names: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    pieces = _NUMBER.split(names[0])[::2]
    text = "\n".join(names)
    for piece in set(pieces):
        # The pattern is slow over long pieces; what stands beside a number stays.
        if len(piece) > LONG_PIECE and not _DIGIT_OR_HASH.search(piece):
            text = text.replace(piece, "\n")
    found = _NUMBER.findall(text)
    written, columns = [pieces[0]], []
    for place, piece in enumerate(pieces[1:]):
        column = tuple(found[place :: len(pieces) - 1])
        if column.count(column[0]) == len(column):
            written[-1] += column[0] + piece
        else:
            columns.append(column)
            written.append(piece)
    return written, columns


def _columns_from_some(names: Sequence[str]) -> tuple[list[str], list[tuple[str, ...]]]:
    """Return the same of names with many numbers, most of which are the same in all of them.

    Some of the names tell which are not; the others are read by what is between those. (Of 1,000
    names in 200 numbered modules that is 1,000 numbers to read instead of 200,000.)
    """
    step = len(names) // (LOOK // 2)
    sample = list(dict.fromkeys([*names[: LOOK // 2], *names[::step]]))
    while True:
        pieces, columns = _columns_of_all(sample)
        if len(columns) > MANY_PLACES:
            return pieces, columns
        rows = [_numbers_between(name, pieces) for name in names]
        other = next((name for name, row in zip(names, rows, strict=True) if row is None), None)
        if other is None:
            return pieces, list(zip(*(row for row in rows if row), strict=True))
        # It differs in one more place at least.
        sample = [other, *sample]


def _numbers_between(name: str, pieces: Sequence[str]) -> list[str] | None:
    """Return the numbers of a name between those pieces of it; None where it has others."""
    if not name.startswith(pieces[0]):
        return None
    rest = name[len(pieces[0]) :]
    numbers = []
    for piece in pieces[1:]:
        number, found, rest = rest.partition(piece) if piece else (rest, "", "")
        if found != piece or not number.isdecimal():
            return None
        numbers.append(number)
    return None if rest else numbers


def _by_digits(
    columns: Sequence[tuple[str, ...]],
) -> list[tuple[tuple[int, ...], list[tuple[int, ...]]]]:
    """Part numbers by how they are written: to how many digits padded, each, 0 for not.

    ``09`` and ``10`` are of one series, ``9`` and ``10`` of another.
    """
    padded = [
        {len(number) for number in set(column) if number[0] == "0" and len(number) > 1}
        for column in columns
    ]
    points = list(zip(*(map(int, column) for column in columns), strict=True))
    if not any(padded):
        return [((0,) * len(columns), points)]
    widths = [
        [len(number) if len(number) in among else 0 for number in column] if among else None
        for column, among in zip(columns, padded, strict=True)
    ]
    plain = [0] * len(points)
    series: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
    for digits, point in zip(
        zip(*(width or plain for width in widths), strict=True), points, strict=True
    ):
        series.setdefault(digits, []).append(point)
    return list(series.items())


def _as_products(points: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Write a set of integer tuples as few products of integer sets, last position first."""
    if len(points[0]) == 1:
        return [(tuple(sorted(number for (number,) in points)),)]
    if len(points) == 1:
        return [tuple((i,) for i in points[0])]
    if len(points[0]) == 2:
        return _as_rectangles(points)
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


def _as_rectangles(points: list[tuple[int, ...]]) -> list[tuple[tuple[int, ...], ...]]:
    """Do the same for pairs, which most numbered names are, in half the time."""
    rows: dict[int, list[int]] = {}
    for first, second in points:
        rows.setdefault(first, []).append(second)
    alike: dict[tuple[int, ...], list[int]] = {}
    for first, seconds in rows.items():
        alike.setdefault(tuple(sorted(seconds)), []).append(first)
    return [(tuple(sorted(firsts)), seconds) for seconds, firsts in alike.items()]


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
