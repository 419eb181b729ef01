"""Which parameters inputs that nobody declared do not come to, though the model's code would.

Of declared inputs a parameter without a gradient is a finding. Of a guess it is none where the
code that uses it is there, behind an argument that the guess leaves out (``if mask is not None:``),
in a method that forward does not call, or behind a selection that nothing was in. A layer that no
code uses, or one that a setting of the model itself switches off, stays a finding.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from types import FunctionType
from typing import Any

from torch import nn

from ..checks.reach_of_a_case import patterns_for
from ..messages.wording import plural, shorten
from ..parameters.running.branches import Site, Source
from ..parameters.running.calls import Calls, calls_of
from ..parameters.running.gradstate import GradState
from ..parameters.running.reach import uncompiled
from ..parameters.running.unreached import Missing
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.walk import first_places
from .builds import fresh
from .run import CaseRun


def left_out(case: CaseRun, missing: Sequence[Missing], asked: Collection[str]) -> dict[str, str]:
    """Return which of the missing the inputs do not come to, each with the reason.

    ``asked`` are the names of all that a gradient was asked of. Runs the loss once more.
    """
    __tracebackhide__ = True
    open_ones = [one for one in missing if _may_be(one)]
    # Ranks would have to agree on who runs it again.
    if not open_ones or case.declared.wrap is not None:
        return {}
    model = fresh(case)
    try:
        with uncompiled(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            calls = calls_of(model, lambda: case.loss(model))
    except Exception:  # it ran before: then nothing is known of why
        return {}
    reader = _Reader(model, calls)
    silent = {name for one in missing for name in one.entry.names}
    found = {}
    for one in open_ones:
        name = one.entry.name
        if one.state is GradState.ZERO:
            said = reader.ran_on_nothing(name) if _all_of_its_kind(name, silent, asked) else ""
        else:
            dropped = one.reason is not None and one.reason.kind == "dropped"
            said = next((r for n in one.entry.names if (r := reader.behind(n, dropped))), "")
        if said:
            found[name] = said
    return found


def left_out_text(found: dict[str, str], inventory: Inventory, asked: Sequence[Entry]) -> str:
    """Return in a line which parameters were left out, and why; ``""`` for none."""
    by_reason: dict[str, list[Entry]] = {}
    for name, reason in found.items():
        by_reason.setdefault(reason, []).append(inventory.by_name[name])
    said = [
        f"{shorten(patterns_for(entries, inventory, asked), 3)} ({reason})"
        for reason, entries in by_reason.items()
    ]
    return f"{plural(len(found), 'parameter')}, {shorten(said, 2)}" if found else ""


def _may_be(one: Missing) -> bool:
    if one.elsewhere or one.reason is None:
        return False
    if one.state is GradState.ZERO:
        return one.reason.kind == "zero"
    return one.state is GradState.NONE and one.reason.kind in ("unused", "dropped")


def _all_of_its_kind(name: str, silent: Collection[str], asked: Iterable[str]) -> bool:
    """Whether of the members of a list none got a gradient: one expert without a token may be
    one that never gets any."""
    role = re.sub(r"\d+", "*", name)
    return all(one in silent for one in asked if re.sub(r"\d+", "*", one) == role)


@dataclass(frozen=True, slots=True)
class _Use:
    """A use of a module's attribute: whether it is called there, and the module's class."""

    called: bool
    cls: type[nn.Module]


class _Reader:
    """Reads in a model's code why a run did not come to a parameter."""

    def __init__(self, model: nn.Module, calls: Calls) -> None:
        # As calls are noted: by the first of its names; of a wrapper, what it wraps.
        self._modules = {prefix[:-1]: module for prefix, _, module in first_places(model)}
        self._calls = calls
        self._sources: dict[Any, Source | None] = {}

    def ran_on_nothing(self, name: str) -> str:
        """Return of a parameter whose module got tensors without elements only that it did."""
        parts = name.split(".")[:-1]
        places = (".".join(parts[:number]) for number in range(len(parts), 0, -1))
        if any(place in self._calls.on_nothing for place in places):
            return "its input is empty"
        return ""

    def behind(self, name: str, dropped: bool) -> str:
        """Return what the code that uses a parameter is behind; ``""`` where nothing is seen.

        ``dropped``: it was used, and what is asked for is what uses the result.
        """
        parts = name.split(".")
        last = 0
        for number in range(len(parts) - 1, -1, -1):
            place = ".".join(parts[:number])
            if place not in self._calls.ran:
                continue
            # What the nearest module that ran does not use itself, one around it may.
            last = last or number + 1
            upto = number + 1 if dropped else last
            said = self._in_module(place, ".".join(parts[number:upto]), dropped)
            if said or (said is not None and not dropped):
                return said
        return ""

    def _in_module(self, place: str, attribute: str, dropped: bool) -> str | None:
        """Return what all uses of an attribute are behind; None where it has none."""
        cls = type(self._modules[place])
        methods = [
            (key, function)
            for kind in cls.__mro__
            if kind is not nn.Module
            for key, one in vars(kind).items()
            if (function := _function(one)) is not None and not key.startswith("__")
        ]
        own = vars(self._modules[place]).get("forward")
        if (function := _function(getattr(own, "__func__", own))) is not None:
            methods.insert(0, ("forward", function))
        said: list[str] = []
        for key, function in methods:
            if (source := self._source(function)) is None:
                continue
            for site in source.uses(attribute, of_result=dropped):
                use = _Use(source.called_directly(site), cls)
                found = self._reason(place, methods, key, function, site, use, frozenset())
                if found is not None:
                    said.append(found)
        # Each of its uses: one that the run came to, or that a setting switches off, has no reason.
        if not said:
            return None
        return said[0] if all(said) else ""

    def _reason(
        self,
        place: str,
        methods: Sequence[tuple[str, FunctionType]],
        key: str,
        function: FunctionType,
        site: Site,
        use: _Use,
        seen: frozenset[FunctionType],
    ) -> str | None:
        """Return what a use is behind, ``""`` for nothing, None where it is none of the run's."""
        source = self._source(function)
        if source is None:
            return ""
        given = self._calls.ran[place].get(function.__code__)
        if given is not None:
            return source.behind(site, given)
        # The method did not run: what are those who call it behind?
        reasons: list[str] = []
        for other_key, other in methods:
            if other is function or other in seen:
                continue
            other_source = self._source(other)
            for call in other_source.calls(key) if other_source else ():
                found = self._reason(place, methods, other_key, other, call, use, seen | {function})
                if found is not None:
                    reasons.append(found)
        if reasons:
            return reasons[0] if all(reasons) else ""
        if key.startswith("_") or key == "forward" or not use.called:
            return None
        # Not a setter, a reset, or what another class of its line has put aside.
        own = _function(inspect.getattr_static(use.cls, key, None)) is function
        takes = function.__code__.co_argcount > 1
        return f"only {key}() uses it" if own and takes else None

    def _source(self, function: FunctionType) -> Source | None:
        if function not in self._sources:
            try:
                self._sources[function] = Source(function)
            except ValueError:
                self._sources[function] = None
        return self._sources[function]


def _function(value: Any) -> FunctionType | None:
    """Return the function that somebody wrote, below what decorates it."""
    if not isinstance(value, FunctionType):
        return None
    unwrapped: Callable[..., Any] = inspect.unwrap(value)
    return unwrapped if isinstance(unwrapped, FunctionType) else None
