"""Who none of several losses reached, and why: a run of each, and a second one where needed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ..subject.inventory import Entry, Inventory
from ..tensors.call import exchange
from ..tensors.content import no_values
from .explain import explain
from .grad_places import Backward, GradAt
from .gradstate import GradState
from .reach import LossFn, Reached, reach
from .reasons import RANK, Reason

#: Of several losses: what one of them reached is reached, and a broken one is said.
_ORDER = {GradState.NONE: 0, GradState.ZERO: 1, GradState.NONFINITE: 2, GradState.NONZERO: 3}

#: Of several shards of one gradient: a NaN in one is a NaN in it.
_OF_SHARDS = {GradState.NONE: 0, GradState.ZERO: 1, GradState.NONZERO: 2, GradState.NONFINITE: 3}


@dataclass(frozen=True, slots=True)
class Missing:
    """A parameter that no loss reached, its best state, and why (None: it is frozen).

    ``elsewhere`` is the attribute that a gradient was written to instead of ``.grad``. ``others``
    says of a part that other elements of the parameter got a gradient.
    """

    entry: Entry
    state: GradState
    reason: Reason | None = None
    elsewhere: str = ""
    others: bool = False


def find_unreached(
    model: nn.Module,
    inventory: Inventory,
    entries: Sequence[Entry],
    losses: Sequence[LossFn],
    *,
    allow_zero: bool = False,
    remedy: str = "",
    also: Sequence[Entry] = (),
    later: Callable[[list[Missing]], Collection[Entry]] | None = None,
    grad: GradAt | None = None,
    backward: Backward | None = None,
) -> tuple[list[Reached], list[Missing]]:
    """Run the losses on a model; return what each gave, and the entries that none reached.

    Why is asked in a second run of each loss, made only if somebody was not reached.
    ``remedy`` is what a caller can do, beside a real device, about values that are not there.
    ``also`` are entries whose states are wanted, behind those of the others, and no reasons.
    ``later`` is asked of those that got zeros or nothing from losses that ran, before their reasons
    are: it returns those that get a gradient once the model has trained, or from another seed.
    ``grad`` and ``backward``: :func:`reach`.
    """
    __tracebackhide__ = True
    everything = [*entries, *also]
    tensors = runnable(everything, inventory, allow_zero, remedy)
    untrainable = [
        Missing(entry, GradState.NONE, Reason("untrainable"))
        for entry in entries
        if inference(entry)
    ]
    outcomes = []
    try:
        for loss in losses:
            outcomes.append(reach(model, loss, tensors, everything, grad=grad, backward=backward))
    except Exception:
        # Autograd refuses to save an inference tensor: it is the reason, and was found.
        if not untrainable:
            raise
        return [], untrainable
    if not allow_zero:
        _readable(everything, outcomes, remedy)
    outcomes = _of_whole(outcomes)
    known = {one.entry: one for one in untrainable}
    found = missing(entries, outcomes, allow_zero=allow_zero)
    found = [one for one in found if one.entry not in known]
    ran = all(outcome.problem is None for outcome in outcomes)
    asked = [one for one in found if one.entry.trainable and (ran or one.state is GradState.ZERO)]
    if later is not None and asked:
        reached = set(later(asked))
        found = [one for one in found if one.entry not in reached]
    counts = grad is None and backward is None
    explained = _with_reasons(found, inventory, losses, outcomes, counts=counts)
    # What one of two runs reached is reached: two images cancel in a batch norm, or do but for
    # rounding (timm's ghostnetv2_100, from 2 of 6 seeds).
    explained = [one for one in explained if one.elsewhere or one.reason != Reason("reached")]
    together = {**{one.entry: one for one in explained}, **known}
    return outcomes, [together[entry] for entry in entries if entry in together]


def _of_whole(outcomes: Sequence[Reached]) -> list[Reached]:
    """Return what each loss gave to whole tensors, from what it gave to the shards of each rank.

    Before reasons are asked for: a second run on one rank alone would wait for the others.
    """
    told = [([state.name for state in one.states], one.elsewhere) for one in outcomes]
    heard = list(exchange(told).values())
    if len(heard) == 1:
        return list(outcomes)
    return [
        replace(
            outcome,
            states=[
                max((GradState[name] for name in of_entry), key=_OF_SHARDS.__getitem__)
                for of_entry in zip(*(said[number][0] for said in heard), strict=True)
            ],
            elsewhere=[
                next(filter(None, of_entry), "")
                for of_entry in zip(*(said[number][1] for said in heard), strict=True)
            ],
        )
        for number, outcome in enumerate(outcomes)
    ]


def inference(entry: Entry) -> bool:
    """Whether an entry asks for a gradient and was made in inference mode, so cannot train."""
    return entry.tensor is not None and entry.trainable and entry.tensor.is_inference()


def _readable(entries: Sequence[Entry], outcomes: Sequence[Reached], remedy: str) -> None:
    """Raise for a gradient whose values cannot be read, though the parameter's can."""
    for outcome in outcomes:
        for entry, reason in zip(entries, outcome.unreadable, strict=True):
            if reason:
                raise ParamCheckUsageError(
                    f"the gradient of {entry.name} cannot be distinguished from zero: {reason}"
                    + remedy.replace(", or", ";", 1)
                )


def runnable(
    entries: Sequence[Entry], inventory: Inventory, allow_zero: bool = False, remedy: str = ""
) -> list[Tensor]:
    """Return the tensors of entries; raise where their gradients would have no values."""
    __tracebackhide__ = True
    tensors = [entry.tensor for entry in entries if entry.tensor is not None]
    for entry, tensor in zip(entries, tensors, strict=True):
        if not allow_zero and (reason := no_values(tensor)):
            raise ParamCheckUsageError(
                f"{entry.name}: {reason}, so a gradient cannot be distinguished from zero; "
                f"build {inventory.title} on a real device{remedy}"
            )
    return tensors


def missing(
    entries: Sequence[Entry], outcomes: Sequence[Reached], *, allow_zero: bool
) -> list[Missing]:
    """Return the entries that none of the losses reached."""
    found = []
    for number, entry in enumerate(entries):
        states = [outcome.states[number] for outcome in outcomes]
        if allow_zero and GradState.ZERO in states:
            continue
        state = max(states, key=_ORDER.__getitem__)
        if state is not GradState.NONZERO:
            elsewhere = (outcome.elsewhere[number] for outcome in outcomes)
            others = entry.part is not None and any(
                outcome.whole[number] is GradState.NONZERO for outcome in outcomes
            )
            attribute = next(filter(None, elsewhere), "")
            found.append(Missing(entry, state, elsewhere=attribute, others=others))
    return found


def _with_reasons(
    found: Sequence[Missing],
    inventory: Inventory,
    losses: Sequence[LossFn],
    outcomes: Sequence[Reached],
    *,
    counts: bool,
) -> list[Missing]:
    """Give each parameter that trains the reason why no loss reached it."""
    __tracebackhide__ = True
    asked = [one for one in found if one.entry.trainable and not one.others]
    usable = [
        loss
        for loss, outcome in zip(losses, outcomes, strict=True)
        if outcome.problem is None or outcome.problem.cut
    ]
    if not asked or not usable:
        return [one for one in found if one.others or not one.entry.trainable]
    reasons: list[list[Reason]] = []
    zero_too = any(one.state is GradState.ZERO for one in asked)
    tensors = [one.entry.tensor for one in asked if one.entry.tensor is not None]
    for loss in usable:
        reasons.append(explain(inventory, loss, tensors, zero_too=zero_too, counts=counts))
    explained = {
        one.entry: replace(one, reason=likeliest(list(said)))
        for one, said in zip(asked, zip(*reasons, strict=True), strict=True)
    }
    said = [explained.get(one.entry, one) for one in found]
    return [one for one in said if one.reason is None or _adds_to_the_loss(one, outcomes)]


def _adds_to_the_loss(one: Missing, outcomes: Sequence[Reached]) -> bool:
    """Whether a reason says more than that no loss could be run backward."""
    problems = [outcome.problem for outcome in outcomes]
    if None in problems or one.reason is None or one.elsewhere:
        return True
    if all(problem is not None and problem.kind == "not_a_tensor" for problem in problems):
        return one.reason.kind == "left"  # of a number it is known how it left torch
    return one.reason.kind not in ("unused", "unknown")


def likeliest(reasons: Sequence[Reason]) -> Reason:
    """Of the reasons that several losses gave, the one nearest to reaching the parameter."""
    return max(reasons, key=lambda reason: RANK[reason.kind], default=Reason("unknown"))
