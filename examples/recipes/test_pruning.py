"""A pruned model that is trained on: what was cut off has to stay cut off.

What goes wrong: the gradient is masked, momentum and weight decay are not, and pruned weights come
back; a mask is saved beside the model and not applied after the load.

What the tests hold: pruned elements are zero after every step, and do not change in it; those that
were kept do train.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError, part, values

pytestmark = pytest.mark.params(devices=["cpu", "accelerator"])


class Pruned:
    """A layer, a mask of what was kept, and a step that keeps to it, or only means to."""

    def __init__(self, keeps: bool) -> None:
        self.model = nn.Linear(8, 8, bias=False)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.batch = torch.randn(16, 8)
        self.keeps = keeps
        self._step(lambda grad: None)  # momentum from before the cut
        self.mask = self.model.weight.detach().abs() > 0.1
        with torch.no_grad():
            self.model.weight.mul_(self.mask)

    def _step(self, change: Callable[[Tensor], object]) -> None:
        self.optimizer.zero_grad()
        self.model(self.batch).square().mean().backward()
        change(self.model.weight.grad)
        self.optimizer.step()

    def step(self) -> None:
        self._step(lambda grad: grad.mul_(self.mask))
        if self.keeps:
            with torch.no_grad():
                self.model.weight.mul_(self.mask)


def test_pruned_weights_stay_zero(assert_values) -> None:
    pruned = Pruned(keeps=True)
    for _ in range(3):
        pruned.step()
        assert_values(pruned.model, {"weight": values.zero_where(~pruned.mask)})


def test_only_what_was_kept_trains(assert_unchanged, assert_updated) -> None:
    pruned = Pruned(keeps=True)
    # -0.0 and 0.0 are other bits and the same number: a tolerance makes them one.
    with (
        assert_unchanged(pruned.model, part("weight", ~pruned.mask), atol=1e-12),
        assert_updated(pruned.model, part("weight", pruned.mask)),
    ):
        pruned.step()


def test_a_checkpoint_that_brings_weights_back_is_seen(assert_values) -> None:
    pruned = Pruned(keeps=True)
    pruned.model.load_state_dict({"weight": torch.randn(8, 8)})  # and nobody masks it
    with pytest.raises(ParamCheckError, match="not zero where it has to be: weight"):
        assert_values(pruned.model, {"weight": values.zero_where(~pruned.mask)})


def test_a_mask_the_wrong_way_round_is_seen(assert_updated) -> None:
    pruned = Pruned(keeps=True)
    kept, pruned.mask = pruned.mask, ~pruned.mask
    with (
        pytest.raises(ParamCheckError, match=r"changed without a gradient: weight\["),
        assert_updated(pruned.model, part("weight", kept & (pruned.model.weight != 0))),
    ):
        pruned._step(lambda grad: grad.mul_(pruned.mask))


def test_momentum_that_brings_weights_back_is_seen(assert_unchanged) -> None:
    pruned = Pruned(keeps=False)
    with (
        pytest.raises(ParamCheckError, match=r"values changed: weight\["),
        assert_unchanged(pruned.model, part("weight", ~pruned.mask), atol=1e-12),
    ):
        pruned.step()
