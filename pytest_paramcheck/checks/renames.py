"""Which names that went and names that came are probably the same parameter."""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Rename:
    """An old name, the new one, and the difference in words that folds over repeated layers."""

    old: str
    new: str
    how: str


def probable_renames(old: Mapping[str, Hashable], new: Mapping[str, Hashable]) -> list[Rename]:
    """Pair names of ``old`` with names of ``new`` that carry an equal value (shape, dtype, ...).

    Three signs count, the surest first: one component differs, a prefix was put in front or
    taken away, and the only name of its kind on either side. Linear in the names.
    """
    left = dict(old)
    free = dict(new)
    found: dict[str, Rename] = {}

    def pair(source: str, target: str, how: str) -> None:
        del left[source], free[target]
        found[source] = Rename(source, target, how)

    one_off = _Index((key, name, value) for name, value in free.items() for key in _masks(name))
    for name, value in list(left.items()):
        for key in _masks(name):
            target = one_off.take(key, value, free)
            if target is not None:
                was, now = name.split(".")[key[0]], target.split(".")[key[0]]
                pair(name, target, f"{was!r} became {now!r}")
                break

    below = _Index((key, name, value) for name, value in free.items() for key in _suffixes(name))
    for name, value in list(left.items()):
        target = below.take(name, value, free)
        if target is not None:
            pair(name, target, f"prefix {target[: -len(name)]!r} added")
            continue
        for suffix in _suffixes(name):
            if suffix in free and free[suffix] == value:
                pair(name, suffix, f"prefix {name[: -len(suffix)]!r} removed")
                break

    longer = _Index((key[1], name, value) for name, value in free.items() for key in _masks(name))
    for name, value in list(left.items()):
        target = longer.take(tuple(name.split(".")), value, free)
        if target is not None:
            pair(name, target, f"{_extra(target, name)!r} added in the middle")
            continue
        for position, rest in _masks(name):
            shorter = ".".join(rest)
            if shorter in free and free[shorter] == value:
                pair(name, shorter, f"{name.split('.')[position]!r} removed from the middle")
                break

    alone = Counter(left.values())
    wanted = Counter(free.values())
    only = {value: name for name, value in free.items() if wanted[value] == 1}
    for name, value in list(left.items()):
        if alone[value] == 1 and value in only:
            pair(name, only[value], f"it is {only[value]} now")
    return [found[name] for name in old if name in found]


def common_prefix(names: Iterable[str], others: Iterable[str]) -> str:
    """Return the prefix (``"module."``) that all names carry and without which they are the
    others', or ``""``.

    "Are": more of them are found among the others without the prefix than with it, and at
    least half of all.
    """
    listed = list(names)
    known = set(others)
    if not listed:
        return ""
    best = ""
    most = sum(name in known for name in listed)
    prefix = ""
    # A prefix that all carry ends before the last component of the shortest name.
    for component in listed[0].split(".")[:-1]:
        prefix += component + "."
        if not all(name.startswith(prefix) for name in listed):
            break
        count = sum(name[len(prefix) :] in known for name in listed)
        if count > most and 2 * count >= len(listed):
            best, most = prefix, count
    return best


def _masks(name: str) -> list[tuple[int, tuple[str, ...]]]:
    """Return the name without each of its components; the last one (weight, bias) comes last."""
    parts = tuple(name.split("."))
    order = [*range(len(parts) - 1), len(parts) - 1] if len(parts) > 1 else []
    return [(i, parts[:i] + parts[i + 1 :]) for i in order]


def _suffixes(name: str) -> list[str]:
    """Return the proper suffixes at component borders, longest first."""
    parts = name.split(".")
    return [".".join(parts[i:]) for i in range(1, len(parts))]


def _extra(longer: str, shorter: str) -> str:
    """Return the one component that the longer name has more."""
    few = shorter.split(".")
    for position, part in enumerate(longer.split(".")):
        if position == len(few) or part != few[position]:
            return part
    return ""


class _Index:
    """Names by a key and a value, each handed out while it is free.

    Names that were taken meanwhile are dropped as they come up, so that many names of one key
    cost no more than few.
    """

    def __init__(self, items: Iterable[tuple[Hashable, str, Hashable]]) -> None:
        self._names: dict[tuple[Hashable, Hashable], list[str]] = {}
        for key, name, value in items:
            self._names.setdefault((key, value), []).append(name)
        for names in self._names.values():
            names.reverse()

    def take(self, key: Hashable, value: Hashable, free: Mapping[str, Hashable]) -> str | None:
        names = self._names.get((key, value), [])
        while names and names[-1] not in free:
            names.pop()
        return names[-1] if names else None
