"""What a whole-model check is: a function of a :class:`CaseRun`, and the cases it applies to."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..assertions.verdict import one_outcome
from ..messages.errors import ParamCheckError, ParamCheckUsageError
from ..messages.wording import first_line
from ..parameters.running.randomness import random_states, seed_all
from ..parameters.tensors.call import Call
from .case import ModelCase, NothingToCheck
from .run import CaseRun


def _every_case(case: ModelCase) -> bool:
    return True


@dataclass(frozen=True, slots=True)
class Check:
    """A whole-model check: its function, and to which cases it applies.

    ``run`` raises what an assertion raises, or :class:`NothingToCheck`. ``applies`` says from
    what a case declares whether the check is collected for it. ``values`` says that it reads
    values, which a model on meta does not have.
    """

    run: Callable[[CaseRun], None]
    applies: Callable[[ModelCase], bool] = _every_case
    values: bool = True

    @property
    def name(self) -> str:
        """What the test item is called: the function's name."""
        return self.run.__name__

    @property
    def summary(self) -> str:
        """The first line of the function's docstring: what holds where the check passes."""
        return first_line(self.run.__doc__ or "")


def check(
    *, applies: Callable[[ModelCase], bool] = _every_case, values: bool = True
) -> Callable[[Callable[[CaseRun], None]], Check]:
    """Make a :class:`Check` of the function below it; ``registry.CHECKS`` gathers them."""

    def made(run: Callable[[CaseRun], None]) -> Check:
        return Check(run, applies, values)

    return made


def run_check(check: Check, case: CaseRun) -> None:
    """Run one check from the case's seed; the random states are as before, afterwards.

    Raises :class:`NothingToCheck` where it needs values and there are none.
    """
    __tracebackhide__ = True
    if check.values and case.device.type == "meta":
        raise NothingToCheck("on meta, where tensors have no values")
    with random_states([case.device]):
        seed_all(case.seed, [case.device])
        if case.declared.wrap is None:
            check.run(case)
            return
        case.model  # noqa: B018 - what is wrong with the declaration itself is said here
        # A check may read shards without an assertion: what it says, all ranks say.
        call = Call(check.name, slices=True, flat=True)
        try:
            one_outcome(call, lambda: check.run(case), told=ParamCheckError)
        except ParamCheckUsageError as error:
            said = str(error)
        else:
            return
    raise NothingToCheck(f"not asked of this kind of model: {said}")
