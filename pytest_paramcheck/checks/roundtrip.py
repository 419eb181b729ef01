"""A model against what came back of it after a save and a load."""

from __future__ import annotations

from dataclasses import replace

from ..messages.findings import Finding
from ..parameters.saving.roundtrips import Returned
from ..parameters.subject.inventory import Inventory, records
from ..parameters.tensors.content import no_values
from .manifest import ORPHANED, record_differences
from .same_values import differences


def lost_on_the_way(before: Inventory, after: Inventory, returned: Returned) -> list[Finding]:
    """Find what a model lost between saving and loading."""
    if returned.unsaved:
        return [Finding((), "cannot be saved", found=returned.unsaved)]
    if returned.refused:
        found, hint = returned.refused, returned.hint
        return [Finding((), "does not load back", found=found, hint=hint)]
    findings = [
        Finding((key,), "not saved", found="the file or state_dict has no such key")
        for key in returned.not_saved
    ]
    findings += [
        Finding((key,), "saved but not taken back", found="the model has no such name")
        for key in returned.not_taken
    ]
    now = {line.name: line for line in records(after)}
    was = records(before)
    findings += [_of_a_return(f) for f in record_differences(was, list(now.values()))]
    lost = set(returned.not_saved)
    names = []
    for line in was:
        same = now.get(line.name)
        if not line.persistent or same is None or line.name in lost:
            continue
        if (same.shape, same.dtype) != (line.shape, line.dtype):
            continue  # said above
        tensor = after.named[line.name]
        if tensor is not None and (reason := no_values(tensor)):
            findings.append(Finding((line.name,), "came back without values", found=reason))
        else:
            names.append(line.name)
    return findings + differences(before, after, names, rtol=0.0, atol=0.0)


def _of_a_return(finding: Finding) -> Finding:
    """Say of a model that came back what is said of one that differs from its manifest."""
    problem = {
        "gone from the model": "did not come back",
        "not in the manifest": "was not there before",
    }.get(finding.problem, finding.problem)
    return replace(finding, problem=problem, why="" if finding.why == ORPHANED else finding.why)
