"""Which devices a test runs on: its marker, the conftest above it, and what the user chose.

The marker says what a test supports, ``devices.py`` what remains of it; here that is read from
pytest's items and turned into parameters.
"""

from __future__ import annotations

from typing import Any

import pytest

from . import options
from .devices import Machine, Variant, variants

MACHINE = pytest.StashKey[Machine]()
SETTINGS = pytest.StashKey[options.Settings]()
VARIANTS = pytest.StashKey[dict[Variant, Variant]]()
#: The argument that carries a marked test's device; session-scoped where ``param_device`` is asked.
VARIANT = "_param_variant"
#: Carries it where ``param_device`` is the first chosen device anyway.
SHOWN = "_param_shown"
OURS = frozenset({VARIANT, "param_device", "param_dtype"})
OURS_IN_ITEMS = OURS | {SHOWN}


def parametrize_devices(metafunc: pytest.Metafunc) -> None:
    """Give a marked test one parameter per variant; a wrong marker fails its collection."""
    support = support_or_fail(metafunc.definition)
    if support is None or parametrized_by_hand(metafunc):
        return
    chosen = variants_of(metafunc.config, support)
    asks = not OURS.isdisjoint(metafunc.fixturenames)
    # Session-scoped parameters make pytest regroup tests across modules, so that they keep
    # their order only tests that ask for a device get one, and only where there is a choice.
    plain = asks and chosen == (first_variant(metafunc.config),)
    argument = SHOWN if plain else VARIANT
    if argument not in metafunc.fixturenames:
        metafunc.fixturenames.append(argument)
    metafunc.parametrize(
        argument,
        chosen,
        ids=[variant.id for variant in chosen],
        indirect=True,
        scope="session" if asks and not plain else "function",
    )


def support_of(node: pytest.Item) -> options.Support | None:
    """Return what the closest marker supports (None: unmarked); check the outer ones as well."""
    supports = [options.read_marker(mark) for mark in node.iter_markers(options.MARKER)]
    if not supports:
        return None
    if supports[0].devices is None:
        answer = node.ihook.pytest_paramcheck_devices(item=node)
        if answer is not None:
            return supports[0]._replace(devices=options.read_devices_of_hook(answer))
    return supports[0]


def support_or_fail(node: pytest.Item) -> options.Support | None:
    """Return what a node supports; fail it where its marker is wrong."""
    try:
        return support_of(node)
    except ValueError as error:
        problem = str(error)
    # Outside the handler: pytest would show the error a second time as the cause of the first.
    pytest.fail(f"{node.nodeid}: {problem}", pytrace=False)


def variants_of(config: pytest.Config, support: options.Support) -> tuple[Variant, ...]:
    """Return what a test with this support runs on, each variant one object per session."""
    settings, known = config.stash[SETTINGS], config.stash[VARIANTS]
    found = variants(settings.devices, settings.dtypes, support.devices, support.dtypes)
    # pytest 8.0 builds a wider fixture again unless its parameter is the very same object.
    return tuple(known.setdefault(variant, variant) for variant in found)


def first_variant(config: pytest.Config) -> Variant:
    """Return what an unmarked test that requests ``param_device`` gets."""
    settings = config.stash[SETTINGS]
    return variants(settings.devices, settings.dtypes, None, None)[0]


def parametrized_by_hand(metafunc: pytest.Metafunc) -> bool:
    """Whether the test parametrizes ``param_device`` or ``param_dtype`` itself."""
    names: set[str] = set()
    for mark in metafunc.definition.iter_markers("parametrize"):
        argnames = mark.args[0] if mark.args else mark.kwargs.get("argnames", "")
        names.update(argnames.replace(",", " ").split() if isinstance(argnames, str) else argnames)
    return not OURS.isdisjoint(names)


def params_of(item: pytest.Function) -> dict[str, Any]:
    """Return the parameters of a test; none where it is not parametrized."""
    return dict(item.callspec.params) if hasattr(item, "callspec") else {}


def variant_of(item: pytest.Item) -> Variant | None:
    """Return what a marked item runs on; None for what is left alone."""
    own = getattr(item, "param_variant", None)  # an item of --param-model brings its own
    if isinstance(own, Variant):
        return own
    if not isinstance(item, pytest.Function) or item.get_closest_marker(options.MARKER) is None:
        return None
    given = params_of(item)
    for argument in (VARIANT, SHOWN):
        if isinstance(given.get(argument), Variant):
            variant: Variant = given[argument]
            return variant
    if "param_device" in given:
        return Variant(str(given["param_device"]))
    if "param_dtype" in given:
        return None
    support = support_of(item)  # a TestCase, or marked after the collection
    return None if support is None else variants_of(item.config, support)[0]
