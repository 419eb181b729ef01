"""A language model over two pipeline stages, its output layer tied to its embedding.

The first stage holds the embedding, the last one the output layer: two tensors in two processes
that have to be one. What goes wrong: each stage is built from a seed of its own; the two gradients
are not added up, so each stage steps by its own half and the two drift apart; the tie is there on
one stage only, because the other has been reloaded.

What the tests hold: both ends the same on both ranks, values and gradients, before and after a
step; and each of these mistakes found.
"""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError, assert_replicated

pytestmark = pytest.mark.params(ranks=2)
VOCABULARY, WIDTH = 11, 6


class FirstStage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(VOCABULARY, WIDTH)
        self.proj = nn.Linear(WIDTH, WIDTH)

    @property
    def tied(self) -> nn.Parameter:
        return self.emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.proj(self.emb(tokens))


class LastStage(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    @property
    def tied(self) -> nn.Parameter:
        return self.head.weight

    def forward(self, hidden: Tensor) -> Tensor:
        return self.head(self.norm(hidden))


Stage = FirstStage | LastStage


@pytest.fixture
def stage() -> Stage:
    """This rank's stage; the last one starts from the embedding of the first."""
    built = FirstStage() if dist.get_rank() == 0 else LastStage()
    dist.broadcast(built.tied.data, src=0)
    return built


def backward(stage: Stage) -> None:
    """One forward and backward pass over both stages."""
    tokens = torch.arange(8) % VOCABULARY
    if isinstance(stage, FirstStage):
        hidden = stage(tokens)
        dist.send(hidden.detach(), dst=1)
        grad = torch.empty_like(hidden)
        dist.recv(grad, src=1)
        hidden.backward(grad)
    else:
        hidden = torch.empty(8, WIDTH)
        dist.recv(hidden, src=0)
        hidden.requires_grad_()
        nn.functional.cross_entropy(stage(hidden), tokens).backward()
        dist.send(hidden.grad, dst=0)


def step(stage: Stage) -> None:
    torch.optim.SGD(stage.parameters(), lr=0.1).step()


def ends(stage: Stage) -> list[tuple[str, nn.Parameter]]:
    """This rank's end of the tie, under a name that both ranks know."""
    return [("tied", stage.tied)]


def test_both_ends_start_as_one(stage: Stage) -> None:
    assert_replicated(ends(stage))


def test_both_ends_stay_one(stage: Stage) -> None:
    for _ in range(2):
        stage.zero_grad()
        backward(stage)
        dist.all_reduce(stage.tied.grad)  # a tied parameter's gradient is the sum over its uses
        assert_replicated(ends(stage))
        step(stage)
        assert_replicated(ends(stage))


def test_gradients_that_are_not_added_up_are_found(stage: Stage) -> None:
    backward(stage)
    with pytest.raises(ParamCheckError, match="gradient"):
        assert_replicated(ends(stage), only="grads")
    step(stage)
    with pytest.raises(ParamCheckError, match="tied"):
        assert_replicated(ends(stage), only="values")


def test_stages_from_seeds_of_their_own_are_found() -> None:
    torch.manual_seed(dist.get_rank())
    built = FirstStage() if dist.get_rank() == 0 else LastStage()
    with pytest.raises(ParamCheckError, match="tied"):
        assert_replicated(ends(built))


def test_an_end_that_was_reloaded_is_found(stage: Stage) -> None:
    if dist.get_rank() == 1:
        stage.load_state_dict(LastStage().state_dict())
    with pytest.raises(ParamCheckError, match="tied"):
        assert_replicated(ends(stage))
