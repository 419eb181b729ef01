"""Two observers of a run: where the connection to a parameter ends, and where its gradient does.

A function mode sees each torch operation: which values descend from which parameter, and the
operation at which the connection to it ends. Hooks on the nodes of the graph see which of them
received a gradient in backward and handed on none. The graph has the first word: where a
parameter is in the part of it that ran, the node at which the signal ends is the reason.

Tests: ``tests/unit/test_reach.py`` and ``test_trace.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from types import CodeType, FrameType
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils.weak import WeakTensorKeyDictionary

from ..subject.walk import first_places
from ..subject.wrappers import runs_on_other_tensors
from .custom_functions import CustomFunctions
from .gradstate import GradState, grad_state
from .graph import leaf_of
from .operands import (
    LEAVING,
    Operand,
    in_place,
    is_added,
    multiplied,
    operation_name,
    tensors_in,
)
from .reasons import Kind, Place, Reason


@dataclass(slots=True)
class _Descent:
    """Which parameters a tensor descends from: bit sets over the tracked ones.

    ``connected``: gradients flow. ``broken``: per event the parameters it cut off.
    ``had_node``: whether the tensor had a ``grad_fn`` when this was written, by the operation
    at ``place``.
    """

    connected: int
    broken: dict[int, int]
    had_node: bool = True
    place: Place | None = None


class Tracer(TorchFunctionMode):
    """Follows parameters through what runs inside it; ``ends_at``: the code of who runs it."""

    def __init__(
        self,
        model: nn.Module,
        tracked: list[Tensor],
        zeros: dict[int, str],
        zero_too: bool,
        ends_at: CodeType,
    ) -> None:
        super().__init__()
        self.ends_at = ends_at
        self.tracked = tracked  # keeps the ids from being recycled
        self.bit = {id(p): 1 << number for number, p in enumerate(tracked)}
        self.zeros = {self.bit[key]: name for key, name in zeros.items()}
        self.zero_too = zero_too  # whether a gradient that is zero is asked about
        self.module_names: dict[int, tuple[str, str]] = {}
        self.gathered = False  # whether some parameters are used through other tensors
        for prefix, _, module in first_places(model):
            self.gathered = self.gathered or runs_on_other_tensors(module)
            self.module_names.setdefault(id(module), (prefix[:-1], type(module).__name__))
        self.descents = WeakTensorKeyDictionary()
        self.events: list[tuple[Kind, Place]] = []
        self.cut: dict[int, int] = {}  # event -> parameters it cut off somewhere
        self.used = 0
        self.left: list[tuple[int, int]] = []
        self.last_uses: list[tuple[int, Place]] = []
        self.nodes: dict[Any, tuple[Place, list[Operand]]] = {}
        self.functions: dict[Any, Place] = {}  # node of a custom function -> where it ran
        self.custom = CustomFunctions()
        self.handles: list[Any] = []
        self.received: dict[Any, GradState] = {}
        self.sent: dict[Any, list[GradState]] = {}

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        __tracebackhide__ = True
        kwargs = kwargs or {}
        grad_on = torch.is_grad_enabled()
        out = func(*args, **kwargs)
        self._note(func, args, kwargs, out, grad_on)
        return out

    def clear(self) -> None:
        """Take the hooks off, break the cycles."""
        for handle in self.handles:
            handle.remove()
        for held in (
            self.handles,
            self.nodes,
            self.functions,
            self.received,
            self.sent,
            self.descents,
        ):
            held.clear()

    # -- forward ---------------------------------------------------------------------------

    def _note(self, func: Any, args: Any, kwargs: Any, out: Any, grad_on: bool) -> None:
        operation = operation_name(func)
        if operation is None:
            return
        inputs = list(tensors_in((args, kwargs)))
        given = self._merge(inputs)
        everything = _everything(given)
        if not everything:
            return
        outs = list(tensors_in(out))
        if args and isinstance(args[0], Tensor) and in_place(operation):
            outs.append(args[0])
        outs.extend(tensors_in(kwargs.get("out")))
        place = self._place(operation)
        if not outs:
            if operation in LEAVING:
                self.used |= everything
                self.left.append((everything, self._event("left", place)))
            return
        self.used |= everything
        event: int | None = None
        operands: list[Operand] | None = None
        for tensor in {id(t): t for t in outs}.values():
            connected, broken = given.connected, dict(given.broken)
            if connected and not (grad_on and tensor.requires_grad):
                if event is None:
                    event = self._event(_cut_kind(grad_on), place)
                broken[event] = broken.get(event, 0) | connected
                self.cut[event] = self.cut.get(event, 0) | connected
                connected = 0
            if id(tensor) in self.bit:
                continue  # a parameter written in place stays itself
            if connected:
                self.last_uses.append((connected, place))
            self.descents[tensor] = _Descent(connected, broken, tensor.grad_fn is not None, place)
            if tensor.grad_fn is not None:
                if operands is None:
                    operands = self._operands(func, operation, args, kwargs)
                self._follow(tensor.grad_fn, place, operands)

    def _descent(self, tensor: Tensor) -> _Descent:
        bit = self.bit.get(id(tensor))
        if bit is not None:
            return _Descent(bit, {})
        known: _Descent | None = self.descents.get(tensor)  # type: ignore[no-untyped-call]
        if known is None:
            return _Descent(0, {})
        if not known.had_node and tensor.grad_fn is not None:
            # Given a node after it was computed: what a custom function returned.
            if known.place is not None:
                self.functions.setdefault(tensor.grad_fn, known.place)
            if known.broken:
                return _Descent(_everything(known), {})
        return known

    def _merge(self, tensors: Iterable[Tensor]) -> _Descent:
        merged = _Descent(0, {})
        for tensor in tensors:
            descent = self._descent(tensor)
            merged.connected |= descent.connected
            for event, mask in descent.broken.items():
                merged.broken[event] = merged.broken.get(event, 0) | mask
        for event, mask in list(merged.broken.items()):
            if left := mask & ~merged.connected:
                merged.broken[event] = left
            else:
                del merged.broken[event]
        return merged

    def _event(self, kind: Kind, place: Place) -> int:
        self.events.append((kind, place))
        return len(self.events) - 1

    def _place(self, operation: str) -> Place:
        """The innermost module of the model, and the custom function, on the call stack."""
        module, cls, inside, backward = "", "", "", False
        frame: FrameType | None = sys._getframe(3)
        while frame is not None and frame.f_code is not self.ends_at:
            if not inside:
                inside, backward = self.custom.running(frame)
            code = frame.f_code
            if not cls and code.co_argcount and code.co_varnames[0] == "self":
                owner = frame.f_locals.get("self")
                module, cls = self.module_names.get(id(owner), ("", ""))
            frame = frame.f_back
        return Place(operation, module, cls, inside, backward)

    def _operands(self, func: Any, operation: str, args: Any, kwargs: Any) -> list[Operand]:
        """What an operation multiplies by that leaves no gradient to the rest."""
        if not self.zero_too:
            return []
        found = []
        for tensor in multiplied(func, operation, args, kwargs):
            empty = tensor.numel() == 0
            if empty or grad_state(tensor) is GradState.ZERO:
                source = _everything(self._descent(tensor))
                found.append(Operand(source, empty, "" if empty else self.zeros.get(source, "")))
        return found

    # -- backward --------------------------------------------------------------------------

    def follow(self, loss: Tensor) -> None:
        """Watch the nodes of the loss's graph that no operation was seen to make."""
        self._descent(loss)
        self._follow(loss.grad_fn, Place(""), [])

    def _follow(self, node: Any, place: Place, operands: list[Operand]) -> None:
        stack = [node]
        while stack:
            node = stack.pop()
            if node is None or node in self.nodes:
                continue
            self.nodes[node] = place, operands
            if leaf_of(node) is None:
                self.handles.append(node.register_hook(self._watcher(node)))
                stack.extend(nxt for nxt, _ in node.next_functions)

    def _watcher(self, node: Any) -> Any:
        def watch(sent: Any, received: Any) -> None:
            states = [_handed_on(g) for g in received]
            self.received[node] = max(states, key=_MOST.index, default=GradState.NONE)
            self.sent[node] = [_handed_on(g) for g in sent]

        return watch

    # -- answers ---------------------------------------------------------------------------

    def reason(self, parameter: Tensor, loss: object) -> Reason:
        """Return why a parameter was not reached, asked after the run."""
        if found := self._in_graph(parameter):
            return found
        bit = self.bit[id(parameter)]
        if not self.used & bit:
            return Reason("unknown" if self.gathered else "unused")
        cuts = [self.events[event] for event, mask in self.cut.items() if mask & bit]
        # What was cut where gradients were on says more than a pass under no_grad.
        cuts.sort(key=lambda cut: cut[0] != "detached")
        left = [self.events[event] for mask, event in self.left if mask & bit]
        if isinstance(loss, Tensor):
            descent = self._descent(loss)
            for event, mask in descent.broken.items():
                if mask & bit:
                    return Reason(*self.events[event])
            if descent.connected & bit:  # through a node whose inside is not in the graph
                for kind, place in cuts:
                    if kind == "detached" or (place.inside and not place.checkpointed):
                        return Reason(kind, place)
                return Reason("unknown")
        if left:
            return Reason(*left[0])
        for mask, place in reversed(self.last_uses):
            if mask & bit:
                return Reason("dropped", place)
        return Reason(*cuts[0]) if cuts else Reason("unknown")

    def _in_graph(self, parameter: Tensor) -> Reason | None:
        """The node at which the signal ends, if the parameter is in the graph that ran."""
        givers: dict[Any, list[tuple[Any, int]]] = {}
        start = None
        for node in self.received:
            for index, (nxt, _) in enumerate(node.next_functions):
                if nxt is not None:
                    givers.setdefault(nxt, []).append((node, index))
                    if leaf_of(nxt) is parameter:
                        start = nxt
        if start is None:
            return None
        if broken := self._broken_at(start, givers):
            return broken
        hooked = cancelled = False
        seen = {start}
        queue = [start]
        for node in queue:
            for giver, index in givers.get(node, ()):
                sent = self.sent[giver][index]
                if sent is GradState.NONZERO:
                    several = len(givers[node]) > 1
                    cancelled, hooked = cancelled or several, hooked or not several
                elif self.received[giver] is GradState.NONZERO:
                    kind: Kind = "swallowed" if sent is GradState.NONE else "zero"
                    if kind == "zero" and is_added(giver, index):
                        kind = "summed"
                    return Reason(kind, self._node_place(giver, self.bit[id(parameter)]))
                elif giver not in seen:
                    seen.add(giver)
                    queue.append(giver)
        return Reason("cancelled" if cancelled else "hooked" if hooked else "zero")

    def _broken_at(self, start: Any, givers: dict[Any, list[tuple[Any, int]]]) -> Reason | None:
        """The node from which on the gradient holds a NaN or an infinity, if it does."""
        seen = {start}
        queue = [start]
        broken = False
        for node in queue:
            for giver, index in givers.get(node, ()):
                if self.sent[giver][index] is not GradState.NONFINITE:
                    continue
                if self.received[giver] is not GradState.NONFINITE:
                    return Reason("nonfinite", self._node_place(giver))
                broken = True
                if giver not in seen:
                    seen.add(giver)
                    queue.append(giver)
        return Reason("nonfinite") if broken else None

    def _node_place(self, node: Any, bit: int = 0) -> Place:
        """Where a node was made, with what stood beside the parameter of this bit there."""
        place, operands = self.nodes[node]
        if isinstance(node, torch.autograd.function.BackwardCFunction):
            # No operation is seen to make it; those of its forward say where it ran.
            ran = self.functions.get(node, Place("", seen=False))
            return replace(ran, operation=type(node).__name__)
        if not place.operation:
            return Place(node.name(), seen=False)
        beside = [operand for operand in operands if not operand.source & bit]
        zeros = tuple(dict.fromkeys(one.parameter for one in beside if one.parameter))
        operand = "nothing" if any(one.empty for one in beside) else "zeros" if beside else ""
        return replace(place, zeros=zeros, operand=operand)


def _handed_on(grad: Tensor | None) -> GradState:
    """The state of a gradient between nodes: one without elements is not where a signal ends."""
    return GradState.NONZERO if grad is not None and not grad.numel() else grad_state(grad)


#: From the least to the most that a node received.
_MOST = (GradState.NONE, GradState.ZERO, GradState.NONZERO, GradState.NONFINITE)


def _cut_kind(grad_on: bool) -> Kind:
    if grad_on:
        return "detached"
    return "inference" if torch.is_inference_mode_enabled() else "no_grad"


def _everything(descent: _Descent) -> int:
    together = descent.connected
    for mask in descent.broken.values():
        together |= mask
    return together
