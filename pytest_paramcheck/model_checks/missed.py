"""Which parameters of a case its loss does not reach, and keeps from reaching."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ..parameters.running.gradstate import GradState
from ..parameters.running.reach import Reached
from ..parameters.running.unreached import Missing, find_unreached
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import trainable, with_elements
from .builds import in_use
from .run import CaseRun
from .steps import signal_later


@dataclass(frozen=True, slots=True)
class Missed:
    """What the loss gave, the parameters asked about, and those that it did not reach."""

    inventory: Inventory
    asked: list[Entry]
    outcomes: list[Reached]
    found: list[Missing]

    @property
    def worth_saying(self) -> list[Missing]:
        """Those that it did not reach whatever rounding does.

        Not a bias before a batch norm: its gradient is zero in exact arithmetic, and in ours where
        there are two rows.
        """
        return [one for one in self.found if one.reason is None or one.reason.kind != "summed"]


def who_is_missed(case: CaseRun, declared: Collection[str] = ()) -> Missed:
    """Run the loss; what got zeros or nothing is asked again, but for names declared unreached.

    What is declared need not be asked: that it got zeros is what the declaration says.
    """
    __tracebackhide__ = True
    inventory = take_inventory(case.model)
    # Without elements there is no gradient to get, and nothing to miss.
    asked = [e for e in inventory.parameters if trainable(e) and with_elements(e)]

    def later(left: list[Missing]) -> Collection[Entry]:
        __tracebackhide__ = True
        left = [one for one in left if one.entry.name not in declared and not one.elsewhere]
        zero = [one.entry for one in left if one.state is GradState.ZERO]
        none = [one.entry for one in left if one.state is GradState.NONE]
        return signal_later(case, zero, none, asked)

    with in_use(case) as model:
        outcomes, found = find_unreached(model, inventory, asked, [case.loss], later=later)
    return Missed(inventory, asked, outcomes, found)
