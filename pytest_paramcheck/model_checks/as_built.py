"""Checks of a model as its factory builds it, and of its copies: nothing is run."""

from __future__ import annotations

import copy
from dataclasses import replace

import torch
from torch import nn

from ..assertions.checkpoints import assert_roundtrip
from ..assertions.flags import assert_frozen
from ..assertions.init import assert_init_complete
from ..assertions.manifests import assert_manifest
from ..assertions.registered import assert_registered
from ..assertions.structure import assert_materialized, assert_shapes
from ..assertions.ties import assert_same_ties, assert_ties
from ..assertions.values import assert_finite, assert_same_values
from ..checks.manifest import manifest_differences
from ..checks.untied import can_be_equal, not_distinct, sharing_between
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..messages.wording import first_line
from ..parameters.subject.inventory import take_inventory
from ..parameters.subject.recorded import manifest_lines
from ..parameters.subject.select import parameters_only, select_names
from .case import NothingToCheck
from .needs import (
    NOTHING,
    declared_entries,
    need_entries,
    need_parameters,
    need_values,
    without_values,
)
from .run import CaseRun

ALIKE = "ModelCase(alike=[...])"


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


def check_materialized(case: CaseRun) -> None:
    """Nothing is lazy and nothing is on meta."""
    __tracebackhide__ = True
    if case.device.type == "meta":
        raise NothingToCheck("the case runs on meta")
    need_entries(case.model)
    assert_materialized(case.model)


def check_init_complete(case: CaseRun) -> None:
    """Every parameter and buffer is initialised by the factory."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_init_complete(case.build)


def check_finite(case: CaseRun) -> None:
    """No parameter starts with a NaN or an infinity."""
    __tracebackhide__ = True
    need_values(case.model)
    need_parameters(case.model)
    assert_finite(case.model)


def check_distinct(case: CaseRun) -> None:
    """No two parameters start with the same values but those declared ``alike``."""
    __tracebackhide__ = True
    need_values(case.model)
    need_parameters(case.model)
    inventory = take_inventory(case.model)
    tied = [f"!{name}" for names in inventory.tie_groups for name in names[1:]]
    names = select_names(inventory, tied, default=parameters_only)
    shared, equal = not_distinct(inventory, names)
    alike = declared_entries(case.model, case.case.alike)
    declared = {entry.name for entry in alike}
    same = {name for finding in equal for name in finding.names}
    undeclared = [
        replace(finding, hint=f"{finding.hint}; or, where it is meant: {ALIKE}")
        for finding in equal
        if not set(finding.names) <= declared
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
        if entry.name not in same and can_be_equal(entry)
    ]
    raise_if([*shared, *undeclared, *stale], case.title)


def check_deterministic(case: CaseRun) -> None:
    """Building the model twice from one seed gives the same values."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_same_values(case.model, case.build())


def check_ties(case: CaseRun) -> None:
    """The ties are those declared; undeclared, every instance has those of the first."""
    __tracebackhide__ = True
    if case.case.ties is not None:
        if not case.case.ties:
            need_entries(case.model)
        assert_ties(case.model, case.case.ties)
    else:
        need_entries(case.model)
        assert_same_ties(case.model, case.build())


def check_shapes(case: CaseRun) -> None:
    """The shapes are those declared."""
    __tracebackhide__ = True
    if not case.case.shapes:
        need_entries(case.model)
    assert_shapes(case.model, case.case.shapes or {})


def check_frozen(case: CaseRun) -> None:
    """Exactly the parameters declared frozen are frozen."""
    __tracebackhide__ = True
    if not case.case.frozen:
        need_parameters(case.model)
    assert_frozen(case.model, exactly=list(case.case.frozen or ()))


def check_manifest(case: CaseRun) -> None:
    """The parameters are those of the committed manifest."""
    __tracebackhide__ = True
    assert_manifest(case.model, path=case.case.manifest)


def check_state_dict_roundtrip(case: CaseRun) -> None:
    """Values, ties, flags and keys survive ``load_state_dict(state_dict())``."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_roundtrip(case.model, through="state_dict")


def check_torch_save_roundtrip(case: CaseRun) -> None:
    """Values, ties, flags and keys survive a file written by ``torch.save``."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_roundtrip(case.model, through="torch.save")


def check_deepcopy(case: CaseRun) -> None:
    """A deep copy has the same names, shapes, dtypes, flags, ties and values, and shares none."""
    __tracebackhide__ = True
    need_entries(case.model)
    try:
        copied, problem = copy.deepcopy(case.model), ""
    except Exception as error:  # whatever a module or a tensor subclass raises
        copied, problem = None, f"{type(error).__name__}: {first_line(error)}"
    if copied is None:
        finding = Finding(("the model",), "cannot be deep-copied", found=problem)
        raise_if([finding], case.title)
        return
    _same_structure(case, copied)
    both = [("model", take_inventory(case.model)), ("copy", take_inventory(copied))]
    hint = "__deepcopy__ has to copy what the model holds"
    raise_if([replace(f, hint=hint) for f in sharing_between(both, unknown=False)], case.title)
    if not without_values(case.model):
        assert_same_values(case.model, copied)


def check_dtype_move(case: CaseRun) -> None:
    """``.to(dtype)`` keeps names, shapes, flags and ties."""
    __tracebackhide__ = True
    floating = {t.dtype for t in case.model.parameters() if t.is_floating_point()}
    if not floating:
        raise NothingToCheck("the model has no floating parameter to move")
    if any(t.is_complex() for t in (*case.model.parameters(), *case.model.buffers())):
        raise NothingToCheck("the model has complex tensors, which a real dtype would cut")
    target = torch.float32 if torch.float64 in floating else torch.float64
    if case.device.type == "mps":
        target = torch.bfloat16  # mps has no float64
    _same_structure(case, case.build().to(target), dtypes=False)


def check_device_move(case: CaseRun) -> None:
    """``.to(device)`` keeps names, shapes, flags and ties."""
    __tracebackhide__ = True
    here = case.device.type
    if here == "meta":
        raise NothingToCheck("the case runs on meta, from where nothing can be moved")
    if here == "cpu" and not torch.accelerator.is_available():
        raise NothingToCheck("this machine has no second device to move to")
    other = torch.accelerator.current_accelerator() if here == "cpu" else torch.device("cpu")
    need_entries(case.model)
    _same_structure(case, case.build().to(other))


def _same_structure(case: CaseRun, other: nn.Module, *, dtypes: bool = True) -> None:
    __tracebackhide__ = True
    before = manifest_lines(take_inventory(case.model))
    after = manifest_lines(take_inventory(other))
    findings = manifest_differences(before, after)
    if not dtypes:
        findings = [finding for finding in findings if finding.problem != "dtype changed"]
    raise_if(findings, case.title)
