"""Each answer is right on both objects, is short, and stands on the page."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import pytest_paramcheck
from pytest_paramcheck import ParamCheckError

from . import Question, page, questions

PAGE = Path(__file__).resolve().parents[2] / "docs" / "questions.md"
ALL = [pytest.param(one, id=one.set_up.__name__) for _, listed in questions() for one in listed]


def run(question: Question, right: bool) -> None:
    torch.manual_seed(0)
    public = {name: getattr(pytest_paramcheck, name) for name in pytest_paramcheck.__all__}
    names: dict[str, Any] = {**public, "torch": torch, **question.set_up(right)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exec(compile(question.answer, "<answer>", "exec"), names)


@pytest.mark.parametrize("question", ALL)
def test_the_right_object_passes(question: Question) -> None:
    run(question, True)


@pytest.mark.parametrize("question", ALL)
def test_the_wrong_object_fails(question: Question) -> None:
    with pytest.raises(ParamCheckError):
        run(question, False)


@pytest.mark.parametrize("question", ALL)
def test_an_answer_has_two_lines_at_most(question: Question) -> None:
    assert 1 <= len(question.answer.splitlines()) <= 2
    assert question.before.endswith(".")


def test_the_page_is_up_to_date() -> None:
    assert PAGE.read_text(encoding="utf-8") == page()
