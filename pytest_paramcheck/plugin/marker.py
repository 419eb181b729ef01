"""What the params marker means: its texts, what a test supports, what it therefore runs on.

The marker says what a test supports (or the conftest above it), the settings what was chosen;
``devices.py`` says what remains, and here that becomes parameters of pytest's items.
"""

from __future__ import annotations

import unittest
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import pytest

from ..messages.wording import did_you_mean
from .devices import CHOICES, Variant, device_names, dtype_names, variants
from .session import session_of

MARKER = "params"
MARKER_LINE = (
    "params(*, devices=None, dtypes=None): run once per device of --param-device (and dtype of "
    "--param-dtype), with the device as torch's default device and from a fixed seed; devices= "
    "and dtypes= say what the test supports."
)
#: The argument that carries a marked test's device; session-scoped where ``param_device`` is asked.
VARIANT = "_param_variant"
#: Carries it where ``param_device`` is the first chosen device anyway.
SHOWN = "_param_shown"
OURS = frozenset({VARIANT, "param_device", "param_dtype"})
OURS_IN_ITEMS = OURS | {SHOWN}


class ParamCheckWarning(pytest.PytestWarning):
    """Something about a marked test that the user should know and that is no error."""


class Support(NamedTuple):
    """What a params marker says a test supports; None: everything."""

    devices: tuple[str, ...] | None = None
    dtypes: tuple[str, ...] | None = None


def read_marker(mark: pytest.Mark) -> Support:
    """Return what a params marker supports. ValueError says what is wrong with it."""
    if mark.args:
        shown = ", ".join(map(repr, mark.args))
        raise ValueError(
            f"@pytest.mark.params takes no positional arguments, got ({shown}); "
            f"did you mean @pytest.mark.parametrize?"
        )
    for name in mark.kwargs:
        if name not in ("devices", "dtypes"):
            hint = did_you_mean(name, ("devices", "dtypes")) or " it takes devices= and dtypes="
            raise ValueError(f"@pytest.mark.params has no argument {name!r};{hint}")
    return Support(
        _supported("devices", mark.kwargs.get("devices"), device_names),
        _supported("dtypes", mark.kwargs.get("dtypes"), dtype_names),
    )


def read_devices_of_hook(answer: Any) -> tuple[str, ...]:
    """Return the devices that a conftest names for a test. ValueError says what is wrong."""
    origin = f"hook pytest_paramcheck_devices returned {answer!r}"
    return _supported("devices", answer, device_names, origin) or ()


def _supported(
    name: str, value: Any, parse: Callable[[Sequence[str]], tuple[str, ...]], origin: str = ""
) -> tuple[str, ...] | None:
    if value is None:
        return None
    origin = origin or f"@pytest.mark.params({name}={value!r})"
    values = [value] if isinstance(value, str) or not _is_list(value) else list(value)
    # torch.device and torch.dtype are welcome too, without importing torch to recognize them.
    texts = [v if isinstance(v, str) else str(v) for v in values]
    try:
        parsed = parse(texts)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None
    for word in CHOICES:
        if name == "devices" and word in parsed:
            raise ValueError(
                f"{origin}: {word!r} is a choice for --param-device; "
                f"devices= names what the test supports, e.g. 'cpu' or 'accelerator'"
            )
    return parsed


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))


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


def support_of(node: pytest.Item) -> Support | None:
    """Return what the closest marker supports (None: unmarked); check the outer ones as well."""
    supports = [read_marker(mark) for mark in node.iter_markers(MARKER)]
    if not supports:
        return None
    if supports[0].devices is None:
        answer = node.ihook.pytest_paramcheck_devices(item=node)
        if answer is not None:
            return supports[0]._replace(devices=read_devices_of_hook(answer))
    return supports[0]


def support_or_fail(node: pytest.Item) -> Support | None:
    """Return what a node supports; fail it where its marker is wrong."""
    try:
        return support_of(node)
    except ValueError as error:
        problem = str(error)
    # Outside the handler: pytest would show the error a second time as the cause of the first.
    pytest.fail(f"{node.nodeid}: {problem}", pytrace=False)


def variants_of(config: pytest.Config, support: Support) -> tuple[Variant, ...]:
    """Return what a test with this support runs on, each variant one object per session."""
    session = session_of(config)
    settings, known = session.settings, session.variants
    found = variants(settings.devices, settings.dtypes, support.devices, support.dtypes)
    # pytest 8.0 builds a wider fixture again unless its parameter is the very same object.
    return tuple(known.setdefault(variant, variant) for variant in found)


def first_variant(config: pytest.Config) -> Variant:
    """Return what an unmarked test that requests ``param_device`` gets."""
    settings = session_of(config).settings
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
    if not isinstance(item, pytest.Function) or item.get_closest_marker(MARKER) is None:
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


def warn_unparametrized(item: pytest.Function) -> None:
    """Warn of a marked test that has no parameter of ours and should run on several devices."""
    if not OURS_IN_ITEMS.isdisjoint(params_of(item)):
        return
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
