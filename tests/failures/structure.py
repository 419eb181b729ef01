"""Shapes, counts, materialization, values and initial values."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import torch
from torch import nn

from pytest_paramcheck import (
    assert_frozen,
    assert_init,
    assert_init_complete,
    assert_manifest,
    assert_materialized,
    assert_param_count,
    assert_same_values,
    assert_shapes,
    assert_trainable,
    assert_values,
    init,
    values,
)
from pytest_paramcheck.checks.moves import lost_in_move
from pytest_paramcheck.messages.errors import raise_if
from pytest_paramcheck.parameters.subject.reading import take_inventory

from ..models import LM, MLP
from . import fails


@fails("assert_frozen", "one tied parameter, declared frozen and trainable")
def contradiction() -> None:
    model = LM(tied=True, norm=nn.LayerNorm).requires_grad_(False)
    assert_frozen(model, exactly=["*", "!head"])


@fails("assert_trainable", "more that trains than was listed")
def trainable_but_not_listed() -> None:
    assert_trainable(MLP(), exactly=["head"])


@fails("assert_shapes", "a parameter that no pattern declares")
def not_declared() -> None:
    assert_shapes(nn.Linear(3, 2), {"weight": (2, 3)})


@fails("assert_shapes", "a lazy parameter")
def shape_not_known() -> None:
    assert_shapes(nn.LazyLinear(2), {"weight": (2, 3), "bias": (2,)})


@fails("assert_shapes", "a mapping with None where a tensor is declared")
def no_tensor() -> None:
    assert_shapes({"weight": torch.ones(2, 3), "bias": None}, {"weight": (2, 3), "bias": (2,)})


@fails("assert_param_count", "a lazy parameter, which counts as nothing yet")
def count_not_known() -> None:
    assert_param_count(nn.LazyLinear(2), total=8)


@fails("assert_materialized", "a parameter without elements, left by a sharded save")
def empty() -> None:
    state = nn.Linear(3, 2).state_dict()
    state["weight"] = torch.empty(0)
    assert_materialized(state)


@fails("assert_same_values", "keys on one side only, and another shape")
def missing_and_unexpected() -> None:
    assert_same_values(
        {"old": torch.ones(1), "same": torch.ones(2), "kind": torch.ones(2), "grad": None},
        {"new": torch.ones(1), "same": torch.ones(3), "kind": torch.ones(2).double(),
         "grad": torch.ones(1)},
    )  # fmt: skip


@fails("assert_same_values", "a tensor that is sparse on one side")
def other_layout() -> None:
    assert_same_values({"table": torch.eye(2)}, {"table": torch.eye(2).to_sparse()})


@fails("assert_values", "a temperature that became negative")
def negative() -> None:
    assert_values({"temperature": torch.tensor([0.7, -0.1])}, {"temperature": values.positive()})


@fails("assert_values", "a condition of one's own")
def own_condition() -> None:
    assert_values({"w": torch.tensor([1.0, 2.0])}, {"w": lambda w: w < 2})


@fails("assert_init", "layers that start as copies of one another")
def identical() -> None:
    layer = nn.Linear(8, 8)
    model = nn.Sequential(*[copy.deepcopy(layer) for _ in range(3)])
    assert_init(model, {"*": init.uniform(-(8**-0.5), 8**-0.5)})


@fails("assert_init_complete", "a value computed from memory that nobody wrote")
def computed_from_nothing() -> None:
    class Forgets(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.empty(3) * 2)

    assert_init_complete(Forgets)


@fails("assert_manifest", "a model whose manifest was never written")
def no_manifest() -> None:
    with tempfile.TemporaryDirectory() as folder:
        assert_manifest(nn.Linear(3, 2), path=Path(folder) / "model.txt")


def _against(old: nn.Module, new: nn.Module) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.txt"
        assert_manifest(old, path=path, update=True)
        assert_manifest(new, path=path)


@fails("assert_manifest", "a layer that was removed")
def removed() -> None:
    small = MLP()
    del small.head
    _against(MLP(), small)


@fails("assert_manifest", "a layer that was put in")
def put_in() -> None:
    model = MLP()
    model.tail = nn.Linear(2, 3)
    _against(MLP(), model)


@fails("assert_manifest", "another vocabulary, another dtype, a tie that was lost")
def other_facts() -> None:
    _against(LM(tied=True), LM(tied=False, vocab=13).double())


@fails("check_device_move", "a lazy module that a move to another maker's device makes a plain one")
def no_longer_lazy() -> None:
    model = nn.LazyLinear(3)
    before = take_inventory(model)
    raise_if(lost_in_move(before, take_inventory(model.to("meta"))), "model")
