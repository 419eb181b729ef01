"""Patterns that map to expectations: who decides about a tied entry, and what is said of it."""

from __future__ import annotations

import re
from fnmatch import translate
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_paramcheck import (
    ModelCase,
    assert_devices,
    assert_dtypes,
    assert_grads_reach,
    assert_init,
    assert_param_groups,
    assert_shapes,
    init,
)
from pytest_paramcheck.messages.errors import ParamCheckUsageError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.registry import CHECKS
from pytest_paramcheck.model_checks.run import CaseRun
from pytest_paramcheck.parameters.subject.declared import decide
from pytest_paramcheck.parameters.subject.inventory import Inventory
from pytest_paramcheck.parameters.subject.reading import take_inventory

from ..models import LM
from .messages import failure, usage, whole


@pytest.fixture
def lm() -> Inventory:
    return take_inventory(LM(tied=True))


def said(inventory: Inventory, expectations: dict[Any, Any]) -> list[tuple[str, Any]]:
    return [(item.names[0], item.value) for item in decide(inventory, expectations)]


def test_the_last_pattern_that_matches_decides() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.LayerNorm(2))

    assert said(take_inventory(model), {"*": 1, nn.LayerNorm: 2, "*.bias": 3}) == [
        ("0.weight", 1),
        ("0.bias", 3),
        ("1.weight", 2),
        ("1.bias", 3),
    ]


def test_what_no_pattern_matches_is_left_out(lm: Inventory) -> None:
    assert said(lm, {"head": 1}) == [("head.weight", 1)]
    assert said(lm, {}) == []


@pytest.mark.parametrize(
    ("expectations", "expected"),
    [
        # the later one matches a name that the earlier one matches too: it decides for all names
        ({"*": 1, "emb": 2}, [("emb.weight", 2)]),
        ({"*.weight": 1, "head.weight": 2}, [("head.weight", 2)]),
        ({nn.Module: 1, nn.Linear: 2}, [("head.weight", 2)]),
        # neither matches the other's name: both are held against it
        ({"emb.weight": 1, "head.weight": 2}, [("emb.weight", 1), ("head.weight", 2)]),
        ({"head.*": 1, "emb": 2}, [("head.weight", 1), ("emb.weight", 2)]),
        ({nn.Embedding: 1, (nn.Linear, "weight"): 2}, [("emb.weight", 1), ("head.weight", 2)]),
        ({"*": 1, "emb": 2, "head": 3}, [("emb.weight", 2), ("head.weight", 3)]),
    ],
)
def test_a_tied_parameter(expectations: dict[Any, int], expected: list[tuple[str, int]]) -> None:
    model = take_inventory(LM(tied=True, norm=nn.LayerNorm))

    decided = [item for item in decide(model, expectations) if len(item.entry.names) > 1]
    assert [(item.names[0], item.value) for item in decided] == expected


def _brute_force(groups: list[list[str]], patterns: list[str]) -> tuple[set[Any], set[str]]:
    """The rule, word by word: who decides about which entry, and who decides nothing."""

    def matches(pattern: str, name: str) -> bool:
        above = [name.rsplit(".", n)[0] for n in range(name.count(".") + 1)]
        return any(re.match(translate(pattern), part) for part in above)

    held = set()
    for number, names in enumerate(groups):
        for pattern in patterns:
            own = [name for name in names if matches(pattern, name)]
            last = [[p for p in patterns if matches(p, name)][-1] for name in own]
            if own and all(p == pattern for p in last):
                held.add((number, pattern))
    return held, set(patterns) - {pattern for _, pattern in held}


NAMES = [f"{a}.{b}" for a in ("a", "b", "ab") for b in ("w", "v")]
PATTERNS = [*NAMES, "a", "b", "ab", "*", "a*", "*.w", "?.v", "*b*", "[ab].*"]


@given(
    st.lists(st.integers(0, 3), min_size=len(NAMES), max_size=len(NAMES)),
    st.lists(st.sampled_from(PATTERNS), min_size=1, max_size=5, unique=True),
)
def test_patterns_over_tied_names_as_the_rule_says(owner: list[int], patterns: list[str]) -> None:
    tensors = [torch.ones(1) for _ in range(4)]
    model = {name: tensors[number] for name, number in zip(NAMES, owner, strict=True)}
    groups = [[n for n in NAMES if model[n] is tensor] for tensor in tensors]
    held, idle = _brute_force(groups, patterns)
    try:
        found = decide(take_inventory(model), dict.fromkeys(patterns, 0))
    except ParamCheckUsageError:
        assert idle
        return
    assert not idle
    number = {id(tensor): index for index, tensor in enumerate(tensors)}
    assert {(number[id(item.entry.tensor)], item.pattern) for item in found} == held
    assert len(found) == len(held)
    assert all(set(item.names) <= set(item.entry.names) for item in found)


@pytest.mark.parametrize(
    ("expectations", "message"),
    [
        (
            {"head.weight": 1, "*": 2},
            "pattern 'head.weight' has no effect: the later pattern '*' overrides it; "
            "put the general pattern first",
        ),
        (
            {nn.Embedding: 1, "*": 2, "head": 3},
            "pattern Embedding has no effect: the later pattern '*' overrides it; "
            "put the general pattern first",
        ),
        (
            {"*": 1, "!head": 2},
            "'!head': a mapping of patterns takes no exclusions; let a later pattern decide "
            "instead",
        ),
        ({"zzz": 1}, "pattern 'zzz' matches nothing in LM; it has emb.weight, head.weight"),
    ],
)
def test_a_mapping_that_cannot_be_meant(
    lm: Inventory, expectations: dict[Any, int], message: str
) -> None:
    assert usage(decide, lm, expectations) == message


def test_a_mapping_of_all_names_of_a_tied_model_is_right() -> None:
    model = LM(tied=True)

    assert_shapes(model, {name: tuple(t.shape) for name, t in model.state_dict().items()})
    assert_dtypes(model, {name: t.dtype for name, t in model.state_dict().items()})
    assert_devices(model, {name: t.device for name, t in model.state_dict().items()})
    assert_init(model, {"emb": init.normal(0, 1), "head": init.normal(0, 1)})
    case = ModelCase(lambda: LM(tied=True), shapes={"emb.weight": (11, 6), "head.weight": (11, 6)})
    run_check(CHECKS["check_shapes"], CaseRun(case))


def _used(m: Any) -> Tensor:
    return m.emb.weight.square().sum()


def test_shares_of_both_names_of_a_tied_parameter() -> None:
    assert_grads_reach(LM(tied=True), _used, at_least={"emb": 1.0, "head": 1.0})


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda m: assert_shapes(m, {"emb.weight": (11, 6), "head.weight": (99, 6)}),
            r"""
            wrong shape: head.weight (LM)

              head.weight  expected (99, 6), found (11, 6): dimension 0 is 11, not 99; one \
            parameter, declared (11, 6) as emb.weight and (99, 6) as head.weight""",
        ),
        (
            lambda m: assert_shapes(m, {"emb": (11, 7), "head": (9, 6)}),
            r"""
            wrong shape: emb.weight, head.weight (LM)

              emb.weight   expected (11, 7), found (11, 6): dimension 1 is 6, not 7; one \
            parameter, declared (11, 7) as emb.weight and (9, 6) as head.weight
              head.weight  expected (9, 6), found (11, 6): dimension 0 is 11, not 9; one \
            parameter, declared (11, 7) as emb.weight and (9, 6) as head.weight""",
        ),
        (
            lambda m: assert_dtypes(m, {nn.Embedding: torch.float16, nn.Linear: torch.float32}),
            r"""
            wrong dtype: emb.weight (LM)

              emb.weight  expected float16, found float32: one parameter, declared float16 as \
            emb.weight and float32 as head.weight""",
        ),
        (
            lambda m: assert_devices(m, {"emb.*": "cpu", "head.*": "meta"}),
            r"""
            wrong device: head.weight (LM)

              head.weight  expected meta, found cpu: one parameter, declared cpu as emb.weight \
            and meta as head.weight""",
        ),
        (
            lambda m: assert_param_groups(
                torch.optim.SGD(m.parameters(), lr=0.1), m, {"emb": {"lr": 0.1}, "head": {"lr": 1}}
            ),
            r"""
            wrong hyperparameter: head.weight (LM)

              head.weight  expected lr=1, found lr=0.1: SGD group 0, by pattern 'head'; one \
            parameter, declared lr=0.1 as emb.weight and lr=1 as head.weight""",
        ),
    ],
)
def test_contradictions_over_a_tied_parameter(call: Any, message: str) -> None:
    model = LM(tied=True).cpu()

    assert failure(call, model) == whole(message)


def test_what_many_names_of_one_parameter_were_declared_is_said_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shared = nn.Linear(1, 1, bias=False)
    model = nn.ModuleDict({f"l{number}": shared for number in range(50)})
    said: list[int] = []
    describe = init.Constant.describe
    monkeypatch.setattr(init.Constant, "describe", lambda self: said.append(1) or describe(self))  # type: ignore[func-returns-value]
    declared = {f"l{number}.weight": init.constant(number % 2 + 5) for number in range(50)}
    assert "one parameter, declared" in failure(assert_init, model, declared)
    assert len(said) < 500  # not for each of 50 names what all 50 were declared
