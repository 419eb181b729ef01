"""Checks of a model's copies: saved and loaded, deep-copied.

Tests: ``tests/unit/test_model_checks.py``, ``test_model_errors.py`` and ``test_ties.py``.
"""

from __future__ import annotations

import copy

from torch import Tensor, nn

from ..assertions.checkpoints import round_trip
from ..assertions.values import assert_same_values
from ..checks.between import sharing_between
from ..checks.manifest import COPY, record_differences
from ..checks.own_methods import with_own_methods
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.findings import Finding
from ..messages.folding import fold_names
from ..messages.wording import first_line, shorten
from ..parameters.saving.operations import copied
from ..parameters.saving.roundtrips import Target
from ..parameters.subject.own_methods import COPYING
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.records import records
from .builds import fresh, shared_names
from .case import NothingToCheck
from .check import check
from .needs import need_entries, need_values, without_values
from .run import CaseRun


@check()
def check_state_dict_roundtrip(case: CaseRun) -> None:
    """Values, ties, flags and keys survive ``load_state_dict(state_dict())``."""
    __tracebackhide__ = True
    need_values(case.model)
    round_trip(case.model, "state_dict", _target(case))


@check()
def check_torch_save_roundtrip(case: CaseRun) -> None:
    """Values, ties, flags and keys survive a file written by ``torch.save``."""
    __tracebackhide__ = True
    need_values(case.model)
    round_trip(case.model, "torch.save", _target(case))


def _target(case: CaseRun) -> Target:
    """Return what makes a model to load into: a copy, or another build where there is none."""

    def target(model: nn.Module) -> nn.Module:
        __tracebackhide__ = True
        try:
            return copied(model)
        except ParamCheckUsageError:
            other = fresh(case)  # check_deepcopy says why there is no copy
        if shared := shared_names(
            model, other
        ):  # what is done to the one would be done to the other
            raise NothingToCheck(
                f"there is no copy to load into (check_deepcopy says why), and two builds share "
                f"{shorten(fold_names(shared), 3)}"
            )
        return other

    return target


@check(values=False)
def check_deepcopy(case: CaseRun) -> None:
    """A deep copy has the same names, shapes, dtypes, flags, ties and values, and shares none."""
    __tracebackhide__ = True
    need_entries(case.model)
    try:
        twin, problem = copy.deepcopy(case.model), ""
    except Exception as error:  # whatever a module or a tensor subclass raises
        twin, problem = None, f"{type(error).__name__}: {first_line(error)}"
    if twin is None and case.declared.wrap is not None:
        raise NothingToCheck(f"the wrapped model cannot be deep-copied: {problem}")
    if twin is None and (hooked := _hooked_by_torch(case.model)):
        name, hook = hooked
        raise NothingToCheck(
            f"{name} is computed by torch.nn.utils' {hook}, with which no module can be "
            f"deep-copied; torch.nn.utils.parametrizations can"
        )
    if twin is None:
        finding = Finding(("the model",), "cannot be deep-copied", found=problem)
        raise_if([finding], case.title)
        return
    _same_structure(case, twin)
    both = [("model", take_inventory(case.model)), ("copy", take_inventory(twin))]
    hint = "__deepcopy__ has to copy what the model holds"
    raise_if(sharing_between(both, unknown=False, hint=hint), case.title)
    if not without_values(case.model):
        assert_same_values(case.model, twin)


def _hooked_by_torch(model: nn.Module) -> tuple[str, str] | None:
    """Return a tensor that torch's old weight_norm or its pruning computes, and by which hook.

    None too where something else holds a graph: that is the model's own.
    """
    found = None
    for path, module in model.named_modules():
        hooks = {
            getattr(hook, "name", None) or getattr(hook, "_tensor_name", None): type(hook).__name__
            for hook in module._forward_pre_hooks.values()
            if type(hook).__module__.startswith("torch.nn.utils.")
        }
        for key, held in vars(module).items():
            if isinstance(held, Tensor) and not held.is_leaf:
                if key not in hooks:
                    return None
                found = f"{path}.{key}".removeprefix("."), hooks[key]
    return found


def _same_structure(case: CaseRun, other: nn.Module, *, dtypes: bool = True) -> None:
    __tracebackhide__ = True
    before = take_inventory(case.model)
    after = records(take_inventory(other))
    lost = record_differences(records(before), after, words=COPY, dtypes=dtypes)
    raise_if(with_own_methods(lost, before, COPYING), case.title)
