"""A model against what came back of it after a save and a load."""

from __future__ import annotations

from ..messages.findings import Finding
from ..parameters.saving.roundtrips import Returned
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.own_methods import SAVING
from ..parameters.subject.records import records
from ..parameters.tensors.content import no_values
from .manifest import RETURN, record_differences
from .own_methods import with_own_methods
from .same_values import differences


def lost_through_dcp(before: Inventory, after: Inventory) -> list[Finding]:
    """Find what torch.distributed.checkpoint did not save or not give back of a model."""
    findings = []
    names = []
    for entry in before.entries:
        for name in entry.names if entry.persistent else ():
            if name in after.named:
                names.append((name, None))
            elif before.buffer_names.get(name) is not False:
                found = "the state_dict has no such key"
                findings.append(Finding((name,), "not saved", found=found))
    return findings + differences(before, after, names, rtol=0.0, atol=0.0)


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
        Finding((key,), "saved but not loaded", found="the model has no such name")
        for key in returned.not_taken
    ]
    saved, loaded = records(before), records(after)
    findings += record_differences(saved, loaded, words=RETURN)
    now = {record.name: record for record in loaded}
    lost = set(returned.not_saved)
    names = []
    for record in saved:
        same = now.get(record.name)
        if not record.persistent or same is None or record.name in lost:
            continue
        if (same.shape, same.dtype) != (record.shape, record.dtype):
            continue  # said above
        tensor = after.named[record.name]
        if tensor is not None and (reason := no_values(tensor)):
            findings.append(Finding((record.name,), "came back without values", found=reason))
        else:
            names.append((record.name, None))
    findings += differences(before, after, names, rtol=0.0, atol=0.0)
    return with_own_methods(findings, before, SAVING)
