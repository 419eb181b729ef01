"""Folders of torch.distributed.checkpoint: written by all ranks, read by each for itself.

Its metadata is a pickle. It is read by an unpickler that knows the classes torch writes there and
no other, so that reading a folder runs nothing that is in it.

Tests: ``tests/ranks`` and ``tests/unit/test_dcp.py``.
"""

from __future__ import annotations

import io
import pickle
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line
from ..tensors.sharded import (
    exchange,
    group_of_call,
    is_dtensor,
    local_of,
    tells_others,
    writes_here,
)

METADATA = ".metadata"


def is_dcp(path: Path) -> bool:
    """Whether a path is a folder that torch.distributed.checkpoint wrote."""
    try:
        return path.is_dir() and (path / METADATA).is_file()
    except (OSError, ValueError):
        return False  # a name that no file can have: that is said where it is opened


class _Metadata(pickle.Unpickler):
    """Reads what torch.distributed.checkpoint writes, and refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        plain = module in _PLAIN and name in _PLAIN[module]
        if plain or (module in _MODULES and not name.startswith("__")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), _CONSTANTS):
            return getattr(torch, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}, which metadata never does")


_MODULES = frozenset(
    {"torch.distributed.checkpoint.metadata", "torch.distributed.checkpoint.filesystem"}
)
_PLAIN = {
    "torch": {"Size"},
    "torch.serialization": {"_get_layout"},
    "torch._utils": {"_rebuild_dtype"},
    "collections": {"OrderedDict"},
    "builtins": {"set", "frozenset"},
    "pathlib": {"PosixPath", "PurePosixPath", "Path", "WindowsPath"},
}
_CONSTANTS = (torch.dtype, torch.layout, torch.memory_format)


def read_metadata(folder: Path) -> Any:
    """Return the metadata of a folder; raise :class:`ParamCheckUsageError` where it is damaged."""
    try:
        data = (folder / METADATA).read_bytes()
        return _Metadata(io.BytesIO(data)).load()
    except Exception as error:  # a pickle raises whatever its bytes say
        raise ParamCheckUsageError(
            f"{folder} is not a readable folder of torch.distributed.checkpoint: "
            f"{first_line(error, 160) or type(error).__name__}"
        ) from None


def read_dcp(
    folder: Path, like: Mapping[str, Tensor | None], key: str | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a folder, those of which ``like`` has a shard sharded in that way.

    Each rank reads its own part, without communication. ``key`` is where in the folder to look:
    ``{"model": ...}`` was saved as ``model.emb.weight``.
    """
    checkpoint: Any = import_module("torch.distributed.checkpoint")  # imported by who uses it

    metadata = read_metadata(folder)
    prefix = f"{key}." if key else ""
    wanted: dict[str, Tensor] = {}
    for name, said in metadata.state_dict_metadata.items():
        size = getattr(said, "size", None)
        if not name.startswith(prefix) or size is None:
            continue
        model = like.get(name.removeprefix(prefix))
        dtype = said.properties.dtype
        if model is not None and is_dtensor(model) and model.shape == size:
            wanted[name] = torch.empty_like(model.detach(), dtype=dtype)
        else:
            wanted[name] = torch.empty(size, dtype=dtype, device="cpu")
    if not wanted:
        raise ParamCheckUsageError(
            f"{folder} holds no tensors{f' below {key!r}' if key else ''}: nothing to check"
        )
    reader: Any = checkpoint.FileSystemReader(folder)
    reader.read_metadata = lambda *_, **__: _with_id(metadata, reader)
    try:
        with _quiet():
            checkpoint.load(wanted, storage_reader=reader, no_dist=True)
    except (Exception, checkpoint.CheckpointException) as error:
        raise ParamCheckUsageError(f"{folder} cannot be read: {_cause(error)}") from None
    return {name.removeprefix(prefix): tensor for name, tensor in wanted.items()}


def _with_id(metadata: Any, reader: Any) -> Any:
    if getattr(metadata, "storage_meta", None) is not None:
        metadata.storage_meta.load_id = getattr(reader, "load_id", None)
    return metadata


def saved_and_loaded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Save tensors to a folder that all ranks of the running call share, and load them into others.

    What is loaded into was overwritten first: a load that does nothing would look like one that
    worked. A plain model is saved and loaded by each process alone.
    """
    checkpoint: Any = import_module("torch.distributed.checkpoint")  # imported by who uses it

    group, alone = group_of_call(), not tells_others()
    with _shared_folder() as folder, _quiet(), _told(checkpoint.CheckpointException):
        checkpoint.save(dict(state), checkpoint_id=folder, process_group=group, no_dist=alone)
        target = {name: _overwritten(tensor) for name, tensor in state.items()}
        checkpoint.load(target, checkpoint_id=folder, process_group=group, no_dist=alone)
    return target


@contextmanager
def _told(raised: type[BaseException]) -> Iterator[None]:
    """Say why torch could not: its own exception is none that tests would catch."""
    try:
        yield
    except raised as error:
        raise ParamCheckUsageError(
            f"torch.distributed.checkpoint cannot save and load it: {_cause(error)}"
        ) from None


def _cause(error: BaseException) -> str:
    """Return what went wrong on the first rank that torch names, or the error itself."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    said = first_line(error, 160)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Leave out what torch says where there is no process group: that there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _shared_folder() -> Iterator[str]:
    """Lend all ranks one temporary folder, which the first makes and removes after the last."""
    with ExitStack() as stack:
        own = stack.enter_context(tempfile.TemporaryDirectory()) if writes_here() else ""
        yield next(filter(None, exchange(own).values()))
        exchange(None)


def _overwritten(tensor: Tensor) -> Tensor:
    with torch.no_grad():
        other = tensor.detach().clone()
        local = local_of(other)
        if local.numel():
            flat = local.contiguous().view(-1).view(torch.uint8)
            local.view(-1).view(torch.uint8).copy_(flat.bitwise_not())
    return other
