"""Builds that checks share: what one only looked at, the next may change.

``CaseRun.build()`` always runs the factory: a check may watch what it does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn

from ..checks.between import sharing_between
from ..messages.errors import ParamCheckUsageError
from ..messages.folding import fold_names
from ..messages.wording import shorten
from ..parameters.saving.operations import copied
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.content import no_values
from ..parameters.tensors.digest import Content, read_contents
from .case import NothingToCheck
from .run import CaseRun


def another(run: CaseRun) -> nn.Module:
    """Return a second instance, to look at and not to change."""
    __tracebackhide__ = True
    if run._another is None:
        run._another = run.build()
    return run._another


def fresh(run: CaseRun) -> nn.Module:
    """Return an instance to change at will: the one that was only looked at, where there is one."""
    __tracebackhide__ = True
    looked_at, run._another = run._another, None
    return run.build() if looked_at is None else looked_at


@contextmanager
def in_use(run: CaseRun) -> Iterator[nn.Module]:
    """Give the instance that all checks look at to one that runs it, inside the block.

    What a run changes is put back, but for the values of parameters. Where a forward wrote some
    (a momentum encoder, a norm that starts from its first batch), the next check gets another
    instance: it must not matter which check came first.
    """
    __tracebackhide__ = True
    model = run.model
    parameters = [p for p in model.parameters() if not no_values(p)]
    before = read_contents(parameters)
    try:
        yield model
    finally:
        # Of a wrapped model the ranks build together.
        if run.declared.wrap is None and _are_other(parameters, before):
            run._model = None


def _are_other(parameters: Sequence[Tensor], before: Sequence[Content]) -> bool:
    if any(no_values(parameter) for parameter in parameters):
        return True
    after = read_contents(parameters)
    return any(old.digest != new.digest for old, new in zip(before, after, strict=True))


def apart(run: CaseRun) -> nn.Module:
    """Return an instance to move or overwrite: what is done to it is done to no other.

    Builds may share what is frozen, and modules without anything to train; a copy shares nothing.
    """
    __tracebackhide__ = True
    model = fresh(run)
    if not (shared := shared_names(run.model, model)):
        return model
    try:
        return copied(run.model)
    except ParamCheckUsageError:
        raise NothingToCheck(
            f"two builds share {shorten(fold_names(shared), 3)}, and there is no copy "
            f"(check_deepcopy says why)"
        ) from None


def shared_names(model: nn.Module, other: nn.Module) -> list[str]:
    """Return what two builds have in common, as ``model.name`` and ``other.name``."""
    inventories = [take_inventory(one, allow_empty=True) for one in (model, other)]
    both = list(zip(("model", "other"), inventories, strict=True))
    return [name for finding in sharing_between(both, unknown=False) for name in finding.names]
