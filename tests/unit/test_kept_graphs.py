"""What a constructor computed from a parameter and kept: said alike by every check that asks."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.kept_graphs import kept_graphs, used_by
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import failure_lines

ROWS = torch.linspace(-1, 1, 12).reshape(3, 4)
RUNNING = ("check_grads_reach", "check_grads_finite", "check_training_step")


class Kept(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.p = nn.Parameter(torch.ones(4))
        self.w = self.p * 2

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w


class KeptInBuffer(nn.Module):
    """The product of two, in a child's buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
        self.child = nn.Module()
        self.child.register_buffer("w", self.a.exp() * self.b)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x * self.child.w
        return output


class KeptInList(Kept):
    def __init__(self) -> None:
        super().__init__()
        self.w = [self.p.exp()]  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Tensor:
        return x * self.w[0]


class KeptTied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.w = self.one.weight.t()

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.two(self.one(x)) @ self.w
        return output


class OldNorm(nn.Sequential):
    """Keeps one too, and computes it anew before each forward."""

    def __init__(self) -> None:
        super().__init__(nn.utils.weight_norm(nn.Linear(4, 2)))


class Pruned(nn.Sequential):
    def __init__(self) -> None:
        layer = nn.Linear(4, 2)
        prune.random_unstructured(layer, "weight", 0.5)
        super().__init__(layer)


class NeverRead(Kept):
    def forward(self, x: Tensor) -> Tensor:
        return x * self.p * 2


def outcomes(factory: Callable[[], nn.Module], names: list[str]) -> dict[str, str]:
    case = ModelCase(factory, inputs=ROWS, name="model", steps=2)
    run, said = CaseRun(case), {}
    for name in names:
        if CHECKS[name].applies(case):
            try:
                run_check(CHECKS[name], run)
                said[name] = "ok"
            except NothingToCheck as nothing:
                said[name] = f"skip: {nothing}"
            except ParamCheckError as error:
                said[name] = str(error)
    return said


@pytest.mark.parametrize(
    ("factory", "path", "sources"),
    [
        (Kept, "w", "p: it never follows it"),
        (KeptInBuffer, "child.w", "b and a: it never follows them"),
        (KeptInList, "w[0]", "p: it never follows it"),
        (KeptTied, "w", "one.weight: it never follows it"),
    ],
)
def test_every_check_that_asks_says_the_same(
    factory: Callable[[], nn.Module], path: str, sources: str
) -> None:
    running = [*RUNNING, *(["check_tied_grads_sum"] if factory is KeptTied else [])]
    for name in running:
        declared = ModelCase(factory, inputs=ROWS, name="model", steps=2)
        assert failure_lines(run_check, CHECKS[name], CaseRun(declared)) == [
            f"computed at construction and kept: {path} (model)",
            "",
            f"  {path}  computed from {sources}",
            "",
            f"  hint: compute {path} in forward(), or detach() it where it is to stay as it is",
        ]


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("factory", [OldNorm, Pruned, NeverRead])
def test_what_is_computed_anew_or_never_read_is_right(factory: Callable[[], nn.Module]) -> None:
    said = outcomes(factory, list(RUNNING))
    assert said == dict.fromkeys(RUNNING, "ok")


class Counts(nn.Linear):
    """Has state of every kind that one check could leave to the next."""

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.calls = 0
        self.seen: list[int] = []
        self.norm = nn.BatchNorm1d(4)
        self.drop = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.seen.append(self.calls)
        output: Tensor = self.drop(self.norm(super().forward(x)))
        return output * (1 if self.calls < 100 else 0)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize("factory", [Kept, KeptTied, OldNorm, Counts])
def test_no_verdict_depends_on_what_ran_before(factory: Callable[[], nn.Module]) -> None:
    alone = {name: said for n in CHECKS for name, said in outcomes(factory, [n]).items()}
    for seed in range(3):
        names = list(CHECKS)
        random.Random(seed).shuffle(names)
        assert outcomes(factory, names) == alone


def test_a_loss_without_a_graph_uses_none() -> None:
    assert used_by(torch.ones(()), kept_graphs(Kept())) == []
