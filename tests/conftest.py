"""What all tests share: how pytest is run, and how hard hypothesis looks."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = "pytester"

#: What needs several processes to a test: only where it is named, as its tox environment does.
_RANKS = Path(__file__).parent / "ranks"


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    named = any("ranks" in Path(str(arg).partition("::")[0]).parts for arg in config.args)
    return True if collection_path == _RANKS and not named else None


# Everyday: the same examples each time, so that a red run means a change and not luck.
# All: what the run of slow tests asks for (tox run -e slow). Nightly: new ones each time, and a
# hundred times as many.
settings.register_profile("everyday", max_examples=100, deadline=None, derandomize=True)
settings.register_profile("all", max_examples=500, deadline=None, derandomize=True)
settings.register_profile(
    "nightly",
    max_examples=10_000,
    deadline=None,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
# Where the tests run some hundred times, each on another mutant (tests/mutation).
settings.register_profile("few", max_examples=25, deadline=None, derandomize=True)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "everyday"))


@pytest.fixture(params=[(), ("-n", "0")], ids=["plain", "n0"])
def plugin_args(request: pytest.FixtureRequest) -> tuple[str, ...]:
    """How pytest is run: without and with xdist's options; test_workers.py has real workers."""
    args: tuple[str, ...] = request.param
    return args


class NoSource:
    """pytest formats, and throws away, what interrupted a run: by parsing its own files, 0.2 s."""

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        if isinstance(excinfo.value, pytest.Session.Interrupted):
            excinfo.traceback = excinfo.traceback[-1:]


class Libraries:
    """Remembers what runs in this process have imported from outside their own folder."""

    def __init__(self) -> None:
        self.folder = ""
        self._modules: dict[str, ModuleType] = {}

    def pytest_unconfigure(self) -> None:
        for name, module in list(sys.modules.items()):
            # Read as it lies there: some modules import others when an attribute is asked for.
            file = getattr(module, "__dict__", {}).get("__file__")
            if not (isinstance(file, str) and file.startswith(self.folder)):
                self._modules[name] = module

    def put_back(self) -> None:
        """Load again, as the same objects, what pytester has taken out of sys.modules."""
        sys.modules.update({**self._modules, **sys.modules})


@pytest.fixture
def libraries() -> Iterator[Libraries]:
    """What stays loaded beyond the test; torn down after pytester, which requests it first."""
    kept = Libraries()
    yield kept
    kept.put_back()


@pytest.fixture
def pytester(
    libraries: Libraries, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch
) -> pytest.Pytester:
    """pytester, but a library that a run in this process loads stays loaded.

    pytester takes back what a run has added to sys.modules, and torch registers its operators
    at import: a part of it that is loaded late (torch._dynamo, with the first optimizer) would
    be imported a second time by a later test and fail there.
    """
    libraries.folder = str(pytester.path)
    inline_run = pytester.inline_run

    def keeping(*args: Any, plugins: Sequence[object] = (), **kwargs: Any) -> Any:
        try:
            return inline_run(*args, plugins=[*plugins, libraries, NoSource()], **kwargs)
        finally:
            libraries.put_back()

    monkeypatch.setattr(pytester, "inline_run", keeping)
    return pytester
