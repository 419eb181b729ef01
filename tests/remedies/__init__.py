"""What each hint says to do, done: ``tests/unit/test_hints.py`` applies them.

Each family is a module. Its functions make a call that fails with the hint, and do what it says.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import CHECKS, ModelCase, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

Call = Callable[[], object]


@dataclass(frozen=True)
class Case:
    """A call that fails, and what repairs it.

    ``repair`` gets the hint and may return the call that passes then: where a model, an optimizer
    or a file is made anew, it is another call. ``keeps`` is what has to stay as it is but for
    ``changes``.
    """

    call: Call
    repair: Callable[[str], Call | None]
    keeps: nn.Module | None = None
    changes: tuple[str, ...] = field(default=())


@dataclass(frozen=True)
class Remedy:
    """The hint, ``*`` for what differs each time, and what makes a case of it."""

    hint: str
    make: Callable[..., Case]

    def case(self, folder: Path) -> Case:
        """Make the case; ``folder`` is where its files are, if it has any."""
        return self.make(folder) if inspect.signature(self.make).parameters else self.make()

    @property
    def id(self) -> str:
        return f"{self.make.__module__.rpartition('.')[2]}-{self.make.__name__}"


REMEDIES: list[Remedy] = []


def remedies() -> list[Remedy]:
    """Return the remedies of all families."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    return REMEDIES


def remedy(*hints: str) -> Callable[[Callable[..., Case]], Callable[..., Case]]:
    """Register what repairs a model that gets one of these hints."""

    def register(make: Callable[..., Case]) -> Callable[..., Case]:
        REMEDIES.extend(Remedy(hint, make) for hint in hints)
        return make

    return register


def done(statement: str, /, **names: Any) -> None:
    """Run a line of a hint; ``nn`` and ``torch`` are there as they are in a user's file."""
    exec(statement, {"nn": nn, "torch": torch, **names})


def checking(check: str, factory: Callable[[], nn.Module], **declared: Any) -> Call:
    """Return a call of a whole-model check."""

    def call() -> None:
        case = ModelCase(factory, name="model", **declared)
        run_check(CHECKS[check], CaseRun(case))

    return call


def asking(call: Call, *words: str) -> Callable[[str], Call | None]:
    """Repair by asking what the hint names: it fails with a text that has these words."""

    def ask() -> None:
        with pytest.raises(ParamCheckError) as caught:
            call()
        assert all(word in str(caught.value) for word in words), str(caught.value)

    return lambda hint: ask
