"""Checks of a model as its factory builds it: nothing is run, copied or moved.

Tests: ``tests/unit/test_built_anew.py``, ``test_equal_starts.py``, ``test_declared.py``,
``test_ties.py``, ``test_trace.py`` and ``test_model_errors.py``.
"""

from __future__ import annotations

from dataclasses import replace

from ..assertions.flags import assert_frozen
from ..assertions.init import assert_init_complete
from ..assertions.manifests import assert_manifest
from ..assertions.registered import assert_registered
from ..assertions.structure import assert_materialized, assert_shapes
from ..assertions.ties import assert_same_ties, assert_ties
from ..assertions.values import assert_finite, assert_same_values, assert_values
from ..checks.conventions import broken_promise, repeated_layers
from ..checks.untied import can_be_equal
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..parameters.subject.conventions import promised_tie, repeated_modules
from ..parameters.subject.reading import take_inventory
from .alike import equal_starts
from .builds import another
from .case import NothingToCheck
from .check import check
from .needs import (
    NOTHING,
    declared_entries,
    need_entries,
    need_parameters,
    need_values,
)
from .run import CaseRun, SharedBuilds

ALIKE = "ModelCase(alike=[...])"


@check(values=False)
def check_registered(case: CaseRun) -> None:
    """No parameter or module hides in a list, a dict or a plain attribute."""
    __tracebackhide__ = True
    try:
        assert_registered(case.model)
        return
    except ParamCheckUsageError:
        if take_inventory(case.model, allow_empty=True).named:
            raise
    raise NothingToCheck(NOTHING)


@check(values=False)
def check_materialized(case: CaseRun) -> None:
    """Nothing is lazy and nothing is on meta."""
    __tracebackhide__ = True
    if case.device.type == "meta":
        raise NothingToCheck("the case runs on meta")
    need_entries(case.model)
    assert_materialized(case.model)


@check()
def check_init_complete(case: CaseRun) -> None:
    """Every parameter and buffer is initialized by the factory."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_init_complete(case.build)


@check()
def check_finite(case: CaseRun) -> None:
    """No parameter starts with a NaN or an infinity."""
    __tracebackhide__ = True
    need_values(case.model)
    need_parameters(case.model)
    assert_finite(case.model)


@check()
def check_distinct(case: CaseRun) -> None:
    """No two parameters that train start with the same values but those declared ``alike``.

    Only values that follow the seed: a table that every build has again is meant to be as it is.
    """
    __tracebackhide__ = True
    need_values(case.model)
    need_parameters(case.model)
    alike = declared_entries(case.model, case.declared.alike)
    starts = equal_starts(case, {entry.name for entry in alike})
    undeclared = [
        replace(finding, hint=f"{finding.hint}; or, if this is intended: {ALIKE}")
        for finding in starts.undeclared
    ]
    # A module's biases are zeros: constants are never compared, so that they cannot be stale.
    stale = [
        Finding(
            tuple(entry.names),
            "declared alike but is not",
            found="it equals no other parameter",
            hint="take it out of ModelCase(alike=...)",
        )
        for entry in alike
        if entry.name not in starts.same and can_be_equal(entry)
    ]
    raise_if([*starts.shared, *undeclared, *stale], case.title)


@check()
def check_deterministic(case: CaseRun) -> None:
    """Building the model twice from one seed gives the same values."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_same_values(case.model, another(case))


@check(values=False)
def check_built_anew(case: CaseRun) -> None:
    """Two models built one after the other share nothing that trains, and no statistics."""
    __tracebackhide__ = True
    need_entries(case.model)
    try:
        another(case)
    except SharedBuilds as shared:
        findings = shared.findings
    else:
        return
    raise_if(findings, case.title)


@check(values=False)
def check_ties(case: CaseRun) -> None:
    """The ties are those declared; undeclared, those of every instance and of the config.

    And no layer stands at several places of one list: ``[layer] * 6`` is one layer.
    """
    __tracebackhide__ = True
    if case.declared.ties is not None:
        if not case.declared.ties:
            need_entries(case.model)
        assert_ties(case.model, case.declared.ties)
        return
    need_entries(case.model)
    assert_same_ties(case.model, another(case))
    inventory = take_inventory(case.model)
    promise = promised_tie(inventory)
    findings = broken_promise(inventory, promise) if promise else []
    raise_if([*findings, *repeated_layers(repeated_modules(inventory))], case.title)


@check(applies=lambda case: case.shapes is not None, values=False)
def check_shapes(case: CaseRun) -> None:
    """The shapes are those declared."""
    __tracebackhide__ = True
    if not case.declared.shapes:
        need_entries(case.model)
    assert_shapes(case.model, case.declared.shapes or {})


@check(applies=lambda case: case.values is not None)
def check_values(case: CaseRun) -> None:
    """The values satisfy the declared conditions."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_values(case.model, case.declared.values or {})


@check(applies=lambda case: case.frozen is not None, values=False)
def check_frozen(case: CaseRun) -> None:
    """Exactly the parameters declared frozen are frozen."""
    __tracebackhide__ = True
    if not case.declared.frozen:
        need_parameters(case.model)
    assert_frozen(case.model, exactly=list(case.declared.frozen or ()))


@check(applies=lambda case: case.manifest is not None, values=False)
def check_manifest(case: CaseRun) -> None:
    """The parameters are those of the committed manifest."""
    __tracebackhide__ = True
    assert_manifest(case.model, path=case.declared.manifest)
