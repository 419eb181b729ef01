"""Print a whole text for every problem there is: ``python -m tests.gallery``.

``docs/gallery.md`` is what it prints; a test holds it to that on the torch it was written with.
"""

from __future__ import annotations

import re
import sys
import tempfile

import torch

from .failures import failures
from .planted_bugs import planted_bugs


def torch_line() -> str:
    """Return the line that says with which torch the texts were made: numbers may differ."""
    return f"Written with torch {'.'.join(torch.__version__.split('.')[:2])}."


def gallery() -> str:
    """Return the page: one section for each bug, under its family."""
    lines = [
        "# What a failure says",
        "",
        "A whole text for every problem that the package reports, as a test prints it: those of",
        "the bugs in [planted_bugs.md](planted_bugs.md), then those that none of them has.",
        "This file is written by `python -m tests.gallery > docs/gallery.md`.",
        torch_line(),
    ]
    family = ""
    for bug in planted_bugs():
        if bug.family != family:
            family = bug.family
            lines += ["", f"## {family[0].upper()}{family[1:]}"]
        lines += _section(bug.title, bug.catch.name, bug.message())
    for failure in failures():
        if failure.family != family:
            family = failure.family
            lines += ["", f"## More: {family}"]
        lines += _section(failure.title, failure.by, str(failure.error()))
    return "\n".join(lines) + "\n"


def _section(title: str, by: str, text: str) -> list[str]:
    heading = f"### {title[0].upper()}{title[1:]}"
    return ["", heading, "", f"`{by}`", "", "```text", _steady(text), "```"]


def _steady(text: str) -> str:
    """Return a text without what is another in each run: a temporary folder, random values."""
    text = re.sub(rf"{re.escape(tempfile.gettempdir())}/\w+/", "tests/", text)
    return re.sub(
        r"max abs \S+ at \[[^]]*\], max rel [^\s:;,]+", "max abs ... at [...], max rel ...", text
    )


if __name__ == "__main__":
    sys.stdout.write(gallery())
