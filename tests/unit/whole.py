"""Expected messages as they read, where a row is longer than a line of code."""

from __future__ import annotations

import re
import textwrap


def whole(text: str) -> str:
    """Dedent a raw string; a backslash at the end of a line joins it to the next by one space."""
    return re.sub(r"\s*\\\n\s*", " ", textwrap.dedent(text)).strip("\n")
