"""pytest's hooks and the fixtures: thin, and never torch at load.

What is decided about devices stands in ``devices.py`` and ``options.py``, what a marked test
runs in stands in ``environment.py``; here the pieces are hung into pytest.
"""

from __future__ import annotations

import functools
import unittest
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

import pytest

from ..catalogue import ASSERTIONS, PUBLIC
from . import options
from .devices import Machine, Variant
from .fixture_scopes import Bindings
from .manifests import OUTPUT, ManifestRun
from .marker import (
    MACHINE,
    OURS,
    OURS_IN_ITEMS,
    SETTINGS,
    SHOWN,
    VARIANT,
    VARIANTS,
    first_variant,
    parametrize_devices,
    params_of,
    support_or_fail,
    variant_of,
    variants_of,
)
from .model_report import CaseReport

if TYPE_CHECKING:
    import torch

    from .environment import Running
    from .model_items import LatestRun

RUNNING: pytest.StashKey[Running] = pytest.StashKey()
BINDINGS = pytest.StashKey[Bindings]()
NODEID = pytest.StashKey[str]()
MANIFESTS = pytest.StashKey[ManifestRun]()
LATEST: pytest.StashKey[LatestRun] = pytest.StashKey()


class ParamCheckWarning(pytest.PytestWarning):
    """Something about a marked test that the user should know and that is no error."""


# -- options and session ----------------------------------------------------------------------


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", options.MARKER_LINE)
    config.addinivalue_line("markers", options.CASES_LINE)


@pytest.hookimpl(tryfirst=True)  # before xdist starts its workers, before the header
def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    worker = getattr(config, "workerinput", {}).get("workerid", "")
    number = worker.removeprefix("gw")
    machine = Machine(int(number) if number.isdigit() else None)
    config.stash[MACHINE] = machine
    config.stash[SETTINGS] = options.read_settings(config, machine)
    config.stash[VARIANTS] = {}
    config.stash[BINDINGS] = Bindings(OURS)
    manifests = ManifestRun(
        config.rootpath,
        update=config.getoption("--param-update"),
        selected=lambda: options.selects(config),
    )
    config.stash[MANIFESTS] = manifests
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(manifests, "paramcheck-manifests")
        config.pluginmanager.register(CaseReport(), "paramcheck-cases")
        if config.stash[SETTINGS].asked:
            config.pluginmanager.register(RunReport(config), "paramcheck-run")
    if models := config.getoption("--param-model"):
        from .model_items import LatestRun, ModelRun, load_cases

        cases = load_cases(models, config.invocation_params.dir)
        chosen = variants_of(config, options.Support())
        seed = config.stash[SETTINGS].seed
        run = ModelRun(session, cases, chosen, seed, LatestRun())
        config.pluginmanager.register(run, "paramcheck-models")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send home what this worker's tests visited."""
    if hasattr(session.config, "workeroutput"):
        output = session.config.stash[MANIFESTS].output()
        session.config.workeroutput[OUTPUT] = output


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in what a worker's tests visited; a crashed worker sends nothing."""
    output = (getattr(node, "workeroutput", None) or {}).get(OUTPUT)
    if output:
        node.config.stash[MANIFESTS].merge(output)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give xdist's workers the devices that the controller resolved."""
    node.workerinput[options.WORKER_DEVICES] = list(node.config.stash[SETTINGS].devices)


# -- the marker -------------------------------------------------------------------------------


@pytest.hookimpl(tryfirst=True)  # our id comes first
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_devices(metafunc)
    if metafunc.definition.get_closest_marker(options.CASES) is not None:
        from .model_items import LatestRun, parametrize_checks

        stash = metafunc.config.stash
        latest = stash.setdefault(LATEST, LatestRun())
        parametrize_checks(metafunc, stash[SETTINGS].seed, latest)


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and item.get_closest_marker(options.CASES) is not None:
        from .model_items import note_check

        note_check(item, params_of(item).get("check"))


@contextmanager
def _extensions(item: pytest.Item) -> Iterator[None]:
    """Let the conftests above an item read its subjects and open its tensors."""
    hook = item.ihook
    with ExitStack() as stack:
        if hook.pytest_paramcheck_named_tensors.get_hookimpls():
            from ..parameters.subject.inventory import subject_readers
            from . import hook_answers as extensions

            read = functools.partial(extensions.named_tensors, hook.pytest_paramcheck_named_tensors)
            stack.enter_context(subject_readers(read))
        if hook.pytest_paramcheck_storages.get_hookimpls():
            from ..parameters.tensors.memory import storage_openers
            from . import hook_answers as extensions

            opened = functools.partial(extensions.storages, hook.pytest_paramcheck_storages)
            stack.enter_context(storage_openers(opened))
        yield


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    item.config.stash[NODEID] = item.nodeid
    try:
        variant = variant_of(item)
    except ValueError:
        variant = None  # a wrong marker that collection has not seen: reported at set-up
    with _extensions(item):
        if variant is None:
            return (yield)
        return (yield from _on_device(item, variant))


def _on_device(item: pytest.Item, variant: Variant) -> Generator[None, object, object]:
    """Run a marked item on its device, or mark it skipped where that is not there."""
    item.user_properties.append(("param_device", variant.device))
    machine, settings = item.config.stash[MACHINE], item.config.stash[SETTINGS]
    if reason := variant.skip or machine.absent(variant.device, variant.dtype):
        item.add_marker(pytest.mark.skip(reason=reason))
        return (yield)

    from .environment import Running

    running = Running(machine.device(variant.device), variant.dtype, settings.seed)
    item.config.stash[RUNNING] = running
    try:
        with running.inside():
            return (yield)
    finally:
        del item.config.stash[RUNNING]


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    running = item.config.stash.get(RUNNING, None)
    if running is not None:
        running.start()
    if isinstance(item, pytest.Function) and OURS_IN_ITEMS.isdisjoint(params_of(item)):
        _explain_unparametrized(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    running = item.config.stash.get(RUNNING, None)
    if running is not None:
        running.leave_after(item.addfinalizer)  # where the test has no fixture of its own


def _explain_unparametrized(item: pytest.Function) -> None:
    support = support_or_fail(item)
    if support is None:
        return
    chosen = variants_of(item.config, support)
    if len(chosen) > 1:
        ids = ", ".join(variant.id for variant in chosen)
        is_case = item.cls is not None and issubclass(item.cls, unittest.TestCase)
        cause = (
            "unittest.TestCase cannot be parametrized"
            if is_case
            else "marked params after it was collected"
        )
        item.warn(
            ParamCheckWarning(
                f"{cause}: {item.name} runs on {chosen[0].id} only, not on each of {ids}"
            )
        )


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: Any, request: Any) -> Generator[None, object, object]:
    stash = request.config.stash
    running = stash.get(RUNNING, None)
    if fixturedef.scope == "function":
        if running is not None:
            running.leave_after(request.node.addfinalizer)
        return (yield)
    bound = stash[BINDINGS].learn(
        fixturedef.argname, fixturedef.baseid, fixturedef.argnames, stash.get(NODEID, "")
    )
    if running is None:
        return (yield)
    with running.wider(bound):
        return (yield)


# -- a run that cannot lie --------------------------------------------------------------------


class RunReport:
    """Registered where devices were asked for on the command line: fails a run that tested none."""

    def __init__(self, config: pytest.Config) -> None:
        from .device_report import Tally

        self._asked = config.stash[SETTINGS].asked
        self._tally = Tally()
        self._silent: list[str] = []
        # On xdist's controller nobody reports deselected tests, hence the options.
        self._selected = options.selects(config)

    def pytest_deselected(self) -> None:
        self._selected = True

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self._tally.add(report)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if session.shouldstop or session.shouldfail:
            return  # an interrupted run says nothing about the tests it did not come to
        self._silent = self._tally.silent(self._asked, selected=self._selected)
        if session.exitstatus == pytest.ExitCode.OK and self._silent:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for line in self._silent:
            terminalreporter.write_line(f"ERROR: {line}", red=True, bold=True)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """Show all rows of our failures at ``-vv``."""
    if call.excinfo is not None and item.config.getoption("verbose") >= 2:
        from ..messages.errors import show_all

        show_all(call.excinfo.value)


# -- fixtures ---------------------------------------------------------------------------------


@pytest.fixture(scope="session", name=VARIANT)
def _param_variant(request: pytest.FixtureRequest) -> Variant:
    """The variant of the test, or the first chosen one for an unmarked test."""
    if hasattr(request, "param"):
        variant = request.param
        if isinstance(variant, Variant):
            return variant
    first = first_variant(request.config)
    if reason := request.config.stash[MACHINE].absent(first.device, first.dtype):
        pytest.skip(reason)
    return first


@pytest.fixture(name=SHOWN)
def _param_shown() -> None:
    """Nothing: its parameter gives a marked test its id."""


@pytest.fixture(scope="session")
def param_device(_param_variant: Variant, pytestconfig: pytest.Config) -> torch.device:
    """The device this test runs on (the first chosen one in an unmarked test)."""
    return pytestconfig.stash[MACHINE].device(_param_variant.device)


@pytest.fixture(scope="session")
def param_dtype(_param_variant: Variant) -> torch.dtype:
    """The default dtype this test runs with (torch's own where none was chosen)."""
    import torch

    dtype: torch.dtype = (
        getattr(torch, _param_variant.dtype) if _param_variant.dtype else torch.get_default_dtype()
    )
    return dtype


def _assertion_fixture(name: str) -> Callable[..., Any]:
    def assertion() -> Any:
        import pytest_paramcheck

        return getattr(pytest_paramcheck, name)

    assertion.__name__ = name
    assertion.__doc__ = PUBLIC[name].summary
    return pytest.fixture(scope="session", name=name)(assertion)


# One session-scoped fixture per assertion, the function itself, so that fixtures of any scope can
# use it. Made from the catalogue: ``pytest --fixtures`` describes each without importing torch.
globals().update(
    {name: _assertion_fixture(name) for name in ASSERTIONS if name != "assert_manifest"}
)


@pytest.fixture
def assert_manifest(request: pytest.FixtureRequest) -> Callable[..., None]:
    """Assert that a model's parameters are those of the committed manifest."""
    # Function-scoped, unlike the others: the manifest lies beside the test that asks.
    run = request.config.stash[MANIFESTS]
    return run.bind(request.node, variant_of(request.node))
