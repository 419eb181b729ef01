"""Values at the start, and what nobody wrote."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import assert_init, assert_init_complete, assert_unchanged, init, part

from . import Call, Case, checking, done, remedy


@remedy("after the initialization: weight[*].zero_() under no_grad")
def zero_the_padding_row() -> Case:
    model = nn.Embedding(6, 64, padding_idx=2)
    nn.init.normal_(model.weight, std=0.02)

    def repair(hint: str) -> None:
        statement = hint.removeprefix("after the initialization: ").partition(" under")[0]
        with torch.no_grad():
            done(statement, weight=model.weight)
        assert int((model.weight == 0).all(1).sum()) == 1

    return Case(lambda: assert_init(model, {"weight": init.normal(0, 0.02)}), repair)


def padded(statement: str) -> Any:
    def factory() -> nn.Module:
        model = nn.Sequential(nn.Embedding(6, 8, padding_idx=2))
        nn.init.normal_(model[0].weight)
        with torch.no_grad():
            done(statement, weight=model[0].weight)
        return model

    return factory


@remedy("zero it after the initialization: weight[*].zero_()")
def zero_it() -> Case:
    return Case(
        checking("check_init_values", padded("pass")),
        lambda hint: checking("check_init_values", padded(hint.partition(": ")[2])),
    )


@remedy("leave norms out where weights are initialized: they start as ones")
def leave_norms_out() -> Case:
    def factory(norms: bool) -> Any:
        def build() -> nn.Module:
            model = nn.Sequential(nn.Linear(64, 64), nn.LayerNorm(64))
            for module in model:
                if norms or not isinstance(module, nn.LayerNorm):
                    nn.init.normal_(module.weight, std=0.02)  # type: ignore[arg-type]
            return model

        return build

    return Case(
        checking("check_init_values", factory(norms=True)),
        lambda hint: checking("check_init_values", factory(norms=False)),
    )


@remedy("initialize each layer separately, also those copied with deepcopy()")
def initialize_separately() -> Case:
    model = nn.Sequential(nn.Linear(8, 8, bias=False), nn.Linear(8, 8, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(model[0].weight)

    def repair(hint: str) -> None:
        model[1].reset_parameters()

    bound = 1 / math.sqrt(8)
    return Case(
        lambda: assert_init(model, {"*.weight": init.uniform(-bound, bound)}),
        repair,
        model,
        ("1.weight",),
    )


@remedy("these look like the values nn.* starts from: your initialization did not run")
def run_the_initialization() -> Case:
    model = nn.Linear(64, 64, bias=False)

    def repair(hint: str) -> None:
        nn.init.normal_(model.weight, std=0.02)

    return Case(lambda: assert_init(model, {"weight": init.normal(0, 0.02)}), repair)


@remedy("they fit *, of a weight stored (in, out), used as x @ w: if it is one, declare init.*")
def declare_the_layout() -> Case:
    weight = torch.empty(32, 128)
    nn.init.kaiming_normal_(weight.T)

    def repair(hint: str) -> Call:
        declared = eval(hint.partition("declare ")[2], {"init": init})
        return lambda: assert_init({"w": weight}, {"w": declared})

    return Case(lambda: assert_init({"w": weight}, {"w": init.kaiming_normal()}), repair)


class Forgets(nn.Module):
    """A scale that nobody writes, and one computed from memory that nobody wrote."""

    def __init__(self, written: bool, computed: bool) -> None:
        super().__init__()
        scale = torch.empty(64)
        if written:
            scale = torch.zeros(64)
        self.scale = nn.Parameter(scale * 2 if computed else scale)


@remedy("write it where it is made: nn.init.*, reset_parameters(), or torch.zeros")
def write_it() -> Case:
    return Case(
        lambda: assert_init_complete(lambda: Forgets(written=False, computed=False)),
        lambda hint: lambda: assert_init_complete(lambda: Forgets(written=True, computed=False)),
    )


@remedy("torch.empty() is not zeros: write every element before reading one")
def write_before_reading() -> Case:
    return Case(
        lambda: assert_init_complete(lambda: Forgets(written=False, computed=True)),
        lambda hint: lambda: assert_init_complete(lambda: Forgets(written=True, computed=True)),
    )


@remedy("bits differ where 0.0 became -0.0: with atol=1e-12 numbers are compared")
def compare_numbers() -> Case:
    def run(**options: Any) -> Call:
        def block() -> None:
            model = nn.Linear(4, 2, bias=False)
            with torch.no_grad():
                model.weight[:1] = -0.0
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            model(torch.ones(1, 4)).sum().backward()
            model.weight.grad[:1] = -0.0  # type: ignore[index]
            with assert_unchanged(model, part("weight", slice(1)), only="values", **options):
                optimizer.step()

        return block

    return Case(run(), lambda hint: run(atol=1e-12))


@remedy("*.max_norm = None keeps them as they are")
def no_max_norm() -> Case:
    model = nn.Sequential(nn.Embedding(6, 4, max_norm=0.1))

    def look_up() -> None:
        with assert_unchanged(model):
            model(torch.arange(6))

    def repair(hint: str) -> Any:
        done(hint.partition(" keeps")[0], model=model)
        return look_up

    return Case(look_up, repair, model)


@remedy("they fit fan_in *, which torch counts for a weight stored (out, in): *")
def draw_it_through_its_transpose() -> Case:
    weight = nn.Parameter(torch.empty(64, 256))
    nn.init.kaiming_normal_(weight)
    meant = {"weight": init.kaiming_normal(fan_in=64)}

    def repair(hint: str) -> None:
        assert hint.endswith("through its transpose, nn.init.*_(weight.t())")
        nn.init.kaiming_normal_(weight.t())

    return Case(lambda: assert_init({"weight": weight}, meant), repair)
