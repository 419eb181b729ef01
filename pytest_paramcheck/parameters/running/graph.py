"""The leaves of an autograd graph: tensors that a backward pass would give a gradient."""

from __future__ import annotations

import functools
import gc
import types
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..subject.hidden import reachable_tensors


@dataclass(slots=True)
class GraphLeaf:
    """A leaf, the first operation found that uses it, and how many steps below the result.

    ``fresh`` says that it dies with the graph, ``legitimate`` that it is no parameter's
    business: an activation that was made to require a gradient, or the caller's own input.
    """

    tensor: Tensor
    operation: str
    depth: int
    fresh: bool = False
    legitimate: bool = False


def walk_leaves(result: Tensor, *, at_most: int | None = None) -> Iterator[tuple[Tensor, str, int]]:
    """Yield the leaves of a result's graph, nearest first: (leaf, operation, steps below).

    Looks at ``AccumulateGrad`` nodes. What a reentrant checkpoint recomputes in its backward
    is not in the graph. Stops after ``at_most`` nodes.
    """
    if result.grad_fn is None:
        if result.requires_grad:
            yield result, "the loss itself", 0
        return
    level: list[Any] = [result.grad_fn]
    seen = {result.grad_fn}
    depth = 0
    while level and (at_most is None or len(seen) <= at_most):
        depth += 1
        below = []
        for node in level:
            for function, _ in node.next_functions:
                if function is None or function in seen:
                    continue
                seen.add(function)
                if (leaf := leaf_of(function)) is not None:
                    yield leaf, node.name(), depth
                else:
                    below.append(function)
        level = below


def leaf_of(node: Any) -> Tensor | None:
    """Return the leaf a node accumulates into, or None for any other node."""
    # By class: the node of a custom function has whatever attributes its author gave it.
    return node.variable if type(node).__name__ == "AccumulateGrad" else None


def graph_leaves(result: Tensor, *, at_most: int | None = None) -> list[GraphLeaf]:
    """Return the leaves of a result's graph, each once, nearest first (see :func:`walk_leaves`)."""
    leaves: dict[int, GraphLeaf] = {}
    for tensor, operation, depth in walk_leaves(result, at_most=at_most):
        leaves.setdefault(id(tensor), GraphLeaf(tensor, operation, depth))
    return list(leaves.values())


def leaves_of_call(
    call: Callable[[], object], known: Iterable[Tensor], arguments: Callable[..., Any]
) -> tuple[Tensor | None, list[GraphLeaf]]:
    """Run a loss and return (the loss or None where it is no tensor, the leaves not ``known``).

    A loss with a graph comes back without it, still marked as requiring a gradient.

    Whether a plain leaf is an activation is told by what becomes of it: one that dies with the
    graph was made in the call, one that ``arguments`` (the loss function) holds is the caller's
    input. The rest outlives the call in a place that nobody can name.
    """
    result = call()
    if not isinstance(result, Tensor):
        return None, []
    if not result.requires_grad:
        return result, []
    names = {id(tensor) for tensor in known}
    leaves = [leaf for leaf in graph_leaves(result) if id(leaf.tensor) not in names]
    loss = result.detach().requires_grad_()
    if not leaves:
        return loss, []
    held = {id(tensor) for tensor in reachable_tensors(held_by(arguments))}
    parameters = []
    watched: list[tuple[weakref.ref[Tensor], str, int, bool]] = []
    for leaf in leaves:
        own = id(leaf.tensor) in held
        watched.append((weakref.ref(leaf.tensor), leaf.operation, leaf.depth, own))
        if isinstance(leaf.tensor, nn.Parameter):
            parameters.append(leaf)
    # Let go of the graph: what nobody else holds dies with it.
    order = [id(leaf.tensor) for leaf in leaves]
    kept = {id(leaf.tensor): leaf for leaf in parameters}
    described = {
        key: (leaf.tensor.detach(), leaf.operation, leaf.depth) for key, leaf in kept.items()
    }
    del result, leaves, leaf, parameters, kept
    gc.collect()
    found = []
    for key, (reference, operation, depth, own) in zip(order, watched, strict=True):
        tensor = reference()
        if tensor is None:
            if key in described:
                copy, operation, depth = described[key]
                made = nn.Parameter(copy) if copy.is_floating_point() else copy
                found.append(GraphLeaf(made, operation, depth, fresh=True))
            continue
        plain = not isinstance(tensor, nn.Parameter)
        found.append(GraphLeaf(tensor, operation, depth, legitimate=plain and own))
    return loss, found


def names_of_held(function: Any) -> dict[int, str]:
    """Return by id what a function calls the parameters that it brings along: ``proxies.weight``.

    Those of the modules and the tensors that its closure and the globals that its code names hold.
    """
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not isinstance(function, types.FunctionType):
        return {}
    code = function.__code__
    variables = {name: function.__globals__.get(name) for name in code.co_names}
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=True):
        with suppress(ValueError):  # a variable that has no value yet
            variables[name] = cell.cell_contents
    names: dict[int, str] = {}
    for name, value in variables.items():
        if isinstance(value, Tensor):
            names.setdefault(id(value), name)
        elif isinstance(value, nn.Module):
            for own, parameter in value.named_parameters():
                names.setdefault(id(parameter), f"{name}.{own}")
    return names


def held_by(function: Any) -> list[Any]:
    """Return what a function brings along: closure, defaults, partial arguments, and the globals
    its code names."""
    held: list[Any] = [function]
    while isinstance(function, functools.partial):
        function = function.func
    if isinstance(function, types.MethodType):
        function = function.__func__
    if isinstance(function, types.FunctionType):
        held += [
            function.__globals__[name]
            for name in function.__code__.co_names
            if name in function.__globals__
        ]
    return held
