"""Training that does not go on from a checkpoint as if it had never stopped."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from . import bug, checked

ROWS = torch.linspace(-1, 1, 24).reshape(6, 4)


class Warm(nn.Linear):
    """Grows its output with the steps it has taken, counted in a number or in a buffer."""

    def __init__(self, in_buffer: bool) -> None:
        super().__init__(4, 3)
        self.count = 0
        self.register_buffer("counted", torch.zeros(()) if in_buffer else None)

    def forward(self, x: Tensor) -> Tensor:
        if self.counted is not None:
            self.counted += 1
            return super().forward(x) * self.counted
        self.count += 1
        return super().forward(x) * self.count


@bug(
    "resuming",
    "number of steps kept in a plain attribute",
    checked("check_resume", inputs=ROWS),
    "count",
)
def counts_in_a_number(planted: bool) -> nn.Module:
    return Warm(in_buffer=not planted)


class FirstOutput(nn.Linear):
    """Centers on the first batch it sees, as data-dependent initialization does."""

    def __init__(self, saved: bool) -> None:
        super().__init__(4, 3)
        self.register_buffer("done", torch.tensor(False), persistent=saved)
        self.register_buffer("center", torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(x)
        if not self.done:
            self.center.copy_(out.detach().mean(0))
            self.done.fill_(True)
        return (out - self.center).square()


@bug(
    "resuming",
    "flag of a first pass that is registered persistent=False",
    checked("check_resume", inputs=ROWS),
    "done",
)
def flag_is_not_saved(planted: bool) -> nn.Module:
    return FirstOutput(saved=not planted)


class Noise(nn.Linear):
    """Draws from a generator of its own; the extra state has it, or nothing has."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.noise = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.rand(3, generator=self.noise)


class SavedNoise(Noise):
    def get_extra_state(self) -> Tensor:
        return self.noise.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.noise.set_state(state)


@bug(
    "resuming",
    "generator of the model that starts anew",
    checked("check_resume", inputs=ROWS),
    "noise",
)
def generator_starts_anew(planted: bool) -> nn.Module:
    return Noise() if planted else SavedNoise()


class Averaging(torch.optim.SGD):
    """Steps along a mean of the gradients so far, which it keeps in a list beside its state."""

    def __init__(self, parameters: Any, saves: bool) -> None:
        self.saves = saves
        self.means: list[Tensor] = []
        super().__init__(parameters, lr=0.1)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        grads = [p.grad for g in self.param_groups for p in g["params"]]
        self.means = self.means or [torch.zeros_like(grad) for grad in grads]
        with torch.no_grad():
            for mean, grad in zip(self.means, grads, strict=True):
                mean.lerp_(grad, 0.5)
                grad.copy_(mean)
        super().step(closure)

    def state_dict(self) -> Any:
        saved = super().state_dict()
        return {**saved, "means": list(self.means)} if self.saves else saved

    def load_state_dict(self, state_dict: Any) -> None:
        saved = dict(state_dict)
        self.means = [mean.clone() for mean in saved.pop("means", [])]
        super().load_state_dict(saved)


def averaging(model: Any) -> Averaging:
    return Averaging(model.parameters(), saves=not model.planted)


@bug(
    "resuming",
    "momentum that the optimizer keeps beside its state",
    checked("check_resume", inputs=ROWS, optimizer=averaging),
    "optimizer.means",
)
def momentum_is_not_saved(planted: bool) -> nn.Module:
    model: Any = nn.Linear(4, 3)
    model.planted = planted
    return model  # type: ignore[no-any-return]


class HalfState(torch.optim.SGD):
    """Keeps its momentum in float32 for parameters in bfloat16, as torch's load does not."""

    def __init__(self, parameters: Any, keeps: bool) -> None:
        self.keeps = keeps
        super().__init__(parameters, lr=0.125)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    zeros = torch.zeros_like(p, dtype=torch.float32)
                    mean = self.state[p].setdefault("mean", zeros)
                    mean.lerp_(p.grad.to(mean.dtype), 0.1)
                    p.copy_(p - mean * group["lr"] * 8)

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        if self.keeps:
            held = [p for group in self.param_groups for p in group["params"]]
            for number, saved in state_dict["state"].items():
                self.state[held[number]]["mean"] = saved["mean"].clone()


def half_state(model: Any) -> HalfState:
    return HalfState(model.parameters(), keeps=not model.planted)


@bug(
    "resuming",
    "float32 momentum that a load casts to bfloat16",
    checked("check_resume", inputs=ROWS.bfloat16(), optimizer=half_state),
    "optimizer",
)
def state_cast_by_the_load(planted: bool) -> nn.Module:
    model: Any = nn.Linear(4, 3, dtype=torch.bfloat16)
    model.planted = planted
    return model  # type: ignore[no-any-return]
