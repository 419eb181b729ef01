"""An exponential moving average of a model with BatchNorm, as it is evaluated and saved.

What goes wrong: the average is updated before the optimizer's step, or twice; its buffers are
never copied, so that it is evaluated with the statistics of an untrained model, or they are
averaged, their counts too; it is kept in bfloat16, in which no update is large enough to be seen.

What the tests hold: each update is the average it claims to be, of the model as it is after the
step, and buffers are the model's; torch's own AveragedModel is held to the same.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from pytest_paramcheck import ParamCheckError

pytestmark = pytest.mark.params(devices=["cpu", "accelerator"])

DECAY = 0.99


class Average:
    """An average as it is written in most repositories."""

    def __init__(self, model: nn.Module, copies_buffers: bool = True) -> None:
        self.model = copy.deepcopy(model).requires_grad_(False).eval()
        self.copies_buffers = copies_buffers

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        for mean, new in zip(self.model.parameters(), model.parameters(), strict=True):
            mean.mul_(DECAY).add_(new, alpha=1 - DECAY)
        for mean, new in zip(self.model.buffers(), model.buffers(), strict=True):
            if self.copies_buffers:
                mean.copy_(new)


@pytest.fixture
def model() -> nn.Module:
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def train(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    model(torch.randn(16, 4) + 1).square().mean().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_each_update_is_the_average_it_claims_to_be(assert_averaged, model) -> None:
    average = Average(model)
    for _ in range(3):
        with assert_averaged(average.model, model, decay=DECAY):
            train(model)
            average.update(model)


def test_buffers_that_are_never_copied_are_seen(assert_averaged, model) -> None:
    average = Average(model, copies_buffers=False)

    def epoch() -> None:
        with assert_averaged(average.model, model, decay=DECAY):
            train(model)
            average.update(model)

    with pytest.raises(ParamCheckError, match=r"never updated: 1\.running_mean"):
        epoch()


def test_an_update_before_the_step_is_seen(assert_averaged, model) -> None:
    average = Average(model, copies_buffers=False)
    train(model)

    def epoch() -> None:
        with assert_averaged(average.model, model, decay=DECAY, buffers="keep"):
            average.update(model)
            train(model)

    with pytest.raises(ParamCheckError, match="updated before the step: "):
        epoch()


def test_two_updates_are_seen(assert_averaged, model) -> None:
    average = Average(model)

    def epoch() -> None:
        with assert_averaged(average.model, model, decay=DECAY):
            train(model)
            average.update(model)
            average.update(model)

    with pytest.raises(ParamCheckError, match=r"updated twice: .*0,1,3\}\.weight"):
        epoch()


def test_buffers_that_are_averaged_are_seen(assert_averaged, model) -> None:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY), use_buffers=True)
    average.update_parameters(model)  # the first update copies

    def epoch() -> None:
        with assert_averaged(average, model, decay=DECAY):
            train(model)
            average.update_parameters(model)

    with pytest.raises(ParamCheckError, match=r"averaged, not copied: .*running_mean"):
        epoch()


def test_torch_s_own_average(assert_averaged, model) -> None:
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(DECAY))
    for _ in range(3):  # the first update copies
        with assert_averaged(average, model, decay=DECAY):
            train(model)
            average.update_parameters(model)


def test_an_average_in_bfloat16_does_not_follow(assert_averaged, model) -> None:
    average = Average(model)
    average.model.bfloat16()

    @torch.no_grad()
    def epoch() -> None:
        with assert_averaged(average.model, model, decay=0.9999):
            for mean, new in zip(average.model.parameters(), model.parameters(), strict=True):
                new.mul_(1.05)
                mean.lerp_(new.bfloat16(), 0.0001)

    with pytest.raises(ParamCheckError, match="never updated: "):
        epoch()
