"""Checks that run a model: forward, backward, a training step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from ..assertions.block import Block
from ..assertions.blocks import assert_unchanged, updated_where_due
from ..assertions.gradients import assert_grads_finite, assert_grads_none
from ..assertions.optimizer import assert_optimizer_covers
from ..checks.broken_at import with_operations
from ..checks.loaded_values import is_constant
from ..checks.reach import INFERENCE, loss_findings
from ..checks.reach_of_a_case import missing_of_a_case
from ..checks.tied_grads_sum import is_silent, tied_sums
from ..checks.values import broken
from ..messages.errors import ParamCheckError, raise_if
from ..messages.findings import Finding
from ..messages.wording import plural
from ..parameters.running.explain import explain
from ..parameters.running.gradstate import GradState, above_rounding, grad_states
from ..parameters.running.preserve import put_away
from ..parameters.running.undo import Undo
from ..parameters.running.unreached import inference
from ..parameters.running.untie import tied_gradients
from ..parameters.subject.copies import deep_copy
from ..parameters.subject.declared import decide
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.select import select, with_elements
from ..parameters.tensors.content import same_bits
from .builds import fresh, in_use
from .case import NothingToCheck
from .check import check
from .in_bounds import kept_in_bounds
from .left_out import left_out, left_out_text
from .missed import who_is_missed
from .needs import declared_entries, need_materialized, need_parameters, need_trainable, need_values
from .run import CaseRun, guessed_from, note_left_out
from .steps import backward, reached_by_every_seed, step


@check(values=False)
def check_grads_none(case: CaseRun) -> None:
    """Before a backward pass no parameter has a gradient."""
    __tracebackhide__ = True
    need_parameters(case.model)
    try:
        assert_grads_none(case.model)
    except ParamCheckError as error:
        built_with = [
            replace(
                finding,
                why=finding.why or "the factory returned the model with it",
                hint="no backward pass while the model is built, or zero_grad() after it",
            )
            for finding in error.findings
        ]
        raise_if(built_with, take_inventory(case.model))


@check()
def check_grads_reach(case: CaseRun) -> None:
    """The loss's gradient reaches every trainable parameter but those declared ``unreached``.

    What got zeros is asked again after steps of ours, and from other seeds: behind a zero scale
    it is right, and what rounding decides is neither a finding nor a stale declaration. Of inputs
    that nobody declared it is none either where they leave out the argument that the code using a
    parameter stands behind: the last lines of the run say so.
    """
    __tracebackhide__ = True
    need_trainable(case.model)
    need_values(case.model)
    declared = {entry.name for entry in declared_entries(case.model, case.declared.unreached)}
    missed = who_is_missed(case, declared)
    inventory, entries, found = missed.inventory, missed.asked, missed.found
    left = [one for one in missed.worth_saying if one.entry.name not in declared]
    if guessed_from(case):
        # Others would do what these did not: no finding, and not nothing.
        without_inputs = left_out(case, left, [entry.name for entry in entries])
        left = [one for one in left if one.entry.name not in without_inputs]
        note_left_out(case, left_out_text(without_inputs, inventory, entries))
    without = {one.entry for one in found}
    doubted = [e for e in entries if missed.outcomes and e.name in declared and e not in without]
    stale = [
        Finding(
            tuple(entry.names),
            "declared unreached but is reached",
            found="the loss gives it a gradient",
            hint="take it out of ModelCase(unreached=...)",
        )
        for entry in reached_by_every_seed(case, doubted)
    ]
    unreached = missing_of_a_case(left, inventory, entries, guessed_from(case))
    raise_if([*loss_findings(missed.outcomes), *unreached, *stale], case.title)


@check()
def check_grads_finite(case: CaseRun) -> None:
    """The gradients of one backward pass are finite."""
    __tracebackhide__ = True
    need_trainable(case.model)
    need_values(case.model)
    with in_use(case) as model:
        findings: list[Finding] = []
        with Undo() as undo, undo:
            put_away(undo, model, case.loss)
            backward(case, model)
            if not any(p.grad is not None for p in model.parameters()):
                raise NothingToCheck("the loss reaches no parameter: check_grads_reach says why")
            try:
                assert_grads_finite(model)
            except ParamCheckError as error:
                findings = list(error.findings)
        # A second run on one rank alone would wait for the others.
        if findings and case.declared.wrap is None:
            findings = _with_operations(case, model, findings)
        raise_if(findings, take_inventory(model))


def _with_operations(case: CaseRun, model: nn.Module, found: Sequence[Finding]) -> list[Finding]:
    """Say from which operation on the gradients are not finite, where a second run shows it."""
    __tracebackhide__ = True
    inventory = take_inventory(model)
    held = [inventory.named.get(finding.names[0]) for finding in found if finding.names]
    tensors = [tensor for tensor in held if tensor is not None]
    if len(tensors) < len(found):
        return list(found)
    return with_operations(found, explain(inventory, case.loss, tensors, zero_too=True))


@check()
def check_tied_grads_sum(case: CaseRun) -> None:
    """The gradient of a tied parameter is the sum of what each use contributes."""
    __tracebackhide__ = True
    need_values(case.model)
    inventory = take_inventory(case.model)
    if not any(
        inventory.by_name[group[0]].trainable and inventory.by_name[group[0]].is_parameter
        for group in inventory.tie_groups
    ):
        raise NothingToCheck("the model has no trainable tied parameter")
    tied = [entry for entry in inventory.parameters if entry.trainable and len(entry.names) > 1]
    declared = {entry.name for entry in declared_entries(case.model, case.declared.unreached)}
    tied = [entry for entry in tied if entry.name not in declared]
    if not tied:
        raise NothingToCheck("every trainable tied parameter is declared unreached")
    try:
        deep_copy(case.model)
    except Exception:  # whatever a module raises
        case.loss(case.model)  # a graph that was kept is the reason, and is said
        raise NothingToCheck(
            "the model cannot be deep-copied, so its uses cannot be separated: check_deepcopy "
            "says why"
        ) from None
    with in_use(case) as model:
        groups = tied_gradients(model, inventory, tied, case.loss)
    # What no use reaches is for check_grads_reach to say, where it can be declared.
    loud = [group for group in groups if not is_silent(group)]
    if not loud:
        raise NothingToCheck("no tied parameter has a nonzero gradient in the first backward pass")
    raise_if(tied_sums(loud), inventory)


@check()
def check_eval_unchanged(case: CaseRun) -> None:
    """A forward pass in eval mode changes nothing but caches that the first one fills.

    Nor are weights a change that every forward masks, clamps or cuts to a norm.
    """
    __tracebackhide__ = True
    need_values(case.model)
    model = fresh(case).eval()

    def forward() -> None:
        __tracebackhide__ = True
        # With gradients, as in training: a forward may ask for some itself.
        with torch.enable_grad():
            if case.inputs_from or case.declared.loss is None:
                case.forward(model)
            else:
                case.loss(model)

    first: list[Finding] = []
    with _noting(first, assert_unchanged(model)):
        forward()
    # A cache is filled once, and nobody saves it: rotary tables, masks, position biases.
    saved = {n for e in take_inventory(model).entries if e.persistent for n in e.names}
    caches = set(take_inventory(model).named) - saved
    first = [finding for finding in first if not caches.issuperset(finding.names)]
    said = {name for finding in first for name in finding.names}
    second: list[Finding] = []
    with _noting(second, assert_unchanged(model)):
        forward()
    second = [finding for finding in second if said.isdisjoint(finding.names)]
    if first and not second:
        kept = kept_in_bounds(model, said, forward)
        first = [finding for finding in first if not kept.issuperset(finding.names)]
    raise_if([*first, *second], take_inventory(model).title)


@check()
def check_training_step(case: CaseRun) -> None:
    """Training moves what a gradient reaches and leaves frozen parameters bit-identical."""
    __tracebackhide__ = True
    need_values(case.model)
    need_trainable(case.model)
    model = fresh(case)
    entries = [entry for entry in take_inventory(model).parameters if entry.tensor is not None]
    if untrainable := [entry for entry in entries if inference(entry)]:
        why, hint = INFERENCE
        names = [tuple(entry.names) for entry in untrainable]
        raise_if([Finding(n, "not trainable", why=why, hint=hint) for n in names], case.title)
    frozen = [entry.name for entry in entries if not entry.trainable]
    optimizers = case.optimizers(model)
    nonzero: dict[str, None] = {}
    reached: dict[str, None] = {}

    def train() -> None:
        __tracebackhide__ = True
        for _ in range(case.declared.steps):
            for optimizer in optimizers:
                optimizer.zero_grad()
            backward(case, model)
            grads = [e.tensor.grad for e in entries if e.tensor is not None]
            more = above_rounding(grads)
            for entry, state, loud in zip(entries, grad_states(grads), more, strict=True):
                if state is not GradState.NONE:
                    reached[entry.name] = None
                if state is GradState.NONFINITE or (state is GradState.NONZERO and loud):
                    nonzero[entry.name] = None
            for optimizer in optimizers:
                step(case, model, optimizer)

    held = {id(p) for o in optimizers for g in o.param_groups for p in g["params"]}
    moving = [e.name for e in entries if e.trainable and id(e.tensor) in held and with_elements(e)]
    if not moving:
        raise NothingToCheck("no optimizer holds a trainable parameter")
    findings: list[Finding] = []
    moved: list[Finding] = []
    statistics = _frozen_statistics(case, model)
    with ExitStack() as stack:
        updated = updated_where_due(model, *moving, may_stand_still=nonzero.keys().isdisjoint)
        stack.enter_context(_noting(findings, updated))
        if statistics:
            still = assert_unchanged(model, *statistics, only="values")
            stack.enter_context(_noting(moved, still))
        if frozen:
            unchanged = assert_unchanged(model, *frozen, buffers=False)
            stack.enter_context(_noting(findings, unchanged))
        train()
    if findings:
        copies = _running_copies(case, frozen) - {e.name for e in entries if id(e.tensor) in held}
        findings = [finding for finding in findings if not copies.issuperset(finding.names)]
    findings += [replace(finding, problem=STATISTICS) for finding in moved]
    if not findings and nonzero.keys().isdisjoint(moving):
        declared = {e.name for e in declared_entries(case.model, case.declared.unreached)}
        if declared.issuperset(moving):
            raise NothingToCheck("all that an optimizer holds is declared unreached")
        findings = [_stood_still(case, name, name in reached) for name in moving]
    raise_if([*findings, *_no_longer_hold(case, model)], case.title)


def _running_copies(case: CaseRun, frozen: Sequence[str]) -> set[str]:
    """Return all names of frozen parameters that start as a copy of a namesake that trains.

    A momentum encoder or a teacher: a forward in training may let it follow (MoCo does). That zeros
    equal other zeros shows nothing: those are a copy's where a module with them holds one for sure.
    """
    inventory = take_inventory(case.model)
    training: dict[str, list[Tensor]] = {}
    for entry in inventory.parameters:
        if entry.trainable and entry.tensor is not None:
            training.setdefault(entry.name.rpartition(".")[2], []).append(entry.tensor)
    alike: dict[str, Tensor] = {}
    for name in frozen:
        tensor, namesakes = inventory.named.get(name), training.get(name.rpartition(".")[2], [])
        if tensor is not None and any(same_bits(tensor, other) for other in namesakes):
            alike[name] = tensor
    sure = {name.partition(".")[0] for name, tensor in alike.items() if not is_constant(tensor)}
    return {name for name in alike if name.partition(".")[0] in sure}


def _no_longer_hold(case: CaseRun, model: nn.Module) -> list[Finding]:
    """Find what a step of the declared optimizer took from the declared conditions.

    Not of ours: its steps may be larger than any that this model is meant for.
    """
    declared = case.declared.values
    if declared is None or case.declared.optimizer is None:
        return []
    decided = decide(take_inventory(model), declared, eligible=with_elements, parts=True)
    return [replace(f, problem=f"{f.problem} after training") for f in broken(decided)]


#: What ``requires_grad`` does not do.
STATISTICS = "statistics moved, declared frozen"


def _frozen_statistics(case: CaseRun, model: nn.Module) -> list[str]:
    """Return the statistics of norms declared frozen that training would move.

    Not of a norm that ``train()`` leaves in eval mode, as a model may see to itself.
    """
    __tracebackhide__ = True
    if not case.declared.frozen:
        return []
    inventory = take_inventory(model)
    selected = select(inventory, case.declared.frozen)
    asked = {name for entry in selected for name in entry.names}
    modes = [(module, module.training) for module in model.modules()]
    model.train()
    norms = [
        prefix
        for prefix, module in zip(*inventory.walked, strict=True)
        if isinstance(module, _NormBase) and module.training
    ]
    for module, training in modes:
        module.training = training
    places = [norm + key for norm in norms for key in _STATISTICS]
    return [name for name in places if name in asked]


_STATISTICS = ("running_mean", "running_var")


def _stood_still(case: CaseRun, name: str, reached: bool) -> Finding:
    return Finding(
        (name,),
        f"no trainable parameter moved in {plural(case.declared.steps, 'step')}",
        why="its gradient was all zero" if reached else "no gradient reached it",
        hint="check_grads_reach says why",
    )


@check(applies=lambda case: case.optimizer is not None, values=False)
def check_optimizer_covers(case: CaseRun) -> None:
    """The declared optimizer holds every trainable parameter exactly once."""
    __tracebackhide__ = True
    need_trainable(case.model)
    need_materialized(case.model)
    model = fresh(case)
    assert_optimizer_covers(case.optimizers(model), model)


@contextmanager
def _noting(findings: list[Finding], block: Block) -> Iterator[None]:
    """Take in what a block finds, so that a second one around it is heard as well."""
    __tracebackhide__ = True
    try:
        with block:
            yield
    except ParamCheckError as error:
        findings += error.findings
