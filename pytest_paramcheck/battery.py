"""The whole-model checks: one named function per invariant, over the assertions.

Each takes a :class:`~pytest_paramcheck.cases.CaseRun` and raises what the assertion raises.
A check that does not apply to what the case declares is not collected (``Check.applies``); one
that finds nothing to look at on the model itself raises :class:`NothingToCheck` with the
reason, which skips its item. ``case.model`` is shared by all checks and changed by none.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from .assertions.blocks import Block, assert_unchanged, assert_updated
from .assertions.checkpoints import assert_roundtrip
from .assertions.gradients import assert_grads_finite, assert_grads_none
from .assertions.init import assert_init_complete
from .assertions.manifests import assert_manifest
from .assertions.optimizer import assert_optimizer_covers
from .assertions.raising import raise_if
from .assertions.reach import assert_grads_reach, assert_tied_grads_sum
from .assertions.registered import assert_registered
from .assertions.structure import assert_materialized, assert_shapes
from .assertions.ties import assert_distinct, assert_same_ties, assert_ties, assert_untied
from .assertions.training import assert_frozen
from .assertions.values import assert_finite, assert_same_values
from .cases import CaseRun, ModelCase, NothingToCheck
from .checks.apart import EQUAL, can_be_equal
from .checks.manifest import manifest_differences
from .environment import random_states, seed_all
from .findings import Finding, ParamCheckError, ParamCheckUsageError
from .parameters.content import no_values
from .parameters.gradstate import GradState, grad_state
from .parameters.inventory import Entry, take_inventory
from .parameters.manifest_lines import manifest_lines
from .parameters.preserve import preserved
from .parameters.select import Pattern, parameters_only, select

NOTHING = "the model has no parameters and no buffers"
ALIKE = "ModelCase(alike=[...])"
UNREACHED = "where it is meant, with this loss: ModelCase(unreached=[...])"


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
        return (self.run.__doc__ or "").strip().splitlines()[0] if self.run.__doc__ else ""


def check_registered(case: CaseRun) -> None:
    """No parameter or module hides in a list, a dict or a plain attribute."""
    __tracebackhide__ = True
    try:
        assert_registered(case.model)
        return
    except ParamCheckUsageError:
        if take_inventory(case.model, allow_empty=True).named:
            raise
    raise NothingToCheck(NOTHING)


def check_materialized(case: CaseRun) -> None:
    """Nothing is lazy and nothing is on meta."""
    __tracebackhide__ = True
    if case.device.type == "meta":
        raise NothingToCheck("the case runs on meta")
    _need_entries(case.model)
    assert_materialized(case.model)


def check_init_complete(case: CaseRun) -> None:
    """Every parameter and buffer is initialised by the factory."""
    __tracebackhide__ = True
    _need_values(case.model)
    assert_init_complete(case.build)


def check_finite(case: CaseRun) -> None:
    """No parameter starts with a NaN or an infinity."""
    __tracebackhide__ = True
    _need_values(case.model)
    _need_parameters(case.model)
    assert_finite(case.model)


def check_distinct(case: CaseRun) -> None:
    """No two parameters start with the same values but those declared ``alike``."""
    __tracebackhide__ = True
    _need_values(case.model)
    _need_parameters(case.model)
    inventory = take_inventory(case.model)
    alike = _declared(case.model, case.case.alike)
    tied = [f"!{name}" for names in inventory.tie_groups for name in names[1:]]
    try:
        assert_distinct(case.model, *tied)
        found: tuple[Finding, ...] = ()
    except ParamCheckError as error:
        found = error.findings
    equal = [f for f in found if f.problem == EQUAL]
    same_as = {name for finding in equal for name in finding.names}
    # A module's biases are zeros: constants are never compared, so that they cannot be stale.
    stale = [
        Finding(
            tuple(entry.names),
            "declared alike but is not",
            found="it equals no other parameter",
            hint="take it out of ModelCase(alike=...)",
        )
        for entry in alike
        if entry.name not in same_as and can_be_equal(entry)
    ]
    names = {entry.name for entry in alike}
    left = [
        replace(f, hint=f"{f.hint}; or, where it is meant: {ALIKE}") if f in equal else f
        for f in found
        if not (f in equal and set(f.names) <= names)
    ]
    raise_if([*left, *stale], case.title)


def check_deterministic(case: CaseRun) -> None:
    """Building the model twice from one seed gives the same values."""
    __tracebackhide__ = True
    _need_values(case.model)
    assert_same_values(case.model, case.build())


def check_ties(case: CaseRun) -> None:
    """The ties are those declared; undeclared, every instance has those of the first."""
    __tracebackhide__ = True
    if case.case.ties is not None:
        if not case.case.ties:
            _need_entries(case.model)
        assert_ties(case.model, case.case.ties)
    else:
        _need_entries(case.model)
        assert_same_ties(case.model, case.build())


def check_shapes(case: CaseRun) -> None:
    """The shapes are those declared."""
    __tracebackhide__ = True
    if not case.case.shapes:
        _need_entries(case.model)
    assert_shapes(case.model, case.case.shapes or {})


def check_frozen(case: CaseRun) -> None:
    """Exactly the parameters declared frozen are frozen."""
    __tracebackhide__ = True
    if not case.case.frozen:
        _need_parameters(case.model)
    assert_frozen(case.model, exactly=list(case.case.frozen or ()))


def check_manifest(case: CaseRun) -> None:
    """The parameters are those of the committed manifest."""
    __tracebackhide__ = True
    assert_manifest(case.model, path=case.case.manifest)


def check_state_dict_roundtrip(case: CaseRun) -> None:
    """Values, ties, flags and keys survive ``load_state_dict(state_dict())``."""
    __tracebackhide__ = True
    _need_values(case.model)
    assert_roundtrip(case.model, through="state_dict")


def check_torch_save_roundtrip(case: CaseRun) -> None:
    """Values, ties, flags and keys survive a file written by ``torch.save``."""
    __tracebackhide__ = True
    _need_values(case.model)
    assert_roundtrip(case.model, through="torch.save")


def check_deepcopy(case: CaseRun) -> None:
    """A deep copy has the same names, shapes, dtypes, flags, ties and values, and shares none."""
    __tracebackhide__ = True
    _need_entries(case.model)
    try:
        copied, problem = copy.deepcopy(case.model), ""
    except Exception as error:  # whatever a module or a tensor subclass raises
        copied, problem = None, f"{type(error).__name__}: {str(error).partition(chr(10))[0]}"
    if copied is None:
        finding = Finding(("the model",), "cannot be deep-copied", found=problem)
        raise_if([finding], case.title)
        return
    _same_structure(case, copied)
    try:
        assert_untied(model=case.model, copy=copied)
        shared: tuple[Finding, ...] = ()
    except ParamCheckError as error:
        shared = error.findings
    hint = "__deepcopy__ has to copy what the model holds"
    raise_if([replace(f, hint=hint) for f in shared if f.problem != "not checked"], case.title)
    if not _without_values(case.model):
        assert_same_values(case.model, copied)


def check_dtype_move(case: CaseRun) -> None:
    """``.to(dtype)`` keeps names, shapes, flags and ties."""
    __tracebackhide__ = True
    floating = {t.dtype for t in case.model.parameters() if t.is_floating_point()}
    if not floating:
        raise NothingToCheck("the model has no floating parameter to move")
    if any(t.is_complex() for t in (*case.model.parameters(), *case.model.buffers())):
        raise NothingToCheck("the model has complex tensors, which a real dtype would cut")
    target = torch.float32 if torch.float64 in floating else torch.float64
    if case.device.type == "mps":
        target = torch.bfloat16  # mps has no float64
    _same_structure(case, case.build().to(target), dtypes=False)


def check_device_move(case: CaseRun) -> None:
    """``.to(device)`` keeps names, shapes, flags and ties."""
    __tracebackhide__ = True
    here = case.device.type
    if here == "meta":
        raise NothingToCheck("the case runs on meta, from where nothing can be moved")
    if here == "cpu" and not torch.accelerator.is_available():
        raise NothingToCheck("this machine has no second device to move to")
    other = torch.accelerator.current_accelerator() if here == "cpu" else torch.device("cpu")
    _need_entries(case.model)
    _same_structure(case, case.build().to(other))


def check_grads_none(case: CaseRun) -> None:
    """Before a backward pass no parameter has a gradient."""
    __tracebackhide__ = True
    _need_parameters(case.model)
    assert_grads_none(case.model)


def check_grads_reach(case: CaseRun) -> None:
    """The loss's gradient reaches every trainable parameter but those declared ``unreached``."""
    __tracebackhide__ = True
    _need_trainable(case.model)
    _need_values(case.model)
    declared = _declared(case.model, case.case.unreached)
    found = _not_reached(case)
    missed = {name for finding in found for name in finding.names}
    stale = [
        Finding(
            tuple(entry.names),
            "declared unreached but is reached",
            found="the loss gives it a gradient",
            hint="take it out of ModelCase(unreached=...)",
        )
        for entry in declared
        if entry.trainable and entry.name not in missed and _size(entry)
    ]
    names = {name for entry in declared for name in entry.names}
    left = [
        # What these hints advise is for callers of assert_grads_reach.
        replace(f, hint=UNREACHED) if "'!name'" in f.hint or "allow_zero" in f.hint else f
        for f in found
        if not f.names or not set(f.names) <= names
    ]
    raise_if([*left, *stale], case.title)


def check_grads_finite(case: CaseRun) -> None:
    """The gradients of one backward pass are finite."""
    __tracebackhide__ = True
    _need_trainable(case.model)
    _need_values(case.model)
    with preserved(case.model):
        _backward(case, case.model)
        if not any(p.grad is not None for p in case.model.parameters()):
            raise NothingToCheck("the loss reaches no parameter: check_grads_reach says why")
        assert_grads_finite(case.model)


def check_tied_grads_sum(case: CaseRun) -> None:
    """The gradient of a tied parameter is the sum of what each use contributes."""
    __tracebackhide__ = True
    _need_values(case.model)
    inventory = take_inventory(case.model)
    if not any(
        inventory.by_name[group[0]].trainable and inventory.by_name[group[0]].is_parameter
        for group in inventory.tie_groups
    ):
        raise NothingToCheck("the model has no trainable tied parameter")
    assert_tied_grads_sum(case.model, case.loss)


def check_eval_unchanged(case: CaseRun) -> None:
    """A forward pass in eval mode changes nothing."""
    __tracebackhide__ = True
    _need_values(case.model)
    model = case.build().eval()
    with assert_unchanged(model), torch.no_grad():
        if case.case.inputs is None:
            case.loss(model)
        else:
            case.forward(model)


def check_training_step(case: CaseRun) -> None:
    """Training moves what a gradient reaches and leaves frozen parameters bit-identical."""
    __tracebackhide__ = True
    _need_values(case.model)
    _need_trainable(case.model)
    model = case.build()
    entries = [entry for entry in take_inventory(model).parameters if entry.tensor is not None]
    frozen = [entry.name for entry in entries if not entry.trainable]
    optimizers = case.optimizers(model)
    signalled: dict[str, None] = {}

    def train() -> None:
        __tracebackhide__ = True
        for _ in range(case.case.steps):
            for optimizer in optimizers:
                optimizer.zero_grad()
            _backward(case, model)
            for entry in entries:
                if entry.tensor is not None and _has_signal(entry.tensor):
                    signalled[entry.name] = None
            for optimizer in optimizers:
                _step(case, model, optimizer)

    held = {id(p) for o in optimizers for g in o.param_groups for p in g["params"]}
    moving = [e.name for e in entries if e.trainable and id(e.tensor) in held and _size(e)]
    if not moving:
        raise NothingToCheck("no optimizer holds a trainable parameter")
    findings: list[Finding] = []
    with ExitStack() as stack:
        stack.enter_context(_noting(findings, assert_updated(model, *moving)))
        if frozen:
            unchanged = assert_unchanged(model, *frozen, buffers=False)
            stack.enter_context(_noting(findings, unchanged))
        train()
    raise_if(
        [
            f
            for f in findings
            if f.problem != "not updated" or not signalled.keys().isdisjoint(f.names)
        ],
        case.title,
    )


def check_optimizer_covers(case: CaseRun) -> None:
    """The declared optimizer holds every trainable parameter exactly once."""
    __tracebackhide__ = True
    _need_trainable(case.model)
    _need_materialized(case.model)
    model = case.build()
    assert_optimizer_covers(case.optimizers(model), model)


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
    with random_states(case.device):
        seed_all(case.seed, case.device)
        check.run(case)


def _declared(model: nn.Module, patterns: Iterable[Pattern]) -> list[Entry]:
    __tracebackhide__ = True
    listed = list(patterns)
    if not listed:
        return []
    return select(take_inventory(model), listed, eligible=parameters_only, what="parameter")


def _without_values(model: nn.Module) -> str:
    for entry in take_inventory(model, allow_empty=True).entries:
        if entry.tensor is not None and (reason := no_values(entry.tensor)):
            return f"{entry.name}: {reason}"
    return ""


def _need_entries(model: nn.Module) -> None:
    __tracebackhide__ = True
    if not take_inventory(model, allow_empty=True).named:
        raise NothingToCheck(NOTHING)


def _need_materialized(model: nn.Module) -> None:
    __tracebackhide__ = True
    for entry in take_inventory(model).parameters:
        if entry.tensor is not None and is_lazy(entry.tensor):
            raise NothingToCheck(f"{entry.name}: {no_values(entry.tensor)}")


def _need_values(model: nn.Module) -> None:
    __tracebackhide__ = True
    _need_entries(model)
    if reason := _without_values(model):
        raise NothingToCheck(reason)


def _need_parameters(model: nn.Module) -> None:
    __tracebackhide__ = True
    if not any(True for _ in model.parameters()):
        raise NothingToCheck("the model has no parameters")


def _need_trainable(model: nn.Module) -> None:
    __tracebackhide__ = True
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise NothingToCheck("the model has no trainable parameter")


def _not_reached(case: CaseRun) -> tuple[Finding, ...]:
    __tracebackhide__ = True
    try:
        assert_grads_reach(case.model, case.loss)
    except ParamCheckError as error:
        by_name = take_inventory(case.model).by_name
        # Without elements there is no signal to get, and nothing to miss.
        return tuple(
            f for f in error.findings if not f.names or _may_learn(by_name.get(f.names[0]))
        )
    return ()


def _may_learn(entry: Entry | None) -> bool:
    return entry is None or _size(entry)


def _backward(case: CaseRun, model: nn.Module) -> None:
    __tracebackhide__ = True
    loss: Tensor = case.loss(model)
    if not loss.requires_grad:
        raise NothingToCheck("the loss has no graph: check_grads_reach says why")
    loss.backward()  # type: ignore[no-untyped-call]


def _step(case: CaseRun, model: nn.Module, optimizer: Any) -> None:
    __tracebackhide__ = True
    if not isinstance(optimizer, torch.optim.LBFGS):
        with warnings.catch_warnings():
            # torch says this of the sparse tensors that its own Adagrad makes.
            warnings.filterwarnings("ignore", message="Sparse invariant checks")
            optimizer.step()
        return

    def closure() -> Tensor:  # it evaluates the loss several times
        __tracebackhide__ = True
        optimizer.zero_grad()
        _backward(case, model)
        return case.loss(model)

    optimizer.step(closure)  # type: ignore[no-untyped-call]


@contextmanager
def _noting(findings: list[Finding], block: Block) -> Iterator[None]:
    """Take in what a block finds, so that a second one around it is heard as well."""
    __tracebackhide__ = True
    try:
        with block:
            yield
    except ParamCheckError as error:
        findings += error.findings


def _has_signal(tensor: Tensor) -> bool:
    return grad_state(tensor.grad) is GradState.SIGNAL


def _size(entry: Entry) -> bool:
    return entry.tensor is not None and entry.tensor.numel() > 0


def _same_structure(case: CaseRun, other: nn.Module, *, dtypes: bool = True) -> None:
    __tracebackhide__ = True
    before = manifest_lines(take_inventory(case.model))
    after = manifest_lines(take_inventory(other))
    findings = manifest_differences(before, after)
    if not dtypes:
        findings = [finding for finding in findings if finding.problem != "dtype changed"]
    raise_if(findings, case.title)
