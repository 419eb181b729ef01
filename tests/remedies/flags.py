"""What is frozen, what trains."""

from __future__ import annotations

import torch
from torch import nn

from pytest_paramcheck import (
    assert_frozen,
    assert_trainable,
    assert_unchanged,
)

from ..models import MLP
from . import Call, Case, done, remedy


@remedy("freeze it: requires_grad_(False)")
def freeze() -> Case:
    model = MLP()

    def repair(hint: str) -> None:
        done(f"model.backbone.{hint.removeprefix('freeze it: ')}", model=model)

    return Case(lambda: assert_frozen(model, "backbone"), repair, model)


@remedy("let it train: requires_grad_(True)")
def let_train() -> Case:
    model = MLP().requires_grad_(False)

    def repair(hint: str) -> None:
        done(f"model.head.{hint.removeprefix('let it train: ')}", model=model)

    return Case(lambda: assert_trainable(model, "head"), repair, model)


@remedy("*; if this is intended, list it")
def list_it() -> Case:
    model = MLP()
    model.head.requires_grad_(False)
    return Case(
        lambda: assert_frozen(model, exactly=[]),
        lambda hint: lambda: assert_frozen(model, exactly=["head"]),
        model,
    )


@remedy("freeze it: requires_grad_(False); if this is intended, list it")
def freeze_or_list() -> Case:
    model = MLP()
    assert_trainable(model, exactly=["head", "backbone"])

    def repair(hint: str) -> None:
        model.backbone.requires_grad_(False)

    return Case(lambda: assert_trainable(model, exactly=["head"]), repair, model)


@remedy("convert it before it is made a parameter: nn.Parameter(x.float())")
def convert() -> Case:
    x = torch.arange(3)

    def repair(hint: str) -> Call:
        made = eval(hint.rpartition(": ")[2], {"nn": nn, "x": x})
        return lambda: assert_trainable({"codes": made})

    codes = nn.Parameter(x, requires_grad=False)
    return Case(lambda: assert_trainable({"codes": codes}), repair)


def made_in_inference_mode() -> nn.Module:
    with torch.inference_mode():
        return nn.Linear(4, 2)


@remedy("build the model outside torch.inference_mode()")
def outside_inference_mode() -> Case:
    return Case(
        lambda: assert_trainable(made_in_inference_mode()),
        lambda hint: lambda: assert_trainable(nn.Linear(4, 2)),
    )


@remedy("*.eval() after every model.train()")
def eval_after_train() -> Case:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2))
    model[0].requires_grad_(False)

    def repair(hint: str) -> None:
        done(hint.partition(" after")[0], model=model)

    return Case(lambda: assert_frozen(model, "0", in_eval=True), repair, model)


@remedy("*.eval() after every model.train() keeps the statistics of *; requires_grad does not")
def keep_statistics() -> Case:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))

    def call() -> None:
        with assert_unchanged(model, "0", only="values"):
            model(torch.rand(4, 3))

    def repair(hint: str) -> None:
        done(hint.partition(" after every")[0], model=model)
        assert [module.training for module in model] == [False, True, True]

    return Case(call, repair)
