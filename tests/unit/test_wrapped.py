"""A wrapped model's gradients and steps against its own; on several ranks: ``tests/ranks``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta

import pytest
import torch
import torch.distributed as dist
from torch import nn

from pytest_paramcheck import CHECKS, ModelCase, ParamCheckError
from pytest_paramcheck.checks.wrapped import different_gradients, different_moves
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.parts import part_of
from pytest_paramcheck.model_checks.run import CaseRun, LatestRun
from pytest_paramcheck.parameters.running.alone import alone

from .messages import usage

NAMES = ("a", "b", "c", "d", "e")


def test_gradients_that_are_not_the_mean_over_the_parts() -> None:
    expected = [torch.ones(2), torch.ones(2), torch.tensor([1.0, 2.0]), None, None]
    found = [torch.ones(2), 2 * torch.ones(2), torch.tensor([1.0, 3.0]), torch.ones(2), None]

    told = different_gradients(NAMES, found, expected, 2)

    assert [(one.names, one.expected, one.found) for one in told] == [
        (("b",), "the mean over the parts of the inputs", "2 times that"),
        (("c",), "the mean over the parts of the inputs", "max abs difference 1"),
        (("d",), "none", "a gradient"),
    ]
    assert not different_gradients(("a",), [torch.zeros(2)], [torch.zeros(2)], 2)


def test_what_a_step_moves_of_one_alone() -> None:
    told = different_moves(NAMES[:4], [True, False, True, False], [True, False, False, True])

    assert [(one.names, one.problem, one.expected) for one in told] == [
        (("c",), "a step moves it", "as without the wrap"),
        (("d",), "a step does not move it", "as without the wrap"),
    ]


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group(
        "gloo", store=dist.HashStore(), rank=0, world_size=1, timeout=timedelta(seconds=30)
    )
    yield
    dist.destroy_process_group()


def doubled(model: nn.Module) -> nn.Module:
    for parameter in model.parameters():
        parameter.register_hook(lambda grad: 2 * grad)
    return model


def marked(model: nn.Module) -> nn.Module:
    model.wrapped = True  # type: ignore[assignment]
    return model


def all_but_the_wrapped_weight(model: nn.Module) -> torch.optim.Optimizer:
    held = [model.bias] if hasattr(model, "wrapped") else [*model.parameters()]
    return torch.optim.SGD(held, lr=0.1)


STEPS: dict[str, tuple[Callable[[nn.Module], nn.Module], str]] = {
    "as it is": (lambda model: model, ""),
    "doubled": (doubled, "gradient differs from the model's own: weight, bias (model)"),
    "not moved": (marked, "a step does not move it: weight (model)"),
}


@pytest.mark.parametrize("kind", STEPS)
def test_a_step_of_a_wrapped_model(one_rank: None, kind: str) -> None:
    wrap, said = STEPS[kind]
    case = ModelCase(
        lambda: nn.Linear(3, 2),
        inputs=torch.ones(4, 3),
        wrap=wrap,
        optimizer=all_but_the_wrapped_weight,
        name="model",
    )
    told = ""
    try:
        run_check(CHECKS["check_step"], CaseRun(case))
    except ParamCheckError as error:
        told = str(error).splitlines()[0]
    assert told == said


@pytest.mark.parametrize("name", ["check_replicated", "check_wrap", "check_dcp_roundtrip"])
def test_a_wrap_that_changes_nothing(one_rank: None, name: str) -> None:
    case = ModelCase(lambda: nn.Linear(3, 2), inputs=torch.ones(4, 3), wrap=lambda model: model)
    run_check(CHECKS[name], CaseRun(case))


def test_a_run_belongs_to_the_group_of_its_test(one_rank: None) -> None:
    wrapped = ModelCase(lambda: nn.Linear(3, 2), wrap=lambda model: model)
    plain = ModelCase(lambda: nn.Linear(3, 2))
    ours, theirs = LatestRun(), LatestRun()
    first, other = ours.get(wrapped, 0), theirs.get(plain, 0)
    assert ours.get(wrapped, 0) is first
    dist.destroy_process_group()
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)

    assert ours.get(wrapped, 0) is not first
    assert theirs.get(plain, 0) is other


@pytest.mark.parametrize("dim", [0, -2])
def test_each_rank_gets_its_part_of_every_tensor(dim: int) -> None:
    rows = torch.arange(12.0).view(4, 3)
    inputs = {"x": (rows, [rows[:, :1]]), "scale": 2}

    (x, (column,)), scale = part_of(inputs, dim, (1, 2)).values()
    assert torch.equal(x, rows[2:])
    assert torch.equal(column, rows[2:, :1])
    assert scale == 2


@pytest.mark.parametrize("dim", [1, -1, 2, -3])
def test_inputs_without_equal_parts(dim: int) -> None:
    assert usage(part_of, torch.ones(4, 3), dim, (0, 2)) == (
        f"ModelCase(split={dim}): an input of shape (4, 3) has no 2 equal parts along it"
    )


def test_a_rank_alone_is_a_world_of_one(two_ranks: object) -> None:
    with alone():
        assert (dist.get_world_size(), dist.get_rank()) == (1, 0)
    assert dist.get_world_size() == 2
    with pytest.raises(ZeroDivisionError), alone():
        raise ZeroDivisionError
    assert dist.get_world_size() == 2
