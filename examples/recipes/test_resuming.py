"""Training that is interrupted and resumed: the schedule and an average that counts its updates.

What goes wrong: the count that an average warms up by is a plain number, which no state_dict holds,
and the resumed average starts at its beginning again; the schedule is not saved, and the learning
rate jumps back; the optimizer is, and its moments are not loaded.

What the tests hold: a run that is saved, built anew and loaded ends, bit for bit, as one that was
never interrupted; what is left out of the save is named.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError

pytestmark = pytest.mark.params(devices=["cpu", "accelerator"])


class Average(nn.Module):
    """A moving average of a model whose decay grows with the number of updates."""

    def __init__(self, model: nn.Module, saves_its_count: bool) -> None:
        super().__init__()
        self.mean = nn.Linear(4, 2).requires_grad_(False)
        self.mean.load_state_dict(model.state_dict())
        self.updates: Any = 0
        if saves_its_count:
            del self.updates
            self.register_buffer("updates", torch.tensor(0))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        self.updates += 1
        decay = min(0.99, float((1 + self.updates) / (10 + self.updates)))
        for mean, new in zip(self.mean.parameters(), model.parameters(), strict=True):
            mean.lerp_(new, 1 - decay)


def build(saves_its_count: bool = True) -> dict[str, Any]:
    model = nn.Linear(4, 2)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 / (1 + step))
    average = Average(model, saves_its_count)
    return {"model": model, "optimizer": optimizer, "schedule": schedule, "average": average}


def loss(model: nn.Module) -> Tensor:
    return model(torch.randn(8, 4)).square().mean()


def step(objects: dict[str, Any]) -> None:
    objects["optimizer"].zero_grad()
    loss(objects["model"]).backward()
    objects["optimizer"].step()
    objects["schedule"].step()
    objects["average"].update(objects["model"])


def test_training_resumes(assert_resumes) -> None:
    assert_resumes(build, step)


def test_a_count_in_a_plain_number_is_seen(assert_resumes) -> None:
    with pytest.raises(ParamCheckError, match=r"not restored: average\.updates"):
        assert_resumes(lambda: build(saves_its_count=False), step)


def test_a_schedule_that_is_not_saved_is_seen(assert_resumes) -> None:
    def save(objects: dict[str, Any]) -> dict[str, Any]:
        return {key: held.state_dict() for key, held in objects.items() if key != "schedule"}

    with pytest.raises(ParamCheckError, match=r"not restored: schedule"):
        assert_resumes(build, step, save=save)


def test_moments_that_are_not_loaded_are_seen(assert_resumes) -> None:
    def load(objects: dict[str, Any], saved: dict[str, Any]) -> None:
        for key, held in objects.items():
            if key != "optimizer":
                held.load_state_dict(saved[key])

    with pytest.raises(ParamCheckError, match=r"exp_avg and exp_avg_sq of 2 parameters"):
        assert_resumes(build, step, load=load)


def test_the_average_is_the_one_of_its_count(assert_averaged) -> None:
    objects = build()
    for _ in range(3):
        with assert_averaged(
            objects["average"], objects["model"], decay=lambda before: (2 + before) / (11 + before)
        ):
            step(objects)
