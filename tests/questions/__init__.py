"""What people ask in public about parameters, each with an answer of at most two lines.

A question has a set-up that builds a right object and a wrong one; the answer is text, run on
both (``test_questions.py``) and printed on a page: ``python -m tests.questions``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from types import ModuleType
from typing import Any

SetUp = Callable[[bool], dict[str, Any]]


@dataclass(frozen=True)
class Question:
    """``before`` says what the names in the answer are; ``asked`` are threads that ask it."""

    title: str
    asked: str
    before: str
    answer: str
    set_up: SetUp


def questions() -> list[tuple[str, list[Question]]]:
    """The questions, family by family."""
    from . import checkpoints, optimizers, training, values

    families: dict[str, ModuleType] = {
        "Values": values,
        "Training": training,
        "Optimizers": optimizers,
        "Checkpoints and copies": checkpoints,
    }
    return [(family, list(module.QUESTIONS)) for family, module in families.items()]


def page() -> str:
    """Return the page: one section for each question, under its family."""
    lines = [
        "# Questions and answers",
        "",
        "What people ask about parameters in public, each answered in at most two lines. All",
        "names come from `pytest_paramcheck`; in a test the assertions are fixtures as well. Each",
        "answer is run on a right and on a wrong object. This file is written by",
        "`python -m tests.questions > docs/questions.md`.",
    ]
    for family, listed in questions():
        lines += ["", f"## {family}"]
        for one in listed:
            lines += ["", f"### {one.title}", "", f"{one.before} Asked in {one.asked}.", ""]
            lines += ["```python", one.answer, "```"]
    return "\n".join(lines) + "\n"


def asking(title: str, asked: str, before: str, answer: str) -> Callable[[SetUp], Question]:
    """Make a question of the function that sets it up."""
    return lambda set_up: Question(title, asked, before, answer, set_up)
