"""Ties and shared memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from pytest_paramcheck import (
    ModelCase,
    assert_same_ties,
    assert_tied,
    assert_ties,
    assert_ties_survive,
    assert_untied,
)
from pytest_paramcheck.checks.untied import _equal_shards
from pytest_paramcheck.messages.errors import raise_if
from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.tensors.shards import shard_fact

from ..models import LM
from . import checked, fails


@fails("assert_untied", "one Parameter under two names, where none should be shared")
def shared_names() -> None:
    assert_untied(LM(tied=True))


@fails("assert_untied", "a model compared with itself")
def compared_with_itself() -> None:
    model = nn.Linear(3, 2)
    assert_untied(model, model)


@fails("assert_tied", "by memory: a slice that is a copy")
def no_memory_in_common() -> None:
    fused = torch.zeros(6, 4)
    assert_tied(fused=fused, key=fused[2:4].clone(), by="memory")


@fails("assert_same_ties", "a copy without a name that was tied")
def name_is_gone() -> None:
    before, after = LM(tied=True), LM(tied=True)
    del after.head
    assert_same_ties(before, after)


@fails("assert_same_ties", "a copy that ties what was not tied")
def tie_gained() -> None:
    assert_same_ties(LM(tied=False), LM(tied=True))


class Flat(nn.Module):
    """Two parameters, on one memory or each on its own."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        flat = torch.zeros(8)
        self.a = nn.Parameter(flat[:4])
        self.b = nn.Parameter(flat[:4] if shared else torch.ones(4))


@fails("assert_same_ties", "a copy that parts what was on one memory")
def sharing_lost() -> None:
    assert_same_ties(Flat(True), Flat(False))


@fails("assert_same_ties", "a copy that puts two parameters on one memory")
def sharing_gained() -> None:
    assert_same_ties(Flat(False), Flat(True))


@fails("assert_ties_survive", "a tie that a load with assign=True breaks")
def broken_by_a_load() -> None:
    assert_ties_survive(LM(tied=True), "load_state_dict(assign=True)")


@fails("assert_distinct", "a parameter whose memory cannot be read")
def not_checked() -> None:
    class Freed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Parameter(torch.zeros(3).to_mkldnn(), requires_grad=False)
            self.b = nn.Parameter(torch.zeros(3).to_mkldnn(), requires_grad=False)

    assert_untied(Freed())


class TiedCopy(LM):
    """A model whose copies are tied otherwise than itself."""

    tied_in_copy = True

    def __deepcopy__(self, memo: dict[int, Any]) -> LM:
        del memo
        return LM(tied=self.tied_in_copy)


@fails("check_deepcopy", "a copy that is tied where the model is not")
def tied_in_the_copy() -> None:
    checked("check_deepcopy", ModelCase(lambda: TiedCopy(tied=False), name="model"))


class Another(nn.Linear):
    """A model whose copies are another module."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        del memo
        twin = nn.Module()
        twin.kernel = nn.Parameter(torch.ones(2, 3))
        twin.bias = nn.Parameter(torch.ones(2))
        return twin


@fails("check_deepcopy", "a copy with other names")
def other_names() -> None:
    checked("check_deepcopy", ModelCase(lambda: Another(3, 2), name="model"))


class Uncopied(nn.Linear):
    """A model that cannot be copied."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        del memo
        raise TypeError("cannot pickle '_io.TextIOWrapper' object")


@fails("check_deepcopy", "a model that holds what cannot be copied")
def cannot_be_copied() -> None:
    checked("check_deepcopy", ModelCase(lambda: Uncopied(3, 2), name="model"))


@fails("check_distinct", "layers that were declared alike, and differ")
def declared_alike() -> None:
    case = ModelCase(
        lambda: nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)),
        alike=["*.weight"],
        name="model",
    )
    checked("check_distinct", case)


@fails("assert_ties", "a weight that is computed from a shared one on one side only")
def one_sided() -> None:
    model = LM(tied=True)
    nn.utils.parametrizations.spectral_norm(model.head)
    assert_ties(model, [])


@fails("check_distinct", "shards that every rank drew from the same seed")
def equal_shards() -> None:
    model = nn.Linear(64, 64, bias=False)
    digest = shard_fact(model.weight.detach())
    facts = {rank: replace(digest, place=(rank,)) for rank in range(2)}
    (entry,) = take_inventory(model).entries
    raise_if(_equal_shards(entry, facts), "model")
