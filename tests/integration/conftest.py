"""How the tests of the plugin run pytest: in this process, strict about markers and warnings."""

from __future__ import annotations

from collections.abc import Callable
from textwrap import dedent
from typing import Any

# Before pytester takes its snapshot of sys.modules: torch cannot be imported twice, and
# hypothesis would be imported anew, rewritten, for the header of every inner run.
import hypothesis  # noqa: F401
import pytest
import torch

# Loaded by the first optimizer and the first dispatch mode, and no more than once either.
import torch._dynamo
import torch._inductor.test_operators

import pytest_paramcheck.plugin
import pytest_paramcheck.plugin.environment
from pytest_paramcheck import CHECKS, ModelCase
from pytest_paramcheck.plugin.devices import Machine

STRICT = (
    *("--strict-markers", "--strict-config", "-p", "no:cacheprovider", "-W", "error"),
    # Where this process runs with --assert=plain, the plugins here were not rewritten.
    *("-W", "ignore:Module already imported:pytest.PytestAssertRewriteWarning"),
)

Run = Callable[..., pytest.RunResult]


def applying(**declared: Any) -> list[str]:
    """Return the names of the whole-model checks that apply to a declaration."""
    case = ModelCase(torch.nn.Identity, **declared)
    return [name for name, check in CHECKS.items() if check.applies(case)]


#: The whole-model checks of a case that declares nothing, and of one that says how to run it.
BARE = applying()
WITH_INPUTS = applying(inputs=1)


@pytest.fixture
def run(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Write ``source`` as a test file (if there is any) and run pytest on the directory."""
    monkeypatch.setenv("COLUMNS", "200")  # the short summary is cut at the terminal's width

    def run(source: str = "", *args: str, name: str = "test_it") -> pytest.RunResult:
        if source:
            pytester.makepyfile(**{name: dedent(source)})
        return pytester.runpytest_inprocess(*STRICT, *args)

    return run


@pytest.fixture
def ids(run: Run) -> Callable[..., list[str]]:
    """Collect ``source`` and return the ids in their order."""

    def ids(source: str = "", *args: str, name: str = "test_it") -> list[str]:
        result = run(source, "--collect-only", "-q", *args, name=name)
        return [line.partition("::")[2] for line in result.outlines if "::" in line]

    return ids


class TwoCards(Machine):
    """A machine with two cuda devices whose tensors are allocated on meta."""

    def accelerator(self) -> str | None:
        return "cuda"

    def absent(self, name: str, dtype: str | None = None) -> str:
        if name in ("cuda", "cuda:0", "cuda:1", "accelerator"):
            return ""
        if name.startswith("cuda"):
            return f"{name}: torch sees 2 cuda devices"
        return super().absent(name, dtype)

    def device(self, name: str) -> torch.device:
        return torch.device("meta" if name.startswith(("cuda", "accelerator")) else name)


@pytest.fixture
def two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has two accelerators."""
    monkeypatch.setattr(pytest_paramcheck.plugin, "Machine", TwoCards)


@pytest.fixture
def no_accelerator(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pretend that this machine has none."""
    monkeypatch.setattr(torch.accelerator, "is_available", lambda: False)
