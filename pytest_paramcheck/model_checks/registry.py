"""The whole-model checks: one named function per invariant, over the assertions.

Each takes a :class:`~pytest_paramcheck.model_checks.run.CaseRun` and raises what the assertion
raises.
A check that does not apply to what the case declares is not collected (``Check.applies``); one
that finds nothing to look at on the model itself raises :class:`NothingToCheck` with the
reason, which skips its item. ``case.model`` is shared by all checks and changed by none.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..messages.wording import first_line
from ..parameters.running.randomness import random_states, seed_all
from .as_built import (
    check_deterministic,
    check_distinct,
    check_finite,
    check_frozen,
    check_init_complete,
    check_manifest,
    check_materialized,
    check_registered,
    check_shapes,
    check_ties,
)
from .case import ModelCase, NothingToCheck
from .copies import (
    check_deepcopy,
    check_device_move,
    check_dtype_move,
    check_state_dict_roundtrip,
    check_torch_save_roundtrip,
)
from .run import CaseRun
from .running import (
    check_eval_unchanged,
    check_grads_finite,
    check_grads_none,
    check_grads_reach,
    check_optimizer_covers,
    check_tied_grads_sum,
    check_training_step,
)


@dataclass(frozen=True, slots=True)
class Check:
    """A registered check: its function, and to which cases it applies.

    ``values`` says that it reads values, which a model on meta does not have.
    """

    run: Callable[[CaseRun], None]
    applies: Callable[[ModelCase], bool] = lambda case: True
    values: bool = True

    @property
    def name(self) -> str:
        return self.run.__name__

    @property
    def summary(self) -> str:
        return first_line(self.run.__doc__ or "")


def _runs(case: ModelCase) -> bool:
    return case.runs


#: Every registered check, in the order in which they are collected.
CHECKS: dict[str, Check] = {
    check.name: check
    for check in (
        Check(check_registered, values=False),
        Check(check_materialized, values=False),
        Check(check_init_complete),
        Check(check_finite),
        Check(check_distinct),
        Check(check_deterministic),
        Check(check_ties, values=False),
        Check(check_shapes, lambda case: case.shapes is not None, values=False),
        Check(check_frozen, lambda case: case.frozen is not None, values=False),
        Check(check_manifest, lambda case: case.manifest is not None, values=False),
        Check(check_grads_none, values=False),
        Check(check_grads_reach, _runs),
        Check(check_grads_finite, _runs),
        Check(check_tied_grads_sum, _runs),
        Check(check_eval_unchanged, _runs),
        Check(check_training_step, _runs),
        Check(check_optimizer_covers, lambda case: case.optimizer is not None, values=False),
        Check(check_state_dict_roundtrip),
        Check(check_torch_save_roundtrip),
        Check(check_deepcopy, values=False),
        Check(check_dtype_move, values=False),
        Check(check_device_move, values=False),
    )
}


def run_check(check: Check, case: CaseRun) -> None:
    """Run one check from the case's seed; the random states are as before, afterwards.

    Raises :class:`NothingToCheck` where it needs values and there are none.
    """
    __tracebackhide__ = True
    if check.values and case.device.type == "meta":
        raise NothingToCheck("on meta, where tensors have no values")
    with random_states([case.device]):
        seed_all(case.seed, [case.device])
        check.run(case)
