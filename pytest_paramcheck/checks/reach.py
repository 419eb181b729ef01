"""Which parameters a loss reaches, and for each that it does not, why: reasons -> findings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import join_words
from ..parameters.running.gradstate import GradState
from ..parameters.running.reach import LossFn, LossProblem, Reached
from ..parameters.running.reasons import Place
from ..parameters.running.unreached import Missing
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.describe import dtype_name
from .shares import too_few


@dataclass(frozen=True, slots=True)
class Hints:
    """What to do about a parameter that is meant not to be reached, or to get zeros."""

    unused: str
    zero: str
    first_step: str


#: For callers of ``assert_grads_reach``: its patterns and its arguments.
OF_THE_ASSERTION = Hints(
    unused="if it is unused on purpose, exclude it: '!name'",
    zero="allow_zero=True asks only whether a gradient arrives",
    first_step=(
        "expected at the first step of LoRA or zero-initialized branches: "
        "pass the losses of two steps, or allow_zero=True"
    ),
)
#: What is wrong with a gradient in each of its states.
PROBLEM = {
    GradState.NONE: "no gradient",
    GradState.ZERO: "zero gradient",
    GradState.NONFINITE: "gradient not finite",
}
NONFINITE_HINT = (
    "NaN and infinity do not say who was reached, because 0 x NaN is NaN: "
    "make the gradients finite first"
)
#: Of a parameter that was made in inference mode: why it gets no gradient, what to do.
INFERENCE = (
    "made under torch.inference_mode(): it cannot be trained",
    "build the model outside torch.inference_mode()",
)


#: A gradient past what has none, or none but zeros.
_STRAIGHT_THROUGH = "let it train past that: soft + (hard - soft).detach(), a straight-through path"
#: Operations whose gradient is zero everywhere.
_ROUNDING = frozenset({"round", "floor", "ceil", "trunc", "sign", "fix", "sgn"})


def parse_losses(loss_fn: LossFn | Sequence[LossFn]) -> list[LossFn]:
    """Return the loss functions as a list, or raise for what is none."""
    losses: list[Any] = list(loss_fn) if isinstance(loss_fn, (list, tuple)) else [loss_fn]
    if not losses:
        raise ParamCheckUsageError("loss_fn is an empty list: there is no loss to run")
    for number, loss in enumerate(losses):
        if not callable(loss):
            raise ParamCheckUsageError(
                f"{_label(number, len(losses))} must be a function that takes the model and "
                f"returns a loss, not {type(loss).__name__}"
            )
    return losses


def loss_findings(outcomes: Sequence[Reached]) -> list[Finding]:
    """Find the losses that no backward pass can start from."""
    return [
        Finding(
            (_label(number, len(outcomes)),),
            "no backward pass",
            found=outcome.problem.text,
            hint=_loss_hint(outcome.problem),
        )
        for number, outcome in enumerate(outcomes)
        if outcome.problem
    ]


def not_reached(found: Sequence[Missing], hints: Hints = OF_THE_ASSERTION) -> list[Finding]:
    """One finding for each parameter that was not reached, with the reason."""
    findings = []
    for one in found:
        why, hint = reason_text(one, hints)
        findings.append(Finding(tuple(one.entry.names), PROBLEM[one.state], why=why, hint=hint))
    return findings


def not_listed(
    others: Sequence[Entry], outcomes: Sequence[Reached], *, allow_zero: bool
) -> list[Finding]:
    """Find who was reached though ``exactly=`` does not list it.

    ``others`` are the last entries that the outcomes have states of.
    """
    findings = []
    for number, entry in enumerate(others, start=-len(others)):
        states = {outcome.states[number] for outcome in outcomes}
        elsewhere = next(filter(None, (outcome.elsewhere[number] for outcome in outcomes)), "")
        names = tuple(entry.names)
        if GradState.NONFINITE in states:
            findings.append(
                Finding(names, PROBLEM[GradState.NONFINITE], why=_NAN, hint=NONFINITE_HINT)
            )
        elif GradState.NONZERO in states or (allow_zero and GradState.ZERO in states) or elsewhere:
            found = f"its gradient was written to .{elsewhere}" if elsewhere else ""
            if not found and GradState.NONZERO not in states:
                found = "a gradient of zeros arrives"
            hint = "requires_grad_(False) keeps it out; if this is intended, list it in exactly="
            if entry.part is not None:
                hint = "if this is intended, list it in exactly="
            findings.append(Finding(names, "reached, but not listed", found=found, hint=hint))
    return findings


_NAN = "NaN or infinity in it"


def too_few_reached(
    pattern: str, share: float, members: Sequence[Entry], found: Sequence[Missing]
) -> list[Finding]:
    """Find whether too few of the parameters a pattern matches were reached."""
    silent = {one.entry: one for one in found}
    lacking = [silent[entry] for entry in members if entry in silent]
    said = [(tuple(one.entry.names), reason_text(one)[0]) for one in lacking]
    return too_few("too few with a gradient", pattern, share, len(members), said)


def reason_text(one: Missing, hints: Hints = OF_THE_ASSERTION) -> tuple[str, str]:
    """Return why a parameter was not reached, and what to do about it."""
    reason = one.reason
    if one.elsewhere and one.state is GradState.NONE:
        return elsewhere_text(one.elsewhere)
    if one.state is GradState.NONFINITE and (reason is None or reason.kind != "nonfinite"):
        return _NAN, NONFINITE_HINT
    if one.others:
        return "gradient is all zero here; other elements of it got one", hints.zero
    if one.state is GradState.ZERO and reason is not None and reason.kind in ("unused", "unknown"):
        return "gradient is all zero", hints.zero  # it arrived: how was not seen
    if reason is None:
        return _frozen(one.entry)
    place = reason.place or Place("")
    if place.checkpointed and reason.kind in ("no_grad", "inference"):
        return (
            "used only inside a reentrant checkpoint none of whose inputs requires grad",
            "checkpoint(..., use_reentrant=False) does not depend on its inputs",
        )
    if place.inside and not place.recomputed and reason.kind in ("no_grad", "inference"):
        return (
            f"used only inside {_method(place)}, whose operations autograd does not record",
            f"pass the parameter to {place.inside}.apply and return its gradient from backward",
        )
    at = place.operation + place_text(place, one.entry.name)
    match reason.kind:
        case "unused":
            return "never used in the forward pass", hints.unused
        case "no_grad":
            return f"used only under torch.no_grad(): {at}", "run it with gradients enabled"
        case "inference":
            return f"used only under torch.inference_mode(): {at}", "run it with gradients enabled"
        case "left":
            return f"converted to a Python number or array: {at}", "keep it a tensor up to the loss"
        case "dropped":
            return (
                f"used, but the loss does not depend on the result: last {at}",
                "let the result reach the loss",
            )
        case "detached" if place.operation in ("detach", "detach_", "data"):
            called = "" if place.operation == "data" else "()"
            where = place_text(place, one.entry.name)
            return (
                f"detached by .{place.operation}{called}{where}",
                f"use it without .{place.operation}{called} where it has to train",
            )
        case "detached":
            return f"cut off: no gradient flows through {at}", _STRAIGHT_THROUGH
        case "swallowed":
            return f"{at} returned no gradient for it", "return one from its backward()"
        case "hooked":
            return "a hook replaced its gradient", "a hook that returns None keeps the gradient"
        case "cancelled":
            return "its contributions add up to zero", hints.zero
        case "nonfinite" if place.operation:
            return f"NaN or infinity from the gradient of {at}", NONFINITE_HINT
        case "nonfinite":
            return _NAN, NONFINITE_HINT
        case "untrainable":
            return INFERENCE
        case "summed":
            return f"added to every row by {at}, and the gradients of the rows add up to zero", ""
        case "zero" if place.zeros:
            zeros = join_words([relative(zero, one.entry.name) for zero in place.zeros])
            what = "is all zeros" if len(place.zeros) == 1 else "are all zeros"
            return f"its gradient is zero because {zeros} {what}: {at}", hints.first_step
        case "zero" if place.operand:
            what = "all zero" if place.operand == "zeros" else "empty"
            return f"reached, but the other operand is {what}: {at}", hints.zero
        case "zero" if place.operation:
            rounds = place.operation in _ROUNDING
            hint = _STRAIGHT_THROUGH if rounds else hints.zero
            return f"its gradient becomes zero at {at}", hint
        case "zero":
            return "gradient is all zero", hints.zero
    if reason.note:
        return f"loss_fn could not be run again to see why ({reason.note})", ""
    return "cause unknown: it is used in C++ or compiled code", ""


#: torch's own place for a gradient, which is another one where grad= says so.
GRAD = "grad"


def elsewhere_text(attribute: str) -> tuple[str, str]:
    """Return what to say of a gradient that was written to another attribute, and how to ask it."""
    if attribute == GRAD:
        return "its gradient was written to .grad, not to where grad= says", ""
    return f"its gradient was written to .{attribute}, not to .grad", f"pass grad={attribute!r}"


def relative(name: str, to: str) -> str:
    """Return a parameter's name as seen from another's, so that repeated layers read alike."""
    parts, own = name.split("."), to.split(".")
    common = 0
    while common < min(len(parts), len(own)) - 1 and parts[common] == own[common]:
        common += 1
    if common and common == len(own) - 1:
        return f"its {'.'.join(parts[common:])}"
    if any(part.isdigit() for part in parts[:common]):
        return f"its sibling {'.'.join(parts[common:])}"
    return name


def _frozen(entry: Entry) -> tuple[str, str]:
    tensor = entry.tensor
    if tensor is not None and not (tensor.is_floating_point() or tensor.is_complex()):
        return f"{dtype_name(tensor.dtype)} cannot have a gradient", ""
    return (
        "frozen: requires_grad is False",
        "unfreeze it with requires_grad_(True), or exclude it: '!name'",
    )


def place_text(place: Place, name: str) -> str:
    """Return `` in head (Linear)``: the module of a place, so that repeated layers read alike.

    ``name`` is the parameter's: a module it lies in is told by its last component.
    """
    if not place.seen:
        return ""
    if not place.cls:
        if place.recomputed:
            return " in a checkpoint"
        return f" in {_method(place)}" if place.backward else " in loss_fn"
    if not place.module:
        return f" in {place.cls}"
    parts, own = place.module.split("."), name.split(".")
    if own[: len(parts)] == parts:
        if parts[-1].isdigit():
            return f" in its own {place.cls}"
        return _inside(parts, place, its=len(parts) > 1)
    common = 0
    while common < min(len(parts), len(own)) and parts[common] == own[common]:
        common += 1
    if any(part.isdigit() for part in parts[:common]):
        return _inside(parts[common:], place).replace(" in ", " in the sibling module ", 1)
    return _inside([place.module], place)


def _inside(parts: Sequence[str], place: Place, *, its: bool = False) -> str:
    where = f"its {parts[-1]}" if its else ".".join(parts)
    return f" in {where} ({place.cls})"


def _method(place: Place) -> str:
    return f"{place.inside}.{'backward' if place.backward else 'forward'}"


def _loss_hint(problem: LossProblem) -> str:
    if problem.kind == "not_a_tensor":
        return "return the loss itself, a scalar tensor"
    if problem.cut:
        return ""
    if problem.kind == "none":
        return "return the loss from loss_fn"
    return "reduce the loss to one real number: .mean() or .sum()"


def _label(number: int, count: int) -> str:
    return "loss_fn" if count == 1 else f"loss_fn[{number}]"
