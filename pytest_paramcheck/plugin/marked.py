"""What marked tests run on: the parameters of pytest's items, and what they lack.

``marker.py`` says what a test supports (or the conftest above it does), the settings what was
chosen, ``devices.py`` what remains; here that becomes items.

Tests: ``tests/integration/test_devices.py``, ``test_misuse.py``, ``test_environment.py`` and
``test_absent.py``.
"""

from __future__ import annotations

import unittest
from collections.abc import Iterator, Sequence
from itertools import chain, product
from typing import Any

import pytest

from .devices import Variant, is_excluding, variants
from .marker import (
    ParamCheckWarning,
    Support,
    foreign_text,
    is_foreign,
    marks_of,
    parameter_marks,
    read_devices_of_hook,
    read_marks,
    sets_of_parameters,
)
from .options import Settings
from .session import session_of

#: The argument that carries a marked test's device; session-scoped where ``param_device`` is asked.
VARIANT = "_param_variant"
#: Carries it where ``param_device`` is the first chosen device anyway.
SHOWN = "_param_shown"
FIXTURES = {"param_device": "devices", "param_dtype": "dtypes"}
OURS = frozenset({VARIANT, *FIXTURES})


def support_of(node: pytest.Item) -> Support | None:
    """Return what the marks of a node support together; None: unmarked, or not by us."""
    return _supported(node, marks_of(node, session_of(node.config).settings.marker))


def _supported(node: pytest.Item, marks: Sequence[pytest.Mark]) -> Support | None:
    machine = session_of(node.config).machine
    support = read_marks(marks, machine) if marks else None
    if support is not None and support.devices is None:
        answer = node.ihook.pytest_paramcheck_devices(item=node)
        if answer is not None:
            devices = read_devices_of_hook(answer, machine)
            return Support(devices, support.dtypes, support.ranks)
    return support


def support_or_fail(node: pytest.Item, marks: Sequence[pytest.Mark]) -> Support | None:
    """Return what a node supports; fail it where its marker is wrong, warn where it is not ours."""
    _warn_of_foreign(node, marks)
    try:
        return _supported(node, marks)
    except ValueError as error:
        problem = str(error)
    # Outside the handler: pytest would show the error a second time as the cause of the first.
    pytest.fail(f"{node.nodeid}: {problem}", pytrace=False)


def _warn_of_foreign(node: pytest.Item, marks: Sequence[pytest.Mark]) -> None:
    """Warn, once per run, that a marker of our name means something else."""
    session = session_of(node.config)
    if session.warned_of_foreign or session.machine.worker:
        return  # the first of xdist's workers says it for all: each collects everything
    for mark in marks:
        if is_foreign(mark):
            session.warned_of_foreign = True
            node.warn(ParamCheckWarning(f"{node.name}: {foreign_text(mark)}"))
            return


def parametrize_devices(metafunc: pytest.Metafunc) -> None:
    """Give a marked test one parameter per variant; a wrong marker fails its collection."""
    node = metafunc.definition
    marker = session_of(metafunc.config).settings.marker
    sets = sets_of_parameters(node, marker)
    marks = marks_of(node, marker)
    if not sets and not marks:
        return
    supports = [
        support_or_fail(node, [*chain.from_iterable(of_parameters), *marks])
        for of_parameters in product(*sets)
    ]
    # What one parameter set supports and another does not is taken out by `own_items`.
    chosen = dict.fromkeys(
        variant
        for support in dict.fromkeys(supports)
        if support is not None
        for variant in variants_of(metafunc.config, support)
    )
    if chosen:
        _parametrize(metafunc, list(chosen), unmarked=None in supports)


def _parametrize(metafunc: pytest.Metafunc, chosen: list[Variant], *, unmarked: bool) -> None:
    """Add our parameter; ``unmarked``: there are parameter sets that do not take part."""
    values: list[Variant | None] = [*chosen]
    ids: list[Any] = [variant.id for variant in chosen]
    if unmarked:
        if not hasattr(pytest, "HIDDEN_PARAM"):
            return  # before 8.4 no id can be empty: the marked ones run as if marked late
        values.insert(0, None)
        ids.insert(0, pytest.HIDDEN_PARAM)
    asks = not OURS.isdisjoint(metafunc.fixturenames)
    # Session-scoped parameters make pytest regroup tests across modules, so that they keep
    # their order only tests that ask for a device get one, and only where there is a choice.
    plain = asks and values == [first_variant(metafunc.config)]
    argument = SHOWN if plain else VARIANT
    if argument not in metafunc.fixturenames:
        metafunc.fixturenames.append(argument)
    metafunc.parametrize(
        argument,
        values,
        ids=ids,
        indirect=True,
        scope="session" if asks and not plain else "function",
    )


def own_items(place: str, items: list[Any]) -> list[Any]:
    """Return the items of one function without those that their own parameter set rules out.

    Fails the collection where ``param_device`` or ``param_dtype`` is parametrized: the id would
    name a device on which the test does not run.
    """
    functions = [item for item in items if hasattr(item, "callspec")]
    for item in functions:
        for name, keyword in FIXTURES.items():
            if name in item.callspec.params:
                marker = session_of(item.config).settings.marker
                pytest.fail(
                    f"{place}: {name} is not to be parametrized: the test would run elsewhere than "
                    f"its id says; write @pytest.mark.{marker}({keyword}=[...])",
                    pytrace=False,
                )
    if not any(item.callspec.marks and _ours_of_parameters(item) for item in functions):
        return items
    kept: list[Any] = []
    there = {_given(item) for item in functions}  # with each parameter set
    lost: dict[str, None] = {}
    for item in items:
        if VARIANT not in params_of(item) and SHOWN not in params_of(item):
            kept.append(item)
            continue
        support = support_or_fail(item, marks_of(item, session_of(item.config).settings.marker))
        wanted = (None,) if support is None else variants_of(item.config, support)
        if _given(item) in wanted:
            kept.append(item)
        lost.update(
            {str(variant.id): None for variant in wanted if variant and variant not in there}
        )
    if lost:
        pytest.fail(
            f"{place}: the params mark of a pytest.param adds {', '.join(lost)}, which is only "
            f"seen where the parameter sets are a list in @pytest.mark.parametrize",
            pytrace=False,
        )
    return kept


def _ours_of_parameters(item: pytest.Function) -> bool:
    marker = session_of(item.config).settings.marker
    return any(mark.name == marker and not is_foreign(mark) for mark in parameter_marks(item))


def variants_of(config: pytest.Config, support: Support) -> tuple[Variant, ...]:
    """Return what a test with this support runs on, each variant one object per session."""
    session = session_of(config)
    settings, known = session.settings, session.variants
    found = [
        of_ranks
        for one in variants(settings.devices, settings.dtypes, support.devices, support.dtypes)
        for of_ranks in _on_ranks(one, settings, support)
    ]
    # pytest 8.0 builds a wider fixture again unless its parameter is the very same object.
    return tuple(known.setdefault(variant, variant) for variant in found)


def _on_ranks(variant: Variant, settings: Settings, support: Support) -> Iterator[Variant]:
    """Yield a variant once for each number of ranks that it runs on."""
    if support.ranks is None:
        yield variant
        return
    from .ranks.numbers import ranks_to_run, too_few_devices

    numbers, why = ranks_to_run(settings.ranks, support.ranks, settings.launched)
    for number in numbers:
        skip = variant.skip or why or too_few_devices(variant.device, number or 1)
        yield Variant(variant.device, variant.dtype, skip, number)


def first_variant(config: pytest.Config) -> Variant:
    """Return what an unmarked test that requests ``param_device`` gets."""
    settings = session_of(config).settings
    return variants(settings.devices, settings.dtypes, None, None)[0]


def params_of(item: pytest.Function) -> dict[str, Any]:
    """Return the parameters of a test; none where it is not parametrized."""
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


def _given(item: pytest.Function) -> Variant | None:
    params = params_of(item)
    found = params.get(VARIANT, params.get(SHOWN))
    return found if isinstance(found, Variant) else None


def variant_of(item: pytest.Item) -> Variant | None:
    """Return what a marked item runs on; None for what is left alone."""
    own = getattr(item, "param_variant", None)  # an item of --param-model brings its own
    if isinstance(own, Variant):
        return own
    marker = session_of(item.config).settings.marker
    if not isinstance(item, pytest.Function) or item.get_closest_marker(marker) is None:
        return None
    if (given := _given(item)) is not None:
        return given
    support = support_of(item)  # a TestCase, or marked after the collection
    return None if support is None else variants_of(item.config, support)[0]


def ranks_of(item: pytest.Item) -> int | None:
    """Return on how many ranks an item runs; None for one that runs in pytest's own process."""
    try:
        variant = variant_of(item)
    except ValueError:
        return None  # a wrong marker that collection has not seen: reported at set-up
    return variant.ranks if variant is not None else None


def is_remote(item: pytest.Item) -> bool:
    """Whether an item runs in other processes than this one."""
    return ranks_of(item) is not None and session_of(item.config).ranks_elsewhere


def excluded_devices(item: pytest.Item) -> tuple[str, ...]:
    """Return the devices of the command line on which a marked item is not due."""
    session = session_of(item.config)
    asked = session.settings.asked
    if len(asked) < 2 or not isinstance(item, pytest.Function):
        return ()  # where the only one is excluded, the item is skipped on it
    support = support_of(item)
    words = support.devices if support is not None else None
    own = variant_of(item)
    return tuple(
        name for name in asked if own and name != own.device and is_excluding(words or (), name)
    )


def warn_unparametrized(item: pytest.Function) -> None:
    """Warn of a marked test that has no parameter of ours and should run on several devices."""
    params = params_of(item)
    if VARIANT in params or SHOWN in params:
        return
    support = support_or_fail(item, marks_of(item, session_of(item.config).settings.marker))
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
