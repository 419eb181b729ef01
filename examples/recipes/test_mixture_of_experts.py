"""A mixture of experts: a router sends each token to one of several MLPs.

What goes wrong: the experts stand in a Python list, and nothing trains or saves them; they are
copies of one another, and no router can tell them apart; the choice is not multiplied by its
probability, and the router never learns; one expert gets every token. And a test that asks for a
gradient everywhere is wrong on a small batch: an expert without a token has none.

What the tests hold: experts that are registered and differ; on a small batch a gradient for the
experts that were chosen, over several batches one for all; a router that learns from the loss; a
balancing loss that reaches the router and nothing else.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase, ParamCheckError, parametrize_with_param_checks

WIDTH, EXPERTS = 8, 4

pytestmark = pytest.mark.params
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])  # meta has none


def expert() -> nn.Sequential:
    return nn.Sequential(nn.Linear(WIDTH, 16), nn.GELU(), nn.Linear(16, WIDTH))


class MixtureOfExperts(nn.Module):
    """Each token goes through the expert with the largest probability, and is scaled by it."""

    def __init__(self) -> None:
        super().__init__()
        self.router = nn.Linear(WIDTH, EXPERTS, bias=False)
        self.experts = nn.ModuleList(expert() for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        probability, chosen = self.router(x).softmax(-1).max(-1)
        y = torch.zeros_like(x)
        for number, one in enumerate(self.experts):
            rows = (chosen == number).nonzero().flatten()
            if rows.numel():
                y = y.index_add(0, rows, one(x[rows]) * probability[rows, None])
        return x + y

    def balancing_loss(self, x: Tensor) -> Tensor:
        """Least where every expert gets as many tokens as any other."""
        probabilities = self.router(x).softmax(-1)
        share = nn.functional.one_hot(probabilities.argmax(-1), EXPERTS).to(x.dtype).mean(0)
        return EXPERTS * (share * probabilities.mean(0)).sum()


def tokens_for(model: MixtureOfExperts, number: int) -> Tensor:
    """Tokens that the router sends to one expert: along its row, away from the others'."""
    weight = model.router.weight.detach()
    direction = weight[number] - weight.mean(0)
    return 10 * direction + 0.1 * torch.rand(5, WIDTH)


def loss_on(number: int):
    """Return the loss of a batch that goes to one expert."""

    def loss(model: MixtureOfExperts) -> Tensor:
        return (model(tokens_for(model, number)) - 1).square().mean()

    return loss


def many_tokens() -> Tensor:
    return torch.randn(256, WIDTH)


@pytest.fixture
def model() -> MixtureOfExperts:
    return MixtureOfExperts()


@parametrize_with_param_checks(ModelCase(MixtureOfExperts, inputs=many_tokens, ties=[], frozen=[]))
def test_everything_that_holds_of_every_model(check):
    check()


@reads_values
def test_the_experts_are_registered_and_differ(model, assert_registered, assert_distinct):
    assert_registered(model)
    assert_distinct(model, "experts")


def test_the_experts_are_built_alike(model, assert_shapes):
    assert_shapes(
        model,
        {
            "router.weight": ("experts", "width"),
            "experts.*.0.weight": ("hidden", "width"),
            "experts.*.0.bias": ("hidden",),
            "experts.*.2.weight": ("width", "hidden"),
            "experts.*.2.bias": ("width",),
        },
    )


@reads_values
def test_a_small_batch_reaches_the_router_and_one_expert(model, assert_grads_reach):
    assert_grads_reach(model, loss_on(0), at_least={"experts": 1 / EXPERTS})
    assert_grads_reach(model, loss_on(0), "router", "experts.0")


@reads_values
def test_batches_for_each_expert_together_reach_all(model, assert_grads_reach):
    assert_grads_reach(model, [loss_on(number) for number in range(EXPERTS)])


@reads_values
def test_an_expert_without_tokens_keeps_its_values(model, assert_unchanged, assert_updated):
    # AdamW skips what has no gradient: not even weight decay moves it.
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    with assert_unchanged(model, "experts", "!experts.2"), assert_updated(model, "experts.2"):
        loss_on(2)(model).backward()
        optimizer.step()


@reads_values
def test_the_balancing_loss_trains_the_router_only(model, assert_grads_reach, assert_grads_none):
    tokens = many_tokens()
    assert_grads_reach(model, lambda model: model.balancing_loss(tokens), "router")
    model.balancing_loss(tokens).backward()
    assert_grads_none(model, "experts")


def test_experts_in_a_list_are_caught(assert_registered):
    class Listed(MixtureOfExperts):
        def __init__(self) -> None:
            super().__init__()
            del self.experts
            self.experts = [expert() for _ in range(EXPERTS)]  # the mistake: no ModuleList

    with pytest.raises(ParamCheckError) as caught:
        assert_registered(Listed())

    first_line = str(caught.value).splitlines()[0]
    assert first_line == (
        "not registered: experts[{0..3}].{0,2}.weight, experts[{0..3}].{0,2}.bias (Listed)"
    )


@reads_values
def test_copied_experts_are_caught(model, assert_distinct):
    first = expert()
    model.experts = nn.ModuleList(copy.deepcopy(first) for _ in range(EXPERTS))  # the mistake

    with pytest.raises(ParamCheckError) as caught:
        assert_distinct(model)

    first_line = str(caught.value).splitlines()[0]
    assert first_line == (
        "equal values: experts.{0..3}.{0,2}.weight, experts.{0..3}.{0,2}.bias (MixtureOfExperts)"
    )


@reads_values
def test_a_router_that_cannot_learn_is_caught(assert_grads_reach):
    class Unscaled(MixtureOfExperts):
        def forward(self, x: Tensor) -> Tensor:
            chosen = self.router(x).argmax(-1)  # the mistake: the choice has no gradient
            return x + torch.stack(
                [self.experts[number](row) for number, row in zip(chosen.tolist(), x, strict=True)]
            )

    with pytest.raises(ParamCheckError) as caught:
        assert_grads_reach(Unscaled(), loss_on(0), at_least={"experts": 1 / EXPERTS})

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "no gradient: router.weight (Unscaled)"
