"""A compiled model: the same parameters behind another module.

What goes wrong: the optimizer was built of a copy; keys are saved with `_orig_mod.` in front and
load into nothing; a tie is broken on the way; a layer that the graph folded away gets no gradient.

What the tests hold: the compiled model has the very parameters of the model, under the same names;
its loss reaches them all, a step moves them, and its checkpoint loads into a model that is not
compiled.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError

pytestmark = pytest.mark.params(devices=["cpu"])  # with a backend that only runs what it traced


class LM(nn.Module):
    """A language model that ties its head."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.body = nn.Linear(6, 6)
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.body(self.emb(tokens)).relu())


def loss(model: nn.Module) -> Tensor:
    return model(torch.arange(11)).square().mean()


@pytest.fixture
def model() -> nn.Module:
    return LM()


@pytest.fixture
def compiled(model: nn.Module) -> nn.Module:
    return torch.compile(model, backend="eager")


def test_it_has_the_parameters_of_the_model(assert_tied, assert_same_ties, model, compiled) -> None:
    assert_tied(model, compiled)  # each parameter is its namesake, the very object
    assert_same_ties(model, compiled)
    assert_tied(compiled, "emb.weight", "head.weight")  # names without _orig_mod


def test_a_training_step(
    assert_grads_reach, assert_optimizer_covers, assert_updated, model, compiled
) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    assert_optimizer_covers(optimizer, compiled)
    assert_grads_reach(compiled, loss)
    with assert_updated(compiled):
        loss(compiled).backward()
        optimizer.step()


def test_a_compiled_copy_is_seen(assert_tied, assert_optimizer_covers, model, compiled) -> None:
    other = copy.deepcopy(model)
    with pytest.raises(ParamCheckError, match=r"not tied: #1\.emb\.weight, #2\.emb\.weight"):
        assert_tied(other, compiled)
    optimizer = torch.optim.AdamW(other.parameters(), lr=0.1)
    with pytest.raises(ParamCheckError, match=r"not in the optimizer: emb\.weight"):
        assert_optimizer_covers(optimizer, compiled)


def test_a_tie_that_is_lost_on_the_way_is_seen(assert_same_ties, model) -> None:
    other = copy.deepcopy(model)
    other.head.weight = nn.Parameter(other.head.weight.detach().clone())
    with pytest.raises(ParamCheckError, match=r"tie lost: emb\.weight, head\.weight"):
        assert_same_ties(model, torch.compile(other, backend="eager"))


def test_a_layer_without_a_gradient_is_seen(assert_grads_reach, model, monkeypatch) -> None:
    monkeypatch.setattr(model.body, "forward", torch.no_grad()(model.body.forward))
    with pytest.raises(ParamCheckError, match=r"no gradient: body\.weight, body\.bias"):
        assert_grads_reach(torch.compile(model, backend="eager"), loss)


def test_its_checkpoint_loads_into_the_model(assert_loaded, compiled) -> None:
    saved = {name: tensor.clone() for name, tensor in compiled.state_dict().items()}
    fresh = LM()
    fresh.load_state_dict({k.removeprefix("_orig_mod."): v for k, v in saved.items()})
    assert_loaded(fresh, saved, rename={"_orig_mod": ""})
    with pytest.raises(ParamCheckError, match="_orig_mod"):
        assert_loaded(LM(), saved)
