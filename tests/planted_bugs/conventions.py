"""Models that are not what their modules promise."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..models import LM, MLP
from . import bug, checked


@bug(
    "initialization",
    "padding row written by an initializer",
    checked("check_init_values"),
    "emb.weight",
)
def padding_row_written(planted: bool) -> nn.Module:
    model = nn.ModuleDict({"emb": nn.Embedding(7, 4, padding_idx=0)})
    nn.init.normal_(model["emb"].weight, std=0.02)
    if not planted:
        with torch.no_grad():
            model["emb"].weight[0].zero_()
    return model


@bug(
    "initialization",
    "padding row before a GRU drawn anew by a loop over all parameters",
    checked("check_init_values"),
    "emb.weight",
)
def padding_row_of_a_loop(planted: bool) -> nn.Module:
    model = nn.ModuleDict({"emb": nn.Embedding(7, 4, padding_idx=3), "rnn": nn.GRU(4, 4)})
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1 and (planted or name != "emb.weight"):
            nn.init.xavier_uniform_(parameter)
    return model


@bug(
    "initialization",
    "norm scales drawn around zero by a loop over all parameters",
    checked("check_init_values"),
    "norm.weight",
)
def norm_scale_drawn(planted: bool) -> nn.Module:
    model = nn.ModuleDict({"lin": nn.Linear(4, 64), "norm": nn.LayerNorm(64)})
    for name, parameter in model.named_parameters():
        if planted or "norm" not in name:
            nn.init.normal_(parameter, std=0.02)
    return model


class RMSNorm(nn.Module):
    def __init__(self, width: int, drawn: bool) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(width) if drawn else torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 + self.scale)


@bug(
    "initialization",
    "scale of a norm of one's own made by torch.randn",
    checked("check_init_values"),
    "1.scale",
)
def own_norm_drawn(planted: bool) -> nn.Module:
    return nn.Sequential(nn.Linear(4, 64), RMSNorm(64, drawn=planted))


class Configured(LM):
    """An LM with a config and methods as transformers has them."""

    def __init__(self, *, says: bool, tied: bool) -> None:
        super().__init__(tied=tied)
        self.config = SimpleNamespace(tie_word_embeddings=says)

    def get_input_embeddings(self) -> Any:
        return self.emb

    def get_output_embeddings(self) -> Any:
        return self.head


@bug(
    "ties",
    "head that config.tie_word_embeddings promises to be tied",
    checked("check_ties"),
    "emb.weight",
    "head.weight",
)
def head_is_not_tied(planted: bool) -> nn.Module:
    return Configured(says=True, tied=not planted)


@bug(
    "ties",
    "head tied though config.tie_word_embeddings is False",
    checked("check_ties"),
    "emb.weight",
    "head.weight",
)
def head_is_tied(planted: bool) -> nn.Module:
    return Configured(says=False, tied=planted)


@bug(
    "ties",
    "[layer] * 3, undeclared: one layer three times",
    checked("check_ties"),
    "{0..2}",
)
def one_layer_three_times(planted: bool) -> nn.Module:
    return nn.ModuleList([nn.Linear(4, 4)] * 3 if planted else [nn.Linear(4, 4) for _ in range(3)])


@bug(
    "ties",
    "[block, act] * 2 in a Sequential",
    checked("check_ties"),
    "{0,2}",
)
def one_block_twice(planted: bool) -> nn.Module:
    pair = [nn.Conv2d(1, 1, 3), nn.ReLU()]
    return nn.Sequential(*pair, *(pair if planted else [nn.Conv2d(1, 1, 3), nn.ReLU()]))


class Scaled(nn.Linear):
    """A layer with a scale, which its reset writes or forgets."""

    def __init__(self, resets: bool) -> None:
        super().__init__(4, 3)
        self.resets = resets
        self.scale = nn.Parameter(torch.ones(3))

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if getattr(self, "resets", False):
            nn.init.ones_(self.scale)


@bug(
    "resets",
    "reset_parameters() that forgets a parameter of its own",
    checked("check_reset_parameters"),
    "0.scale",
)
def reset_forgets_a_parameter(planted: bool) -> nn.Module:
    return nn.Sequential(Scaled(resets=not planted), nn.Linear(3, 3))


class Resetting(MLP):
    """Resets its layers one by one, all or all but the head."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole

    def reset_parameters(self) -> None:
        layers: list[Any] = [self.backbone[0], *([self.head] if self.whole else [])]
        for layer in layers:
            layer.reset_parameters()


@bug(
    "resets",
    "reset_parameters() that forgets a layer",
    checked("check_reset_parameters"),
    "head.weight",
    "head.bias",
)
def reset_forgets_a_layer(planted: bool) -> nn.Module:
    return Resetting(whole=not planted)


class Experts(nn.Module):
    """Experts in one tensor, reset one by one."""

    def __init__(self, count: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 3, 3))
        self.count = count

    def reset_parameters(self) -> None:
        with torch.no_grad():
            for expert in self.weight[: self.count]:
                nn.init.xavier_normal_(expert)


@bug(
    "resets",
    "reset_parameters() that leaves out the last expert",
    checked("check_reset_parameters"),
    "weight",
)
def reset_forgets_an_expert(planted: bool) -> nn.Module:
    return Experts(3 if planted else 4)


class Scales(nn.Module):
    """Scales in a list, and layers in one, which a reset draws anew; the last may be left out."""

    def __init__(self, scales: int, layers: int) -> None:
        super().__init__()
        self.scales = nn.ParameterList(nn.Parameter(torch.ones(3)) for _ in range(3))
        self.layers = nn.ModuleList(nn.Linear(3, 3) for _ in range(3))
        self.counts = scales, layers

    def reset_parameters(self) -> None:
        for scale in list(self.scales)[: self.counts[0]]:
            nn.init.ones_(scale)
        for layer in list(self.layers)[: self.counts[1]]:
            nn.init.orthogonal_(layer.weight)


@bug(
    "resets",
    "reset_parameters() that leaves out the last of a ParameterList",
    checked("check_reset_parameters"),
    "scales.2",
)
def reset_forgets_a_scale(planted: bool) -> nn.Module:
    return Scales(2 if planted else 3, 3)


@bug(
    "resets",
    "reset_parameters() that draws all layers of a list but the last",
    checked("check_reset_parameters"),
    "layers.2.weight",
)
def reset_draws_not_the_last(planted: bool) -> nn.Module:
    return Scales(3, 2 if planted else 3)


class Placed(nn.Linear):
    def __init__(self, device: str | None) -> None:
        super().__init__(4, 3)
        self.shift = nn.Parameter(torch.ones(3, device=device))


@bug(
    "placement",
    "parameter built on a device of its own",
    checked("check_default_device"),
    "shift",
)
def parameter_on_its_own_device(planted: bool) -> nn.Module:
    return Placed("meta" if planted else None)


@bug(
    "placement",
    "submodule left on meta, where it was built to be loaded",
    checked("check_default_device"),
    "1.weight",
    "1.bias",
)
def module_left_on_meta(planted: bool) -> nn.Module:
    with torch.device("meta" if planted else "cpu"):
        late = nn.Linear(4, 3)
    return nn.Sequential(nn.Linear(4, 4), late)
