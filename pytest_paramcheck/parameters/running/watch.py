"""Who wrote: gradients noted as they arrive and as optimizers step, while a block runs.

Looking at ``.grad`` after the block says nothing: a ``zero_grad()`` at its end cleared it, a
closure ran its backward inside ``step()``, and a second optimizer may have stepped with
another gradient. So hooks listen during the block. They are all gone afterwards. Sizes of
gradients stay on their device until :meth:`Watch.seen`; a device is waited for only in the
steps whose writing has to be seen (``steps``).

Tests: ``tests/unit/test_updated.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_pre_hook

from ..tensors.content import version_of
from ..tensors.digest import read_contents
from ..tensors.memory import memory_of
from .kept import Kept
from .magnitude import largest_magnitude, note_largest, resolve
from .steps import Parts, Steps

#: Returns the gradients of watched tensors, where these are not in ``.grad``.
Places: TypeAlias = Callable[[], Sequence["Tensor | None"]] | None


@dataclass(frozen=True, slots=True)
class Seen:
    """What was seen of one parameter; sizes are the largest absolute value, None is "never".

    ``arrived``: of a gradient after a backward pass; ``arrived_finite``: of those without NaN and
    infinity (0 where there was none). ``stepped_with``: of the gradient an
    optimizer that holds the parameter stepped with. ``optimizers`` names those optimizers,
    ``writers`` the ones whose step wrote it, ``wrote_with`` is the gradient they had then, and
    ``weight_decay`` and ``momentum`` are the largest of those steps. ``lr`` is the largest one,
    None where it is not known. ``shared``: an optimizer holds another tensor on its memory.
    ``rounded``: the steps that wrote nothing are lost in the rounding of its dtype. ``cut_short``
    names the optimizers of which an error left a step half way.
    """

    arrived: float | None
    arrived_finite: float | None
    stepped_with: float | None
    optimizers: tuple[str, ...]
    writers: tuple[str, ...]
    wrote_with: float | None
    lr: float | None
    weight_decay: float
    momentum: float
    shared: bool
    rounded: bool
    cut_short: tuple[str, ...]

    @property
    def gradient(self) -> float | None:
        """The gradient that could move it: an optimizer's, or without one what arrived."""
        return self.stepped_with if self.optimizers else self.arrived

    @property
    def moved_by(self) -> float | None:
        """The gradient that moved it: an optimizer wrote with it, or without one it arrived.

        One that is not finite leaves nothing finite behind where it is applied by hand.
        """
        return self.wrote_with if self.optimizers else self.arrived_finite


class Watch:
    """Listens to parameters and to every optimizer's ``step`` between start and stop.

    ``gradients=False`` listens to optimizers only. ``parts`` says which of the tensors stand for
    some elements of others. ``places`` returns the gradients of the tensors where these are not in
    ``.grad``: nothing tells when one is written, so that they are looked at as optimizers step.
    """

    def __init__(
        self,
        tensors: Iterable[Tensor],
        *,
        gradients: bool = True,
        parts: Parts | None = None,
        places: Places = None,
    ) -> None:
        self._tensors = list(tensors)
        self._gradients = gradients
        self._parts = parts or {}
        self._steps = Steps(self._tensors, self._parts)
        self._places = places
        self._before: list[object] = []
        self._arrivals: dict[int, list[Tensor]] = {}
        self._finite_arrivals: dict[int, list[Tensor]] = {}
        #: The watched tensors whose gradient arrives at a leaf: itself, or views of it.
        self._of_leaf: dict[int, list[Tensor]] = {}
        self._handles: list[Any] = []
        self._without_hooks: list[Tensor] = []

    @property
    def optimizers(self) -> tuple[str, ...]:
        """The optimizers that stepped in the block, whatever they hold."""
        return tuple(self._steps.optimizers)

    @property
    def unread(self) -> tuple[str, ...]:
        """Those of them that could not be read: whether they hold a parameter is not known."""
        return tuple(self._steps.unread)

    def start(self) -> None:
        """Begin to listen; where that fails, nothing stays behind."""
        try:
            self._listen()
        except BaseException:
            self.stop()
            raise

    def _listen(self) -> None:
        if self._places is not None:
            self._gradients = False
            self._before = [_mark(grad) for grad in self._places()]
            self._handles.append(register_optimizer_step_pre_hook(self.look))
        for handle in self._steps.listen():
            self._handles.append(handle)
        leaves: dict[int, Tensor] = {}
        for tensor in self._tensors if self._gradients else ():
            leaf = _leaf_of(self._parts[id(tensor)][0] if id(tensor) in self._parts else tensor)
            if leaf is not None:
                leaves[id(leaf)] = leaf
                self._of_leaf.setdefault(id(leaf), []).append(tensor)
        for leaf in leaves.values():
            self._listen_to(leaf)

    def _listen_to(self, leaf: Tensor) -> None:
        if getattr(leaf, "_post_accumulate_grad_hooks", None) is None:
            self._without_hooks.append(leaf)
        handle: Any = leaf.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
            self._arrived
        )
        self._handles.append(handle)
        # Ours first: a hook that steps and clears the gradient would leave us nothing.
        # (torch goes by insertion; move_to_end of the OrderedDict does not reach it.)
        hooks: Any = getattr(leaf, "_post_accumulate_grad_hooks", None)
        if hooks is not None and len(hooks) > 1:
            ours = hooks.pop(handle.id)
            others = list(hooks.items())
            hooks.clear()
            hooks[handle.id] = ours
            hooks.update(others)

    def look(self, *_: Any) -> None:
        """Note the gradients in places of their own that were written since the start."""
        if self._places is None:
            return
        for tensor, grad, old in zip(self._tensors, self._places(), self._before, strict=True):
            if grad is not None and _mark(grad) != old:
                self._note(tensor, largest_magnitude(grad.detach()))

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
        return id(tensor) in self._steps.notes

    def seen(self, tensor: Tensor) -> Seen:
        """Return what was seen of a tensor (waits for its device)."""
        self._steps.finish()
        notes = self._steps.notes[id(tensor)]
        arrived = resolve(self._arrivals.get(id(tensor), []))
        finite = resolve(self._finite_arrivals.get(id(tensor), []))
        elsewhere = self._places is not None  # what steps with .grad does not step with these
        return Seen(
            arrived,
            finite,
            arrived if elsewhere else resolve(notes.stepped_with),
            tuple(notes.optimizers),
            tuple(notes.writers),
            finite if elsewhere else resolve(notes.wrote_with),
            notes.lr,
            notes.weight_decay,
            resolve(notes.momentum) or 0.0,
            notes.shared,
            bool(notes.rounded),
            tuple(notes.cut_short),
        )

    def _arrived(self, leaf: Tensor) -> None:
        for tensor in self._of_leaf.get(id(leaf), ()):
            if leaf.grad is None:  # somebody else's hook came first and cleared it
                return
            self._note(tensor, largest_magnitude(self._steps.gradient(leaf, tensor)))

    def _note(self, tensor: Tensor, size: Tensor) -> None:
        note_largest(self._arrivals.setdefault(id(tensor), []), size)
        finite = torch.where(torch.isfinite(size), size, torch.zeros_like(size))
        note_largest(self._finite_arrivals.setdefault(id(tensor), []), finite)
        self._steps.arrived(tensor, size)


def _mark(grad: Tensor | None) -> object:
    """What tells one gradient in a place from the next: kernels need not count that they write."""
    if grad is None:
        return None
    return memory_of(grad).key, version_of(grad), read_contents([grad])[0].digest


def _leaf_of(tensor: Tensor) -> Tensor | None:
    """Return where a tensor's gradient arrives: itself, or the parameter it is a view of."""
    for leaf in (tensor, None if tensor.is_inference() else tensor._base):
        if leaf is not None and leaf.requires_grad and leaf.grad_fn is None:
            return leaf
    return None


def watch_over(kept: Sequence[Kept], *, gradients: bool = True, places: Places = None) -> Watch:
    """Return a watch over what is kept; of parts it is told whose elements they are."""
    parts = {id(old.watched): (old.tensor, old.part) for old in kept if old.part is not None}
    return Watch([old.watched for old in kept], gradients=gradients, parts=parts, places=places)
