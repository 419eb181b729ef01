"""``--param-model``: what it names as test items, without a test file.

Tests: ``tests/integration/test_param_model.py``, ``test_misuse.py`` and ``test_declare.py``.
"""

from __future__ import annotations

import shlex
from collections.abc import Generator, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..messages.errors import ParamCheckError, ParamCheckUsageError
from ..messages.wording import did_you_mean
from ..model_checks.case import ModelCase
from .devices import Variant
from .factories import place_of
from .marked import is_remote
from .model_items import BoundCheck, bound_checks, custom_checks, need_ranks

if TYPE_CHECKING:
    from ..model_checks.run import LatestRun


class ModelNode(pytest.Collector):
    """What one ``--param-model`` names: the parent of its items."""

    def collect(self) -> list[pytest.Item]:
        return []  # its items are added to the session as a whole


class ModelCheckItem(pytest.Item):
    """One check of one model on one device."""

    def __init__(self, *, bound: BoundCheck, variant: Variant, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.bound = bound
        self.param_variant = variant

    def runtest(self) -> None:
        __tracebackhide__ = True
        if is_remote(self):
            return  # its ranks run it
        self.bound()

    def repr_failure(self, excinfo: Any, style: Any = None) -> Any:
        """Return our own text where a check failed, and the user's part of a traceback."""
        if isinstance(excinfo.value, (ParamCheckError, ParamCheckUsageError)):
            return f"{type(excinfo.value).__name__}: {excinfo.value}"
        below = excinfo.traceback.cut(path=__file__).filter(excinfo)
        if len(below):
            excinfo.traceback = below
        return super().repr_failure(excinfo, style=style or "long")

    def reportinfo(self) -> tuple[Path, int | None, str]:
        """Return where the factory is written: a skip needs a place, and this is the user's."""
        spec = self.parent.name if self.parent else ""
        # At -v pytest writes "::" for the dots of a name that a node id ends with: what is shown
        # could not be given as an argument.
        shown = f"--param-model={spec}" if "." in spec else spec
        return *self.place, f"{shown}::{self.name}"

    @property
    def command(self) -> str:
        """The command that runs this item and no other."""
        variant, given = self.param_variant, self.config.getoption
        words = ["pytest", f"--param-model={self.parent.name if self.parent else ''}"]
        if given("--param-device"):
            words.append(f"--param-device={variant.device}")
        if given("--param-dtype"):
            words.append(f"--param-dtype={variant.dtype}")
        if given("--param-ranks"):
            words.append(f"--param-ranks={variant.ranks}")
        if (seed := given("--param-seed")) is not None:
            words.append(f"--param-seed={seed}")
        return shlex.join([*words, self.nodeid])

    @property
    def place(self) -> tuple[Path, int]:
        """The file of the factory and its line, counted from 0 as pytest does."""
        file, line = place_of(self.bound.factory)
        return (self.path if file is None else file), line


def model_items(
    parent: ModelNode,
    cases: Sequence[ModelCase],
    chosen: Sequence[Variant],
    seed: int,
    latest: LatestRun,
) -> Iterator[pytest.Item]:
    """Yield the items of what one ``--param-model`` names."""
    custom = custom_checks(parent.session)
    if not any(variant.ranks for variant in chosen):
        need_ranks(cases, "give --param-ranks=2 as well")
    for case in cases:
        for variant in chosen:
            for bound, marks in bound_checks(case, custom, seed, latest):
                prefix = f"{case.name}-" if len(cases) > 1 else ""
                name = f"{prefix}{bound.name}[{variant.id}]"
                item = ModelCheckItem.from_parent(
                    parent,
                    name=name,
                    # As a string: --lf compares it with what it has read from its cache.
                    nodeid=f"{parent.name}::{name}",
                    bound=bound,
                    variant=variant,
                )
                for mark in marks:
                    item.add_marker(mark)
                item.user_properties += bound.properties
                yield item


def take_ids(config: pytest.Config, specs: Sequence[str]) -> list[str]:
    """Take the ids of ``--param-model`` items out of the arguments: pytest looks for files."""

    def is_ours(arg: str) -> bool:
        return any(arg == spec or arg.startswith(f"{spec}::") for spec in specs)

    ids = [arg for arg in config.args if is_ours(arg)]
    config.args = [arg for arg in config.args if not is_ours(arg)]
    return ids


class ModelRun:
    """Registered where ``--param-model`` is given: adds the items (or, where ids were named,
    those), and collects nothing else unless a path was named as well."""

    def __init__(
        self,
        session: pytest.Session,
        cases: Mapping[str, Sequence[ModelCase]],
        chosen: Sequence[Variant],
        seed: int,
        latest: LatestRun,
        ids: Sequence[str] = (),
    ) -> None:
        # Made before the collection, where an error is still one line.
        self._made: list[tuple[ModelNode, list[pytest.Item]]] = []
        for spec, own in cases.items():
            node = ModelNode.from_parent(session, name=spec, nodeid=spec)
            try:
                self._made.append((node, list(model_items(node, own, chosen, seed, latest))))
            except ParamCheckUsageError as error:
                raise pytest.UsageError(f"--param-model={spec}: {error}") from None
        if ids:
            self._select(ids)

    def _select(self, ids: Sequence[str]) -> None:
        """Keep what is named: a model, a check on each device, or one item."""
        wanted: set[str] = set()
        for name in ids:
            found = [
                item.nodeid
                for node, items in self._made
                for item in items
                if name in (node.name, item.nodeid, item.nodeid.partition("[")[0])
            ]
            if not found:
                known = [item.nodeid for _, items in self._made for item in items]
                hint = did_you_mean(name, known, at_most=1)
                raise pytest.UsageError(f"not found: {name}{hint and ';' + hint}")
            wanted.update(found)
        self._made = [
            (node, [item for item in items if item.nodeid in wanted]) for node, items in self._made
        ]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Place the skip of a check where its factory is: all frames in between are hidden; say
        of a failure how it is run alone."""
        report = yield
        if isinstance(item, ModelCheckItem) and report.failed:
            report.sections.append(("to run it alone", item.command))
        if isinstance(item, ModelCheckItem) and isinstance(report.longrepr, tuple):
            file, line = item.place
            report.longrepr = (str(file), line + 1, report.longrepr[2])
        return report

    def pytest_ignore_collect(self, config: pytest.Config) -> bool | None:
        named = config.args_source is pytest.Config.ArgsSource.ARGS
        return None if named else True

    @pytest.hookimpl(tryfirst=True)  # before anything selects or sorts
    def pytest_collection_modifyitems(
        self, session: pytest.Session, items: list[pytest.Item]
    ) -> None:
        for node, own in self._made:
            # So that the terminal counts them as collected.
            report = pytest.CollectReport(node.nodeid, "passed", None, list(own))
            node.ihook.pytest_collectreport(report=report)
            items += own
        self._made = []
