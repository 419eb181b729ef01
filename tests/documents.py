"""The fenced blocks of a Markdown page, and what of a run's output can be compared."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[1]


class Block(NamedTuple):
    """A fenced block, and the output shown directly below it."""

    language: str
    text: str
    output: str
    line: int


def blocks_of(page: str) -> list[Block]:
    """Return the fenced blocks of code; a ``text`` block belongs to the one above it.

    Directives (``{include}``) are Sphinx's and are no code.
    """
    found: list[Block] = []
    for match in re.finditer(r"^```([\w{}:.-]*)[^\n]*\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        language, text = match.groups()
        line = page.count("\n", 0, match.start()) + 1
        if language == "text":
            assert found, f"line {line}: output of nothing"
            found[-1] = found[-1]._replace(output=text)
        elif not language.startswith("{"):
            found.append(Block(language, text, "", line))
    return found


def comparable(output: str) -> list[str]:
    """Lines without what differs from run to run: widths of rules, addresses, timing, paths."""
    lines = []
    for line in output.strip().splitlines():
        line = re.sub(r"([=_])\1{3,}", r"\1\1\1", line)
        line = re.sub(r" at 0x[0-9a-f]+", "", line)
        line = re.sub(r" in [0-9.]+s\b", "", line)
        line = re.sub(r" +\[100%\]", " [100%]", line)
        lines.append(line.rstrip())
    return lines
