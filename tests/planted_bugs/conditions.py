"""What has to hold of values while a model trains: a sign, a norm, a mask, some rows."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import nn

from pytest_paramcheck import (
    assert_frozen,
    assert_grads_reach,
    assert_same_values,
    assert_unchanged,
    assert_updated,
    assert_values,
    part,
    values,
)

from . import asserted, bug, checked, during, rows

Planted = tuple[nn.Module, Callable[[], None]]
MASK = torch.tril(torch.ones(4, 4, dtype=torch.bool))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, *, keep: torch.Tensor | None) -> None:
    model(rows()).square().sum().backward()
    if keep is not None:
        model.weight.grad.mul_(keep)
    optimizer.step()
    optimizer.zero_grad()


@bug(
    "conditions",
    "standard deviation of a policy that training makes negative",
    checked(
        "check_training_step",
        inputs=rows,
        values={"std": values.positive()},
        optimizer=lambda model: torch.optim.Adam(model.parameters(), lr=0.1),
    ),
    "std",
)
def negative_std(planted: bool) -> nn.Module:
    class Policy(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 4)
            self.std = nn.Parameter(torch.full((4,), 0.05 if planted else 1.0))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).detach() * self.std + super().forward(x)

    return Policy()


@bug(
    "conditions",
    "filters without unit norm",
    asserted(assert_values, {"weight": values.norm(dim=1, equals=1)}),
    "weight",
)
def unit_norm(planted: bool) -> nn.Module:
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.div_(model.weight.norm(dim=0 if planted else 1, keepdim=True))
    return model


@bug(
    "conditions",
    "pruned weights that come back",
    during(assert_unchanged, part("weight", ~MASK), atol=1e-12),
    "weight[mask",
)
def pruned_weights(planted: bool) -> Planted:
    model = nn.Linear(4, 4)
    with torch.no_grad():
        model.weight.mul_(MASK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    return model, lambda: train(model, optimizer, keep=None if planted else MASK)


@bug(
    "conditions",
    "rows without a gradient that weight decay moves",
    during(assert_unchanged, part("weight", slice(2, None))),
    "weight[2:]",
)
def decayed_rows(planted: bool) -> Planted:
    model = nn.Embedding(4, 4)
    optimizer = torch.optim.AdamW(model.parameters(), weight_decay=0.1 if planted else 0.0)

    def block() -> None:
        model(torch.arange(2)).sum().backward()
        optimizer.step()

    return model, block


@bug(
    "conditions",
    "new tokens that no gradient reaches",
    asserted(
        assert_grads_reach,
        lambda model: model(torch.arange(4)).sum(),
        exactly=[part("weight", slice(2, None))],
    ),
    "weight[the",
)
def new_rows_only(planted: bool) -> nn.Module:
    model = nn.Embedding(4, 4)
    if not planted:
        new = torch.arange(4).unsqueeze(1) >= 2
        model.weight.register_hook(lambda grad: grad * new)
    return model


@bug(
    "conditions",
    "frozen backbone whose norms go on in train mode",
    asserted(assert_frozen, "0", in_eval=True),
    "0.running_mean",
)
def frozen_in_train_mode(planted: bool) -> nn.Module:
    model = nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 4))
    model[0].requires_grad_(False)
    model[0].train(planted)
    return model


@bug(
    "conditions",
    "bfloat16 copy of other weights",
    asserted(assert_same_values, dtypes=False),
    "weight",
)
def narrow_copy(planted: bool) -> tuple[nn.Module, nn.Module]:
    model, copied = nn.Linear(4, 4), nn.Linear(4, 4)
    copied.load_state_dict(model.state_dict())
    if planted:
        copied.weight.data.neg_()
    return model, copied.bfloat16()


@bug(
    "conditions",
    "mark on a parameter that a conversion loses",
    during(assert_unchanged, only="attributes"),
    "weight",
)
def lost_mark(planted: bool) -> Planted:
    model = nn.Linear(4, 4)
    model.weight._no_weight_decay = True

    def block() -> None:
        old = model.weight
        model.weight = nn.Parameter(old.detach().bfloat16())
        if not planted:
            model.weight.__dict__.update(old.__dict__)

    return model, block


@bug(
    "conditions",
    "most experts left out of a step",
    during(assert_updated, at_least={"experts": 0.5}),
    "experts.{1..3}.weight",
)
def idle_experts(planted: bool) -> Planted:
    model = nn.Module()
    model.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(4))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def block() -> None:
        used = model.experts[: 1 if planted else 2]
        sum(expert(rows()).sum() for expert in used).backward()
        optimizer.step()

    return model, block
