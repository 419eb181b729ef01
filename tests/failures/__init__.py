"""A failing call for each problem that no planted bug has: what the gallery shows beside them.

Each family is a module. Its functions make a subject with something wrong in it and call the
assertion or the whole-model check that says so.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass

import torch

from pytest_paramcheck import CHECKS, ModelCase, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun


@dataclass(frozen=True)
class Failure:
    """A call that fails: its family, what is wrong, who says so."""

    family: str
    title: str
    by: str
    call: Callable[[], object]

    def error(self) -> ParamCheckError:
        """Return the error that is raised."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            try:
                self.call()
            except ParamCheckError as error:
                return error
        raise LookupError(f"{self.title}: {self.by} does not fail")


FAILURES: list[Failure] = []


def failures() -> list[Failure]:
    """Return the failures of all families."""
    for found in pkgutil.iter_modules(__path__):
        importlib.import_module(f"{__name__}.{found.name}")
    return FAILURES


def fails(by: str, title: str) -> Callable[[Callable[[], object]], Callable[[], object]]:
    """Register a call: which assertion or check fails, and what is wrong."""

    def register(call: Callable[[], object]) -> Callable[[], object]:
        FAILURES.append(Failure(call.__module__.rpartition(".")[2], title, by, call))
        return call

    return register


def checked(check: str, case: ModelCase) -> None:
    """Run one whole-model check on a case."""
    run_check(CHECKS[check], CaseRun(case))
