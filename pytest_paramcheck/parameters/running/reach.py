"""Who was reached by a loss: what autograd really did, with one forward and one backward.

The gradients decide, never a walk of the graph: custom functions, checkpoints and hooks do
things in backward that no graph shows. Why a parameter was not reached is asked afterwards,
in a run of its own (``trace``), so that a model in which all is well does not pay for it.

Tests: ``tests/unit/test_reach.py``, ``test_tied_grads_sum.py``, ``test_grad_places.py`` and
``test_parts.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

import torch
from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import a_or_an
from ..subject.inventory import Entry
from ..subject.walk import first_places
from ..tensors.content import no_values
from ..tensors.describe import describe
from .elsewhere import Elsewhere
from .grad_places import Backward, GradAt, Places, run_backward, whole_name
from .gradstate import GradState, grad_states, of_part
from .graph import walk_leaves
from .modes import record_gradients
from .preserve import put_away, put_gradients_away
from .undo import Undo

LossFn: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class LossProblem:
    """Why there can be no backward pass from what a loss function returned."""

    kind: Literal["none", "not_a_tensor", "not_scalar", "complex", "no_graph"]
    text: str

    @property
    def cut(self) -> bool:
        """Whether it is for want of a graph, so that a reason can be looked for."""
        return self.kind in ("not_a_tensor", "no_graph")


@dataclass(frozen=True, slots=True)
class Reached:
    """What one loss gave to the parameters asked about, in their order.

    ``elsewhere`` names the attribute of each that a gradient was written to (``main_grad``),
    ``unreadable`` says of each why the values of its gradient cannot be read; else ``""``.
    ``whole`` are the states of the whole gradients, where some elements of one are asked about.
    """

    states: list[GradState]
    problem: LossProblem | None = None
    elsewhere: list[str] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    whole: list[GradState] = field(default_factory=list)


def reach(
    model: nn.Module,
    loss_fn: LossFn,
    parameters: Sequence[Tensor],
    entries: Sequence[Entry] | None = None,
    *,
    grad: GradAt | None = None,
    backward: Backward | None = None,
) -> Reached:
    """Run ``loss_fn(model)`` and backward, return who was reached; leave nothing behind.

    ``entries`` say of each parameter what it is called, and which of its elements are meant, where
    not all are. ``grad`` is where their gradients are, ``backward`` what is run.
    An error of ``loss_fn`` or of the backward pass comes through as it is.
    """
    __tracebackhide__ = True
    with Undo() as undo, undo:
        put_away(undo, model, loss_fn, backward)
        names = [whole_name(entry) for entry in entries or ()]
        places = _places(undo, model, parameters, names, grad)
        record_gradients(undo)
        elsewhere = Elsewhere(parameters)
        loss = loss_fn(model)
        problem = loss_problem(loss)
        if problem is None:
            not_backwarded(parameters_of(model))
            put_foreign_gradients_away(undo, loss, model)
            run_backward(loss, model, backward)
        grads = places.read()
        unreadable = ["" if one is None else no_values(one) for one in grads]
        written = places.elsewhere(elsewhere.written())
        states = whole = grad_states(grads)
        if entries is not None and any(entry.part is not None for entry in entries):
            pairs = zip(entries, grads, strict=True)
            states = grad_states([g if g is None else of_part(entry, g) for entry, g in pairs])
        return Reached(states, problem, written, unreadable, whole)


def _places(
    undo: Undo,
    model: nn.Module,
    parameters: Sequence[Tensor],
    names: Sequence[str],
    grad: GradAt | None,
) -> Places:
    called = names or [""] * len(parameters)
    places = Places(grad, list(zip(called, parameters, strict=True)), type(model).__name__)
    places.put_away(undo)
    return places


def gradients_of(
    model: nn.Module,
    loss_fn: LossFn,
    parameters: Sequence[Tensor],
    *,
    names: Sequence[str] = (),
    grad: GradAt | None = None,
    backward: Backward | None = None,
) -> tuple[list[Tensor | None], list[str]]:
    """Run ``loss_fn(model)`` and backward, return the gradients, and for each parameter the
    attribute that one was written to instead; leave nothing behind.

    Compiled modules run uncompiled, so that two models can be compared. Raises
    :class:`ParamCheckUsageError` for a loss without a backward pass.
    """
    __tracebackhide__ = True
    with Undo() as undo, undo:
        put_away(undo, model, loss_fn, backward)
        places = _places(undo, model, parameters, names, grad)
        record_gradients(undo)
        elsewhere = Elsewhere(parameters)
        with uncompiled():
            loss = loss_fn(model)
            if problem := loss_problem(loss):
                raise ParamCheckUsageError(
                    f"there is no backward pass to compare: loss_fn {problem.text}"
                )
            not_backwarded(parameters_of(model))
            put_foreign_gradients_away(undo, loss, model)
            run_backward(loss, model, backward)
        # What lies in a place of its own is put back: the gradients have to outlive that.
        grads = places.read()
        if grad is not None:
            grads = [None if one is None else one.detach().clone() for one in grads]
        return grads, places.elsewhere(elsewhere.written())


def backward_in_view(loss: Tensor) -> None:
    """Run backward with function modes left on, so that what a checkpoint recomputes is seen.

    ``torch.autograd.backward`` is itself a torch function, in which modes are off.
    """
    engine = getattr(torch.autograd.graph, "_engine_run_backward", None)
    if engine is None:
        torch.autograd.backward(loss)
    else:
        engine(
            (loss,),
            (torch.ones_like(loss),),
            False,
            False,
            (),
            allow_unreachable=True,
            accumulate_grad=True,
        )


@contextmanager
def uncompiled() -> Iterator[None]:
    """Run compiled modules as they were written inside the block."""
    __tracebackhide__ = True
    # Nobody holds a compiled module where this was never imported, and the import takes seconds.
    if "torch._dynamo" in sys.modules:
        with torch.compiler.set_stance("force_eager"):
            yield
    else:
        yield


def loss_problem(loss: object) -> LossProblem | None:
    """Return why there can be no backward from a loss. Several losses in one are a wrong call."""
    if isinstance(loss, (tuple, list, Mapping)) or hasattr(loss, "keys"):
        raise ParamCheckUsageError(
            f"loss_fn returned {a_or_an(type(loss).__name__)}: "
            f"return the loss alone, a scalar tensor"
        )
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            return LossProblem("not_scalar", f"returned no scalar but {describe(loss)}")
        if not loss.requires_grad:
            return LossProblem("no_graph", f"returned a loss without a graph ({describe(loss)})")
        if loss.is_complex():
            return LossProblem("complex", f"returned a complex loss ({describe(loss)})")
        return None
    if loss is None:
        return LossProblem("none", "returned None")
    returned = f"{type(loss).__name__} {loss!r:.40}"
    return LossProblem("not_a_tensor", f"returned no tensor but {returned}")


def parameters_of(model: nn.Module) -> dict[str, Tensor]:
    """Return the parameters, each under its first name: without recursion, however deep."""
    named = {
        id(parameter): (prefix + key, parameter)
        for prefix, _, module in reversed(list(first_places(model)))
        for key, parameter in reversed(list(module._parameters.items()))
        if parameter is not None
    }
    return dict(reversed(list(named.values())))


def not_backwarded(parameters: dict[str, Tensor]) -> None:
    """Raise where ``loss_fn`` has run backward itself: the graph is gone and cannot be asked."""
    for name, parameter in parameters.items():
        if parameter.grad is not None:
            raise ParamCheckUsageError(
                f"loss_fn ran backward itself ({name} has a gradient already): "
                f"return the loss and leave backward to the assertion"
            )


def put_foreign_gradients_away(undo: Undo, loss: Tensor, model: nn.Module) -> None:
    """Keep the gradients of leaves that are none of the model's: inputs, other models."""
    own = {id(p) for p in parameters_of(model).values()}
    leaves = {id(leaf): leaf for leaf, _, _ in walk_leaves(loss)}
    put_gradients_away(undo, [leaf for key, leaf in leaves.items() if key not in own])
