"""Training that goes on from a save."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import assert_resumes

from . import Call, Case, remedy

ROWS = torch.linspace(-1, 1, 12).reshape(4, 3)


def descend(objects: dict[str, Any]) -> None:
    model, optimizer = objects["model"], objects["optimizer"]
    model(ROWS).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def resumes(model: type[nn.Module], optimizer: Any = torch.optim.SGD, step: Any = descend) -> Call:
    def build() -> dict[str, Any]:
        torch.manual_seed(0)
        made = model(3, 2)  # type: ignore[call-arg]
        return {"model": made, "optimizer": optimizer(made.parameters(), lr=0.1)}

    return lambda: assert_resumes(build, step)


class Counts(nn.Linear):
    """Counts its steps in a plain number."""

    count = 0

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x) * float(self.count)


class CountsInBuffer(nn.Linear):
    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        return super().forward(x) * self.count


class CountsInExtraState(Counts):
    def get_extra_state(self) -> Any:
        return {"count": self.count}

    def set_extra_state(self, state: Any) -> None:
        self.count = state["count"]


@remedy("register it as a buffer (a tensor), or save it with get_extra_state()")
def save_the_count() -> Case:
    return Case(
        resumes(Counts),
        lambda hint: lambda: (resumes(CountsInBuffer)(), resumes(CountsInExtraState)()),
    )


class Noise(nn.Linear):
    """Draws from a generator of its own."""

    def __init__(self, *sizes: int) -> None:
        super().__init__(*sizes)
        self.noise = torch.Generator().manual_seed(1)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * torch.rand(2, generator=self.noise)


class SavedNoise(Noise):
    def get_extra_state(self) -> Tensor:
        return self.noise.get_state()

    def set_extra_state(self, state: Tensor) -> None:
        self.noise.set_state(state)


@remedy("save its get_state() with get_extra_state(), and set_state() it in set_extra_state()")
def save_the_generator() -> Case:
    return Case(resumes(Noise), lambda hint: resumes(SavedNoise))


class Beside(torch.optim.SGD):
    """Slows down with its steps, which it counts beside its state."""

    def __init__(self, parameters: Any, lr: float) -> None:
        self.steps = 0
        super().__init__(parameters, lr=lr)

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        self.steps += 1
        for group in self.param_groups:
            group["lr"] = 0.1 / self.steps
        super().step()


class Saves(Beside):
    def state_dict(self) -> dict[str, Any]:
        return {**super().state_dict(), "steps": self.steps}

    def load_state_dict(self, state_dict: Any) -> None:
        self.steps = state_dict["steps"]
        super().load_state_dict({k: v for k, v in state_dict.items() if k != "steps"})


@remedy("let its state_dict() save it, and load_state_dict() take it back")
def let_state_dict_save() -> Case:
    return Case(resumes(nn.Linear, Beside), lambda hint: resumes(nn.Linear, Saves))


@remedy("let step(...) take an optimizer step on what build() returned")
def take_a_step() -> Case:
    return Case(resumes(nn.Linear, step=lambda objects: None), lambda hint: resumes(nn.Linear))


@remedy("step(...) may depend on what build() returned and on random numbers alone, *")
def no_iterator() -> Case:
    numbers = itertools.count(1)

    def step(objects: dict[str, Any]) -> None:
        model, optimizer = objects["model"], objects["optimizer"]
        model(ROWS * next(numbers)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    return Case(resumes(nn.Linear, step=step), lambda hint: resumes(nn.Linear))


@remedy("save torch.get_rng_state() as well, and let load= set it")
def save_the_random_state() -> Case:
    def build() -> dict[str, Any]:
        torch.manual_seed(0)
        model = nn.Linear(3, 2)
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}

    def step(objects: dict[str, Any]) -> None:
        model, optimizer = objects["model"], objects["optimizer"]
        model(torch.rand(4, 3)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()

    def save(objects: dict[str, Any]) -> dict[str, Any]:
        return {"random": torch.get_rng_state(), **{k: v.state_dict() for k, v in objects.items()}}

    def load(objects: dict[str, Any], saved: dict[str, Any]) -> None:
        for name, one in objects.items():
            one.load_state_dict(saved[name])

    def load_all(objects: dict[str, Any], saved: dict[str, Any]) -> None:
        load(objects, saved)
        torch.set_rng_state(saved["random"])

    return Case(
        lambda: assert_resumes(build, step, save=save, load=load),
        lambda hint: lambda: assert_resumes(build, step, save=save, load=load_all),
    )


class Wide(torch.optim.SGD):
    """Keeps a momentum in float32 for parameters in bfloat16."""

    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for p in self.param_groups[0]["params"]:
                mean = self.state[p].setdefault("mean", torch.zeros_like(p, dtype=torch.float32))
                mean.lerp_(p.grad.to(mean.dtype), 0.1)
                p.copy_(p - mean)


class WideAgain(Wide):
    """And puts it back as it was saved."""

    def load_state_dict(self, state_dict: Any) -> None:
        super().load_state_dict(state_dict)
        for p, saved in zip(
            self.param_groups[0]["params"], state_dict["state"].values(), strict=True
        ):
            self.state[p]["mean"] = saved["mean"].clone()


@remedy("load_state_dict() casts floating state to its parameter's dtype: *")
def put_the_saved_back() -> Case:
    def resume(optimizer: type[torch.optim.SGD]) -> Call:
        def build() -> Any:
            model = nn.Linear(4, 3, dtype=torch.bfloat16)
            return {"model": model, "optimizer": optimizer(model.parameters(), lr=0.1)}

        def step(objects: Any) -> None:
            objects["optimizer"].zero_grad()
            rows = torch.linspace(-1, 1, 8, dtype=torch.bfloat16).view(2, 4)
            objects["model"](rows).square().sum().backward()
            objects["optimizer"].step()

        return lambda: assert_resumes(build, step)

    return Case(resume(Wide), lambda hint: resume(WideAgain))
