"""Gradients that do not arrive, or arrive as zeros, NaN or too large."""

from __future__ import annotations

import torch
import torch.nn.functional as F  # noqa: N812 - what everybody calls it
from torch import Tensor, nn

from pytest_paramcheck import assert_grad_norm, assert_grads_present

from ..models import MLP
from . import asserted, bug, checked, rows

REACH = checked("check_grads_reach", inputs=rows)


@bug("gradients", "detach in forward", REACH, "backbone.0.weight", "backbone.0.bias")
def detached(planted: bool) -> nn.Module:
    return MLP(torch.detach if planted else torch.relu)


@bug("gradients", "no_grad in forward", REACH, "backbone.0.weight")
def under_no_grad(planted: bool) -> nn.Module:
    class Features(MLP):
        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(not planted):
                features = self.backbone(x)
            return self.head(features)

    return Features()


@bug("gradients", "layer that forward never uses", REACH, "spare.weight", "spare.bias")
def unused(planted: bool) -> nn.Module:
    model = MLP()
    model.spare = nn.Linear(4, 2)
    if not planted:
        model.head, model.spare = nn.Sequential(model.head, nn.Linear(2, 4), model.spare), None
    return model


class Masked(nn.Module):
    """Runs on its own example, which has no mask."""

    example_input_array = torch.linspace(-1, 1, 16).reshape(4, 4)

    def __init__(self) -> None:
        super().__init__()
        self.lin, self.of_mask = nn.Linear(4, 2), nn.Linear(4, 2)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        y: Tensor = self.lin(x)
        return y if mask is None else y + self.of_mask(mask)


@bug(
    "gradients",
    "layer that no code uses, beside an argument that an example leaves out",
    checked("check_grads_reach"),
    "of_mask.weight",
    "of_mask.bias",
)
def forgotten_beside_an_argument(planted: bool) -> nn.Module:
    class Forgetful(Masked):
        def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
            y: Tensor = self.lin(x)
            return y if mask is None else y * mask

    return Forgetful() if planted else Masked()


@bug("gradients", "weight read through .data", REACH, "lin.weight")
def through_data(planted: bool) -> nn.Module:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.lin.weight.data if planted else self.lin.weight, self.lin.bias)

    return Raw()


@bug("gradients", "dead ReLU: a gradient of zeros", REACH, "{0,2}.weight", "0.bias")
def dead_relu(planted: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    if planted:
        nn.init.constant_(model[0].bias, -100.0)
    return model


@bug("gradients", "expert that the router never picks", REACH, "experts.1.weight")
def unrouted(planted: bool) -> nn.Module:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 2) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            picked = torch.zeros(len(x)) if planted else torch.arange(len(x)) % 2
            masks = [(picked == i).float().unsqueeze(1) for i in range(2)]
            return sum(m * e(x) for m, e in zip(masks, self.experts, strict=True))  # type: ignore[return-value]

    return Experts()


@bug(
    "gradients",
    "LoRA with both factors zero",
    # Of a fresh LoRA, one factor has no signal until the other has moved: asked after a step.
    checked("check_grads_reach", inputs=rows),
    "lora_a",
    "lora_b",
)
def lora_zero(planted: bool) -> nn.Module:
    class LoRA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(4, 2).requires_grad_(False)
            self.lora_a = nn.Parameter(torch.zeros(2, 4) if planted else torch.randn(2, 4))
            self.lora_b = nn.Parameter(torch.zeros(2, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + x @ self.lora_a.T @ self.lora_b.T

    return LoRA()


@bug(
    "gradients",
    "gradient NaN: a square root at zero",
    checked("check_grads_finite", inputs=rows),
    "backbone.0.weight",
)
def nan_gradient(planted: bool) -> nn.Module:
    return MLP(lambda x: ((x - x) + (0.0 if planted else 1.0) + x * x * 0).sqrt())


@bug(
    "gradients",
    "gradient infinite: a scale that overflows",
    checked("check_grads_finite", inputs=rows),
    "head.weight",
)
def inf_gradient(planted: bool) -> nn.Module:
    return MLP(lambda x: x * (1e39 if planted else 1.0))


@bug("gradients", "gradient left over from building", checked("check_grads_none"), "head.weight")
def left_over(planted: bool) -> nn.Module:
    model = MLP()
    model(rows()).sum().backward()
    if not planted:
        model.zero_grad()
    return model


@bug(
    "gradients",
    "gradients never computed for one branch",
    asserted(assert_grads_present),
    "spare.weight",
)
def branch_without(planted: bool) -> nn.Module:
    model = MLP()
    model.spare = nn.Linear(4, 2)
    x = rows()
    loss = model(x).sum()
    (loss if planted else loss + model.spare(x).sum()).backward()
    return model


@bug("gradients", "exploding gradient", asserted(assert_grad_norm, at_most=1e3), "head.weight")
def exploding(planted: bool) -> nn.Module:
    model = MLP()
    (model(rows()) * (1e6 if planted else 1.0)).sum().backward()
    return model


@bug(
    "gradients",
    "residual branch behind a scale that is zero and frozen",
    checked("check_grads_reach", inputs=rows),
    "branch.weight",
)
def scale_frozen_at_zero(planted: bool) -> nn.Module:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.branch = nn.Linear(4, 4, bias=False)
            # Zero at the start is right where it trains.
            self.scale = nn.Parameter(torch.zeros(4), requires_grad=not planted)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.scale * self.branch(x)

    return Residual()


@bug(
    "gradients",
    "training step that moves nothing",
    checked("check_training_step", inputs=rows, steps=2),
    "lora_a",
    "lora_b",
)
def nothing_moves(planted: bool) -> nn.Module:
    return lora_zero(planted)


@bug(
    "gradients",
    "weight computed once, in the constructor",
    checked("check_grads_reach", inputs=rows),
    "gate",
)
def computed_once(planted: bool) -> nn.Module:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.logits = nn.Parameter(torch.zeros(4))
            self.gate = self.logits.sigmoid()

        def forward(self, x: Tensor) -> Tensor:
            return x * (self.gate if planted else self.logits.sigmoid())

    return Gated()


@bug(
    "gradients",
    "layer that is always dropped, of some that are dropped now and then",
    REACH,
    "layers.1.weight",
    "layers.1.bias",
)
def always_dropped(planted: bool) -> nn.Module:
    class Dropped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem = nn.Linear(4, 4)
            self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            for number, layer in enumerate(self.layers):
                keep = 1.0 if planted and number == 1 else 0.3
                if not self.training or float(torch.rand(())) > keep:
                    x = x + layer(x)
            return x

    return Dropped()


@bug(
    "gradients",
    "expert that the router cannot choose",
    checked("check_grads_reach", inputs=lambda: torch.randn(40, 4)),
    "experts.3.weight",
    "experts.3.bias",
)
def expert_out_of_reach(planted: bool) -> nn.Module:
    class Routed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.router = nn.Linear(4, 3 if planted else 4)
            self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))

        def forward(self, x: Tensor) -> Tensor:
            weight, chosen = self.router(x).softmax(-1).max(-1)
            out = x
            for number in chosen.unique().tolist():
                rows = torch.where(chosen == number)[0]
                out = out.index_add(0, rows, weight[rows, None] * self.experts[number](x[rows]))
            return out

    return Routed()
