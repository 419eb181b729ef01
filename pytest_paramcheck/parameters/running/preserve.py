"""Run a caller's function on a model and leave nothing behind.

:func:`put_away` notes what a forward and a backward pass touch, for an :class:`Undo` to put back:
gradients, buffers, caches, modes, hooks and attributes, generators and random states, the modes
of the process. What is not put back is listed where users read it, in the docstring of
``assert_grads_reach``. The values of parameters are not copied: that would double a model's
memory.

Tests: ``tests/unit/test_preserve.py`` and ``test_interrupted.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from torch import Tensor, nn

from .graph import held_by
from .held_state import HeldState, brought_along
from .modes import keep_modes
from .randomness import keep_generator, keep_random_states
from .tensor_state import TensorStates
from .undo import Undo


def put_away(undo: Undo, model: nn.Module, *functions: Callable[..., Any] | None) -> None:
    """Note everything a run of ``functions`` on a model can change, then put the gradients away.

    From here on no parameter has a gradient, so that nothing is added to one, and
    post-accumulate hooks (an optimizer step in backward) rest: they write to parameters and
    clear gradients. Afterwards each ``.grad`` is the very object it was.
    """
    called = [one for function in functions if function is not None for one in held_by(function)]
    brought = list(brought_along(called)) if called else []
    held = HeldState([model, *(b for b in brought if isinstance(b, nn.Module))])
    tensors = [tensor for tensor, _ in (*held.parameters, *held.tensors)]
    devices = {tensor.device for tensor in tensors}
    keep_modes(undo, {device.type for device in devices})
    undo.push(keep_random_states(devices), *held.restores)
    undo.push(*(restore for one in brought if (restore := keep_generator(one)) is not None))
    states = TensorStates()
    states.keep(held.tensors)
    # A wrapper (FSDP) moves parameters between memories of its own.
    states.keep_places(held.parameters, geometry=not held.wrapped)
    leaves = [one for one in (*tensors, *brought) if isinstance(one, Tensor) and one.is_leaf]
    put_gradients_away(undo, leaves)
    states.push_to(undo)


def put_gradients_away(undo: Undo, leaves: Iterable[Tensor]) -> None:
    """Take the gradients of leaves and let their hooks rest."""
    for leaf in leaves:
        hooks = getattr(leaf, "_post_accumulate_grad_hooks", None)
        undo.push(_Gradient(leaf, dict(hooks) if hooks else None))
        if leaf.grad is not None:
            leaf.grad = None
        if hooks:
            hooks.clear()


class _Gradient:
    """A gradient put away, and the hooks that rest meanwhile."""

    __slots__ = ("grad", "leaf", "resting")

    def __init__(self, leaf: Tensor, resting: dict[Any, Any] | None) -> None:
        self.leaf, self.grad, self.resting = leaf, leaf.grad, resting

    def __call__(self) -> None:
        # One that a write in place made the result of a graph has none, and is named elsewhere.
        if self.leaf.is_leaf and self.leaf.grad is not self.grad:
            self.leaf.grad = self.grad
        if self.resting:
            hooks: Any = self.leaf._post_accumulate_grad_hooks
            if list(hooks) != list(self.resting):
                hooks.clear()
                hooks.update(self.resting)
