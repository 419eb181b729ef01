"""The two errors and what they hold."""

from __future__ import annotations

import copy
import dataclasses
import gc
import pickle
import sys
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import Finding, ParamCheckError, ParamCheckUsageError, assert_finite
from pytest_paramcheck.messages.errors import show_all


def _error() -> ParamCheckError:
    findings = [Finding((f"p{i:02}",), "not finite", found=f"{i} NaN") for i in range(12)]
    return ParamCheckError(findings, "Net")


def test_a_failure_is_an_assertion_error_and_a_wrong_call_a_value_error() -> None:
    assert issubclass(ParamCheckError, AssertionError)
    assert issubclass(ParamCheckUsageError, ValueError)
    assert not issubclass(ParamCheckUsageError, AssertionError)


def test_the_findings_are_there_to_be_read() -> None:
    error = _error()

    assert isinstance(error.findings, tuple)
    assert error.findings[3] == Finding(("p03",), "not finite", found="3 NaN")
    assert error.subject == "Net"


def test_a_generator_of_findings_is_read_once_and_kept() -> None:
    error = ParamCheckError(Finding((name,), "gone") for name in "ab")

    assert str(error) == str(error) == "gone: a, b\n\n  a\n  b"


def test_ten_rows_by_default_and_all_where_max_rows_is_none() -> None:
    error = _error()
    assert str(error).splitlines()[-1] == "  ... and 2 more (-vv shows all)"

    error.max_rows = None

    assert str(error).splitlines()[-1] == "  p11  11 NaN"


def test_a_failure_survives_pickling_with_its_findings_and_its_limit() -> None:
    error = _error()
    error.max_rows = None

    again = pickle.loads(pickle.dumps(error))

    assert type(again) is ParamCheckError
    assert again.findings == error.findings
    assert again.subject == "Net"
    assert again.max_rows is None
    assert str(again) == str(error)


def test_a_usage_error_survives_pickling() -> None:
    again = pickle.loads(pickle.dumps(ParamCheckUsageError("no such name")))

    assert type(again) is ParamCheckUsageError
    assert str(again) == "no such name"


@pytest.mark.parametrize("error", [_error(), ParamCheckUsageError("no such name")])
def test_both_can_be_copied(error: Exception) -> None:
    assert str(copy.deepcopy(error)) == str(error)


def test_the_short_summary_spends_no_width_on_the_module() -> None:
    assert f"{ParamCheckError.__module__}" == "builtins"
    assert f"{ParamCheckUsageError.__module__}" == "builtins"


def test_a_finding_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Finding(("w",), "gone").problem = "found"  # type: ignore[misc]


def test_an_error_keeps_no_tensor_alive() -> None:
    model = nn.Linear(3, 2)
    with torch.no_grad():
        model.weight.fill_(float("nan"))
    weight = weakref.ref(model.weight)
    try:
        assert_finite(model)
    except ParamCheckError as error:
        kept = error.with_traceback(None)  # frames hold the model; the error itself must not

    del model
    gc.collect()

    assert weight() is None
    assert str(kept).startswith("not finite: weight (Linear)")


@pytest.mark.parametrize(
    "again", [copy.copy, copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))]
)
def test_notes_and_rows_travel_with_a_copy(again: Callable[[Any], Any]) -> None:
    for error in (_error(), ParamCheckUsageError("no such name")):
        said = str(error)
        if sys.version_info >= (3, 11):
            error.add_note("seed 7")
        vars(error)["seen_on"] = "cuda"
        twin = again(error)
        assert type(twin) is type(error)
        assert str(twin) == said
        assert vars(twin) == vars(error)


class GroupError(Exception):
    """As ExceptionGroup is, of Python 3.11."""

    def __init__(self, *exceptions: BaseException) -> None:
        super().__init__()
        self.exceptions = exceptions


def test_every_error_of_a_group_and_what_it_came_from_is_reached() -> None:
    first, second, inner, cause = (ParamCheckError([], "Net") for _ in range(4))
    second.__cause__ = cause
    show_all(GroupError(first, GroupError(inner), ValueError(), second))

    assert {one.max_rows for one in (first, second, inner, cause)} == {None}
