"""A bfloat16 model trained through float32 masters, with scaling, clipping and accumulation.

What goes wrong: a parameter has no master and never trains; a master is stepped and not copied
back; gradients are clipped before they are unscaled, so that the bound means something else; the
step that a scaler skips is taken for one that trained; a micro-batch is forgotten.

What the tests hold: the optimizer holds one master for each parameter; a step moves every
parameter because of its gradient; the clipped norm is within its bound; a skipped step is seen;
the gradients of micro-batches add up to those of the batch.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError

pytestmark = pytest.mark.params(devices=["cpu"])  # bfloat16 and a scaler, on what everybody has

CLIP = 0.5
MICRO_BATCHES = 2


class Trainer:
    """What a training script keeps: the model, a master for each parameter, a scaler."""

    def __init__(self, forgotten: str = "") -> None:
        layers = [nn.Linear(6, 12), nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 4)]
        self.model = nn.Sequential(*layers).bfloat16()
        self.masters = {
            name: parameter.detach().float().requires_grad_()
            for name, parameter in self.model.named_parameters()
            if name != forgotten
        }
        self.optimizer = torch.optim.AdamW(self.masters.values(), lr=0.05)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
        self.copies_back = self.unscales_first = self.accumulates = True

    def loss(self, model: nn.Module, batch: Tensor) -> Tensor:
        return model(batch.bfloat16()).float().square().mean()

    def backward(self, batch: Tensor) -> None:
        self.model.zero_grad()
        for part in batch.chunk(MICRO_BATCHES):
            if not self.accumulates:
                self.model.zero_grad()
            self.scaler.scale(self.loss(self.model, part) / MICRO_BATCHES).backward()

    def clip(self) -> None:
        nn.utils.clip_grad_norm_(list(self.masters.values()), CLIP)

    def step(self, spoil: bool = False) -> None:
        self.backward(torch.randn(8 * MICRO_BATCHES, 6))
        for name, parameter in self.model.named_parameters():
            if name in self.masters and parameter.grad is not None:
                self.masters[name].grad = parameter.grad.float()
        if spoil:
            next(iter(self.masters.values())).grad[0, 0] = torch.inf
        clip, unscale = self.clip, lambda: self.scaler.unscale_(self.optimizer)
        for act in (unscale, clip) if self.unscales_first else (clip, unscale):
            act()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        with torch.no_grad():
            for name, master in self.masters.items() if self.copies_back else ():
                self.model.get_parameter(name).copy_(master)


def test_every_parameter_has_its_master(assert_optimizer_covers) -> None:
    trainer = Trainer()
    assert_optimizer_covers(trainer.optimizer, trainer.model, masters=trainer.masters)
    assert_optimizer_covers(trainer.optimizer, trainer.model, masters=True)  # by their values
    forgetful = Trainer(forgotten="3.bias")
    with pytest.raises(ParamCheckError, match=r"not in the optimizer: 3\.bias"):
        assert_optimizer_covers(forgetful.optimizer, forgetful.model, masters=forgetful.masters)


def test_the_scaled_loss_reaches_every_parameter(assert_grads_reach) -> None:
    trainer = Trainer()
    batch = torch.randn(8, 6)
    assert_grads_reach(
        trainer.model,
        lambda model: trainer.loss(model, batch),
        backward=lambda loss: trainer.scaler.scale(loss).backward(),
    )


def test_a_step_moves_every_parameter(assert_updated, assert_grad_norm) -> None:
    trainer = Trainer()
    with assert_updated(trainer.model):
        trainer.step()
    assert_grad_norm(trainer.masters, at_most=CLIP * 1.001, at_least=CLIP * 0.999)


def test_a_clip_before_the_scale_is_taken_off_is_seen(assert_grad_norm) -> None:
    trainer = Trainer()
    trainer.unscales_first = False
    trainer.step()
    with pytest.raises(ParamCheckError, match=r"gradient norm 0\.0078\d* is below"):  # CLIP / 64
        assert_grad_norm(trainer.masters, at_most=CLIP * 1.001, at_least=CLIP * 0.999)


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def test_micro_batches_add_up_to_the_batch(assert_same_values) -> None:
    trainer, batch = Trainer(), torch.randn(16, 6)
    trainer.scaler.scale(trainer.loss(trainer.model, batch)).backward()
    whole = gradients(trainer.model)
    trainer.backward(batch)
    assert_same_values(gradients(trainer.model), whole, rtol=0.1, atol=0.5)

    trainer.accumulates = False
    trainer.backward(batch)
    with pytest.raises(ParamCheckError, match="different values: "):
        assert_same_values(gradients(trainer.model), whole, rtol=0.1, atol=0.5)


def test_masters_that_are_not_copied_back_are_seen(assert_updated) -> None:
    trainer = Trainer()
    trainer.copies_back = False
    with pytest.raises(ParamCheckError, match=r"not updated: "), assert_updated(trainer.model):
        trainer.step()


def test_a_step_that_the_scaler_skips_is_no_step(assert_unchanged, assert_updated) -> None:
    trainer = Trainer()
    with assert_unchanged(trainer.model):
        trainer.step(spoil=True)
    with assert_updated(trainer.model):
        trainer.step()


def test_the_model_is_the_masters_in_its_own_precision(assert_same_values) -> None:
    trainer = Trainer()
    trainer.step()
    assert_same_values(trainer.model, trainer.masters, dtypes=False)
