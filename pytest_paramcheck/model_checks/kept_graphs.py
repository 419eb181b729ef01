"""Tensors that a constructor computed from parameters and kept, graph and all.

A step moves the parameter and not what was computed from it; and the first backward pass frees
the graph, so that the second one ends in torch's own error, whichever check runs it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ..messages.findings import Finding
from ..messages.wording import join_words
from ..parameters.running.graph import walk_leaves
from ..parameters.subject.hidden import hidden_tensors
from ..parameters.subject.reading import take_inventory


@dataclass(frozen=True, slots=True)
class KeptGraph:
    """A tensor with a graph, where it is kept, and the parameters that it was computed from."""

    path: str
    node: Any
    sources: tuple[str, ...]


def kept_graphs(model: nn.Module) -> list[KeptGraph]:
    """Return what a model that never ran keeps of graphs: in attributes and in buffers."""
    inventory = take_inventory(model, allow_empty=True)
    kept = [(entry.name, entry.tensor) for entry in inventory.entries if entry.tensor is not None]
    kept += [(hidden.path, hidden.tensor) for hidden in hidden_tensors(inventory).tensors]
    names = {id(entry.tensor): entry.name for entry in inventory.parameters}
    return [
        KeptGraph(path, tensor.grad_fn, _sources(tensor, names))
        for path, tensor in kept
        if tensor.grad_fn is not None
    ]


def _sources(tensor: Tensor, names: dict[int, str]) -> tuple[str, ...]:
    found = (names.get(id(leaf)) for leaf, _, _ in walk_leaves(tensor))
    return tuple(dict.fromkeys(name for name in found if name is not None))


def used_by(loss: Tensor, kept: Sequence[KeptGraph]) -> list[Finding]:
    """Find which kept graphs a loss goes back through."""
    if not kept or loss.grad_fn is None:
        return []
    reached = {id(node) for node in _nodes(loss.grad_fn)}
    return [
        Finding(
            (one.path,),
            "computed at construction and kept",
            found=f"computed from {join_words(one.sources)}: it never follows "
            f"{'it' if len(one.sources) == 1 else 'them'}"
            if one.sources
            else "computed once, from what requires a gradient: it never follows that",
            hint=f"compute {one.path} in forward(), or detach() it where it is to stay as it is",
        )
        for one in kept
        if id(one.node) in reached
    ]


def _nodes(root: Any) -> Iterable[Any]:
    seen = {root}
    left = [root]
    while left:
        node = left.pop()
        for function, _ in node.next_functions:
            if function is not None and function not in seen:
                seen.add(function)
                left.append(function)
    return seen
