"""Registration, placement, shapes, counts and moves."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    assert_devices,
    assert_dtypes,
    assert_manifest,
    assert_materialized,
    assert_param_count,
    assert_registered,
    assert_shapes,
)
from pytest_paramcheck.checks.moves import lost_in_move
from pytest_paramcheck.messages.errors import raise_if
from pytest_paramcheck.parameters.subject.reading import take_inventory

from ..models import MLP
from . import Call, Case, asking, checking, done, remedy
from .models import ROW, loss

# --- not registered -----------------------------------------------------------------------------


class Holder:
    """An object that is not a module, and holds a parameter or a layer."""

    def __init__(self, held: Any) -> None:
        self.held = held


def holding(**attributes: Any) -> nn.Module:
    model = MLP()
    for name, value in attributes.items():
        model.__dict__[name] = value
    return model


def registered(value: Any, **attributes: Any) -> Case:
    """Assign to the model what the hint says, its ``...`` being what was there."""
    model = holding(**attributes)

    def repair(hint: str) -> None:
        for name in attributes:
            del model.__dict__[name]
        done(hint.partition(", persistent")[0].replace("...", "value"), self=model, value=value)

    return Case(lambda: assert_registered(model, tensors=True), repair, model)


@remedy("* = nn.ModuleList(...)")
def module_list() -> Case:
    layers = [nn.Linear(2, 2), nn.Linear(2, 2)]
    return registered(layers, layers=layers)


@remedy("* = nn.ModuleDict(...)")
def module_dict() -> Case:
    heads = {"a": nn.Linear(2, 2)}
    return registered(heads, heads=heads)


@remedy("* = nn.ParameterList(...)")
def parameter_list() -> Case:
    scales = [nn.Parameter(torch.ones(2))]
    return registered(scales, scales=scales)


@remedy("* = nn.ParameterDict(...)")
def parameter_dict() -> Case:
    scales = {"a": nn.Parameter(torch.ones(2))}
    return registered(scales, scales=scales)


@remedy("* = nn.Parameter(...)")
def a_leaf() -> Case:
    leaf = torch.ones(2, requires_grad=True)
    return registered(leaf.detach(), leaf=leaf)


@remedy("self.register_buffer(*, ...)")
def a_buffer() -> Case:
    scale = torch.ones(2)
    return registered(scale, scale=scale)


@remedy("keep the parameter in an attribute of the module too: self.name = ...")
def in_an_attribute() -> Case:
    model = holding(held=Holder(nn.Parameter(torch.ones(2))))

    def repair(hint: str) -> None:
        model.name = model.__dict__["held"].held

    return Case(lambda: assert_registered(model), repair, model)


@remedy("keep the module in an attribute of the module too: self.name = ...")
def module_in_an_attribute() -> Case:
    model = holding(held=Holder(nn.Linear(2, 2)))

    def repair(hint: str) -> None:
        model.name = model.__dict__["held"].held

    return Case(lambda: assert_registered(model), repair, model)


@remedy("assign * as a module: after super().__init__(), not through __dict__")
def assign_as_a_module() -> Case:
    model = holding(layer=nn.Linear(2, 2))

    def repair(hint: str) -> None:
        layer = model.__dict__.pop("layer")
        model.layer = layer

    return Case(lambda: assert_registered(model), repair, model)


@remedy("create it per instance, in __init__: * = ...")
def per_instance() -> Case:
    class Shared(nn.Linear):
        scale = nn.Parameter(torch.ones(2))

    class Own(nn.Linear):
        def __init__(self) -> None:
            super().__init__(2, 2)
            self.scale = nn.Parameter(torch.ones(2))

    return Case(
        lambda: assert_registered(Shared(2, 2)), lambda hint: lambda: assert_registered(Own())
    )


@remedy("convert first, then wrap: nn.Parameter(x.to(...)), not nn.Parameter(x).to(...)")
def convert_then_wrap() -> Case:
    x = torch.ones(2)
    held = nn.Parameter(x).to(torch.float64)

    def repair(hint: str) -> Call:
        made = eval("nn.Parameter(x.to(torch.float64))", {"nn": nn, "x": x, "torch": torch})
        model = MLP()
        model.scale = made
        return lambda: assert_registered(model)

    return Case(lambda: assert_registered(holding(scale=held)), repair)


@remedy("create it once, in __init__: self.weight = nn.Parameter(...)")
def create_once() -> Case:
    model = MLP()

    def fresh(model: nn.Module) -> Tensor:
        return loss(model) * nn.Parameter(torch.ones(()))

    def repair(hint: str) -> Call:
        done(hint.partition(": ")[2].replace("...", "torch.ones(())"), self=model)
        return lambda: assert_registered(model, lambda m: loss(m) * m.weight)

    return Case(lambda: assert_registered(model, fresh), repair, model)


@remedy("assign its module to an attribute of the model; *")
def assign_its_module() -> Case:
    model, scale = MLP(), nn.Linear(2, 2)

    def run(of: nn.Module) -> Tensor:
        total: Tensor = scale(of(ROW)).sum()
        return total

    def repair(hint: str) -> Call:
        assert_registered(model, run, allow=[scale])
        model.scale = scale
        return lambda: assert_registered(model, run)

    return Case(lambda: assert_registered(model, run), repair, model)


@remedy("assign it to an attribute of the module that uses it: self.weight = nn.Parameter(...)")
def assign_to_an_attribute() -> Case:
    model = MLP()

    def repair(hint: str) -> Call:
        model.weight = _kept()
        return lambda: assert_registered(model, lambda m: loss(m) * m.weight)

    return Case(lambda: assert_registered(model, lambda m: loss(m) * _kept()), repair, model)


_KEPT = [nn.Parameter(torch.ones(()))]


def _kept() -> nn.Parameter:
    return getattr(Holder, "parameter", _KEPT[0])


@remedy("assert_registered(model, tensors=True) says how to register it")
def registered_says_how() -> Case:
    model = holding(tables=[torch.ones(2)])
    said = asking(lambda: assert_registered(model, tensors=True), "tables[0]", "hint: ")
    return Case(lambda: assert_dtypes(model, torch.float64), said)


@remedy("assert_registered(model) says how to register what .to() leaves behind")
def registered_says_how_of_modules() -> Case:
    model = holding(layers=[nn.Linear(2, 2)])
    said = asking(lambda: assert_registered(model), "self.layers = nn.ModuleList(...)")
    return Case(lambda: assert_dtypes(model.double(), torch.float64), said)


@remedy("self.register_buffer(*, ...), persistent=False if not saved")
def register_what_moves() -> Case:
    model = holding(scale=torch.ones(2)).to("meta")

    def repair(hint: str) -> Call:
        scale = model.__dict__.pop("scale")
        done(hint.partition(", persistent")[0].replace("...", "scale"), self=model, scale=scale)
        return lambda: assert_devices(model.to("meta"), "meta")

    return Case(lambda: assert_devices(model, "meta"), repair)


@remedy("keep no second reference to *: look it up where it is used")
def no_second_reference() -> Case:
    model = nn.BatchNorm1d(3)
    model.__dict__["cached"] = [model.running_mean]

    def repair(hint: str) -> None:
        del model.__dict__["cached"]

    return Case(lambda: assert_dtypes(model.double(), torch.float64), repair)


@remedy("keep tensors out of it, or name it in allow=")
def keep_tensors_out() -> Case:
    model = holding(rows=[object()] * 1_000_001)

    def repair(hint: str) -> Call:
        assert_registered(model, allow=["rows"])
        del model.__dict__["rows"]
        return lambda: assert_registered(model)

    return Case(lambda: assert_registered(model), repair)


# --- materialized, shapes, counts ---------------------------------------------------------------


@remedy("model.to_empty(device=...), then initialize or load every parameter")
def all_to_empty() -> Case:
    model = nn.Sequential(nn.Linear(2, 2)).to("meta")

    def repair(hint: str) -> None:
        done(hint.partition(", then")[0].replace("...", "'cpu'"), model=model)

    return Case(lambda: assert_materialized(model), repair)


@remedy("*, then initialize or load it; model.to_empty() would erase * with values")
def only_what_is_on_meta() -> Case:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].to("meta")

    def repair(hint: str) -> None:
        done(hint.partition(", then")[0].replace("device=...", "device='cpu'"), model=model)

    return Case(lambda: assert_materialized(model), repair, model)


@remedy("to_empty() and .to() do not see plain attributes: register_buffer it")
def register_what_is_on_meta() -> Case:
    model = holding(scale=torch.ones(2, device="meta"))

    def repair(hint: str) -> None:
        del model.__dict__["scale"]
        model.register_buffer("scale", torch.ones(2, device="meta"))
        model.to_empty(device="cpu")

    return Case(lambda: assert_materialized(model), repair)


@remedy("run one forward pass: it gives lazy parameters their shape and values")
def lazy_values() -> Case:
    model = nn.LazyLinear(2)

    def repair(hint: str) -> None:
        model(torch.ones(1, 3))

    return Case(lambda: assert_materialized(model), repair)


@remedy("run a forward pass first: it gives a lazy parameter its shape")
def lazy_shape() -> Case:
    model = nn.LazyLinear(2)

    def repair(hint: str) -> None:
        model(torch.ones(1, 3))

    return Case(lambda: assert_shapes(model, {"weight": (2, 3), "bias": (2,)}), repair)


@remedy("run one forward pass first: it gives lazy parameters their shape")
def lazy_count() -> Case:
    model = nn.LazyLinear(2)

    def repair(hint: str) -> None:
        model(torch.ones(1, 3))

    return Case(lambda: assert_param_count(model, total=8), repair)


@remedy("if the model was sharded, gather its parameters before saving them")
def gather_first() -> Case:
    whole = nn.Linear(2, 2).state_dict()
    sharded = {**whole, "weight": torch.empty(0)}
    return Case(
        lambda: assert_materialized(sharded), lambda hint: lambda: assert_materialized(whole)
    )


@remedy("declare it, or pass partial=True if the others do not matter here")
def declare_the_shape() -> Case:
    model = nn.Linear(3, 2)
    return Case(
        lambda: assert_shapes(model, {"weight": (2, 3)}),
        lambda hint: (
            lambda: (
                assert_shapes(model, {"weight": (2, 3), "bias": (2,)}),
                assert_shapes(model, {"weight": (2, 3)}, partial=True),
            )
        ),
    )


# --- manifests ----------------------------------------------------------------------------------


def manifest(folder: Path, *, write: bool) -> Case:
    path = folder / "model.txt"
    if write:
        assert_manifest(nn.Linear(3, 4), path=path, update=True)
    model = nn.Linear(3, 2)

    def repair(hint: str) -> None:
        assert "assert_manifest(..., update=True)" in hint
        assert_manifest(model, path=path, update=True)

    return Case(lambda: assert_manifest(model, path=path), repair, model)


@remedy("create it: *, then review and commit it")
def create_the_manifest(folder: Path) -> Case:
    return manifest(folder, write=False)


@remedy("if intended: * rewrites *; commit it")
def rewrite_the_manifest(folder: Path) -> Case:
    return manifest(folder, write=True)


# --- moves --------------------------------------------------------------------------------------


class Stays(nn.Linear):
    """Keeps a buffer where it is when it is moved."""

    right = False

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.register_buffer("scale", torch.ones(2))

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        scale = self.scale
        super()._apply(fn, recurse)
        if not self.right:
            self.scale = scale
        return self


class Follows(Stays):
    right = True


@remedy("apply fn to it as well: super()._apply(fn) does")
def apply_to_all() -> Case:
    return Case(
        checking("check_dtype_move", Stays), lambda hint: checking("check_dtype_move", Follows)
    )


class Turns(nn.Module):
    """A complex buffer, or its two parts."""

    def __init__(self, real: bool) -> None:
        super().__init__()
        turns = torch.ones(3, dtype=torch.complex64)
        self.register_buffer("turns", torch.view_as_real(turns) if real else turns)
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, x: Tensor) -> Tensor:
        turns = self.turns
        turns = turns if turns.is_complex() else torch.view_as_complex(turns.float())
        return (x * self.scale * turns).abs()


@remedy("register torch.view_as_real(...) of it, and view_as_complex() it in forward()")
def view_as_real() -> Case:
    return Case(
        checking("check_dtype_move", lambda: Turns(real=False)),
        lambda hint: checking("check_dtype_move", lambda: Turns(real=True)),
    )


@remedy("move the model after its first forward, or build it on the device")
def move_after_forward() -> Case:
    def moved(run_first: bool) -> Call:
        def call() -> None:
            model = nn.LazyLinear(2)
            if run_first:
                model(torch.ones(1, 3))
            before = take_inventory(model)
            raise_if(lost_in_move(before, take_inventory(model.to("meta"))), "model")

        return call

    return Case(moved(run_first=False), lambda hint: moved(run_first=True))


class Gate(nn.Module):
    """A weight computed once, or in each forward pass."""

    def __init__(self, once: bool) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(3))
        if once:
            self.gate = self.logits.sigmoid()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x * (self.gate if hasattr(self, "gate") else self.logits.sigmoid())
        return output


@remedy("compute * in forward(), or detach() it where it is to stay as it is")
def compute_in_forward() -> Case:
    x = torch.ones(1, 3)
    return Case(
        checking("check_grads_reach", lambda: Gate(once=True), inputs=x),
        lambda hint: checking("check_grads_reach", lambda: Gate(once=False), inputs=x),
    )


@remedy("make it with a function that follows the default device *")
def follow_the_default_device() -> Case:
    def factory(**where: Any) -> Any:
        def build() -> nn.Module:
            model = nn.Linear(3, 2)
            model.shift = nn.Parameter(torch.zeros(2, **where))
            return model

        return build

    return Case(
        checking("check_default_device", factory(device="meta")),
        lambda hint: checking("check_default_device", factory()),
    )


class Resets(nn.Linear):
    """Draws a scale of its own in the constructor, and in reset_parameters() too."""

    everything = False

    def __init__(self) -> None:
        super().__init__(3, 2)
        self.scale = nn.Parameter(torch.randn(2))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if self.everything and hasattr(self, "scale"):
            nn.init.normal_(self.scale)


class ResetsAll(Resets):
    everything = True


@remedy("let it write every parameter that trains: a model built on meta has nothing else")
def reset_everything() -> Case:
    return Case(
        checking("check_reset_parameters", Resets),
        lambda hint: checking("check_reset_parameters", ResetsAll),
    )
