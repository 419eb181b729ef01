"""What the params marker means: its texts, which marks are ours, what they say a test supports.

The marks of a parameter set, of a function, its classes and its module are read together, keyword
by keyword: the closest to the test wins. What a test therefore runs on stands in ``marked.py``.

Tests: ``tests/integration/test_misuse.py`` and ``test_devices.py``.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from reprlib import Repr
from typing import Any

import pytest

from .devices import CHOICES, Machine, device_names, dtype_names, kind

MARKER = "params"
MARKER_LINE = (
    "params(*, devices=None, dtypes=None, ranks=None): run once per device of --param-device (and "
    "dtype of --param-dtype), with the device as torch's default device and from a fixed seed; "
    'devices= and dtypes= say what the test supports, devices=["!meta"] what it does not; ranks=2 '
    "runs it on two processes of a torch.distributed group."
)
KEYWORDS = ("devices", "dtypes", "ranks")
_LISTED = "devices=, dtypes= and ranks="


class ParamCheckWarning(pytest.PytestWarning):
    """Something about a marked test that the user should know and that is no error."""


class Support:
    """What a params marker says a test supports; None: everything."""

    def __init__(
        self,
        devices: tuple[str, ...] | None = None,
        dtypes: tuple[str, ...] | None = None,
        ranks: tuple[int, ...] | None = None,
    ) -> None:
        self.devices = devices
        self.dtypes = dtypes
        self.ranks = ranks


def marks_of(node: pytest.Item, marker: str) -> list[pytest.Mark]:
    """Return the marks of a node, the closest first."""
    found = list(node.iter_markers_with_node(marker))
    if len(found) > 1:
        chain = node.listchain()
        found.sort(key=lambda pair: (-chain.index(pair[0]), _distance(*pair)))
    return [mark for _, mark in found]


def _distance(node: object, mark: pytest.Mark) -> int:
    """Say how far a mark is from the test among those of one node.

    pytest lists those of a parameter set after the function's, and those of a base class before
    those of the class itself.
    """
    if isinstance(node, pytest.Function):
        return 0 if any(mark is own for own in parameter_marks(node)) else 1
    if isinstance(node, pytest.Class):
        for depth, cls in enumerate(node.obj.__mro__):
            if any(mark is own for own in _plain(vars(cls).get("pytestmark", ()))):
                return depth
    return 0


def parameter_marks(item: pytest.Function) -> list[pytest.Mark]:
    """Return the marks that an item has from ``pytest.param(..., marks=...)``."""
    return list(item.callspec.marks) if hasattr(item, "callspec") else []


def _plain(marks: Any) -> list[pytest.Mark]:
    listed: Iterable[Any] = marks if isinstance(marks, (list, tuple, set)) else [marks]
    return [getattr(mark, "mark", mark) for mark in listed]


def sets_of_parameters(node: pytest.Item, marker: str) -> list[list[list[pytest.Mark]]]:
    """Return, for each ``parametrize`` of a function, the marks of each of its parameter sets.

    Empty where no parameter set has a mark of ours. Sets that an iterator yields are not looked
    at: they can be read only once, by pytest.
    """
    found: list[list[list[pytest.Mark]]] = []
    for parametrize in node.iter_markers("parametrize"):
        given = parametrize.kwargs.get("argvalues", ())
        values = parametrize.args[1] if len(parametrize.args) > 1 else given
        if not isinstance(values, (list, tuple)):
            continue
        sets: list[list[pytest.Mark]] = []
        for value in values:
            of_set: Any = value.marks if isinstance(value, _PARAMETER_SET) else ()
            ours: list[pytest.Mark] = [m for m in _plain(of_set) if m.name == marker]
            if ours not in sets:
                sets.append(ours)
        if any(sets):
            found.append(sets)
    return found


_PARAMETER_SET = type(pytest.param())


def is_foreign(mark: pytest.Mark) -> bool:
    """Whether a mark has arguments, and none that anybody could have meant for ours.

    Other projects and plugins have a marker of this name for something else.
    """
    return bool(mark.args or mark.kwargs) and not any(map(_is_meant_for_us, mark.kwargs))


def _is_meant_for_us(keyword: str) -> bool:
    word = keyword.lower()
    if "device" in word or "dtype" in word:
        return True
    # "services" and "types" are words of their own; "divices" is not. "rank" is an error too: it
    # would be a test that runs on one process and says nothing.
    return word[:1] in ("d", "r") and bool(difflib.get_close_matches(word, KEYWORDS, cutoff=0.8))


def foreign_text(mark: pytest.Mark) -> str:
    """Return what to tell of a foreign mark."""
    short = Repr()
    short.maxstring = short.maxother = 60
    said = [short.repr(arg) for arg in mark.args]
    said += [f"{name}={short.repr(value)}" for name, value in mark.kwargs.items()]
    hint = ""
    if len(mark.args) >= 2 and not mark.kwargs and _is_names(mark.args[0]):
        hint = "; did you mean @pytest.mark.parametrize?"
    elif mark.args and not mark.kwargs and _are_devices(mark.args):
        one = mark.args[0] if len(mark.args) == 1 else list(mark.args)
        hint = f"; did you mean devices={one!r}?"
    elif len(mark.args) == 1 and not mark.kwargs and _are_ranks(mark.args[0]):
        hint = f"; did you mean ranks={mark.args[0]!r}?"
    return (
        f"@pytest.mark.{mark.name}({', '.join(said)}) is left alone: the marker of "
        f"pytest-paramcheck takes {_LISTED} only{hint} "
        f"(ini param_marker gives it another name)"
    )


def _is_names(value: object) -> bool:
    names = value if isinstance(value, (list, tuple)) else [value]
    return all(isinstance(name, str) for name in names)


def _are_devices(values: Sequence[object]) -> bool:
    words = [word for value in values for word in (value if _is_list(value) else [value])]  # type: ignore[attr-defined]
    try:
        return bool(words) and bool(device_names([str(word) for word in words]))
    except ValueError:
        return False


def _are_ranks(value: object) -> bool:
    try:
        from .ranks.numbers import marked_ranks

        return bool(marked_ranks(value))
    except ValueError:
        return False


def read_marks(marks: Iterable[pytest.Mark], machine: Machine) -> Support | None:
    """Return what marks support, the closest of them given first; None where none is ours.

    A keyword that a closer one has given decides, ``None`` included. ValueError says what is
    wrong with one of them, whether it decides or not.
    """
    ours = [mark for mark in marks if not is_foreign(mark)]
    if not ours:
        return None
    merged: dict[str, Any] = {}
    for mark in ours:
        merged = {**_read(mark, machine), **merged}
    support = Support(**merged)
    if support.ranks is None:
        return support
    from .ranks.numbers import too_few_devices

    most = max(support.ranks)
    for device in support.devices or ():
        if too_few_devices(device, most):
            raise ValueError(
                f"@pytest.mark.{ours[0].name}: {device!r} is one device, and ranks={most} needs "
                f"one for each: name {kind(device)!r}"
            )
    return support


def _read(mark: pytest.Mark, machine: Machine) -> dict[str, Any]:
    shown = f"@pytest.mark.{mark.name}"
    if mark.args:
        args = ", ".join(map(repr, mark.args))
        raise ValueError(f"{shown} takes no positional arguments, got ({args}); it takes {_LISTED}")
    for name in mark.kwargs:
        if name not in KEYWORDS:
            from ..messages.wording import did_you_mean

            hint = did_you_mean(name, KEYWORDS) or f" it takes {_LISTED}"
            raise ValueError(f"{shown} has no argument {name!r};{hint}")
    given: dict[str, Any] = {}
    if "devices" in mark.kwargs:
        value = mark.kwargs["devices"]
        given["devices"] = _devices(value, f"{shown}(devices={value!r})", machine)
    if "dtypes" in mark.kwargs:
        value = mark.kwargs["dtypes"]
        given["dtypes"] = _parsed(value, f"{shown}(dtypes={value!r})", dtype_names)
    if "ranks" in mark.kwargs:
        from .ranks.numbers import marked_ranks

        value = mark.kwargs["ranks"]
        try:
            given["ranks"] = None if value is None else marked_ranks(value)
        except ValueError as error:
            raise ValueError(f"{shown}(ranks={value!r}): {error}") from None
    return given


def read_devices_of_hook(answer: Any, machine: Machine) -> tuple[str, ...]:
    """Return the devices that a conftest names for a test. ValueError says what is wrong."""
    return _devices(answer, f"hook pytest_paramcheck_devices returned {answer!r}", machine) or ()


def _devices(value: Any, origin: str, machine: Machine) -> tuple[str, ...] | None:
    parsed = _parsed(value, origin, supported_devices)
    for word in parsed or ():
        name = word.removeprefix("!")
        if name in CHOICES:
            raise ValueError(
                f"{origin}: {name!r} is a choice for --param-device; "
                f"devices= names what the test supports, e.g. 'cpu' or 'accelerator'"
            )
        if problem := machine.unknown(name):
            raise ValueError(f"{origin}: {problem}")
    return parsed


def supported_devices(values: Sequence[str]) -> tuple[str, ...]:
    """Return the devices that are supported, or those that are not, each with its ``!``."""
    return device_names(values, excluding=True)


def _parsed(
    value: Any, origin: str, parse: Callable[[Sequence[str]], tuple[str, ...]]
) -> tuple[str, ...] | None:
    if value is None:
        return None
    values = [value] if isinstance(value, str) or not _is_list(value) else list(value)
    # torch.device and torch.dtype are welcome too, without importing torch to recognize them.
    texts = [v if isinstance(v, str) else str(v) for v in values]
    try:
        return parse(texts)
    except ValueError as error:
        raise ValueError(f"{origin}: {error}") from None


def _is_list(value: object) -> bool:
    return isinstance(value, (list, tuple, set, frozenset))
