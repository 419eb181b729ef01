"""``module:factory``, and a call with literals: what it builds, and what cannot be meant."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from torch import nn

from pytest_paramcheck import ModelCase, ParamCheckUsageError
from pytest_paramcheck.model_checks.named import cases_named, one_named

HERE = Path(__file__).parent


class Zoo:
    @staticmethod
    def linear(size: int = 1, *sizes: int, options: Any = None, bias: bool = True) -> nn.Module:
        if isinstance(options, list):
            options.append("changed")  # as a factory may do to what it is given
            assert len(options) == 2
        return nn.Linear(size, sum(sizes), bias=bias)

    number = 3


@pytest.fixture(autouse=True)
def zoo(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("zoo_of_tests")
    module.Zoo = Zoo  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "zoo_of_tests", module)


def built(call: str) -> nn.Module:
    (case,) = cases_named(f"zoo_of_tests:{call}", HERE, "here")
    assert case.name == call
    case.factory()
    return case.factory()


@pytest.mark.parametrize(
    "call",
    [
        "Zoo.linear(2, 3)",
        "Zoo.linear(2, 1, 1, 1)",
        "Zoo.linear(2, 3, options=['a'], bias=True)",
        'Zoo.linear(2, 3, options={"a": (1, -2.5, None)})',
        "Zoo.linear(2, 3, options='a::b'.replace)".replace("'a::b'.replace", "'a b'"),
    ],
)
def test_a_call_with_literals(call: str) -> None:
    assert repr(built(call)) == "Linear(in_features=2, out_features=3, bias=True)"


def test_a_name_is_no_part_of_an_id() -> None:
    (case,) = cases_named("zoo_of_tests:Zoo.linear(options='a::b')", HERE, "here")

    assert case.name == "Zoo.linear(options='a: :b')"


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("Zoo.linear(2", "Zoo.linear(2 is not a call: '(' was never closed"),
        ("Zoo.linear(__import__('os'))", "__import__('os') is not a literal"),
        ("Zoo.linear(size=HERE)", "HERE is not a literal"),
        ("Zoo.linear(*[1])", "*[1] is not a literal"),
        ("Zoo.linear(**{'size': 1})", "**{'size': 1} is not a literal"),
        ("Zoo.linear(1 + 1)", "1 + 1 is not a literal"),
        ("Zoo.linear()()", "expected package.module:factory, or one call of it with literals"),
        ("Zoo.linear(1).weight", "expected package.module:factory, or one call of it"),
        ("Zoo.linear(1)(2)", "expected package.module:factory, or one call of it with literals"),
        ("Zoo.linear(sise=1)", "got an unexpected keyword argument 'sise'"),
        ("Zoo.number(1)", "int cannot be called"),
        ("Zoo.linar(1)", "zoo_of_tests:Zoo has no 'linar'; did you mean 'linear'?"),
        ("(1)", "expected package.module:factory, or one call of it with literals"),
        ("Zoo.linear(2\x003)", "is not a call"),
    ],
)
def test_what_is_no_such_call(call: str, said: str) -> None:
    with pytest.raises(ParamCheckUsageError) as error:
        cases_named(f"zoo_of_tests:{call}", HERE, "here")

    assert str(error.value).startswith("here: ")
    assert said in str(error.value)


def test_nothing_that_is_written_is_run(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ParamCheckUsageError):
        cases_named("zoo_of_tests:Zoo.linear(print('mine'))", HERE, "here")

    assert capsys.readouterr().out == ""


def test_one_of_several_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    zoo: Any = sys.modules["zoo_of_tests"]
    zoo.case = ModelCase(nn.Identity)
    zoo.several = [zoo.case, nn.Identity]

    assert one_named("zoo_of_tests:case", HERE, "here") == (zoo.case, True)
    assert not one_named("zoo_of_tests:Zoo.linear", HERE, "here")[1]
    with pytest.raises(ParamCheckUsageError) as caught:
        one_named("zoo_of_tests:several", HERE, "here")
    assert str(caught.value) == "here: list of several: name one of them"
