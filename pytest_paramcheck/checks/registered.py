"""Every parameter is registered: nothing hidden in plain Python, nothing only the graph knows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set

import torch
from torch import Tensor, nn

from ..messages.findings import Finding
from ..messages.wording import a_or_an
from ..parameters.running.graph import GraphLeaf, graph_leaves
from ..parameters.subject.hidden import Hidden, HiddenTensors
from ..parameters.subject.inventory import Inventory
from ..parameters.tensors.describe import describe

_CONTAINER_OF = {
    "list": ("ModuleList", "ParameterList"),
    "tuple": ("ModuleList", "ParameterList"),
    "deque": ("ModuleList", "ParameterList"),
    "set": ("ModuleList", "ParameterList"),
    "frozenset": ("ModuleList", "ParameterList"),
    "dict": ("ModuleDict", "ParameterDict"),
}


def not_registered(
    inventory: Inventory,
    hidden: HiddenTensors,
    *,
    tensors: bool = False,
    elsewhere: Set[int] = frozenset(),
) -> list[Finding]:
    """Find the parameters and modules that are kept where nn.Module does not look.

    Plain tensors count where they require a gradient (that is what a parameter is for), and
    with ``tensors`` all of them, but those that autograd computed and those that a class moves
    with its own ``_apply``. ``elsewhere`` are those (by id) that something else trains.
    """
    findings = [
        Finding(
            (path,),
            "not checked",
            found="a container of more than a million items, some of them objects",
            hint="keep tensors out of it, or name it in allow=",
        )
        for path in hidden.too_large
    ]
    for item in hidden.tensors:
        tensor = item.tensor
        if id(tensor) in elsewhere:
            continue
        if item.kind == "parameter":
            found = describe(tensor)
        elif item.kind == "buffer":
            found = f"buffer, {describe(tensor)}"
        elif tensor.grad_fn is not None:
            leaf = _unregistered_source(inventory, tensor)
            if leaf is None:
                continue  # an activation that somebody kept: computed, not stored
            findings.append(_computed(item, leaf))
            continue
        elif tensor.requires_grad:
            found = f"{describe(tensor)} that requires a gradient"
        elif tensors and not item.moves:
            found = f"plain tensor, {describe(tensor)}"
        else:
            continue
        findings.append(
            Finding((item.path,), "not registered", found=found, why=_why(item), hint=remedy(item))
        )
    return findings


def unregistered_leaves(
    inventory: Inventory,
    leaves: Sequence[GraphLeaf],
    hidden: HiddenTensors,
    named: Mapping[int, str],
    elsewhere: Set[int] = frozenset(),
) -> list[Finding]:
    """Find the leaves of a loss that gradients reach and nobody can name.

    A Parameter always counts. A plain tensor that requires a gradient does where it outlives the
    call and is not the caller's own (``leaf.legitimate``): inputs and activations are not.
    ``named`` says by id what the loss function calls those that it brings along.
    """
    found_before = {id(item.tensor) for item in hidden.tensors} | elsewhere
    findings = []
    for number, leaf in enumerate(leaves):
        if leaf.legitimate or id(leaf.tensor) in found_before:
            continue
        if inventory.entry_of(leaf.tensor) is not None:
            continue
        if leaf.fresh:
            why = "made anew in each call: what it learns is thrown away"
            hint = "create it once, in __init__: self.weight = nn.Parameter(...)"
        elif id(leaf.tensor) in named:
            why = "the loss brings it along: it gets gradients, and no parameters() call sees it"
            hint = (
                "assign its module to an attribute of the model; what another optimizer trains "
                "is left out by allow=[module]"
            )
        else:
            why = "it gets gradients, and no parameters() call sees it"
            hint = (
                "assign it to an attribute of the module that uses it: "
                "self.weight = nn.Parameter(...)"
            )
        findings.append(
            Finding(
                (named.get(id(leaf.tensor), f"<graph leaf {number}>"),),
                "not registered",
                found=f"{describe(leaf.tensor)}, used by {leaf.operation}",
                why=why,
                hint=hint,
            )
        )
    return findings


def loss_without_graph(loss: Tensor) -> list[Finding]:
    """Find a loss that nothing can be followed from."""
    if loss.requires_grad:
        return []
    return [
        Finding(
            (),
            "the loss has no graph",
            found=describe(loss),
            why="it was computed under no_grad, detached, or from frozen parameters only",
        )
    ]


def remedy(item: Hidden) -> str:
    """Return the one line that registers it."""
    target = f"self.{item.attribute}"
    if item.holder in _CONTAINER_OF:
        modules, parameters = _CONTAINER_OF[item.holder]
        if item.module:
            return f"{target} = nn.{modules}(...)"
        if item.kind == "parameter" or item.tensor.requires_grad:
            return f"{target} = nn.{parameters}(...)"
        return _buffer(item, "name")
    if item.holder == "attribute":
        if item.module:
            return f"assign {target} as a module: after super().__init__(), not through __dict__"
        if item.kind == "parameter" or item.tensor.requires_grad:
            return f"{target} = nn.Parameter(...)"
        return _buffer(item, item.attribute)
    if item.holder.startswith("class "):
        return f"create it per instance, in __init__: {target} = ..."
    what = "module" if item.module else "parameter"
    if not item.module and not item.tensor.requires_grad:
        return _buffer(item, "name")
    return f"keep the {what} in an attribute of the module too: self.name = ..."


def _buffer(item: Hidden, name: str) -> str:
    return f"self.register_buffer({name!r}, ...)"


def _why(item: Hidden) -> str:
    where = {
        "attribute": "in a plain attribute",
        "closure": "in a function's closure",
        "hook": "held by a hook",
        "partial": "held by a functools.partial",
    }.get(item.holder)
    if where is None:
        if item.holder.startswith("class "):
            where = f"an attribute of the {item.holder}, shared by all its instances"
        else:
            where = f"in {a_or_an(item.holder)}"
    return f"{item.module} {where}" if item.module else where


def _unregistered_source(inventory: Inventory, tensor: Tensor) -> GraphLeaf | None:
    """The unregistered Parameter that a kept result is computed from, or a plain leaf it copies."""
    leaves = graph_leaves(tensor, at_most=10_000)
    for leaf in leaves:
        if inventory.entry_of(leaf.tensor) is not None:
            continue
        if isinstance(leaf.tensor, nn.Parameter):
            return leaf
        if leaf.operation == "ToCopyBackward0" and len(leaves) == 1 and leaf.depth == 1:
            return leaf
    return None


def _computed(item: Hidden, leaf: GraphLeaf) -> Finding:
    with torch.no_grad():
        found = describe(item.tensor)
    return Finding(
        (item.path,),
        "not registered",
        found=f"{found}, computed by {leaf.operation}",
        why="the parameter it was computed from is lost",
        hint="convert first, then wrap: nn.Parameter(x.to(...)), not nn.Parameter(x).to(...)",
    )
