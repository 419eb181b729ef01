"""What modules promise by what they are: padding rows, scales of norms, heads that are tied.

Nothing here is of one library: a norm is what is called one, and a config is asked for what it
says in transformers' way.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

from .inventory import Inventory


@dataclass(frozen=True, slots=True)
class PaddedRow:
    """The row of an embedding that stands for padding."""

    name: str
    tensor: Tensor
    row: int


def padded_rows(inventory: Inventory) -> list[PaddedRow]:
    """Return the padding rows, of embeddings that train, whose values reach an output for good.

    Not of an ``EmbeddingBag``, which leaves its row out of every sum; not of one tied to a head,
    through which the row gets gradients; and of none where padding is masked: a module of the
    model takes masks, or lengths.
    """
    found = []
    for path, module in inventory.modules:
        row, weight = getattr(module, "padding_idx", None), module._parameters.get("weight")
        if not isinstance(module, nn.Embedding) or type(row) is not int:
            continue
        if weight is None or not weight.requires_grad or weight.dim() != 2:
            continue
        entry = inventory.entry_of(weight)
        if entry is None or all(_pads(inventory, name, row) for name in entry.names):
            found.append(PaddedRow(f"{path}.weight".removeprefix("."), weight, row))
    return [] if found and _masks(inventory) else found


def _pads(inventory: Inventory, name: str, row: int) -> bool:
    holder = inventory.module_at.get(name.rpartition(".")[0])
    return isinstance(holder, nn.Embedding) and holder.padding_idx == row


_LEFT_OUT = re.compile(r"mask|length|seqlen|pad", re.IGNORECASE)


def _masks(inventory: Inventory) -> bool:
    """Whether a forward of the model takes what leaves positions out."""
    for kind in {type(module) for _, module in inventory.modules}:
        try:
            taken = inspect.signature(kind.forward).parameters
        except (TypeError, ValueError):  # compiled
            continue
        if any(_LEFT_OUT.search(name) for name in taken):
            return True
    return False


_SCALES = ("weight", "scale", "gamma", "g")


def norm_scales(inventory: Inventory) -> dict[str, Tensor]:
    """Return the scales of norms that train, by name; a norm is what is called one."""
    found: dict[str, Tensor] = {}
    for path, module in inventory.modules:
        if not isinstance(module, _NormBase) and "norm" not in type(module).__name__.lower():
            continue
        for key in _SCALES:
            scale = module._parameters.get(key)
            if scale is not None and scale.requires_grad and scale.dim() == 1:
                found[f"{path}.{key}".removeprefix(".")] = scale
    return found


@dataclass(frozen=True, slots=True)
class PromisedTie:
    """What a config says of a model's head, and the two names."""

    tied: bool
    embedding: str
    head: str


def promised_tie(inventory: Inventory) -> PromisedTie | None:
    """Return what ``config.tie_word_embeddings`` says, where there are two weights to be tied."""
    root: Any = inventory.root
    try:
        config = getattr(root, "config", None)
        tied = getattr(config, "tie_word_embeddings", None)
        # Of a model of texts and images each part has a config: they may not agree.
        parts = [
            getattr(p, "tie_word_embeddings", None)
            for p in getattr(config, "__dict__", {}).values()
        ]
        if not isinstance(tied, bool) or (not tied) in parts:
            return None
        weights = [
            getattr(root, method)().weight
            for method in ("get_input_embeddings", "get_output_embeddings")
        ]
    except Exception:  # a config and these methods are the user's code
        return None
    entries = [inventory.entry_of(w) for w in weights if isinstance(w, Tensor)]
    names = [entry.names for entry in entries if entry is not None]
    if len(names) != 2 or weights[0].shape != weights[1].shape:
        return None
    # Of one parameter the last name is the head's: it was tied to what was there before.
    return PromisedTie(tied, names[0][0], names[1][-1])


@dataclass(frozen=True, slots=True)
class RepeatedModule:
    """A module that stands at several places of one list."""

    places: tuple[str, ...]
    kind: str


def repeated_modules(inventory: Inventory) -> Iterator[RepeatedModule]:
    """Yield the layers that a ModuleList or a Sequential holds more than once.

    An activation with a slope, or a norm, may be used again: a layer has a matrix that trains.
    """
    for path, module in inventory.modules:
        if not isinstance(module, (nn.ModuleList, nn.Sequential)):
            continue
        places: dict[int, list[str]] = {}
        for key, child in module._modules.items():
            if child is not None:
                places.setdefault(id(child), []).append(f"{path}.{key}".removeprefix("."))
        for several in places.values():
            layer = module._modules[several[0].rpartition(".")[2]]
            if len(several) > 1 and _has_matrix(layer):
                yield RepeatedModule(tuple(several), type(layer).__name__)


def _has_matrix(layer: nn.Module) -> bool:
    return any(p.requires_grad and p.dim() > 1 for p in layer.parameters())
