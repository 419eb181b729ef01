"""Ties lost, and memory shared where it must not be."""

from __future__ import annotations

import copy
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - what everybody calls it
import torch.nn.utils.parametrizations as parametrizations
from torch import Tensor, nn

from pytest_paramcheck import assert_same_ties, assert_tied, assert_untied

from ..models import LM, MLP, Scale
from . import asserted, bug, checked, tokens

LM_TIE = {"ties": [{"emb.weight", "head.weight"}]}


@bug(
    "ties",
    "tie replaced by an equal copy",
    checked("check_ties", **LM_TIE),
    "emb.weight",
    "head.weight",
)
def equal_copy(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        model.head.weight = nn.Parameter(model.emb.weight.detach().clone())
    return model


@bug(
    "ties",
    "tie by .data: two Parameters on one memory",
    checked("check_ties", **LM_TIE),
    "head.weight",
)
def aliased(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        model.head.weight = nn.Parameter(torch.empty(0))
        model.head.weight.data = model.emb.weight.data
    return model


@bug(
    "ties",
    "tie lost by load_state_dict(assign=True)",
    checked("check_ties", **LM_TIE),
    "head.weight",
)
def assign_load(planted: bool) -> nn.Module:
    model = LM()
    saved = {name: tensor.clone() for name, tensor in LM().state_dict().items()}
    model.load_state_dict(saved, assign=planted)
    return model


@bug("ties", "tie lost by a __deepcopy__ of its own", checked("check_deepcopy"), "head.weight")
def deepcopy_override(planted: bool) -> nn.Module:
    class Copied(LM):
        def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
            made = Copied()
            made.load_state_dict(self.state_dict())
            if planted:
                made.head.weight = nn.Parameter(made.head.weight.detach().clone())
            return made

    return Copied()


@bug(
    "ties",
    "weight_norm on one side of a tie",
    asserted(assert_tied, "emb.weight", "head.weight"),
    "emb.weight",
    "head.weight",
)
def weight_norm_one_side(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        parametrizations.weight_norm(model.head)
    return model


@bug("ties", "tie lost by to_empty() from meta", checked("check_ties", **LM_TIE), "head.weight")
def to_empty(planted: bool) -> nn.Module:
    with torch.device("meta"):
        model = LM()
    model.to_empty(device="cpu")
    if not planted:
        model.head.weight = model.emb.weight
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@bug(
    "ties",
    "tie lost when the embedding was resized",
    checked("check_ties", **LM_TIE),
    "head.weight",
)
def resized(planted: bool) -> nn.Module:
    model = LM()
    model.emb = nn.Embedding(13, 6)
    if not planted:
        model.head.weight = model.emb.weight
    return model


@bug(
    "ties",
    "one layer repeated where several were meant",
    checked("check_ties", ties=[]),
    "{0,2}",
)
def repeated(planted: bool) -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer if planted else nn.Linear(4, 4))


@bug("ties", "tie lost by a wrapper", asserted(assert_same_ties), "head.weight")
def wrapped(planted: bool) -> tuple[nn.Module, nn.Module]:
    before, after = LM(), LM()
    if planted:
        after.emb.weight = nn.Parameter(after.emb.weight.detach().clone())
    return before, after


@bug(
    "ties",
    "one use of a tied parameter detached",
    checked("check_tied_grads_sum", inputs=tokens),
    "head.weight",
)
def tied_use_detached(planted: bool) -> nn.Module:
    class Half(LM):
        def forward(self, ids: Tensor) -> Tensor:
            weight = self.head.weight.detach() if planted else self.head.weight
            return F.linear(torch.tanh(self.emb(ids)), weight)

    return Half()


@bug(
    "ties",
    "a hook that halves the gradient of a tied parameter",
    checked("check_tied_grads_sum", inputs=tokens),
    "head.weight",
)
def tied_hook(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        model.emb.weight.register_hook(lambda grad: grad / 2)
    return model


@bug(
    "sharing",
    "EMA that shares memory with its student",
    asserted(assert_untied),
    "#1.backbone.0.weight",
)
def ema_shares(planted: bool) -> tuple[nn.Module, nn.Module]:
    student = MLP()
    ema = copy.copy(student) if planted else copy.deepcopy(student)
    return student, ema


@bug(
    "sharing",
    "target network that shares one layer",
    asserted(assert_untied),
    "#1.head.bias",
    "#2.head.bias",
)
def target_shares(planted: bool) -> tuple[nn.Module, nn.Module]:
    online = MLP()
    target = copy.deepcopy(online)
    if planted:
        target.head = online.head
    return online, target


class Tied(nn.Module):
    """A head that computes with the embedding's weight."""

    def __init__(self, planted: bool) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        if planted:
            self.head: Any = lambda x: x @ self.emb.weight.t()

    def forward(self, ids: Tensor) -> Tensor:
        x = self.emb(ids)
        return self.head(x) if hasattr(self, "head") else x @ self.emb.weight.t()


@bug(
    "sharing",
    "copy that reads its original through a closure",
    checked("check_deepcopy"),
    "copy.head.self.emb.weight",
)
def reads_the_original(planted: bool) -> nn.Module:
    return Tied(planted)


@bug(
    "sharing",
    "checkpoint in memory that aliases the live model",
    asserted(assert_untied),
    "#1.backbone.0.weight",
)
def live_checkpoint(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    model = MLP()
    saved = model.state_dict()
    return model, saved if planted else copy.deepcopy(saved)


@bug("sharing", "slices of a flat buffer that overlap by one", checked("check_distinct"), "a", "b")
def overlapping_slices(planted: bool) -> nn.Module:
    flat, model = torch.randn(8), nn.Module()
    model.a = nn.Parameter(flat[:4])
    model.b = nn.Parameter(flat[3:7] if planted else flat[4:])
    return model


@bug("sharing", "expanded parameter that overlaps itself", asserted(assert_untied), "scale")
def expanded(planted: bool) -> nn.Module:
    value = torch.ones(1).expand(4)
    return Scale(nn.Parameter(value if planted else value.clone()))
