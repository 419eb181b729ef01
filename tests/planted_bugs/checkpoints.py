"""Loads that only look right, and saves that leave something out."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import assert_loaded, assert_same_values

from ..models import MLP
from . import asserted, bug, checked


def saved_mlp() -> dict[str, Tensor]:
    return copy.deepcopy(MLP().state_dict())


@bug(
    "checkpoints",
    "checkpoint loaded by half (strict=False)",
    asserted(assert_loaded),
    "head.weight",
    "head.bias",
)
def half_loaded(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    loaded = {k: v for k, v in saved.items() if not (planted and k.startswith("head"))}
    model.load_state_dict(loaded, strict=False)
    return model, saved


@bug(
    "checkpoints",
    "checkpoint with the prefix of a wrapper",
    asserted(assert_loaded),
    "module.head.weight",
)
def prefixed(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    if planted:
        saved = {f"module.{name}": tensor for name, tensor in saved.items()}
    model.load_state_dict(saved, strict=False)
    return model, saved


@bug("checkpoints", "key renamed since it was saved", asserted(assert_loaded), "fc.weight")
def renamed_key(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    if planted:
        saved["fc.weight"] = saved.pop("head.weight")
    model.load_state_dict(saved, strict=False)
    return model, saved


@bug("checkpoints", "load that broadcasts another shape", asserted(assert_loaded), "head.bias")
def broadcast_load(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    if planted:
        saved["head.bias"] = saved["head.bias"][:1]
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(saved[name])
    return model, saved


@bug(
    "checkpoints",
    "square weight that a converter forgot to transpose",
    asserted(assert_loaded),
    "weight",
)
def not_transposed(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    model = nn.Linear(4, 4)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if planted:
        model.load_state_dict({**saved, "weight": saved["weight"].T})
    return model, saved


@bug(
    "checkpoints",
    "gates of an LSTM in the order of another library",
    asserted(assert_loaded),
    "weight_ih_l0",
    "bias_hh_l0",
)
def gates_reordered(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    def to_theirs(tensor: Tensor) -> Tensor:
        i, f, g, o = tensor.chunk(4)
        return torch.cat([i, g, f, o])

    model = nn.LSTM(3, 2)
    saved = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    if planted:
        model.load_state_dict({name: to_theirs(tensor) for name, tensor in saved.items()})
    return model, saved


@bug(
    "checkpoints",
    "checkpoint rounded to bfloat16 on the way",
    asserted(assert_same_values),
    "head.weight",
)
def rounded(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    way = torch.bfloat16 if planted else torch.float32
    model.load_state_dict({name: tensor.to(way) for name, tensor in saved.items()})
    return model, saved


@bug(
    "checkpoints",
    "module that leaves a parameter out of its state_dict",
    checked("check_state_dict_roundtrip"),
    "head.bias",
)
def not_saved(planted: bool) -> nn.Module:
    class Lean(nn.Linear):
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            if planted:
                del destination[f"{prefix}bias"]

    model = MLP()
    model.head = Lean(4, 2)
    return model


@bug(
    "checkpoints",
    "layer initialized again after the load",
    checked("check_torch_save_roundtrip"),
    "head.weight",
)
def initialized_again(planted: bool) -> nn.Module:
    model = MLP()
    # A hook that a deep copy takes along refers to the module it is given, not to the model.
    model.head.register_load_state_dict_post_hook(
        lambda module, keys: module.reset_parameters() if planted else None
    )
    return model
