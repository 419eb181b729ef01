"""A Gaussian policy whose standard deviation must stay positive.

What goes wrong: the deviation is a bare parameter, a step makes it negative, and sampling crashes
hours later; its logarithm is the parameter, and grows without bound; the value head shares a layer
that only the policy was to train.

What the tests hold: the deviation is positive after a step that pushes it down hard; its logarithm
stays in its bounds; every parameter is reached by the union of the losses.
"""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError, values

pytestmark = pytest.mark.params(devices=["cpu", "accelerator"])


class Policy(nn.Module):
    """Mean and standard deviation of actions; the parameter is the deviation, or its logarithm."""

    def __init__(self, logarithm: bool) -> None:
        super().__init__()
        self.body = nn.Linear(3, 8)
        self.mean = nn.Linear(8, 2)
        self.value = nn.Linear(8, 1)
        start = 0.05
        self.std = nn.Parameter(torch.full((2,), math.log(start) if logarithm else start))
        self.logarithm = logarithm

    def deviation(self) -> Tensor:
        return self.std.exp() if self.logarithm else self.std

    def forward(self, states: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.body(states).tanh()
        return self.mean(hidden), self.deviation(), self.value(hidden)


def policy_loss(policy: nn.Module) -> Tensor:
    mean, deviation, _ = policy(torch.ones(4, 3))
    return mean.square().mean() + 10 * deviation.sum()  # it pays to be certain


def value_loss(policy: nn.Module) -> Tensor:
    return policy(torch.ones(4, 3))[2].square().mean()


def train(policy: nn.Module) -> None:
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.01)
    (policy_loss(policy) + value_loss(policy)).backward()
    optimizer.step()


def test_the_deviation_stays_positive(assert_values) -> None:
    policy = Policy(logarithm=True)
    for _ in range(3):
        train(policy)
        assert_values({"deviation": policy.deviation()}, {"deviation": values.positive()})
        assert_values(policy, {"std": values.between(-10, 2)})


def test_a_deviation_that_became_negative_is_seen(assert_values) -> None:
    policy = Policy(logarithm=False)
    train(policy)
    with pytest.raises(ParamCheckError, match=r"not positive: std"):
        assert_values(policy, {"std": values.positive()})


def test_a_logarithm_without_bound_is_seen(assert_values) -> None:
    policy = Policy(logarithm=True)
    optimizer = torch.optim.SGD([policy.std], lr=0.1)
    for _ in range(60):
        optimizer.zero_grad()
        (-policy.deviation().log().sum()).backward()  # a bonus for entropy, and nothing against it
        optimizer.step()
    with pytest.raises(ParamCheckError, match=r"outside \[-10, 2\]: std"):
        assert_values(policy, {"std": values.between(-10, 2)})


def test_a_value_head_that_trains_the_body_is_seen(assert_grads_reach) -> None:
    with pytest.raises(ParamCheckError, match=r"reached, but not listed: body\.weight"):
        assert_grads_reach(Policy(logarithm=True), value_loss, exactly=["value"])


def test_the_losses_together_reach_everything(assert_grads_reach) -> None:
    assert_grads_reach(Policy(logarithm=True), [policy_loss, value_loss])
