"""Who was reached by a loss: what autograd really did, with one forward and one backward.

The gradients decide, never a walk of the graph: custom functions, checkpoints and hooks do
things in backward that no graph shows. Why a parameter was not reached is asked afterwards,
in a run of its own (``trace``), so that a model in which all is well does not pay for it.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ..tensors.describe import describe
from .gradstate import GradState, grad_states
from .preserve import keep_gradients, preserved

LossFn: TypeAlias = Callable[[Any], Any]


@dataclass(frozen=True, slots=True)
class Reached:
    """What one loss gave to the parameters asked about.

    ``states`` are in their order. ``problem`` says why there was no backward pass, and ``cut``
    whether it was for want of a graph, so that a reason can be looked for.
    """

    states: list[GradState]
    problem: str = ""
    cut: bool = False


def reach(model: nn.Module, loss_fn: LossFn, parameters: Sequence[Tensor]) -> Reached:
    """Run ``loss_fn(model)`` and backward, return who was reached; leave nothing behind.

    An error of ``loss_fn`` or of the backward pass comes through as it is.
    """
    __tracebackhide__ = True
    with preserved(model):
        with gradients_on():
            loss = loss_fn(model)
            problem, cut = loss_problem(loss)
            if not problem:
                not_backwarded(model)
                with foreign_gradients_kept(loss, model):
                    loss.backward()
        return Reached(grad_states([p.grad for p in parameters]), problem, cut)


def gradients_of(
    model: nn.Module, loss_fn: LossFn, parameters: Sequence[Tensor]
) -> list[Tensor | None]:
    """Run ``loss_fn(model)`` and backward, return the gradients; leave nothing behind.

    Compiled modules run uncompiled, so that two models can be compared. Raises
    :class:`ParamCheckUsageError` for a loss without a backward pass.
    """
    __tracebackhide__ = True
    with preserved(model):
        with gradients_on(), uncompiled():
            loss = loss_fn(model)
            problem, _ = loss_problem(loss)
            if problem:
                raise ParamCheckUsageError(
                    f"there is no backward pass to compare: loss_fn {problem}"
                )
            not_backwarded(model)
            with foreign_gradients_kept(loss, model):
                loss.backward()
        return [parameter.grad for parameter in parameters]


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


@contextmanager
def gradients_on() -> Iterator[None]:
    """Record gradients inside the block, whatever mode the test runs under."""
    __tracebackhide__ = True
    # Autocast keeps its casts of the weights, and with them the graph of an earlier run.
    torch.clear_autocast_cache()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            yield
    finally:
        torch.clear_autocast_cache()


def loss_problem(loss: object) -> tuple[str, bool]:
    """Return why there can be no backward from a loss (``""``: there can), and whether it is
    because the graph was cut. Several losses in one are a wrong call."""
    if isinstance(loss, (tuple, list, Mapping)) or hasattr(loss, "keys"):
        raise ParamCheckUsageError(
            f"loss_fn returned a {type(loss).__name__}: return the loss alone, a scalar tensor"
        )
    if isinstance(loss, Tensor):
        if loss.numel() != 1:
            return f"returned no scalar but {describe(loss)}", False
        if not loss.requires_grad:
            return f"returned a loss without a graph ({describe(loss)})", True
        if loss.is_complex():
            return f"returned a complex loss ({describe(loss)})", False
        return "", False
    if loss is None:
        return "returned None", False
    return f"returned no tensor but {type(loss).__name__} {loss!r:.40}", True


def not_backwarded(model: nn.Module) -> None:
    """Raise where ``loss_fn`` has run backward itself: the graph is gone and cannot be asked."""
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            raise ParamCheckUsageError(
                f"loss_fn ran backward itself ({name} has a gradient already): "
                f"return the loss and leave backward to the assertion"
            )


@contextmanager
def foreign_gradients_kept(loss: Tensor, model: nn.Module) -> Iterator[None]:
    """Keep the gradients of leaves that are none of the model's: inputs, other models."""
    __tracebackhide__ = True
    own = {id(p) for p in model.parameters()}
    restore = keep_gradients(leaf for leaf in graph_leaves(loss) if id(leaf) not in own)
    try:
        yield
    finally:
        restore()


def graph_leaves(loss: Tensor) -> Iterable[Tensor]:
    """Return the leaves of a loss's graph; those inside a reentrant checkpoint are not in it."""
    if loss.grad_fn is None:
        return [loss]
    leaves = {}
    seen = {loss.grad_fn}
    stack = [loss.grad_fn]
    while stack:
        for node, _ in stack.pop().next_functions:
            if node is not None and node not in seen:
                seen.add(node)
                leaf = leaf_of(node)
                if leaf is not None:
                    leaves[id(leaf)] = leaf
                else:
                    stack.append(node)
    return leaves.values()


def leaf_of(node: Any) -> Tensor | None:
    """Return the leaf a node accumulates into, or None for any other node."""
    # By class: the node of a custom function has whatever attributes its author gave it.
    return node.variable if type(node).__name__ == "AccumulateGrad" else None
