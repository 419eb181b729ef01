"""Shapes, dtypes, devices, counts and names."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import assert_dtypes, assert_manifest, assert_param_count, assert_shapes

from ..models import MLP, Scale
from . import Catch, asserted, bug, checked, rows


@bug(
    "structure", "parameter left on meta", checked("check_materialized"), "head.weight", "head.bias"
)
def left_on_meta(planted: bool) -> nn.Module:
    model = MLP()
    model.head = nn.Linear(4, 2, device="meta" if planted else "cpu")
    return model


@bug("structure", "lazy layer that saw no forward pass", checked("check_materialized"), "0.weight")
def left_lazy(planted: bool) -> nn.Module:
    model = nn.Sequential(nn.LazyLinear(2))
    if not planted:
        model(rows())
    return model


@bug("structure", "buffer in numpy's float64", asserted(assert_dtypes, torch.float32), "table")
def wrong_dtype(planted: bool) -> nn.Module:
    model = MLP()
    dtype = torch.float64 if planted else torch.float32
    model.register_buffer("table", torch.arange(4, dtype=dtype))
    return model


@bug(
    "structure",
    "weight stored transposed",
    checked("check_shapes", shapes={"w": (4, 3), "b": (3,)}),
    "w",
)
def transposed(planted: bool) -> nn.Module:
    model = nn.Module()
    model.w = nn.Parameter(torch.randn(4, 3).T if planted else torch.randn(4, 3))
    model.b = nn.Parameter(torch.zeros(3))
    return model


@bug(
    "structure",
    "scalar turned into one element",
    asserted(assert_shapes, {"scale": ()}, partial=True),
    "scale",
)
def one_element(planted: bool) -> nn.Module:
    return Scale(nn.Parameter(torch.ones(1) if planted else torch.ones(())))


# A total is of no parameter in particular: the model is what can be named.
@bug("structure", "number of parameters changed", asserted(assert_param_count, 30), "MLP")
def count_changed(planted: bool) -> nn.Module:
    model = MLP()
    if planted:
        model.head = nn.Linear(4, 3)
    return model


def manifest_of(reference: Callable[[], nn.Module]) -> Catch:
    """Caught by the manifest of the model as it was."""

    def run(factory: Callable[[], Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.txt"
            assert_manifest(reference(), path=path, update=True)
            assert_manifest(factory(), path=path)

    return Catch("assert_manifest", run)


def two(first: str, second: str, *, persistent: bool = True) -> nn.Module:
    model = nn.ModuleDict({first: nn.Linear(4, 4), second: nn.Linear(4, 4)})
    model.register_buffer("table", torch.ones(3), persistent=persistent)
    return model


@bug(
    "structure",
    "modules reordered: optimizer checkpoints go by position",
    manifest_of(lambda: two("a", "b")),
    "a.weight",
)
def reordered(planted: bool) -> nn.Module:
    return two("b", "a") if planted else two("a", "b")


@bug(
    "structure",
    "module renamed: checkpoints do not load",
    manifest_of(lambda: two("a", "b")),
    "b.weight",
)
def renamed(planted: bool) -> nn.Module:
    return two("a", "c" if planted else "b")


@bug("structure", "buffer no longer saved", manifest_of(lambda: two("a", "b")), "table")
def no_longer_saved(planted: bool) -> nn.Module:
    return two("a", "b", persistent=not planted)


_ACTIVATION = nn.PReLU()


@bug(
    "structure",
    "activation made once, in a default argument",
    checked("check_built_anew"),
    "1.weight",
)
def made_once(planted: bool) -> nn.Module:
    def build(activation: nn.Module = _ACTIVATION) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), activation)

    return build() if planted else build(nn.PReLU())
