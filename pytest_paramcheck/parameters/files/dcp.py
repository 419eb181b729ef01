"""Folders of torch.distributed.checkpoint: written by all ranks, read by each for itself.

Names and shapes are in the metadata, and a tensor's values are read when they are asked for. The
metadata is a pickle. It is read by an unpickler that knows the classes torch writes there and no
other, so that reading a folder runs nothing that is in it.

Tests: ``tests/ranks`` and ``tests/unit/test_dcp.py``.
"""

from __future__ import annotations

import io
import math
import pickle
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from enum import Enum
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line
from ..tensors.sharded import is_dtensor
from .damage import DamagedError, refused_name

METADATA = ".metadata"
SHARD = ".distcp"


def is_dcp(path: Path) -> bool:
    """Whether a path is a folder that torch.distributed.checkpoint wrote."""
    try:
        return path.is_dir() and (path / METADATA).is_file()
    except (OSError, ValueError):
        return False  # a name that no file can have: that is said where it is opened


class _Metadata(pickle.Unpickler):
    """Reads what torch.distributed.checkpoint writes, and refuses every other class."""

    def find_class(self, module: str, name: str) -> Any:
        if module == "pathlib._local":  # where Python 3.13 keeps it, and 3.13 alone
            module = "pathlib"
        plain = module in _PLAIN and name in _PLAIN[module]
        if plain or (module in _MODULES and not name.startswith("__")):
            return super().find_class(module, name)
        if module == "torch" and isinstance(getattr(torch, name, None), _CONSTANTS):
            return getattr(torch, name)
        if (module, name) == ("builtins", "getattr"):
            return _member_of  # so the first releases of Python 3.11 write members of an enum
        raise _RefusedError(f"it names {module}.{name}, which metadata never does")


class _RefusedError(pickle.UnpicklingError):
    """The metadata names something that would be run."""


def _member_of(owner: Any, name: Any) -> Any:
    """Return a member of an enum, and nothing else that getattr would."""
    if isinstance(owner, type) and issubclass(owner, Enum) and name in owner.__members__:
        return owner[name]
    raise _RefusedError("it names builtins.getattr, which metadata never does")


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
    """Return the metadata of a folder; raise :class:`DamagedError` where it is damaged."""
    try:
        data = (folder / METADATA).read_bytes()
        metadata = _Metadata(io.BytesIO(data)).load()
        dict(metadata.state_dict_metadata)
    except Exception as error:  # a pickle raises whatever its bytes say
        found = first_line(error, 160) or type(error).__name__
        raise DamagedError(
            folder / METADATA,
            "code" if isinstance(error, _RefusedError) else "damaged",
            f"{folder} is not a readable folder of torch.distributed.checkpoint: {found}",
            found=found,
        ) from None
    return metadata


def read_dcp(
    folder: Path, like: Mapping[str, Tensor | None], key: str | None = None
) -> dict[str, Tensor]:
    """Return the tensors of a folder, those of which ``like`` has a shard sharded in that way.

    Each rank reads its own part, without communication. ``key`` is where in the folder to look:
    ``{"model": ...}`` was saved as ``model.emb.weight``.
    """
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
    _load(folder, metadata, wanted)
    return {name.removeprefix(prefix): tensor for name, tensor in wanted.items()}


def _load(folder: Path, metadata: Any, wanted: dict[str, Tensor]) -> None:
    checkpoint: Any = import_module("torch.distributed.checkpoint")  # imported by who uses it
    for file, (kind, why) in _broken_files(folder, metadata, wanted).items():
        raise DamagedError(file, kind, f"{folder} cannot be read: {file.name}: {why}", found=why)
    reader: Any = checkpoint.FileSystemReader(folder)
    reader.read_metadata = lambda *_, **__: _with_id(metadata, reader)
    try:
        with quiet():
            checkpoint.load(wanted, storage_reader=reader, no_dist=True)
    except (Exception, checkpoint.CheckpointException) as error:
        found = cause_of(error)
        raise DamagedError(
            folder, "damaged", f"{folder} cannot be read: {found}", found=found
        ) from None


def _with_id(metadata: Any, reader: Any) -> Any:
    if getattr(metadata, "storage_meta", None) is not None:
        metadata.storage_meta.load_id = getattr(reader, "load_id", None)
    return metadata


def cause_of(error: BaseException) -> str:
    """Return what went wrong on the first rank that torch names, or the error itself."""
    failures = getattr(error, "failures", None)
    if failures:
        error = next(iter(failures.values()))[0]
    if isinstance(error, pickle.UnpicklingError):
        return "what lies there is no tensor that torch saved"  # torch tells of its new default
    said = first_line(error, 160)
    return f"{type(error).__name__}: {said}" if said else type(error).__name__


@contextmanager
def quiet() -> Iterator[None]:
    """Leave out what torch says where there is no process group: that there is none."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@dataclass
class Folder:
    """What a folder holds: names and shapes at once, values as they are asked for.

    ``held`` is nested as what was saved was. A tensor in it has memory, which nobody wrote to;
    what was saved as bytes (a count, a string) is not read.
    """

    path: Path
    metadata: Any
    held: dict[str, Any] = field(default_factory=dict)
    _keys: dict[int, tuple[str, Tensor]] = field(default_factory=dict)

    def read(self, tensors: Iterable[Tensor | None]) -> None:
        """Read the values of these tensors of ``held``, those that were not read yet."""
        found = (self._keys.pop(id(tensor), None) for tensor in tensors)
        if wanted := dict(one for one in found if one is not None):
            _load(self.path, self.metadata, wanted)

    def add(self, name: str, path: Iterable[object], value: Any) -> None:
        """Put a value where it was in what was saved."""
        *above, last = map(str, path)
        inner = self.held
        for part in above:
            below = inner.setdefault(part, {})
            if not isinstance(below, dict):
                return  # a name that is also the beginning of others
            inner = below
        inner[last] = value
        if isinstance(value, Tensor):
            self._keys[id(value)] = name, value


def open_dcp(path: Path) -> Folder:
    """Return what a folder holds; raise :class:`DamagedError` where its metadata is damaged."""
    folder = Folder(path, read_metadata(path))
    paths = getattr(folder.metadata, "planner_data", None)
    for name, said in folder.metadata.state_dict_metadata.items():
        size = getattr(said, "size", None)
        # What was saved without being flattened has its own keys.
        where = paths.get(name, (name,)) if isinstance(paths, Mapping) else (name,)
        value: Any = b""
        if size is not None:
            value = torch.empty(size, dtype=said.properties.dtype, device="cpu")
        folder.add(name, where, value)
    return folder


def damages_of(folder: Folder) -> list[DamagedError]:
    """Return what is wrong with a folder: files that are not there or too short, chunks that were
    never written."""
    path, metadata = folder.path, folder.metadata
    stored = getattr(metadata, "storage_data", None) or {}
    found = [
        DamagedError(file, kind, f"{file}: {why}", found=why)
        for file, (kind, why) in _broken_files(path, metadata, metadata.state_dict_metadata).items()
    ]
    written: dict[str, int] = {}
    for at in stored:
        written[at.fqn] = written.get(at.fqn, 0) + 1
    for name, said in metadata.state_dict_metadata.items():
        chunks = getattr(said, "chunks", None)
        if chunks is None:
            continue
        whole, parts = math.prod(said.size), sum(math.prod(one.sizes) for one in chunks)
        if parts < whole or written.get(name, 0) < len(chunks):
            why = "some of its parts were not saved: not all ranks took part"
            found.append(DamagedError(path, "lacking", f"{name}: {why}", found=why, names=(name,)))
    return found


def code_in(folder: Folder) -> list[DamagedError]:
    """Return what was saved as bytes and names code: torch runs it when it loads the folder."""
    found = []
    for at, info in (getattr(folder.metadata, "storage_data", None) or {}).items():
        said = folder.metadata.state_dict_metadata.get(at.fqn)
        if said is None or hasattr(said, "size") or getattr(info, "transform_descriptors", None):
            continue
        with (folder.path / info.relative_path).open("rb") as opened:
            opened.seek(info.offset)
            data = io.BytesIO(opened.read(info.length))
        try:
            torch.load(data, map_location="cpu", weights_only=True)
        except Exception as error:
            if refused := refused_name(str(error)):
                why, names = f"reading it runs {refused}", (at.fqn,)
                found.append(DamagedError(folder.path, "pickled", why, found=why, names=names))
    return found


def shards_of(folder: Folder) -> set[str]:
    """Return the names of the files that the metadata names."""
    stored = getattr(folder.metadata, "storage_data", None) or {}
    return {info.relative_path for info in stored.values()}


def _broken_files(folder: Path, metadata: Any, names: Iterable[str]) -> dict[Path, tuple[Any, str]]:
    """Return the files in which names lie and that cannot hold them, with what is wrong."""
    ends: dict[str, int] = {}
    asked = set(names)
    for at, info in (getattr(metadata, "storage_data", None) or {}).items():
        file, offset, length = (
            getattr(info, one, None) for one in ("relative_path", "offset", "length")
        )
        if at.fqn in asked and isinstance(file, str) and isinstance(offset, int):
            ends[file] = max(ends.get(file, 0), offset + (length or 0))
    broken: dict[Path, tuple[Any, str]] = {}
    for file, end in sorted(ends.items()):
        path = folder / file
        try:
            size = path.stat().st_size
        except OSError:
            broken[path] = "absent", f"{METADATA} names it, and it is not there"
            continue
        if size < end:
            broken[path] = (
                "damaged",
                f"it is truncated: {end - size:,} of {end:,} bytes are missing",
            )
    return broken
