"""A checkpoint as an inventory, and the keys under which a model's own state_dict has its names.

Tests: ``tests/unit/test_loaded.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import join_words
from ..subject.inventory import Inventory, kind_in_words
from ..subject.walk import walk_modules
from .checkpoint_files import read_checkpoint

DEEPEST = 3


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was read: the tensors, what is none, and all of it as it was."""

    tensors: Inventory
    others: Mapping[str, Any]
    mapping: Mapping[str, Any]


def take_checkpoint(
    checkpoint: Any, model: Inventory, own: Callable[[], Collection[str]]
) -> Checkpoint:
    """Read a checkpoint: a mapping of names to tensors, or the path of a file that holds one.

    Keys are taken as they are. What is no tensor is taken where it stands under a key under
    which the model itself saves something (``own``, asked only then): quantized layers save
    tuples and dtypes. Raises :class:`ParamCheckUsageError` where there is something else
    than that in it (but for ``_extra_state``, torch's own place for anything), with the way to
    the tensors where they lie deeper: ``checkpoint['model']``.
    """
    shown = "checkpoint"
    if isinstance(checkpoint, (str, os.PathLike)):
        shown = f"torch.load({os.fspath(checkpoint)!r}, weights_only=True)"
        checkpoint = read_checkpoint(checkpoint)
    if isinstance(checkpoint, nn.Module):
        raise ParamCheckUsageError(
            f"the checkpoint is a {type(checkpoint).__name__}; pass its state_dict()"
        )
    if not isinstance(checkpoint, Mapping):
        raise ParamCheckUsageError(
            f"a checkpoint is a mapping of names to tensors or the path of a file that holds "
            f"one, not {kind_in_words(checkpoint)}"
        )
    inventory = Inventory("checkpoint")
    others: dict[str, Any] = {}
    known: Collection[str] | None = None
    for key, value in checkpoint.items():
        if isinstance(key, str) and is_extra_state(key):
            continue
        if isinstance(value, Tensor) and isinstance(key, str):
            inventory.named[key] = value
            continue
        known = own() if known is None else known
        if key not in known:
            raise ParamCheckUsageError(_no_state_dict(checkpoint, key, value, model, shown))
        others[key] = value
    if not inventory.named and not others:
        raise ParamCheckUsageError("the checkpoint holds no tensors: there is nothing to check")
    return Checkpoint(inventory, others, checkpoint)


def is_extra_state(key: str) -> bool:
    """Whether a key holds what a module's ``get_extra_state()`` returns, a tensor or not."""
    return key.rpartition(".")[2] == "_extra_state"


def own_parameters(model: Inventory, checkpoint: Inventory) -> list[str]:
    """Return the keys of a checkpoint that are Parameter objects of the model itself."""
    ours = {id(tensor) for tensor in model.named.values() if isinstance(tensor, nn.Parameter)}
    return [key for key, tensor in checkpoint.named.items() if id(tensor) in ours]


def wrapped_keys(model: Inventory) -> dict[str, str]:
    """Return the keys of the model's own state_dict that hold a wrapper's prefix -> the names.

    ``DistributedDataParallel(model).state_dict()`` has ``module.emb.weight`` for what is
    ``emb.weight`` everywhere else: loaded into the wrapped model, that key is right.
    """
    keys: dict[str, str] = {}
    if model.root is None:
        return keys
    for prefix, raw_prefix, module in walk_modules(model.root):
        if prefix != raw_prefix:
            for local in (*module._parameters, *module._buffers):
                if prefix + local in model.named:
                    keys[raw_prefix + local] = prefix + local
    return keys


def _no_state_dict(
    checkpoint: Mapping[Any, Any], key: Any, value: Any, model: Inventory, shown: str
) -> str:
    if not isinstance(key, str):
        said = f"the checkpoint has a key that is no name: {kind_in_words(key)}"
    else:
        said = f"checkpoint[{key!r}] is not a tensor but {kind_in_words(value)}"
    nested = sorted(_nested(checkpoint, model), key=lambda pair: -pair[0])[:3]
    if nested:
        paths = [shown + path for _, path in nested]
        return f"{said}; did you mean {join_words(paths, 'or')}?"
    return (
        f"{said}; pass the tensors only: "
        f"{{k: v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}}"
    )


def _nested(
    value: Mapping[Any, Any], model: Inventory, path: str = "", depth: int = 0
) -> Iterator[tuple[int, str]]:
    """Yield (how many of its keys end like a name of the model, where it is) per mapping below."""
    endings = {ending for name in model.named for ending in _endings(name)}
    for key, inner in value.items():
        if not isinstance(inner, Mapping):
            continue
        here = f"{path}[{key!r}]"
        tensors = [k for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)]
        count = sum(not endings.isdisjoint(_endings(name)) for name in tensors)
        if count:
            yield count, here
        if depth + 1 < DEEPEST:
            yield from _nested(inner, model, here, depth + 1)


def _endings(name: str) -> list[str]:
    """Return the last two components, or all of a shorter name."""
    return [".".join(name.split(".")[-2:])]
