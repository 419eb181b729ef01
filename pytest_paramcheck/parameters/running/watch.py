"""Who wrote: gradients noted as they arrive and as optimizers step, while a block runs.

Looking at ``.grad`` after the block says nothing: a ``zero_grad()`` at its end cleared it, a
closure ran its backward inside ``step()``, and a second optimizer may have stepped with
another gradient. So hooks listen during the block. They are all gone afterwards, and they
never wait for a device: sizes of gradients stay where they are until :meth:`Watch.seen`.

Tests: ``tests/unit/test_updated.py``.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ..subject.optimizers import read_groups, state_of
from ..tensors.content import no_values, value_parts

#: Under these names optimizers keep what goes on moving a parameter without a gradient.
MOMENTUM_KEYS = ("momentum_buffer", "exp_avg", "momentum", "m")


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one parameter; sizes are the largest absolute value, None is "never".

    ``arrived``: of a gradient after a backward pass. ``stepped_with``: of the gradient an
    optimizer that holds the parameter stepped with. ``optimizers`` names those optimizers;
    ``lr``, ``weight_decay`` and ``momentum`` are the largest they had for it.
    """

    arrived: float | None
    stepped_with: float | None
    optimizers: tuple[str, ...]
    lr: float
    weight_decay: float
    momentum: float

    @property
    def gradient(self) -> float | None:
        """The gradient that could move it: an optimizer's, or without one what arrived."""
        return self.stepped_with if self.optimizers else self.arrived


class _Notes:
    __slots__ = ("arrived", "lr", "momentum", "optimizers", "stepped_with", "weight_decay")

    def __init__(self) -> None:
        self.arrived: list[Tensor] = []
        self.stepped_with: list[Tensor] = []
        self.momentum: list[Tensor] = []
        self.optimizers: dict[str, None] = {}
        self.lr = 0.0
        self.weight_decay = 0.0


class Watch:
    """Listens to parameters and to every optimizer's ``step`` between start and stop.

    ``gradients=False`` listens to optimizers only.
    """

    def __init__(self, tensors: Iterable[Tensor], *, gradients: bool = True) -> None:
        self._tensors = list(tensors)
        self._gradients = gradients
        self._notes = {id(tensor): _Notes() for tensor in self._tensors}
        self._handles: list[Any] = []
        self._without_hooks: list[Tensor] = []
        #: The parameters that an optimizer is stepping right now (closures run backward then).
        self._stepping: dict[int, list[Tensor]] = {}
        #: The optimizers that stepped in the block, whatever they hold.
        self.optimizers: dict[str, None] = {}
        #: Those of them that could not be read: whether they hold a parameter is not known.
        self.unread: dict[str, None] = {}

    def start(self) -> None:
        """Begin to listen; where that fails, nothing stays behind."""
        try:
            self._listen()
        except BaseException:
            self.stop()
            raise

    def _listen(self) -> None:
        self._handles.append(register_optimizer_step_pre_hook(self._before_step))
        self._handles.append(register_optimizer_step_post_hook(self._after_step))
        if not self._gradients:
            return
        for tensor in self._tensors:
            if not tensor.requires_grad or tensor.grad_fn is not None:
                continue
            if getattr(tensor, "_post_accumulate_grad_hooks", None) is None:
                self._without_hooks.append(tensor)
            handle: Any = tensor.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                self._arrived
            )
            self._handles.append(handle)
            # Ours first: a hook that steps and clears the gradient would leave us nothing.
            # (torch goes by insertion; move_to_end of the OrderedDict does not reach it.)
            hooks: Any = getattr(tensor, "_post_accumulate_grad_hooks", None)
            if hooks is not None and len(hooks) > 1:
                ours = hooks.pop(handle.id)
                others = list(hooks.items())
                hooks.clear()
                hooks[handle.id] = ours
                hooks.update(others)

    def stop(self) -> None:
        """Remove every hook, and the empty tables torch would leave behind."""
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        for tensor in self._without_hooks:
            if not getattr(tensor, "_post_accumulate_grad_hooks", True):
                tensor._post_accumulate_grad_hooks = None  # type: ignore[assignment]
        self._without_hooks.clear()

    def knows(self, tensor: Tensor) -> bool:
        """Whether it is one of the tensors listened to."""
        return id(tensor) in self._notes

    def seen(self, tensor: Tensor) -> Seen:
        """Return what was seen of a tensor (waits for its device)."""
        notes = self._notes[id(tensor)]
        return Seen(
            _resolve(notes.arrived),
            _resolve(notes.stepped_with),
            tuple(notes.optimizers),
            notes.lr,
            notes.weight_decay,
            _resolve(notes.momentum) or 0.0,
        )

    def _arrived(self, tensor: Tensor) -> None:
        notes = self._notes.get(id(tensor))
        if notes is None or tensor.grad is None:
            return
        size = largest_magnitude(tensor.grad)
        _note(notes.arrived, size)
        if any(tensor is other for held in self._stepping.values() for other in held):
            _note(notes.stepped_with, size)

    def _before_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Note what steps with what; never raise into a step, which need not be ours to read."""
        name = type(optimizer).__name__
        self.optimizers[name] = None
        held = self._stepping[id(optimizer)] = []
        try:
            self._note_step(optimizer, name, held)
        except Exception:
            self.unread[name] = None

    def _note_step(self, optimizer: Optimizer, name: str, held: list[Tensor]) -> None:
        for group, tensors in read_groups(optimizer):
            for tensor in tensors:
                notes = self._notes.get(id(tensor))
                if notes is None:
                    continue
                held.append(tensor)
                notes.optimizers[name] = None
                notes.lr = max(notes.lr, abs(_number(group.get("lr"), 1.0)))
                decay = _number(group.get("weight_decay"), 0.0)
                notes.weight_decay = max(notes.weight_decay, decay)
                if tensor.grad is not None:
                    _note(notes.stepped_with, largest_magnitude(tensor.grad))
                state = state_of(optimizer, tensor)
                for key in MOMENTUM_KEYS:
                    if isinstance(value := state.get(key), Tensor):
                        _note(notes.momentum, largest_magnitude(value))

    def _after_step(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        self._stepping.pop(id(optimizer), None)


def largest_magnitude(tensor: Tensor) -> Tensor:
    """Return the largest absolute value as a 0-dim tensor on its device; NaN wins.

    Not the 2-norm: the squares of a gradient of 1e-30 vanish in float32.
    """
    with torch.no_grad():
        if no_values(tensor):
            return torch.ones((), dtype=torch.float64, device="cpu")
        sizes = [
            _largest(part.float() if part.element_size() == 1 else part)
            for part in value_parts(tensor)
        ]
        if not sizes:
            return torch.zeros((), dtype=torch.float64, device="cpu")
        total: Tensor = sizes[0]
        for size in sizes[1:]:
            total = torch.maximum(total, size.to(total))
        return total


def _largest(part: Tensor) -> Tensor:
    if part.dtype not in (torch.float32, torch.float64):
        norm: Tensor = torch.linalg.vector_norm(part, torch.inf)
        return norm
    # One pass and vectorised: the infinity norm takes ten times as long on a CPU.
    low, high = part.aminmax()
    return torch.maximum(low.abs(), high.abs())


def _note(kept: list[Tensor], size: Tensor) -> None:
    """Keep one size only, however many gradients arrive."""
    if kept:
        kept[0] = torch.maximum(kept[0], size.to(kept[0]))
    else:
        kept.append(size)


def _resolve(kept: list[Tensor]) -> float | None:
    return float(kept[0]) if kept else None


def _number(value: Any, default: float) -> float:
    """Return a setting as a number; a tensor of one element (a compiled step's lr) is one."""
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 and not no_values(value) else default
    return float(value) if isinstance(value, (int, float)) else default
