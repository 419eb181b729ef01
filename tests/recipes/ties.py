"""Recipes of the assertions about ties."""

from __future__ import annotations

import copy

from torch import nn

from pytest_paramcheck import (
    assert_distinct,
    assert_same_ties,
    assert_tied,
    assert_ties,
    assert_ties_survive,
    assert_untied,
)

from ..models import LM
from . import Recipe


class Untying(LM):
    """A tied model whose copies are not."""

    def __deepcopy__(self, memo: dict[int, object]) -> LM:
        del memo
        return LM(tied=False)


def _two_lms(tied: bool) -> tuple[LM, LM]:
    return LM(tied=True), LM(tied=tied)


def _with_copy(model: nn.Module) -> tuple[nn.Module, nn.Module]:
    return model, copy.deepcopy(model)


def _stacked() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, copy.deepcopy(layer))


def _declared(model: LM) -> None:
    assert_ties(model, [{"emb.weight", "head.weight"}])


RECIPES = {
    "assert_tied": Recipe(
        lambda: LM(tied=True),
        lambda: LM(tied=False),
        lambda model: assert_tied(model, "emb.weight", "head.weight"),
    ),
    "assert_untied": Recipe(
        lambda: _with_copy(LM(tied=True)),
        lambda: (model := LM(tied=True), model),
        lambda pair: assert_untied(*pair),
    ),
    "assert_distinct": Recipe(
        lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), _stacked, assert_distinct
    ),
    "assert_ties": Recipe(lambda: LM(tied=True), lambda: LM(tied=False), _declared),
    "assert_same_ties": Recipe(
        lambda: _two_lms(True), lambda: _two_lms(False), lambda pair: assert_same_ties(*pair)
    ),
    "assert_ties_survive": Recipe(
        lambda: LM(tied=True),
        lambda: Untying(tied=True),
        lambda model: assert_ties_survive(model, "deepcopy", "to(float64)"),
        runs_user_code=True,
    ),
}
