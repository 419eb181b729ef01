"""Parameters and buffers that the model does not know of."""

from __future__ import annotations

import torch
from torch import nn

from pytest_paramcheck import assert_devices, assert_dtypes, assert_registered

from ..models import MLP, Scale
from . import asserted, bug, checked


@bug("registered", "layers in a Python list", checked("check_registered"), "layers[{0,1}].weight")
def in_list(planted: bool) -> nn.Module:
    model, layers = MLP(), [nn.Linear(4, 4), nn.Linear(4, 4)]
    model.layers = layers if planted else nn.ModuleList(layers)
    return model


@bug("registered", "heads in a dict", checked("check_registered"), "heads['a'].weight")
def in_dict(planted: bool) -> nn.Module:
    model, heads = MLP(), {"a": nn.Linear(4, 2)}
    model.heads = heads if planted else nn.ModuleDict(heads)
    return model


@bug(
    "registered",
    "parameter in an object that is no module",
    checked("check_registered"),
    "adapter.scale",
)
def in_object(planted: bool) -> nn.Module:
    class Adapter:
        pass

    model, adapter = MLP(), Adapter()
    adapter.scale = nn.Parameter(torch.ones(4))  # type: ignore[attr-defined]
    if not planted:
        model.register_parameter("scale", adapter.scale)  # type: ignore[attr-defined]
    model.adapter = adapter
    return model


@bug(
    "registered",
    "parameter that only a closure holds",
    checked("check_registered"),
    "between.scale",
)
def in_closure(planted: bool) -> nn.Module:
    scale = nn.Parameter(torch.ones(4))
    model = MLP(lambda x: x * scale)
    if not planted:
        model.scale = scale
    return model


@bug(
    "registered",
    "plain tensor that should be a buffer",
    asserted(assert_registered, tensors=True),
    "scale",
)
def plain_tensor(planted: bool) -> nn.Module:
    model = Scale()
    if planted:
        model.scale = torch.arange(4.0)
    else:
        model.register_buffer("scale", torch.arange(4.0))
    return model


@bug(
    "registered", "tensor that .to() leaves behind", asserted(assert_dtypes, torch.float64), "scale"
)
def left_behind(planted: bool) -> nn.Module:
    return plain_tensor(planted).double()


@bug("registered", "tensor that stays on its device", asserted(assert_devices, "meta"), "scale")
def left_on_device(planted: bool) -> nn.Module:
    return plain_tensor(planted).to("meta")
