"""Fine-tuning: a pretrained backbone, frozen, under a new head.

What goes wrong: ``load_state_dict(strict=False)`` loads nothing, because every key has a prefix;
the backbone is frozen and its BatchNorm statistics drift all the same; the optimizer was built
before the head was replaced and trains the old one; one layer was missed when freezing.

What the tests hold: every tensor of the backbone came from the checkpoint and only the head did
not; the backbone is frozen and nothing else; a training step leaves it bit-identical, buffers
included, and moves the head; the optimizer holds the head that is there.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase, ParamCheckError, parametrize_with_param_checks

pytestmark = pytest.mark.params
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])  # meta has none


class Backbone(nn.Module):
    """Images to features."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(8)
        self.conv = nn.Conv2d(8, 12, 3, stride=2, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        return self.conv(self.norm(self.stem(images)).relu()).mean((2, 3))


class Classifier(nn.Module):
    """A backbone and a linear head."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.backbone = Backbone()
        self.head = nn.Linear(12, classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.backbone(images))


class FineTuned(Classifier):
    """The same with five classes and a backbone that neither trains nor changes."""

    def __init__(self) -> None:
        super().__init__(classes=5)
        self.backbone.requires_grad_(False)
        self.train()

    def train(self, mode: bool = True) -> FineTuned:
        super().train(mode)
        self.backbone.eval()  # the running statistics belong to what was learned with them
        return self


def images() -> Tensor:
    return torch.rand(4, 3, 8, 8)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.01)


@pytest.fixture
def checkpoint() -> dict[str, Tensor]:
    """What pretraining saved: the backbone, and a head for ten classes."""
    pretrained = Classifier(classes=10)
    pretrained(images())  # the BatchNorm statistics have moved
    return pretrained.state_dict()


@pytest.fixture
def model(checkpoint) -> FineTuned:
    model = FineTuned()
    kept = {name: tensor for name, tensor in checkpoint.items() if not name.startswith("head.")}
    model.load_state_dict(kept, strict=False)
    return model


@parametrize_with_param_checks(
    ModelCase(
        FineTuned,
        inputs=images,
        frozen=["backbone"],
        shapes={"*": (...,), "head.weight": ("classes", 12), "head.bias": ("classes",)},
        optimizer=make_optimizer,
    )
)
def test_everything_that_holds_of_every_model(check):
    check()


@reads_values
def test_all_but_the_head_came_from_the_checkpoint(model, checkpoint, assert_loaded):
    assert_loaded(model, checkpoint, missing=["head"], unexpected=["head.*"])


@reads_values
def test_what_is_saved_is_what_was_trained(model, assert_roundtrip):
    assert_roundtrip(model, through="torch.save")


def test_the_backbone_is_frozen_and_nothing_else(model, assert_frozen):
    assert_frozen(model, exactly=["backbone"])


@reads_values
def test_a_step_moves_the_head_and_no_bit_of_the_backbone(model, assert_unchanged, assert_updated):
    optimizer = make_optimizer(model)
    with assert_unchanged(model, "backbone"), assert_updated(model, "head"):
        model(images()).logsumexp(1).mean().backward()
        optimizer.step()


def test_the_optimizer_holds_the_head(model, assert_optimizer_covers):
    assert_optimizer_covers(make_optimizer(model), model)


def test_a_checkpoint_that_loads_nothing_is_caught(checkpoint, assert_loaded):
    wrapped = {f"module.{name}": tensor for name, tensor in checkpoint.items()}
    model = FineTuned()
    model.load_state_dict(wrapped, strict=False)  # the mistake: no key fits, and no error

    with pytest.raises(ParamCheckError) as caught:
        assert_loaded(model, wrapped, missing=["head"], unexpected=["module.head.*"])

    first_line = str(caught.value).splitlines()[0]
    assert first_line == (
        "not loaded: module.backbone.stem.weight, module.backbone.norm.weight "
        "and 5 more (FineTuned)"
    )


@reads_values
def test_batchnorm_statistics_that_drift_are_caught(model, assert_unchanged):
    model.backbone.train()  # the mistake: model.train() with nothing that keeps this in eval

    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, "backbone"):
        model(images())

    first_line = str(caught.value).splitlines()[0]
    assert first_line == (
        "values changed: backbone.norm.running_mean, backbone.norm.running_var "
        "and 1 more (FineTuned)"
    )


def test_a_layer_missed_when_freezing_is_caught(model, assert_frozen):
    model.backbone.requires_grad_(True)
    for name, parameter in model.named_parameters():
        if "conv" in name or "norm" in name:  # the mistake: the stem is called stem
            parameter.requires_grad_(False)

    with pytest.raises(ParamCheckError) as caught:
        assert_frozen(model, "backbone")

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "not frozen: backbone.stem.weight (FineTuned)"


def test_an_optimizer_older_than_the_head_is_caught(model, assert_optimizer_covers):
    optimizer = make_optimizer(model)
    model.head = nn.Linear(12, 7)  # the mistake: the other way round

    with pytest.raises(ParamCheckError) as caught:
        assert_optimizer_covers(optimizer, model)

    first_line = str(caught.value).splitlines()[0]
    assert first_line == (
        "not in the optimizer: head.weight, head.bias; not a parameter of the model (FineTuned)"
    )
