"""Checks of what a model promises by what its modules are.

Tests: ``tests/unit/test_conventions.py``, ``test_resets.py`` and ``test_model_errors.py``.
"""

from __future__ import annotations

from ..checks.conventions import (
    not_reset,
    off_default_device,
    scales_around_zero,
    written_padding,
)
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..messages.wording import shorten
from ..parameters.saving.resets import held_elsewhere, own_resets, what_a_reset_leaves
from ..parameters.subject.conventions import norm_scales, padded_rows
from ..parameters.subject.reading import take_inventory
from .builds import apart
from .case import NothingToCheck
from .check import check
from .needs import need_entries, need_values
from .run import CaseRun
from .seeds import following_the_seed


@check(values=False)
def check_default_device(case: CaseRun) -> None:
    """The factory builds everything on torch's default device."""
    __tracebackhide__ = True
    need_entries(case.model)
    found = off_default_device(take_inventory(case.model), case.device)
    if found and case.device.type == "meta":
        # Meta is asked for to see shapes: what is elsewhere takes memory, and no more.
        names = shorten([finding.names[0] for finding in found], 3)
        raise NothingToCheck(f"on meta, but built elsewhere: {names} ({found[0].found})")
    raise_if(found, case.title)


@check()
def check_init_values(case: CaseRun) -> None:
    """Padding rows start as zeros, and no scale of a norm is drawn around zero.

    Only values that follow the seed: what every build has again was loaded, or is a table. And no
    padding row that a mask keeps from every output, or that a head tied to it trains.
    """
    __tracebackhide__ = True
    need_values(case.model)
    inventory = take_inventory(case.model)
    padded, scales = padded_rows(inventory), norm_scales(inventory)
    if not padded and not scales:
        raise NothingToCheck("the model has no padding row and no scale of a norm")
    findings = [*written_padding(padded), *scales_around_zero(scales)]
    drawn = following_the_seed(case, inventory, [finding.names[0] for finding in findings])
    raise_if([finding for finding in findings if finding.names[0] in drawn], case.title)


@check()
def check_reset_parameters(case: CaseRun) -> None:
    """A ``reset_parameters()`` writes every parameter that trains: its own, or all it takes on.

    Of the modules below it, where it calls the ``reset_parameters()`` of one, or writes the same
    parameter of most layers of a list. One that only writes a weight of a layer anew, which resets
    itself, has taken on no more.
    """
    __tracebackhide__ = True
    need_values(case.model)
    if not own_resets(case.model):
        raise NothingToCheck("no class of the model has a reset_parameters() of its own")
    model = apart(case)
    findings: list[Finding] = []
    said: set[str] = set()
    several = held_elsewhere(take_inventory(model))
    for name, module in own_resets(model):
        within = f"{name}." if name else ""
        others = {id(t) for t, names in several if not all(n.startswith(within) for n in names)}
        try:
            left = what_a_reset_leaves(module, others)
        except ParamCheckUsageError as error:
            raise NothingToCheck(str(error)) from None
        counts = {within + entry: count for entry, (count, _) in left.items()}
        sizes = {within + entry: size for entry, (_, size) in left.items()}
        new = {entry: count for entry, count in counts.items() if entry not in said}
        said.update(new)
        findings += not_reset(name, type(module).__name__, new, sizes)
    raise_if(findings, case.title)
