"""Values that nobody drew, or drew wrongly."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from pytest_paramcheck import assert_init, init

from ..models import MLP, Scale
from . import asserted, bug, checked, rows


@bug("values", "torch.empty that nobody fills", checked("check_init_complete"), "scale")
def uninitialized(planted: bool) -> nn.Module:
    return Scale(nn.Parameter(torch.empty(64) if planted else torch.ones(64)))


@bug("values", "embedding initialized by half", checked("check_init_complete"), "emb.weight")
def half_initialized(planted: bool) -> nn.Module:
    model = nn.Module()
    table = torch.empty(16, 8)
    nn.init.normal_(table[:8] if planted else table)
    model.emb = nn.Embedding(16, 8, _weight=table)
    return model


@bug("values", "buffer forgotten after to_empty()", checked("check_init_complete"), "running_mean")
def forgotten_buffer(planted: bool) -> nn.Module:
    model = nn.BatchNorm1d(32, device="meta").to_empty(device="cpu")
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    if not planted:
        model.reset_running_stats()
    return model


@bug(
    "values", "layers stacked as copies of one another", checked("check_distinct"), "{0..2}.weight"
)
def stacked_copies(planted: bool) -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(*(copy.deepcopy(layer) if planted else nn.Linear(4, 4) for _ in range(3)))


@bug("values", "layers drawn from the same seed", checked("check_distinct"), "blocks.{0,1}")
def same_seed(planted: bool) -> nn.Module:
    model = nn.Module()
    model.blocks = nn.ParameterList()
    for number in range(2):
        generator = torch.Generator("cpu").manual_seed(0 if planted else number)
        model.blocks.append(nn.Parameter(torch.randn(4, 4, generator=generator)))
    return model


@bug("values", "NaN at the start", checked("check_finite"), "scale")
def nan_at_start(planted: bool) -> nn.Module:
    return Scale(nn.Parameter(torch.tensor([0.0, 1.0]) / (0.0 if planted else 1.0)))


DRAWN = {"*.weight": init.normal(0, 0.02), "*.bias": init.zeros()}


def drawn(weight_std: float = 0.02, bias: float = 0.0) -> nn.Module:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    for layer in model:
        nn.init.normal_(layer.weight, 0, weight_std)
        nn.init.constant_(layer.bias, bias)
    return model


@bug("values", "wrong standard deviation", asserted(assert_init, DRAWN), "{0,1}.weight")
def wrong_std(planted: bool) -> nn.Module:
    return drawn(weight_std=0.2 if planted else 0.02)


@bug("values", "bias not zero", asserted(assert_init, DRAWN), "{0,1}.bias")
def wrong_bias(planted: bool) -> nn.Module:
    return drawn(bias=0.1 if planted else 0.0)


@bug(
    "values",
    "padding row overwritten by the init",
    asserted(assert_init, {"weight": init.normal()}),
    "weight",
)
def padding_row(planted: bool) -> nn.Module:
    model = nn.Embedding(64, 8, padding_idx=0)
    nn.init.normal_(model.weight)
    if not planted:
        nn.init.zeros_(model.weight.data[0])
    return model


@bug(
    "values", "construction that the seed does not decide", checked("check_deterministic"), "scale"
)
def unseeded(planted: bool) -> nn.Module:
    generator = torch.Generator("cpu")
    if planted:
        generator.seed()
    return Scale(nn.Parameter(torch.randn(8, generator=generator)))


@bug(
    "values",
    "forward in eval that changes state",
    checked("check_eval_unchanged", inputs=rows),
    "seen",
)
def changes_in_eval(planted: bool) -> nn.Module:
    class Counting(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            if planted or self.training:
                self.seen += len(x)
            return super().forward(x)

    return Counting()


@bug(
    "values",
    "buffer that goes on counting in eval mode",
    checked("check_eval_unchanged", inputs=rows),
    "calls",
)
def counts_in_eval(planted: bool) -> nn.Module:
    class Counted(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if planted or not hasattr(self, "calls"):  # the twin fills a cache once
                calls = getattr(self, "calls", torch.zeros(())) + 1
                self.register_buffer("calls", calls, persistent=False)
            return super().forward(x) * self.calls.clamp(max=1)

    return Counted(4, 2)


@bug(
    "values",
    "first forward that draws the weights, whatever was loaded",
    checked("check_eval_unchanged", inputs=rows),
    "weight",
)
def drawn_by_a_forward(planted: bool) -> nn.Module:
    class Late(nn.Linear):
        ready = False

        def forward(self, x: Tensor) -> Tensor:
            if planted and not self.ready:
                nn.init.orthogonal_(self.weight)
                self.ready = True
            elif not planted:  # the twin cuts each row to a largest norm, in each forward
                self.weight.data = torch.renorm(self.weight.data, 2, 0, 0.25)
            return super().forward(x)

    return Late(4, 2)


@bug(
    "values",
    "copied layers beside tables that are equal on purpose",
    checked("check_distinct"),
    "layers.{0,1}.weight",
)
def copied_beside_tables(planted: bool) -> nn.Module:
    model = nn.Module()
    model.slopes, model.decays = (nn.Parameter(torch.arange(4.0)) for _ in range(2))
    layer = nn.Linear(4, 4)
    # A frozen copy is the teacher of the first.
    model.layers = nn.ModuleList([layer, copy.deepcopy(layer).requires_grad_(planted)])
    return model
