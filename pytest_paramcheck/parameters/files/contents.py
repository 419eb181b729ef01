"""All that a checkpoint's files hold, and all that is wrong with them: for who asks about files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ..tensors.cover import cover
from ..tensors.describe import kind_in_words
from ..tensors.memory import PLAIN_TYPES
from .checkpoint import below, lacking, locate, read_file, read_shard
from .damage import DamagedError
from .dcp import SHARD, code_in, damages_of, is_dcp, open_dcp, shards_of
from .nested import every_tensor
from .safetensors_file import SUFFIX
from .shards import Shards, left_over


@dataclass(frozen=True, slots=True)
class Dragged:
    """Tensors that were saved with more memory than they have, in bytes."""

    names: tuple[str, ...]
    own: int
    saved: int


@dataclass
class Contents:
    """What was found in a file, or in all files of a checkpoint.

    ``unlisted`` are the names, each with its file, that the index does not have, ``left_over``
    the files of that kind.
    """

    title: str
    tensors: dict[str, Tensor] = field(default_factory=dict)
    damages: list[DamagedError] = field(default_factory=list)
    unlisted: list[tuple[str, str]] = field(default_factory=list)
    left_over: list[Path] = field(default_factory=list)
    dragged: list[Dragged] = field(default_factory=list)


def read_contents(path: str | os.PathLike[str], key: str | None = None) -> Contents:
    """Read all files that a path means; ``key`` is where in a single file the tensors are.

    What is wrong with a file is in the answer. Raises :class:`ParamCheckUsageError` for a path
    that means no checkpoint, for what is no path, and for a key that is not there.
    """
    # The types are checked because the types are what people get wrong.
    if not isinstance(cast("object", path), (str, os.PathLike)):
        raise ParamCheckUsageError(
            f"expected the path of a checkpoint, got {kind_in_words(path)}; what is in memory is "
            "for assert_materialized and assert_finite"
        )
    contents = Contents(Path(os.fsdecode(path)).name)
    try:
        if is_dcp(folder := Path(os.fsdecode(path))):
            _read_folder(contents, folder, key)
            return contents
        found = locate(path)
    except DamagedError as damage:
        contents.damages.append(damage)
        return contents
    if isinstance(found, Shards):
        for file, names in found.names_of.items():
            _read_shard(contents, found, file, names)
        contents.left_over = left_over(found)
        return contents
    try:
        held = read_file(found)
    except DamagedError as damage:
        contents.damages.append(damage)
        return contents
    asked = held if key is None else below(held, key, str(path))
    contents.tensors = dict(every_tensor(asked))
    if found.suffix != SUFFIX:  # in safetensors each tensor has its own bytes, and no others
        everything = dict(every_tensor(held)) if key is not None else contents.tensors
        contents.dragged = _dragged(everything, contents.tensors)
    return contents


def _read_folder(contents: Contents, path: Path, key: str | None) -> None:
    folder = open_dcp(path)
    held = folder.held if key is None else below(folder.held, key, str(path))
    tensors = dict(every_tensor(held))
    contents.damages = damages_of(folder)
    if not contents.damages:
        folder.read(tensors.values())
        contents.tensors = tensors
        contents.damages = code_in(folder)
    named = shards_of(folder)
    contents.left_over = [file for file in sorted(path.glob(f"*{SHARD}")) if file.name not in named]


def _read_shard(contents: Contents, shards: Shards, file: Path, names: list[str]) -> None:
    try:
        held = read_shard(shards, file)
    except DamagedError as damage:
        contents.damages.append(damage)
        return
    if absent := tuple(name for name in names if name not in held):
        contents.damages.append(lacking(file, absent))
    listed = set(names)
    inside = dict(every_tensor(held))
    contents.tensors.update({name: t for name, t in inside.items() if name in listed})
    contents.unlisted += [(name, file.name) for name in inside if name not in listed]
    if file.suffix != SUFFIX:
        contents.dragged += _dragged(inside, inside)


def _dragged(everything: Mapping[str, Tensor], asked: Mapping[str, Tensor]) -> list[Dragged]:
    """Return the storages of which a part belongs to no tensor; torch.save writes them whole."""
    by_storage: dict[int, list[str]] = {}
    storages: dict[int, Any] = {}
    for name, tensor in everything.items():
        if type(tensor) not in PLAIN_TYPES or tensor.layout is not torch.strided:
            continue
        storage = tensor.untyped_storage()
        if storage.device.type == "cpu" and storage.data_ptr():
            by_storage.setdefault(storage.data_ptr(), []).append(name)
            storages[storage.data_ptr()] = storage
    found = []
    names_asked = {id(tensor): name for name, tensor in asked.items()}
    for place, names in by_storage.items():
        size = storages[place].nbytes()
        tensors = [everything[name] for name in names]
        own = _covered(storages[place], tensors)
        shown = tuple(names_asked[id(t)] for t in tensors if id(t) in names_asked)
        if own < size and shown:
            found.append(Dragged(shown, own, size))
    return found


def _covered(storage: Any, tensors: list[Tensor]) -> int:
    """Return how many bytes of a storage belong to some tensor."""
    spans = []
    for tensor in tensors:
        size = tensor.numel() * tensor.element_size()
        if not tensor.is_contiguous():
            reach = sum((n - 1) * s for n, s in zip(tensor.shape, tensor.stride(), strict=True))
            if size and (reach + 1) * tensor.element_size() != size:
                # Strided with gaps, or expanded: counted element by element.
                flat = torch.empty(0, dtype=torch.uint8, device="cpu")
                flat.set_(storage, 0, (storage.nbytes(),), (1,))
                return flat.numel() - cover(flat, tensors).missing
        start = tensor.data_ptr()
        spans.append((start, start + size))
    covered, end = 0, 0
    for start, stop in sorted(spans):
        covered += max(0, stop - max(start, end))
        end = max(end, stop)
    return covered
