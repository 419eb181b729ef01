"""Phrases that several messages share: suggestions, counts, what is cut or escaped."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence
from operator import eq


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
    number = re.compile(r"\d+")  # here: loading the plugin does not pay for it
    alike: dict[str, list[str]] = {}
    for choice in pool:
        alike.setdefault(number.sub("0", choice), []).append(choice)
    plain, numbers = number.sub("0", word), number.findall(word)
    templates = list(alike)
    if len(templates) > _MANY:
        length = len(plain)
        templates.sort(key=lambda t: abs(len(t) - length) - 4 * sum(map(eq, t, plain)))
    near = difflib.get_close_matches(plain, templates[:_MANY], n=8, cutoff=0.6)
    last = word.rpartition(".")[2]
    near += [t for t in templates if t.rpartition(".")[2] == last][:8]
    chosen = []
    for template in dict.fromkeys(near):
        same = [c for c in alike[template] if number.findall(c) == numbers]
        chosen += [*same[:1], *alike[template][:20]]
    return list(dict.fromkeys(chosen))


def join_words(words: Sequence[str], last: str = "and") -> str:
    """Return ``"a, b and c"``."""
    if len(words) < 2:
        return "".join(words)
    return f"{', '.join(words[:-1])} {last} {words[-1]}"


#: What is read letter by letter though it is not in capitals, and what begins with another sound
#: than its letter's.
_SPELLED = ("mk", "nd", "np", "fp", "fx", "xl", "hp")
_CONSONANT = ("uni", "use", "usa", "uint", "one", "once", "eu", "utf")
_VOWEL = ("a", "e", "i", "o", "u", "8", "unin", "unim")


def a_or_an(words: str) -> str:
    """Return words with the article that they are read with: by sound, not by letter.

    >>> a_or_an("mkldnn tensor"), a_or_an("MLP"), a_or_an("uint8"), a_or_an("Unit")
    ('an mkldnn tensor', 'an MLP', 'a uint8', 'a Unit')
    """
    lower = words.lower()
    if words[:2].isupper() or lower.startswith(_SPELLED):
        vowel = lower.startswith(tuple("aefhilmnorsx"))
    else:
        vowel = lower.startswith(_VOWEL[-2:]) or (
            lower.startswith(_VOWEL) and not lower.startswith(_CONSONANT)
        )
    return f"{'an' if vowel else 'a'} {words}"


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
    return text.translate(escapes_of(text))


def all_printable(texts: Iterable[str]) -> list[str]:
    """Return each text as :func:`printable` does; the characters of all are looked at once."""
    given = list(texts)
    escapes = escapes_of("".join(given))
    return [text.translate(escapes) for text in given] if escapes else given


def escapes_of(text: str) -> dict[int, str]:
    """Return how what a terminal would act on in a text is written, for ``str.translate``."""
    if _is_printable(text):
        return {}
    return {ord(c): repr(c)[1:-1] for c in set(text) if not c.isprintable()}


def common_length(one: str, other: str) -> int:
    """Return how many characters two texts begin with in common."""
    low, high = 0, min(len(one), len(other))
    while low < high:
        middle = (low + high + 1) // 2
        if one.startswith(other[low:middle], low):
            low = middle
        else:
            high = middle - 1
    return low


#: What of ASCII a terminal only shows.
_SHOWN = bytes(range(32, 127))


def _is_printable(text: str) -> bool:
    """Return what ``isprintable`` does; of long texts in ASCII in a quarter of its time."""
    if text.isascii():
        return not text.encode().translate(None, _SHOWN)
    return text.isprintable()


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
