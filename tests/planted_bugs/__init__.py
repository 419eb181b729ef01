"""Deliberate parameter bugs, each beside the clean twin, and what catches it.

``python -m tests.planted_bugs > docs/planted_bugs.md`` writes the table of the documentation;
``test_planted_bugs.py`` holds the committed table to it.

Each family is a module. Its functions build a model with the bug (``planted=True``) or without:
the twins differ in the planted line and in nothing else, and the very same check passes the
clean one.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

#: The modules that hold the bugs, in the order of the table.
FAMILIES = (
    "ties",
    "registered",
    "flags",
    "optimizers",
    "gradients",
    "values",
    "conditions",
    "structure",
    "checkpoints",
    "resume",
    "moves",
    "conventions",
    "routines",
    "asked",
)

Build = Callable[[bool], Any]
Run = Callable[[Callable[[], Any]], None]


@dataclass(frozen=True)
class Catch:
    """What has to catch a bug: its name, and how it is run on what a factory builds."""

    name: str
    run: Run


@dataclass(frozen=True)
class PlantedBug:
    """One kind of bug: its family, what it is, what catches it and what has to be named."""

    family: str
    title: str
    catch: Catch
    names: tuple[str, ...]
    build: Build

    @property
    def id(self) -> str:
        return self.build.__name__

    def run(self, *, planted: bool) -> None:
        """Run what catches it on the model with the bug, or on the clean twin."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.catch.run(lambda: self.build(planted))

    def message(self) -> str:
        """Return what is said about the planted bug."""
        try:
            self.run(planted=True)
        except ParamCheckError as error:
            return str(error)
        raise LookupError(f"{self.title}: {self.catch.name} does not catch it")


PLANTED: list[PlantedBug] = []


def planted_bugs() -> list[PlantedBug]:
    """Return the bugs of all families."""
    for family in FAMILIES:
        importlib.import_module(f"{__name__}.{family}")
    return PLANTED


def bug(family: str, title: str, catch: Catch, *names: str) -> Callable[[Build], Build]:
    """Register a bug; the first line of the message has to name all of ``names``, as folded."""

    def register(build: Build) -> Build:
        PLANTED.append(PlantedBug(family, title, catch, names, build))
        return build

    return register


def checked(check: str, **declared: Any) -> Catch:
    """Caught by a whole-model check, the model declared like this."""
    found = CHECKS[check]

    def run(factory: Callable[[], Any]) -> None:
        run_check(found, CaseRun(ModelCase(factory, name="model", **declared)))

    return Catch(found.name, run)


def asserted(assertion: Callable[..., Any], *args: Any, **options: Any) -> Catch:
    """Caught by an assertion; a tuple of subjects goes in front of its arguments."""

    def run(factory: Callable[[], Any]) -> None:
        subject = factory()
        subjects = subject if isinstance(subject, tuple) else (subject,)
        assertion(*subjects, *args, **options)

    return Catch(assertion.__name__, run)


def during(assertion: Callable[..., Any], *patterns: str, **options: Any) -> Catch:
    """Caught by an assertion around a block: the factory returns the model and the block."""

    def run(factory: Callable[[], Any]) -> None:
        model, block = factory()
        with assertion(model, *patterns, **options):
            block()

    return Catch(assertion.__name__, run)


def tokens() -> Tensor:
    return torch.randint(11, (2, 5))


def rows() -> Tensor:
    return torch.randn(6, 4)


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor | None = None) -> None:
    optimizer.zero_grad()
    model(rows() if x is None else x).pow(2).mean().backward()
    optimizer.step()


def markdown() -> str:
    """Return the table: class of bug, what catches it, the first line of what it says."""
    lines = [
        "# Deliberate bugs, and what catches them",
        "",
        "Each row is a bug planted in a small model by `tests/planted_bugs/`. What stands beside",
        "it catches it and passes the same model without the bug; `check_...` are whole-model",
        "checks. This file is written by",
        "`python -m tests.planted_bugs > docs/planted_bugs.md`.",
        "",
        "| class | bug | caught by | first line of the message |",
        "|---|---|---|---|",
    ]
    for one in planted_bugs():
        first = one.message().splitlines()[0].replace("|", "\\|")
        lines.append(f"| {one.family} | {one.title} | `{one.catch.name}` | `{first}` |")
    return "\n".join(lines) + "\n"
