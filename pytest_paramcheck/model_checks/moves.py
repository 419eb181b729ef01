"""Checks of a model that is moved to another dtype, and to another device.

Meta is a second device on every machine. What torch itself loses on the way there is not the
model's fault: ties through one Parameter, and the laziness of parameters.

Tests: ``tests/unit/test_move_checks.py`` and ``test_model_errors.py``.
"""

from __future__ import annotations

import inspect
import re
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from ..checks.manifest import COPY, record_differences
from ..checks.moves import lost_in_move, not_cast, not_moved, plain_left_behind
from ..checks.own_methods import with_own_methods
from ..messages.errors import raise_if
from ..messages.findings import Finding
from ..messages.wording import first_line
from ..parameters.subject.hidden import Hidden, hidden_tensors
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.own_methods import MOVING
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.record import Record
from ..parameters.subject.records import records
from ..parameters.tensors.describe import dtype_name
from .builds import apart
from .case import NothingToCheck
from .check import check
from .inputs import called
from .needs import need_entries
from .outputs import tensors_of
from .run import CaseRun

Move = Callable[[Any], Any]


@check(values=False)
def check_dtype_move(case: CaseRun) -> None:
    """``.to(dtype)`` casts all that is floating; names, shapes, flags and ties stay."""
    __tracebackhide__ = True
    floating = {t.dtype for t in case.model.parameters() if t.is_floating_point()}
    if not floating:
        raise NothingToCheck("the model has no floating parameter to move")
    target = torch.float32 if torch.float64 in floating else torch.float64
    if case.device.type == "mps":
        target = torch.bfloat16  # mps has no float64
    with warnings.catch_warnings():
        # torch says so of every such cast; here it is a finding.
        warnings.filterwarnings("ignore", "Casting complex values to real")
        moved = apart(case).to(target)
    before, after = take_inventory(case.model), take_inventory(moved)
    left = not_cast(before, after, target)
    plain = _plain(after, lambda tensor: tensor.dtype in floating)
    # Wider and narrower operands agree in float64: what is left behind shows in bfloat16.
    move = _Move(".to(bfloat16)", lambda held: held.to(torch.bfloat16), _cast)
    beside = f".to({dtype_name(target)})" if left else ""
    findings = [*left, *_of_plain(case, plain, move, beside)]
    raise_if([*findings, *_others(before, after, findings, dtypes=False)], case.title)


@check(values=False)
def check_device_move(case: CaseRun) -> None:
    """``.to(device)`` moves all tensors; names, shapes, flags and ties stay."""
    __tracebackhide__ = True
    if case.device.type == "meta":
        raise NothingToCheck("the case runs on meta, from where nothing can be moved")
    other = _second_device(case.device)
    need_entries(case.model)
    moved = _moved_to(case, other)
    before, after = take_inventory(case.model), take_inventory(moved)
    lost = [] if other.type == "meta" else lost_in_move(before, after)
    left = not_moved(after, other)
    plain = _plain(after, lambda tensor: tensor.device.type != other.type)
    move = _Move(f".to({other})", lambda held: held.to(other), lambda tensor: tensor.to(other))
    findings = [*lost, *left, *_of_plain(case, plain, move, move.words if left else "")]
    ties = other.type != "meta"
    raise_if([*findings, *_others(before, after, findings, ties=ties)], case.title)


def _second_device(here: torch.device) -> torch.device:
    if here.type != "cpu":
        return torch.device("cpu")
    if torch.accelerator.is_available():
        return torch.accelerator.current_accelerator() or torch.device("meta")
    return torch.device("meta")


def _moved_to(case: CaseRun, device: torch.device) -> nn.Module:
    __tracebackhide__ = True
    model = apart(case)
    try:
        return model.to(device)
    except Exception as error:
        if device.type != "meta":
            raise
        # A stand-in: that something cannot go there is no fault of the model's.
        said = f"{type(error).__name__}: {first_line(error, 120)}"
        raise NothingToCheck(f"the model does not go to meta ({said})") from None


def _others(
    before: Inventory,
    after: Inventory,
    said: Sequence[Finding],
    *,
    dtypes: bool = True,
    ties: bool = True,
) -> list[Finding]:
    """Find what else is otherwise: what the move lost is not said a second time."""
    names = {name for finding in said for name in finding.names}

    def compared(inventory: Inventory) -> list[Record]:
        kept = [record for record in records(inventory) if record.name not in names]
        if ties:
            return kept
        # On meta an uninitialized parameter gets a shape: none of its own.
        lazy = {r.name for r in records(before) if r.shape == "uninitialized"}
        return [replace(record, tied_to="") for record in kept if record.name not in lazy]

    found = record_differences(compared(before), compared(after), words=COPY, dtypes=dtypes)
    return with_own_methods(found, before, MOVING)


# -- tensors in plain attributes ------------------------------------------------------------------


class _Move:
    """A move in words, done to a model or a tensor of an input, and to a tensor left behind."""

    def __init__(self, words: str, model: Move, tensor: Move) -> None:
        self.words, self.model, self.tensor = words, model, tensor


def _cast(tensor: Tensor) -> Tensor:
    return tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor


def _plain(inventory: Inventory, stayed: Callable[[Tensor], bool]) -> list[Hidden]:
    """Return the plain tensors that stayed; of unregistered modules check_registered speaks."""
    return [
        hidden
        for hidden in hidden_tensors(inventory).tensors
        if hidden.kind == "tensor" and not hidden.module and stayed(hidden.tensor)
    ]


def _of_plain(case: CaseRun, left: Sequence[Hidden], move: _Move, beside: str) -> list[Finding]:
    """Find which plain tensors matter: those without which a moved model fails.

    Many a forward moves its tables itself, with ``.to(x.device)``. So the moved model is run,
    and run again with the tensors moved as well: what that repairs was left behind. Where that
    cannot be told, all are named ``beside`` what is left behind for sure; alone only those in an
    attribute of their own that are no integers, which may be numbers, and that their class reads,
    in no line that moves them.
    """
    __tracebackhide__ = True
    if not left:
        return []
    failed = _fails_for(case, left, move)
    if failed is not None:
        return plain_left_behind(left, move.words, failed) if failed else []
    if beside:
        return plain_left_behind(left, beside, "")
    alone = [h for h in left if h.holder == "attribute" and h.tensor.is_floating_point()]
    sure = [hidden for hidden in alone if _read_as_it_is(case, hidden)]
    return plain_left_behind(sure, move.words, "")


_MOVED = re.compile(r"\.to\(|\.type_as\(|\.cuda\(|\bdevice=|\.device\b|\.dtype\b")


def _read_as_it_is(case: CaseRun, hidden: Hidden) -> bool:
    """Whether lines of the class read the attribute, and none of those speaks of a dtype or device.

    What no line reads is for others: Lightning moves its example_input_array itself.
    """
    owner, name = case.model.get_submodule(hidden.owner), _attribute(hidden)
    try:
        source = "\n".join(inspect.getsource(cls) for cls in type(owner).__mro__[:-1])
    except (OSError, TypeError):
        return False  # it cannot be read: nothing is known
    uses = re.compile(rf"\bself\.{re.escape(name)}\b(?!\s*=)")
    lines = [line for line in source.splitlines() if uses.search(line)]
    return bool(lines) and not any(_MOVED.search(line) for line in lines)


def _attribute(hidden: Hidden) -> str:
    return re.split(r"[.\[]", hidden.attribute, maxsplit=1)[0]


def _fails_for(case: CaseRun, left: Sequence[Hidden], move: _Move) -> str | None:
    """Return what goes wrong for tensors left behind, ``""`` for nothing, None if unknown."""
    __tracebackhide__ = True
    try:
        inputs = case.inputs
    except NothingToCheck:
        inputs = None
    if inputs is None:
        return None
    model = move.model(apart(case))
    wrong = _wrong(model, inputs, move)
    if not wrong:
        return ""
    for hidden in left:
        _move_attribute(model, hidden, move.tensor)
    return None if _wrong(model, inputs, move) else wrong


def _wrong(model: nn.Module, inputs: Any, move: _Move) -> str:
    """Run a moved model on moved inputs; return what it raised, or gave instead."""
    try:
        with torch.no_grad():
            output = called(model, _each_tensor(inputs, move.tensor))
    except Exception as error:  # whatever a forward raises
        return f"raises {type(error).__name__}: {first_line(error, 100)}"
    for tensor in tensors_of(output):
        moved = move.tensor(tensor)
        if moved.dtype != tensor.dtype:
            return f"gives {dtype_name(tensor.dtype)}"
        if moved.device != tensor.device:
            return f"gives a tensor on {tensor.device}"
    return ""


def _move_attribute(model: nn.Module, hidden: Hidden, move: Move) -> None:
    """Put moved tensors where a module keeps some that stayed."""
    owner = model.get_submodule(hidden.owner)
    name, attributes = _attribute(hidden), vars(owner)
    if name in attributes:
        attributes[name] = _each_tensor(attributes[name], move)


def _each_tensor(value: Any, move: Move) -> Any:
    if isinstance(value, Tensor):
        return move(value)
    if isinstance(value, Mapping):
        return {key: _each_tensor(part, move) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_each_tensor(part, move) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_each_tensor(part, move) for part in value)
    return value
