"""A model declared once: what a declaration takes, and what it refuses."""

from __future__ import annotations

import dataclasses
import typing
from typing import Any

import pytest
from torch import nn

from pytest_paramcheck import ModelCase
from pytest_paramcheck.model_checks.case import as_cases, unknown_check
from pytest_paramcheck.plugin.model_items import parametrize_with_param_checks

from .messages import usage


def make() -> nn.Module:
    return nn.Linear(3, 2)


# -- what a declaration refuses -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "text"),
    [
        (
            {"factory": nn.Linear(3, 2)},
            "ModelCase: factory must be a function or class that builds the model, got Linear; "
            "pass the class or a function that builds it",
        ),
        (
            {"factory": "lm"},
            "ModelCase: factory must be a function or class that builds the model, got str",
        ),
        ({"loss": 3}, "ModelCase: loss must be a function, got int"),
        ({"optimizer": "sgd"}, "ModelCase: optimizer must be a function, got str"),
        (
            {"frozen": "emb"},
            "ModelCase: frozen is a list of patterns, got 'emb'; did you mean ['emb']?",
        ),
        (
            {"alike": nn.LayerNorm},
            "ModelCase: alike is a list of patterns, got LayerNorm; did you mean [LayerNorm]?",
        ),
        ({"unreached": None}, "ModelCase: unreached is a list of patterns, got NoneType"),
        ({"ties": "emb"}, "ModelCase: ties is a list of sets of names, got 'emb'"),
        (
            {"ties": ["emb.weight", "head.weight"]},
            "ModelCase: a tie group is a set of names, got 'emb.weight'; "
            "did you mean [{'emb.weight', 'head.weight'}]?",
        ),
        ({"shapes": [(2, 3)]}, "ModelCase: shapes maps patterns to shapes, got list"),
        ({"values": 3}, "ModelCase: values maps patterns to conditions, one at least, got int"),
        (
            {"resume": True},
            "ModelCase: resume is (save, load), two functions, or the reason why it is not asked, "
            "got True",
        ),
        (
            {"resume": (print, None)},
            "ModelCase: resume is (save, load), two functions, or the reason why it is not asked, "
            "got (<built-in function print>, None)",
        ),
        (
            {"resume": " "},
            "ModelCase: resume is (save, load), two functions, or the reason why it is not asked, "
            "got ' '",
        ),
        ({"values": {}}, "ModelCase: values maps patterns to conditions, one at least, got {}"),
        ({"steps": 0}, "ModelCase: steps must be 1 or more, got 0"),
        ({"steps": True}, "ModelCase: steps must be 1 or more, got True"),
        ({"steps": "2"}, "ModelCase: steps must be 1 or more, got '2'"),
        (
            {"expected_failures": ["check_ties"]},
            "ModelCase: expected_failures maps check names to reasons, got list",
        ),
        (
            {"expected_failures": {"check_ties": " "}},
            "ModelCase: expected_failures['check_ties'] needs a reason, got ' '",
        ),
        (
            {"name": "a::b"},
            "ModelCase: name becomes part of test ids: a string without '::', got 'a::b'",
        ),
        (
            {"name": 3},
            "ModelCase: name becomes part of test ids: a string without '::', got 3",
        ),
    ],
)
def test_a_declaration_that_cannot_be_meant(given: dict[str, Any], text: str) -> None:
    assert usage(ModelCase, **{"factory": make, **given}) == text


def test_the_name_is_the_factorys() -> None:
    class Partial:
        def __call__(self) -> nn.Module:
            return make()

    assert ModelCase(make).name == "make"
    assert ModelCase(nn.Identity).name == "Identity"
    assert ModelCase(lambda: make()).name == "model"
    assert ModelCase(Partial()).name == "Partial"
    assert ModelCase(make, name="lm").name == "lm"


def test_an_iterator_is_read_once_and_serves_every_check() -> None:
    case = ModelCase(
        make,
        ties=({"b", "a"} for _ in range(1)),
        frozen=iter(["weight"]),
        unreached=iter(["bias"]),
        alike=(name for name in ["bias"]),
    )

    assert (case.ties, case.frozen) == ([frozenset({"a", "b"})], ["weight"])
    assert (case.unreached, case.alike) == (["bias"], ["bias"])


def test_its_type_hints_can_be_read() -> None:
    hints = typing.get_type_hints(ModelCase)

    assert list(hints) == [field.name for field in dataclasses.fields(ModelCase)]
    assert hints["steps"] is int


# -- what --param-model and the decorator take --------------------------------------------------


def test_a_factory_a_case_and_a_list_of_both_are_cases() -> None:
    case = ModelCase(make, name="small")

    assert as_cases(case, "here") == [case]
    assert [c.name for c in as_cases([make, (case, nn.Identity)], "here")] == [
        "make",
        "small",
        "Identity",
    ]


def test_a_factory_that_ignores_its_arguments_is_one() -> None:
    def factory(*args: object, size: int = 3, **kwargs: object) -> nn.Module:
        return nn.Linear(size, 2)

    assert as_cases(factory, "here")[0].name == "factory"


def _needs(size: int, *, bias: bool) -> nn.Module:
    return nn.Linear(size, 2, bias=bias)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (3, "here: int is neither a factory nor a ModelCase"),
        (nn.Linear(3, 2), "here: Linear is neither a factory nor a ModelCase"),
        ([], "here: an empty list, nothing to check"),
        ([make, "lm"], "here: str is neither a factory nor a ModelCase"),
        (
            _needs,
            "here: _needs(size: 'int', *, bias: 'bool') -> 'nn.Module' cannot be called without "
            "arguments: give size, bias a default, or name a ModelCase",
        ),
        (
            ModelCase(_needs),
            "here: _needs(size: 'int', *, bias: 'bool') -> 'nn.Module' cannot be called without "
            "arguments: give size, bias a default, or name a ModelCase",
        ),
    ],
)
def test_what_is_no_case(value: object, text: str) -> None:
    assert usage(as_cases, value, "here") == text


@pytest.mark.parametrize(
    ("cases", "text"),
    [
        ([], "parametrize_with_param_checks: no cases, nothing to check"),
        (
            make,
            "parametrize_with_param_checks takes ModelCase objects, got make; "
            "write ModelCase(factory)",
        ),
        (
            [ModelCase(make), nn.Identity],
            "parametrize_with_param_checks takes ModelCase objects, got Identity; "
            "write ModelCase(factory)",
        ),
        (
            [ModelCase(make), ModelCase(make)],
            "two cases are called 'make': give one a name=",
        ),
    ],
)
def test_what_the_decorator_refuses(cases: Any, text: str) -> None:
    assert usage(parametrize_with_param_checks, cases) == text


def test_an_unknown_check_is_guessed_or_all_are_named() -> None:
    assert str(unknown_check("check_tie", ["check_ties", "check_finite"])) == (
        "expected_failures names no check 'check_tie'; did you mean 'check_ties' or 'check_finite'?"
    )
    assert str(unknown_check("x", ["check_ties", "check_finite"])) == (
        "expected_failures names no check 'x'; the checks are check_ties, check_finite"
    )
