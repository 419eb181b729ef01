"""What optimizer steps wrote: contents compared right before and right after each of them.

That an optimizer holds a parameter, has a gradient for it and steps does not say that its step
moved it: lr can be 0, a warm-up or a skipped step writes nothing, and whatever else writes between
two steps would be taken for them. So a step is the cause only of what it wrote. A parameter is
read until a step with a gradient has written it, and not in the steps that follow.

An optimizer may hold another tensor on the same memory (a flat buffer, the parameter that a
state_dict shares its memory with): what is stepped is found by memory.
"""

from __future__ import annotations

import sys
from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.optimizer import (
    register_optimizer_step_post_hook,
    register_optimizer_step_pre_hook,
)

from ...messages.errors import ParamCheckUsageError
from ..subject.optimizers import UnreadableError, read_groups, state_of
from ..subject.parts import Part
from ..tensors.content import no_values, same_bits
from ..tensors.cover import region_of
from ..tensors.digest import read_contents
from ..tensors.memory import Memory, memory_of
from .magnitude import largest_magnitude, note_largest

#: Under these names optimizers keep what goes on moving a parameter without a gradient.
MOMENTUM_KEYS = ("momentum_buffer", "exp_avg", "momentum", "m")


@dataclass(slots=True)
class Noted:
    """What the steps of a block did to one tensor; lists hold the largest size, or nothing."""

    optimizers: dict[str, None] = field(default_factory=dict)
    writers: dict[str, None] = field(default_factory=dict)
    #: Of the gradients of all steps, and of those that wrote.
    stepped_with: list[Tensor] = field(default_factory=list)
    wrote_with: list[Tensor] = field(default_factory=list)
    #: The largest lr; None where no group has a number for it.
    lr: float | None = None
    weight_decay: float = 0.0
    momentum: list[Tensor] = field(default_factory=list)
    #: Whether an optimizer holds it only through its memory.
    shared: bool = False
    #: Whether every step that wrote nothing would be lost in the rounding of its dtype.
    rounded: bool | None = None
    #: Whether a step with a gradient has written it: nothing more has to be read.
    settled: bool = False
    #: The optimizers of which a step began and never ended: an error left it half way.
    cut_short: dict[str, None] = field(default_factory=dict)


@dataclass(slots=True)
class _Touch:
    """One watched tensor in one running step."""

    tensor: Tensor
    held: Tensor
    lr: float | None = None
    weight_decay: float = 0.0
    gradient: list[Tensor] = field(default_factory=list)
    momentum: list[Tensor] = field(default_factory=list)
    before: bytes | None = None


#: The tensors that stand for some elements of others, by id: (the whole tensor, which elements).
Parts: TypeAlias = Mapping[int, tuple[Tensor, Part]]


class Steps:
    """Listens to every optimizer's ``step``; what could not be read counts as written."""

    def __init__(self, tensors: Sequence[Tensor], parts: Parts) -> None:
        self._tensors = tensors
        self._parts = parts
        self._held: _Held | None = None
        self.notes = {id(tensor): Noted() for tensor in tensors}
        #: The watched tensors that stand for a tensor: itself, and parts of it.
        self._watched: dict[int, list[Tensor]] = {}
        for tensor in tensors:
            self._watched.setdefault(id(self._whole(tensor)), []).append(tensor)
        #: The steps that run right now, by optimizer (closures run backward inside of them), the
        #: innermost last: torch calls the hooks for ``super().step()`` too, once that class has
        #: an instance of its own.
        self._running: dict[int, list[tuple[str, dict[int, _Touch]]]] = {}
        #: The optimizers that stepped in the block, whatever they hold.
        self.optimizers: dict[str, None] = {}
        #: Those of them that could not be read: whether they hold a parameter is not known.
        self.unread: dict[str, None] = {}

    def listen(self) -> Iterable[Any]:
        """Register the hooks one by one; yields the handles."""
        yield register_optimizer_step_pre_hook(_untraced(self._before))
        yield register_optimizer_step_post_hook(_untraced(self._after))

    def arrived(self, tensor: Tensor, size: Tensor) -> None:
        """Note a gradient that arrives while a step runs: it steps with that one."""
        for _, touched in (step for steps in self._running.values() for step in steps):
            if touch := touched.get(id(tensor)):
                note_largest(touch.gradient, size)
                note_largest(self.notes[id(tensor)].stepped_with, size)

    def _before(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        """Note what steps with what; never raise into a step, which need not be ours to read."""
        name = type(optimizer).__name__
        self.optimizers[name] = None
        touched: dict[int, _Touch] = {}
        self._running.setdefault(id(optimizer), []).append((name, touched))
        try:
            try:
                self._touch(optimizer, name, touched)
            except UnreadableError:
                # Any of them may be in it: what it wrote will show.
                self.unread[name] = None
                self._touch_all(touched)
            unsettled = [t for key, t in touched.items() if not self.notes[key].settled]
            for touch, content in zip(unsettled, self._contents(unsettled), strict=True):
                touch.before = content
        except Exception:
            self.unread[name] = None

    def _touch(self, optimizer: Optimizer, name: str, touched: dict[int, _Touch]) -> None:
        if self._held is None:
            wholes = {id(whole): whole for whole in map(self._whole, self._tensors)}
            self._held = _Held(list(wholes.values()))
        for group, tensors in read_groups(optimizer):
            lr = _number(group.get("lr"))
            decay = _number(group.get("weight_decay")) or 0.0
            for held in tensors:
                on = (one for t in self._held.by(held) for one in self._watched[id(t)])
                for tensor in on:
                    touch = touched.setdefault(id(tensor), _Touch(tensor, held))
                    notes = self.notes[id(tensor)]
                    notes.optimizers[name] = None
                    notes.shared = notes.shared or held is not self._whole(tensor)
                    if lr is not None:
                        touch.lr = max(touch.lr or 0.0, abs(lr))
                        notes.lr = max(notes.lr or 0.0, abs(lr))
                    touch.weight_decay = max(touch.weight_decay, decay)
                    if held.grad is not None:
                        size = largest_magnitude(self.gradient(held, tensor))
                        note_largest(touch.gradient, size)
                        note_largest(notes.stepped_with, size)
                    for value in () if notes.settled else _momentum(optimizer, held):
                        if value.shape == held.shape:
                            value = self._some(tensor, value)
                        note_largest(touch.momentum, largest_magnitude(value))

    def _touch_all(self, touched: dict[int, _Touch]) -> None:
        for tensor in self._tensors:
            whole = self._whole(tensor)
            touch = touched.setdefault(id(tensor), _Touch(tensor, whole))
            if whole.is_leaf and whole.grad is not None:
                note_largest(touch.gradient, largest_magnitude(self.gradient(whole, tensor)))

    def _after(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        steps = self._running.get(id(optimizer))
        if steps:
            self._end(*steps.pop())

    def finish(self) -> None:
        """Note whose steps an error left half way: what they wrote before it cannot be told."""
        for name, touched in (step for steps in self._running.values() for step in steps):
            for key in touched:
                self.notes[key].cut_short[name] = None
        self._running.clear()

    def _end(self, name: str, touched: dict[int, _Touch]) -> None:
        try:
            self._compare(name, touched)
        except Exception:
            self.unread[name] = None

    def _compare(self, name: str, touched: dict[int, _Touch]) -> None:
        unsettled = [t for key, t in touched.items() if not self.notes[key].settled]
        for touch, content in zip(unsettled, self._contents(unsettled), strict=True):
            notes = self.notes[id(touch.tensor)]
            if content is not None and content == touch.before:
                if touch.gradient:
                    notes.rounded = notes.rounded is not False and self._rounds_away(touch)
                continue
            notes.optimizers[name] = notes.writers[name] = None
            notes.weight_decay = max(notes.weight_decay, touch.weight_decay)
            for size in touch.momentum:
                note_largest(notes.momentum, size)
            for size in touch.gradient:
                note_largest(notes.wrote_with, size)
                notes.settled = bool(size != 0)

    def _whole(self, watched: Tensor) -> Tensor:
        return self._parts[id(watched)][0] if id(watched) in self._parts else watched

    def _some(self, watched: Tensor, whole: Tensor) -> Tensor:
        """Return what of a whole tensor a watched one stands for: all of it, or a part."""
        found = self._parts.get(id(watched))
        return whole if found is None else found[1].of(whole, "it")

    def gradient(self, held: Tensor, watched: Tensor) -> Tensor:
        """Return what of a tensor's gradient is a watched one's; all of it where none is told."""
        whole = gradient_there(held, self._whole(watched))
        try:
            return self._some(watched, whole)
        except ParamCheckUsageError:  # of another shape, or without values
            return whole

    def _contents(self, touched: Sequence[_Touch]) -> list[bytes | None]:
        """Return the digest of each tensor now; None where it cannot be read."""
        now = {
            id(touch.tensor): self._some(touch.tensor, whole)
            for touch in touched
            if not no_values(whole := self._whole(touch.tensor))
        }
        contents = zip(now, read_contents(list(now.values())), strict=True)
        digests = {key: content.digest for key, content in contents}
        return [digests.get(id(touch.tensor)) for touch in touched]

    def _rounds_away(self, touch: _Touch) -> bool:
        """Whether a step of lr times the gradient, or of lr as adaptive ones take, changes no
        bit."""
        held, grad = touch.held.detach(), touch.held.grad
        if grad is None or not touch.lr or grad.layout is not torch.strided or no_values(held):
            return False
        try:
            if id(touch.tensor) in self._parts:
                held, grad = self._some(touch.tensor, held), self.gradient(touch.held, touch.tensor)
            with torch.no_grad():
                return any(
                    same_bits(held, held.sub(step.to(held.dtype), alpha=touch.lr)) is True
                    for step in (grad, torch.sgn(grad))
                )
        except Exception:
            return False  # an operation that a subclass or a dtype does not have


def _untraced(hook: Callable[..., None]) -> Callable[..., None]:
    """Keep a compiled step from tracing a hook, which warns of what it finds there.

    Only where the compiler is loaded already: loading it takes seconds.
    """
    disable = getattr(sys.modules.get("torch._dynamo"), "disable", None)
    return hook if disable is None else disable(hook)


def gradient_there(held: Tensor, tensor: Tensor) -> Tensor:
    """Return the part of a tensor's gradient that is the other's; all of it where none is told."""
    grad: Any = held.grad
    if held is tensor:
        return grad  # type: ignore[no-any-return]
    if grad.layout is torch.sparse_coo:
        grad = grad.to_dense()
    part = region_of(grad, held, tensor)
    return grad if part is None else part


class _Held:
    """Which of the watched tensors another tensor holds: itself, or by a byte in common."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self._by_id = {id(tensor): tensor for tensor in tensors}
        spans: dict[tuple[str, int], list[tuple[int, int, int]]] = {}
        self._tensors = list(tensors)
        self._memories = [memory_of(tensor) for tensor in tensors]
        for number, memory in enumerate(self._memories):
            for block in memory.blocks:
                span = (block.layout.base, block.layout.end, number)
                spans.setdefault(block.space, []).append(span)
        self._spans = {space: sorted(found) for space, found in spans.items()}
        self._reach = {
            space: list(accumulate((end for _, end, _ in found), max))
            for space, found in self._spans.items()
        }
        # Asked once: in nearly every model no two watched tensors meet.
        self._others = {
            id(tensor): [t for t in self._on(memory) if t is not tensor]
            for tensor, memory in zip(tensors, self._memories, strict=True)
        }

    def by(self, held: Tensor) -> list[Tensor]:
        """Return the watched tensors that one which an optimizer holds is, or lies on."""
        if id(held) in self._by_id:
            return [held, *self._others[id(held)]]
        return self._on(memory_of(held))

    def _on(self, memory: Memory) -> list[Tensor]:
        near: dict[int, None] = {}
        for block in memory.blocks:
            spans = self._spans.get(block.space, [])
            reach = self._reach.get(block.space, [])
            place = bisect_left(spans, (block.layout.end,))
            while place and reach[place - 1] > block.layout.base:
                place -= 1
                near[spans[place][2]] = None
        return [self._tensors[n] for n in sorted(near) if memory.overlaps(self._memories[n])]


def _momentum(optimizer: Optimizer, held: Tensor) -> list[Tensor]:
    try:
        state = state_of(optimizer, held)
    except UnreadableError:
        return []
    return [value for key in MOMENTUM_KEYS if isinstance(value := state.get(key), Tensor)]


def _number(value: Any) -> float | None:
    """Return a setting as a number; a tensor of one element (a compiled step's lr) is one."""
    if isinstance(value, Tensor):
        return float(value.detach()) if value.numel() == 1 and not no_values(value) else None
    return float(value) if isinstance(value, (int, float)) else None
