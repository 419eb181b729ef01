"""A student, and a teacher that is the moving average of its weights.

What goes wrong: the teacher is the student (a missing deepcopy), so that the average is of a
model with itself; it is frozen in one place and trains in another; the optimizer holds it; its
BatchNorm statistics drift because its forward pass runs in train mode.

What the tests hold: no memory in common; a frozen teacher that no optimizer holds; a training
step that moves the student and leaves the teacher as it is to the bit; an EMA update that moves
the teacher, leaves the student, and is the average it claims to be.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase, ParamCheckError, parametrize_with_param_checks

DECAY = 0.9

pytestmark = pytest.mark.params
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])  # meta has none


def encoder() -> nn.Sequential:
    return nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.GELU(), nn.Linear(12, 4))


class Distillation(nn.Module):
    """A student that is trained to predict what its teacher says of another view."""

    def __init__(self) -> None:
        super().__init__()
        self.student = encoder()
        self.teacher = copy.deepcopy(self.student).requires_grad_(False).eval()
        self.predictor = nn.Linear(4, 4)

    def train(self, mode: bool = True) -> Distillation:
        super().train(mode)
        self.teacher.eval()  # its statistics come from the student, too
        return self

    def forward(self, view: Tensor, other: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.teacher(other)
        return (self.predictor(self.student(view)) - target).square().mean()

    @torch.no_grad()
    def update_teacher(self) -> None:
        """Move the teacher a little towards the student."""
        for mine, theirs in zip(self.teacher.parameters(), self.student.parameters(), strict=True):
            mine.lerp_(theirs, 1 - DECAY)
        for mine, theirs in zip(self.teacher.buffers(), self.student.buffers(), strict=True):
            mine.copy_(theirs)


def views() -> tuple[Tensor, Tensor]:
    return torch.rand(8, 6), torch.rand(8, 6)


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    trained = [p for p in model.parameters() if p.requires_grad]
    return torch.optim.SGD(trained, lr=0.1, momentum=0.9, weight_decay=1e-4)


@pytest.fixture
def model() -> Distillation:
    return Distillation()


@pytest.fixture
def train_step(model):
    """What the training loop does in one step, without the EMA."""
    optimizer = make_optimizer(model)

    def step() -> None:
        optimizer.zero_grad()
        model(*views()).backward()
        optimizer.step()

    return step


@parametrize_with_param_checks(
    ModelCase(
        Distillation,
        inputs=views,
        ties=[],
        frozen=["teacher"],
        alike=["*.0", "*.3"],  # the teacher starts as a copy
        optimizer=make_optimizer,
    )
)
def test_everything_that_holds_of_every_model(check):
    check()


@reads_values
def test_the_teacher_starts_equal_in_memory_of_its_own(model, assert_same_values, assert_untied):
    assert_same_values(model.student, model.teacher)
    assert_untied(model.student, model.teacher)


def test_the_teacher_is_frozen_and_the_student_is_not(model, assert_frozen, assert_trainable):
    assert_frozen(model, exactly=["teacher"])
    assert_trainable(model, "student", "predictor")


@reads_values
def test_no_gradient_reaches_the_teacher(model, assert_grads_reach, assert_grads_none):
    assert_grads_reach(model, lambda model: model(*views()))  # all that trains
    model(*views()).backward()
    assert_grads_none(model.teacher)


def test_the_optimizer_holds_all_but_the_teacher(model, assert_optimizer_covers):
    assert_optimizer_covers(make_optimizer(model), model)


@reads_values
def test_a_step_moves_the_student_and_leaves_the_teacher(
    model, train_step, assert_updated, assert_unchanged
):
    with assert_unchanged(model.teacher), assert_updated(model, "student", "predictor"):
        train_step()


@reads_values
def test_the_ema_moves_the_teacher_and_leaves_the_student(
    model, train_step, assert_changed, assert_unchanged, assert_same_values
):
    before = copy.deepcopy(model.teacher).state_dict()
    train_step()

    with (
        assert_unchanged(model.student),
        assert_changed(model.teacher, "*"),
        assert_unchanged(model.teacher, only=("objects", "flags")),
    ):
        model.update_teacher()

    now = model.student.state_dict()
    expected = {
        name: DECAY * before[name] + (1 - DECAY) * now[name]
        for name, _ in encoder().named_parameters()
    }
    found = dict(model.teacher.named_parameters())
    assert_same_values(found, expected, rtol=1e-5, atol=1e-7)


def test_a_teacher_that_is_the_student_is_caught(model, assert_untied):
    model.teacher = model.student  # the mistake: no deepcopy

    with pytest.raises(ParamCheckError) as caught:
        assert_untied(student=model.student, teacher=model.teacher)

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "the same object: student, teacher (Sequential)"


@reads_values
def test_a_teacher_in_train_mode_is_caught(model, assert_unchanged):
    model.teacher.train()  # the mistake: model.train() reaches the teacher as well

    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model.teacher):
        model(*views())

    first_line = str(caught.value).splitlines()[0]
    assert first_line == (
        "values changed: 1.running_mean, 1.running_var, 1.num_batches_tracked (Sequential)"
    )
