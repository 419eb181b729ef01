"""A checkpoint as an inventory, and the keys under which a model's own state_dict has its names.

Tests: ``tests/unit/test_loaded.py`` and ``test_dcp.py``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import a_or_an, join_words
from ..files.checkpoint import read_checkpoint
from ..files.damage import as_wrong_call
from ..files.dcp import is_dcp, read_dcp
from ..files.nested import DEEPEST, is_extra_state
from ..subject.inventory import Inventory
from ..subject.walk import walk_modules
from ..tensors.describe import kind_in_words
from ..tensors.sharded import distributed
from .renaming import Rename, renamed


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """What was read: the tensors, what is none, and all of it as it was.

    ``origins`` are the keys that the checkpoint itself has, by the names they were given.
    """

    tensors: Inventory
    others: Mapping[str, Any]
    mapping: Mapping[str, Any]
    origins: Mapping[str, str]


def take_checkpoint(
    checkpoint: Any,
    model: Inventory,
    own: Callable[[], Collection[str]],
    *,
    key: str | None = None,
    rename: Rename | None = None,
) -> Checkpoint:
    """Read a checkpoint: a mapping of names to tensors, or the path of one on disk.

    ``key`` is where in the file to look. Keys are taken as they are, or as ``rename`` says. What
    is no tensor is taken where it stands under a key under which the model itself saves something
    (``own``, asked only then): quantized layers save tuples and dtypes. Raises
    :class:`ParamCheckUsageError` where there is something else than that in it (but for
    ``_extra_state``, torch's own place for anything), with the way to the tensors where they lie
    deeper: ``checkpoint['model']``.
    """
    below = None
    if isinstance(checkpoint, (str, os.PathLike)):
        below = f"{key}." if key else ""
        folder = Path(checkpoint)
        if is_dcp(folder):
            with as_wrong_call():
                checkpoint = read_dcp(folder, model.named, key)
        else:
            checkpoint = read_checkpoint(checkpoint, key)
    elif key is not None:
        raise ParamCheckUsageError(
            f"key={key!r} says where in a file to look; of a mapping pass checkpoint[{key!r}]"
        )
    if isinstance(checkpoint, nn.Module):
        if model.root is None:
            raise ParamCheckUsageError(
                f"the model comes first, then the checkpoint: "
                f"got {model.title}, then {a_or_an(type(checkpoint).__name__)}"
            )
        raise ParamCheckUsageError(
            f"the checkpoint is {a_or_an(type(checkpoint).__name__)}; pass its state_dict()"
        )
    if not isinstance(checkpoint, Mapping):
        raise ParamCheckUsageError(
            f"a checkpoint is a mapping of names to tensors or the path of a file that holds "
            f"one, not {kind_in_words(checkpoint)}"
        )
    origins: dict[str, str] = {}
    if rename is not None:
        checkpoint, origins = renamed(checkpoint, rename)
    inventory = Inventory("checkpoint")
    others: dict[str, Any] = {}
    known: Collection[str] | None = None
    for name, value in checkpoint.items():
        if is_extra_state(name):
            continue
        if isinstance(value, Tensor) and isinstance(name, str):
            inventory.named[name] = value
            continue
        known = own() if known is None else known
        if name not in known:
            raise ParamCheckUsageError(_no_state_dict(checkpoint, name, value, model, below))
        others[name] = value
    if not inventory.named and not others:
        why = "there is nothing to check"
        if not checkpoint and distributed() is not None:
            why = (
                "get_model_state_dict(full_state_dict=True, cpu_offload=True) fills rank 0 only; "
                "leave cpu_offload out"
            )
        raise ParamCheckUsageError(f"the checkpoint holds no tensors: {why}")
    return Checkpoint(inventory, others, checkpoint, origins)


def own_parameters(model: Inventory, checkpoint: Inventory) -> list[str]:
    """Return the keys of a checkpoint that are Parameter objects of the model itself."""
    ours = {id(tensor) for tensor in model.named.values() if isinstance(tensor, nn.Parameter)}
    return [key for key, tensor in checkpoint.named.items() if id(tensor) in ours]


def tensors_of_state(model: Inventory) -> dict[str, Tensor]:
    """Return the tensors of a model's own state_dict by name, a wrapper's prefix left out."""
    if model.root is None:
        return {}
    names = wrapped_keys(model)
    return {
        names.get(key, key): value
        for key, value in model.root.state_dict().items()
        if isinstance(value, Tensor) and not is_extra_state(key)
    }


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
    checkpoint: Mapping[Any, Any], name: Any, value: Any, model: Inventory, below: str | None
) -> str:
    """Return what is in the place of tensors, and where those are; ``below``: of a file, the
    key that was looked at."""
    if not isinstance(name, str):
        said = f"the checkpoint has a key that is not a name: {kind_in_words(name)}"
    else:
        said = f"checkpoint[{name!r}] is not a tensor but {kind_in_words(value)}"
    nested = sorted(_nested(checkpoint, model), key=lambda pair: -pair[0])[:3]
    if nested:
        paths = [
            f"key={below + '.'.join(path)!r}"
            if below is not None
            else "".join(["checkpoint", *(f"[{part!r}]" for part in path)])
            for _, path in nested
        ]
        return f"{said}; did you mean {join_words(paths, 'or')}?"
    return (
        f"{said}; pass the tensors only: "
        f"{{k: v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}}"
    )


def _nested(
    value: Mapping[Any, Any], model: Inventory, above: tuple[str, ...] = ()
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """Yield (how many of its keys end like a name of the model, where it is) per mapping below."""
    endings = {ending for name in model.named for ending in _endings(name)}
    for key, inner in value.items():
        if not isinstance(inner, Mapping):
            continue
        here = (*above, str(key))
        tensors = [k for k, v in inner.items() if isinstance(k, str) and isinstance(v, Tensor)]
        count = sum(not endings.isdisjoint(_endings(name)) for name in tensors)
        if count:
            yield count, here
        if len(here) < DEEPEST:
            yield from _nested(inner, model, here)


def _endings(name: str) -> list[str]:
    """Return the last two components, or all of a shorter name."""
    return [".".join(name.split(".")[-2:])]
