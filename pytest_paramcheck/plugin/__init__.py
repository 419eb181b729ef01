"""pytest's hooks, and the part of the package that speaks to pytest. Never torch at load.

Here the hooks only hand over; what they hand to is in the other files:

* ``fixtures.py``: the fixtures, one for each assertion, ``param_device`` and ``param_dtype``;
* ``session.py``: what is kept for one session, and which fixtures it bound to a device;
* ``options.py``: ``--param-*`` and the ini, read into settings;
* ``hookspecs.py``: the hooks that a conftest may implement;
* ``hook_answers.py``: what conftests answer about subjects, tensors and models;
* ``marker.py``: what the params marker means, and which marks of that name are ours;
* ``marked.py``: what a marked test therefore runs on;
* ``devices.py``: names of devices and dtypes, and whether a device is there;
* ``environment.py``: what a marked test runs in (the one file that needs torch);
* ``model_items.py``: whole-model checks as test items;
* ``param_model.py``: those of ``--param-model``, without a test file;
* ``factories.py``: what ``--param-model`` names, imported;
* ``model_check.py``: what a test of such items receives, as its annotation;
* ``user_line.py``: the tracebacks of our errors end at the user's line;
* ``finding_properties.py``: findings as a property of the report;
* ``command.py``: pytest run from our own command line; ``results.py``: what each check came to;
* ``pages.py``: ``--param-page``;
* ``manifests.py``: the manifests of one run;
* ``device_report.py``, ``model_report.py``: which devices a run really tested, and which
  checks of a model failed;
* ``properties.py``: what reports carry home for them;
* ``ranks/``: tests on several processes, ``ranks=N``.

PYTEST_DONT_REWRITE, for a conftest that imports a public name before it names this plugin.
"""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

from . import options
from .devices import Machine, Variant, kind
from .fixtures import *  # noqa: F403 - pytest finds the fixtures of a plugin in its module
from .fixtures import _param_shown as _param_shown
from .fixtures import _param_variant as _param_variant
from .manifests import OUTPUT, ManifestRun
from .marked import (
    OURS,
    excluded_devices,
    is_remote,
    own_items,
    parametrize_devices,
    params_of,
    ranks_of,
    variant_of,
    variants_of,
    warn_unparametrized,
)
from .marker import MARKER, MARKER_LINE, Support
from .marker import ParamCheckWarning as ParamCheckWarning
from .properties import DEVICE, NOT_ON, RANKS, is_check
from .ranks.here import launched, rank_here
from .session import FixtureScopes, ParamSession, keep_session, session_of


def pytest_addoption(parser: pytest.Parser) -> None:
    options.add_options(parser)


def pytest_load_initial_conftests(early_config: pytest.Config, parser: pytest.Parser) -> None:
    options.fit_ini_types(early_config, parser)


def pytest_addhooks(pluginmanager: pytest.PytestPluginManager) -> None:
    from . import hookspecs

    pluginmanager.add_hookspecs(hookspecs)


@pytest.hookimpl(tryfirst=True)  # before anything is made of the options
def pytest_configure(config: pytest.Config) -> None:
    options.share_out(config)
    marker = options.marker_name(config)
    config.addinivalue_line("markers", MARKER_LINE.replace(MARKER, marker, 1))
    config.addinivalue_line("markers", options.CASES_LINE)


@pytest.hookimpl(tryfirst=True)  # before xdist starts its workers, before the header
def pytest_sessionstart(session: pytest.Session) -> None:
    config = session.config
    here = rank_here(config)
    started = here or launched(os.environ)
    if started is not None:
        machine = Machine(started.place)
    else:
        worker = getattr(config, "workerinput", {}).get("workerid", "")
        number = worker.removeprefix("gw")
        machine = Machine(int(number) if number.isdigit() else None)
    settings = options.read_settings(config, machine)
    models = config.getoption("--param-model")
    selected = options.selects(config)  # before the ids of models are taken out
    manifests = ManifestRun(
        config.rootpath,
        update=config.getoption("--param-update"),
        selected=selected,
        dtypes=settings.dtypes,
    )
    ours = ParamSession(machine, settings, FixtureScopes(OURS), manifests)
    ours.ranks_elsewhere = here is None and settings.launched is None
    keep_session(config, ours)
    config.pluginmanager.register(manifests, "paramcheck-manifests")
    if _is_of_user(config):
        ranks = options.ranks_asked(settings)
        if settings.asked or ranks:
            from .device_report import RunReport

            option = "torchrun --nproc-per-node" if settings.launched else "--param-ranks"
            report = RunReport(settings.asked, [*map(str, ranks)], selected=selected, option=option)
            config.pluginmanager.register(report, "paramcheck-run")
    if any(kind(device) == "meta" for device in settings.devices):
        from .device_report import MetaReport

        config.pluginmanager.register(MetaReport(), "paramcheck-meta")
    if config.getoption("--param-page") is not None:
        from .pages import Measurements, Pages, page_folder

        folder = page_folder(config)
        measured = Measurements()
        config.pluginmanager.register(measured, "paramcheck-measurements")
        if folder is not None and _is_of_user(config):
            config.pluginmanager.register(Pages(folder, measured), "paramcheck-pages")
    if models:
        _report_cases(config)
        from .factories import load_cases
        from .param_model import ModelRun, take_ids

        cases = load_cases(models, config.invocation_params.dir)
        # What an ini chooses is for tests that say which numbers they support.
        chosen = variants_of(config, Support(ranks=options.ranks_asked(settings) or None))
        ids = take_ids(config, models)
        run = ModelRun(session, cases, chosen, settings.seed, ours.latest, ids)
        config.pluginmanager.register(run, "paramcheck-models")


def _is_of_user(config: pytest.Config) -> bool:
    """Whether this is the process that the user started: all reports arrive there."""
    return not hasattr(config, "workerinput") and rank_here(config) is None


def _report_cases(config: pytest.Config) -> None:
    """Sum up what is checked of whole models, from the first such test on."""
    name = "paramcheck-cases"
    if _is_of_user(config) and not config.pluginmanager.has_plugin(name):
        from .model_report import CaseReport

        config.pluginmanager.register(CaseReport(), name)


@pytest.hookimpl(trylast=True)
def pytest_collection_finish(session: pytest.Session) -> None:
    """Get ready for tests that have ranks, where there are any that run elsewhere."""
    config = session.config
    ours = session_of(config)
    if config.getoption("collectonly") or config.getoption("setupplan"):
        ours.ranks_elsewhere = False
    elif ours.ranks_elsewhere and any(ranks_of(item) is not None for item in session.items):
        from .ranks.items import RankItems

        items = RankItems(session.items)
        if config.getoption("usepdb") or config.getoption("trace"):
            from .ranks.debugging import RanksDebug

            ours.ranks_elsewhere = False
            config.pluginmanager.register(RanksDebug(config, items), "paramcheck-ranks")
        else:
            from .ranks.parent import RanksRun

            config.pluginmanager.register(RanksRun(config, items), "paramcheck-ranks")
    elif here := launched(os.environ) if ours.settings.launched else None:
        ids = [item.nodeid for item in session.items if ranks_of(item) == here.ranks]
        if ids:
            from .ranks.torchrun import TorchrunRun

            torchrun = TorchrunRun(config, here)
            torchrun.learn(ids)
            config.pluginmanager.register(torchrun, "paramcheck-ranks")


@pytest.hookimpl(tryfirst=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Send home what this worker's tests visited."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput[OUTPUT] = session_of(session.config).manifests.output()


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take in what a worker's tests visited; a crashed worker sends nothing."""
    manifests = session_of(node.config).manifests
    output = getattr(node, "workeroutput", None)
    if output is None:
        manifests.lose()
    else:
        manifests.merge(output.get(OUTPUT, {}))


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Give xdist's workers the devices that the controller resolved; it collects no test itself."""
    _report_cases(node.config)
    node.workerinput[options.WORKER_DEVICES] = list(session_of(node.config).settings.devices)


@pytest.hookimpl(tryfirst=True)  # our id comes first
def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    parametrize_devices(metafunc)
    if metafunc.definition.get_closest_marker(options.CASES) is not None:
        from .model_items import parametrize_checks

        session = session_of(metafunc.config)
        parametrize_checks(metafunc, session.settings.seed, session.latest)


@pytest.hookimpl(wrapper=True)
def pytest_pycollect_makeitem(
    collector: pytest.Collector, name: str
) -> Generator[None, object, object]:
    made = yield
    return own_items(f"{collector.nodeid}::{name}", made) if isinstance(made, list) else made


def pytest_itemcollected(item: pytest.Item) -> None:
    if isinstance(item, pytest.Function) and item.get_closest_marker(options.CASES) is not None:
        from .model_items import note_check

        _report_cases(item.config)
        note_check(item, params_of(item).get("check"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    from .hook_answers import conftests_asked

    session_of(item.config).nodeid = item.nodeid
    try:
        variant = variant_of(item)
    except ValueError:
        variant = None  # a wrong marker that collection has not seen: reported at set-up
    with conftests_asked(item):
        if variant is None:
            return (yield)
        return (yield from _on_device(item, variant))


def _on_device(item: pytest.Item, variant: Variant) -> Generator[None, object, object]:
    """Run a marked item on its device, or mark it skipped where that is not there."""
    item.user_properties.append((DEVICE, variant.device))
    if not_on := excluded_devices(item):
        item.user_properties.append((NOT_ON, ",".join(not_on)))
    session = session_of(item.config)
    if variant.ranks is not None:
        item.user_properties.append((RANKS, str(variant.ranks)))
    if is_remote(item):
        from .ranks.numbers import too_few_there

        # The memory of an accelerator belongs to the ranks, and so do the defaults and the seed.
        if reason := variant.skip or too_few_there(variant.device, variant.ranks or 1):
            item.add_marker(pytest.mark.skip(reason=reason))
        return (yield)
    if reason := variant.skip or session.machine.absent(variant.device, variant.dtype):
        item.add_marker(pytest.mark.skip(reason=reason))
        return (yield)

    from .environment import Running

    device = session.machine.device(variant.device)
    session.running = running = Running(device, variant.dtype, session.settings.seed)
    try:
        with running.inside():
            return (yield)
    finally:
        session.running = None


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.user_properties:
        from .finding_properties import forget_findings

        forget_findings(item)
    if running := session_of(item.config).running:
        running.start()
    if isinstance(item, pytest.Function):
        warn_unparametrized(item)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> None:
    if running := session_of(item.config).running:
        running.leave_after(item.addfinalizer)  # where the test has no fixture of its own
        if overridden := running.overridden():
            from ..messages.wording import join_words

            item.warn(
                ParamCheckWarning(
                    f"{item.name} starts under {join_words(overridden)}, which its id does not "
                    f"say: a fixture or hook has set that since the marker did"
                )
            )


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(
    fixturedef: pytest.FixtureDef[Any], request: pytest.FixtureRequest
) -> Generator[None, object, object]:
    session = session_of(request.config)
    running = session.running
    if fixturedef.scope == "function":
        if running is not None:
            running.leave_after(request.node.addfinalizer)
        return (yield)
    bound = session.fixture_scopes.learn(
        fixturedef.argname, fixturedef.baseid, fixturedef.argnames, session.nodeid
    )
    if running is None:
        return (yield)
    with running.wider(bound):
        return (yield)


# Not tryfirst: the errors of a unittest.TestCase are handed over by such a hook of pytest's.
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[Any]) -> None:
    """End our failures at the user's line, and show all their rows at ``-vv``."""
    if call.when == "call" and is_check(item):
        from .model_items import note_run

        note_run(item)
    if call.excinfo is not None:
        from .finding_properties import note_findings

        note_findings(item, call.excinfo.value)
        call.excinfo = _ending_at_user(call.excinfo, item.config)


@pytest.hookimpl(tryfirst=True)
def pytest_exception_interact(
    node: pytest.Item | pytest.Collector, call: pytest.CallInfo[Any], report: object
) -> None:
    """End what fails in a collection at the user's line: its report is made already."""
    if isinstance(report, pytest.CollectReport) and call.excinfo is not None:
        shown = _ending_at_user(call.excinfo, node.config)
        if shown is not call.excinfo:
            call.excinfo = shown
            report.longrepr = node.repr_failure(shown)


def _ending_at_user(
    excinfo: pytest.ExceptionInfo[BaseException], config: pytest.Config
) -> pytest.ExceptionInfo[BaseException]:
    from ..messages.errors import show_all
    from .user_line import end_at_user

    if config.getoption("verbose", 0) >= 2:
        show_all(excinfo.value)
    if config.getoption("fulltrace", False) or not end_at_user(excinfo.value):
        return excinfo
    # A new one: the old one may have read the traceback already.
    return pytest.ExceptionInfo.from_exception(excinfo.value)
