"""Equal values at the start: copies that train, and what is equal on purpose."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable

import pytest
import torch
from torch import nn

from pytest_paramcheck import CHECKS, ModelCase, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun


def distinct(factory: Callable[[], nn.Module], **given: list[str]) -> str:
    run = CaseRun(ModelCase(factory, name="model", **given))  # type: ignore[arg-type]
    before = torch.get_rng_state(), random.getstate()
    try:
        run_check(CHECKS["check_distinct"], run)
    except ParamCheckError as error:
        return str(error).partition("\n")[0]
    finally:
        assert torch.equal(before[0], torch.get_rng_state())
        assert before[1] == random.getstate()
    return "ok"


class Tables(nn.Module):
    """Two tables of slopes, the same in every build."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = (nn.Parameter(torch.arange(4.0)) for _ in range(2))


class Teacher(nn.Module):
    """A frozen copy that an average will follow."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(3, 3)
        self.ema = copy.deepcopy(self.net).requires_grad_(False)


class TwoStudents(Teacher):
    def __init__(self) -> None:
        super().__init__()
        self.other = copy.deepcopy(self.net)


class Copied(nn.Sequential):
    def __init__(self) -> None:
        layer = nn.Linear(3, 3)
        super().__init__(layer, copy.deepcopy(layer))


class SeedsItself(Copied):
    def __init__(self) -> None:
        torch.manual_seed(7)
        super().__init__()


class SeedsItselfApart(Copied):
    """Beside a table, and in a fork of the generator that nobody sees from outside."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(7)
            super().__init__()


class BringsGenerators(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        for name in ("a", "b"):
            drawn = torch.randn(4, generator=torch.Generator().manual_seed(0))
            setattr(self, name, nn.Parameter(drawn))


class SeededTables(Tables):
    def __init__(self) -> None:
        torch.manual_seed(7)
        super().__init__()
        self.layer = nn.Linear(3, 3)


class SeedsPython(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        random.seed(7)
        values = [random.random() for _ in range(4)]
        self.a, self.b = (nn.Parameter(torch.tensor(values)) for _ in range(2))


class TablesAndCopies(Tables):
    def __init__(self) -> None:
        super().__init__()
        self.layers = Copied()


@pytest.mark.parametrize("factory", [Tables, Teacher, SeededTables])
def test_what_is_equal_on_purpose_is_no_finding(factory: Callable[[], nn.Module]) -> None:
    assert distinct(factory) == "ok"


@pytest.mark.parametrize(
    ("factory", "names"),
    [
        (Copied, "{0,1}.weight, {0,1}.bias"),
        (TwoStudents, "net.weight, other.weight, net.bias, other.bias"),
        (TablesAndCopies, "layers.{0,1}.weight, layers.{0,1}.bias"),
        (SeedsItself, "{0,1}.weight, {0,1}.bias"),
        (SeedsItselfApart, "{0,1}.weight, {0,1}.bias"),
        (BringsGenerators, "a, b"),
        (SeedsPython, "a, b"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_copies_that_train_are_found(factory: Callable[[], nn.Module], names: str) -> None:
    assert distinct(factory) == f"equal values: {names} (model)"


def test_what_is_declared_alike_is_not_stale_where_it_would_be_no_finding() -> None:
    assert distinct(Tables, alike=["a", "b"]) == "ok"
    assert distinct(Teacher, alike=["*"]) == "ok"
    assert distinct(lambda: nn.Linear(3, 3), alike=["weight"]) == (
        "declared alike but is not: weight (model)"
    )
