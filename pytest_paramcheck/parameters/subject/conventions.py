"""What modules promise by what they are: padding rows, scales of norms, heads that are tied.

Nothing here is of one library: a norm is what is called one, and a config is asked for what it
says in transformers' way.
"""

from __future__ import annotations

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
    """Return the padding rows of the embeddings that train."""
    found = []
    for path, module in inventory.modules:
        row, weight = getattr(module, "padding_idx", None), module._parameters.get("weight")
        if not isinstance(module, (nn.Embedding, nn.EmbeddingBag)) or type(row) is not int:
            continue
        if weight is not None and weight.requires_grad and weight.dim() == 2:
            found.append(PaddedRow(f"{path}.weight".removeprefix("."), weight, row))
    return found


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
        tied = getattr(getattr(root, "config", None), "tie_word_embeddings", None)
        if not isinstance(tied, bool):
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
