"""A value network and the target network that follows it.

What goes wrong: the target is built by assignment and is the network itself; the bootstrap target
is not detached, and the loss trains the target; the soft update rebinds the parameters of the
target to new tensors, or with ``state_dict()`` and no copy to those of the network.

What the tests hold: networks with memory of their own; a loss that trains one and only one of
them; a soft update in place, by the share it claims; a hard update that makes them equal and
keeps them apart.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError

TAU = 0.05

pytestmark = pytest.mark.params
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])  # meta has none


def value_network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 16), nn.ReLU(), nn.Linear(16, 2))


class Agent:
    """Two networks that are no submodules of anything, as in most such code."""

    def __init__(self) -> None:
        self.q = value_network()
        self.target = copy.deepcopy(self.q).requires_grad_(False)
        self.optimizer = torch.optim.Adam(self.q.parameters(), lr=0.01)

    def loss(self, states: Tensor, rewards: Tensor, following: Tensor) -> Tensor:
        with torch.no_grad():
            bootstrap = rewards + 0.99 * self.target(following).amax(1)
        return (self.q(states)[:, 0] - bootstrap).square().mean()

    def learn(self, transitions: tuple[Tensor, Tensor, Tensor]) -> None:
        self.optimizer.zero_grad()
        self.loss(*transitions).backward()
        self.optimizer.step()

    @torch.no_grad()
    def soft_update(self) -> None:
        for slow, fast in zip(self.target.parameters(), self.q.parameters(), strict=True):
            slow.lerp_(fast, TAU)

    def hard_update(self) -> None:
        self.target.load_state_dict(self.q.state_dict())


@pytest.fixture
def transitions() -> tuple[Tensor, Tensor, Tensor]:
    return torch.rand(32, 4), torch.rand(32), torch.rand(32, 4)


@pytest.fixture
def agent() -> Agent:
    return Agent()


@pytest.fixture
def trained(agent, transitions) -> Agent:
    """An agent whose networks have parted."""
    for _ in range(2):
        agent.learn(transitions)
    return agent


@reads_values
def test_the_target_starts_equal_in_memory_of_its_own(agent, assert_same_values, assert_untied):
    assert_same_values(agent.q, agent.target)
    assert_untied(q=agent.q, target=agent.target)


def test_the_target_is_frozen_and_not_in_the_optimizer(
    agent, assert_frozen, assert_optimizer_covers
):
    assert_frozen(agent.target)
    assert_optimizer_covers(agent.optimizer, nn.ModuleDict({"q": agent.q, "target": agent.target}))


@reads_values
def test_learning_moves_the_network_and_leaves_the_target(
    agent, transitions, assert_updated, assert_unchanged, assert_grads_none
):
    with assert_updated(agent.q, "2"), assert_unchanged(agent.target):
        agent.learn(transitions)
    assert_grads_none(agent.target)


@reads_values
def test_the_soft_update_moves_the_target_by_its_share(
    trained, assert_changed, assert_unchanged, assert_same_values
):
    before = copy.deepcopy(trained.target)

    with (
        assert_unchanged(trained.q),
        assert_changed(trained.target, "*"),
        assert_unchanged(trained.target, only=("objects", "flags")),
    ):
        trained.soft_update()

    expected = {
        name: (1 - TAU) * slow + TAU * fast
        for (name, slow), fast in zip(
            before.named_parameters(), trained.q.parameters(), strict=True
        )
    }
    assert_same_values(dict(trained.target.named_parameters()), expected, rtol=1e-5, atol=1e-7)


@reads_values
def test_the_hard_update_makes_them_equal_and_keeps_them_apart(
    trained, assert_same_values, assert_untied, assert_unchanged
):
    with assert_unchanged(trained.target, only=("objects", "flags")):
        trained.hard_update()

    assert_same_values(trained.q, trained.target)
    assert_untied(q=trained.q, target=trained.target)


def test_a_soft_update_that_rebinds_is_caught(trained, assert_unchanged):
    def soft_update() -> None:
        # The mistake: right values in new objects. What holds the old ones (a compiled graph,
        # a list made once of the parameters) goes on with those.
        for name, fast in trained.q.named_parameters():
            layer, _, leaf = name.rpartition(".")
            owner = trained.target.get_submodule(layer)
            slow = owner.get_parameter(leaf)
            mixed = torch.lerp(slow, fast.detach(), TAU)
            setattr(owner, leaf, nn.Parameter(mixed, requires_grad=False))

    in_place = assert_unchanged(trained.target, only=("objects", "flags"))
    with pytest.raises(ParamCheckError) as caught, in_place:
        soft_update()

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "replaced: {0,2}.weight, {0,2}.bias (Sequential)"


def test_a_target_that_is_loaded_with_assign_is_caught(trained, assert_untied):
    # The mistake: without a copy the target takes over the network's own memory.
    trained.target.load_state_dict(trained.q.state_dict(), assign=True)

    with pytest.raises(ParamCheckError) as caught:
        assert_untied(q=trained.q, target=trained.target)

    first_line = str(caught.value).splitlines()[0]
    assert first_line == (
        "shares memory: q.{0,2}.weight, target.{0,2}.weight, q.{0,2}.bias, "
        "target.{0,2}.bias (Sequential)"
    )
