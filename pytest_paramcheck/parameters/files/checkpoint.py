"""Reading a checkpoint from disk: tensors on the cpu, mapped where possible, never pickled code.

Files of ``torch.save`` are read with ``weights_only=True``: a checkpoint is data, and a test
must not run code that came with it. A file that cannot be read is a usage error that says what
it is instead; it is opened for reading only.

Tests: ``tests/unit/test_loaded.py``, ``test_checkpoint_subject.py``.
"""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import did_you_mean, first_line, join_words, shorten
from ..tensors.describe import kind_in_words
from .damage import DamagedError, as_wrong_call, refused_name
from .dcp import Folder, is_dcp, open_dcp
from .nested import is_extra_state, mappings_below
from .paths import is_there, not_there, reason_of
from .safetensors_file import SUFFIX, FormatError, read_safetensors
from .shards import Shards, in_folder, is_index, read_index


def read_checkpoint(path: str | os.PathLike[str], key: str | None = None) -> Any:
    """Return what a checkpoint holds; whether that is a state_dict is not decided here.

    A path is a file (of ``torch.save`` or safetensors), the index of a checkpoint in several
    files, or a folder with one of these in it; ``key`` is where in the file to look.

    Raises :class:`ParamCheckUsageError` for a path that is missing, not a regular file (a pipe, a
    device), unreadable, for a folder in which nothing or too much is found, and for a file that is
    damaged, of another kind, or that holds more than tensors and plain Python values.
    """
    with as_wrong_call():
        found = locate(path)
        held = _merged(found) if isinstance(found, Shards) else read_file(found)
    return held if key is None else below(held, key, str(path))


def read_tensors(path: Path, key: str | None = None) -> tuple[Mapping[str, Any], Folder | None]:
    """Return the state_dict of a checkpoint: tensors by name, ``_extra_state`` and Nones; and
    where it is a folder whose values are still to be read, that folder.

    Raises :class:`ParamCheckUsageError` for one that holds more, with the keys below which
    there are tensors.
    """
    folder: Folder | None = None
    if is_dcp(path):
        with as_wrong_call():
            folder = open_dcp(path)
        held = folder.held if key is None else below(folder.held, key, str(path))
    else:
        held = read_checkpoint(path, key)
    where = path.name if key is None else f"{key!r} of {path.name}"
    if not isinstance(held, Mapping):
        raise ParamCheckUsageError(
            f"{where} is not a mapping of names to tensors but {kind_in_words(held)}"
        )
    for name, value in held.items():
        if isinstance(value, Tensor) or value is None or is_extra_state(name):
            continue
        above = f"{key}." if key else ""
        inside = [f"key={above + found!r}" for found, _ in mappings_below(held)]
        hint = f"; did you mean {join_words(inside[:3], 'or')}?" if inside else ""
        raise ParamCheckUsageError(f"{name!r} in {where} is not a tensor but {_kind(value)}{hint}")
    return held, folder


def _kind(value: object) -> str:
    return "bytes" if isinstance(value, bytes) else kind_in_words(value)


def locate(path: str | os.PathLike[str]) -> Path | Shards:
    """Return the one file that a path means, or the files of a checkpoint in several."""
    file = Path(os.fsdecode(path))
    if not is_there(file, str(file)):
        raise not_there(file, str(file))
    if file.is_dir():
        file = in_folder(file)
    return read_index(file) if is_index(file) else file


def _merged(shards: Shards) -> dict[str, Any]:
    merged: dict[str, Any] = {}
    for file, names in shards.names_of.items():
        held = read_shard(shards, file)
        for name in names:
            if name not in held:
                raise lacking(file, (name,))
            merged[name] = held[name]
    return {name: merged[name] for name in shards.weight_map}


def read_shard(shards: Shards, file: Path) -> Mapping[str, Any]:
    """Return what one file of several holds."""
    if not is_there(file, str(file)):
        raise DamagedError(
            file,
            "absent",
            f"{shards.index} names {file.name}, which is not there",
            found=f"{shards.index.name} names it, and it is not there",
        )
    held = read_file(file)
    if not isinstance(held, Mapping):
        raise DamagedError(
            file,
            "lacking",
            f"{file} holds no state_dict",
            found="it holds no state_dict",
        )
    return held


def lacking(file: Path, names: tuple[str, ...]) -> DamagedError:
    """Return the error for names that an index promises and the file does not have."""
    return DamagedError(
        file,
        "lacking",
        f"{file} has no {names[0]!r}, which the index says is in it",
        found=f"the index says it is in {file.name}, which does not have it",
        names=names,
    )


def below(held: Any, key: str, shown: str) -> Any:
    """Return what lies under a key of a file (``a.b``: under b in a), or raise the error that
    says which keys there are."""
    if isinstance(held, Mapping) and key in held:
        return held[key]
    inner = held
    for part in key.split("."):
        if not isinstance(inner, Mapping) or part not in inner:
            break
        inner = inner[part]
    else:
        return inner
    if not isinstance(held, Mapping):
        raise ParamCheckUsageError(
            f"key={key!r}: {shown} is not a mapping but {kind_in_words(held)}"
        )
    choices = [name for name, _ in mappings_below(held)] or [str(name) for name in held]
    near = did_you_mean(key, choices) or f" it has {shorten(choices, 5)}"
    raise ParamCheckUsageError(f"key={key!r} is not in {shown};{near}")


def read_file(file: Path) -> Any:
    """Return what one file holds."""
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
            size = opened.seek(0, os.SEEK_END)
    except OSError as error:
        raise ParamCheckUsageError(f"{file} cannot be read: {reason_of(error)}") from None
    kind = "safetensors" if file.suffix == SUFFIX else "torch.save"
    cannot = f"{file} cannot be read as a {kind} file"
    try:
        return read_safetensors(file) if file.suffix == SUFFIX else load_file(file)
    except ParamCheckUsageError:
        raise
    except Exception as error:
        # Readers raise whatever their parsers raise: RuntimeError, EOFError, KeyError,
        # UnpicklingError, UnicodeDecodeError, ... for one and the same damage.
        if other := _other_kind(file, start, size) or _scripted(error):
            raise DamagedError(file, "damaged", f"{cannot}: {other}", found=other) from None
        if refused := refused_name(str(error)):
            raise DamagedError(
                file,
                "code",
                f"{file} holds more than tensors and plain values, and reading it would run code "
                f"that it names ({refused}); if you trust it, pass the state_dict of "
                f"torch.load(path, weights_only=False) yourself",
                found=f"reading it runs {refused}",
            ) from None
        said = f"{type(error).__name__}: {first_line(error, 160) or 'no reason given'}"
        if isinstance(error, FormatError):
            said = first_line(error)
        found = f"it is damaged or another kind of file ({said})"
        raise DamagedError(file, "damaged", f"{cannot}: {found}", found=found) from None


def load_file(file: Path) -> Any:
    """Read a file of ``torch.save`` with ``weights_only``; errors are torch's own."""
    with warnings.catch_warnings():
        # Old formats warn about torch's own storage classes: nothing a test could change.
        warnings.simplefilter("ignore")
        # Only the zip format can be mapped; torch's older ones are read whole.
        mapped = zipfile.is_zipfile(file)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)


def _scripted(error: Exception) -> str:
    """Say that a file is a scripted or traced module, as torch says it in a paragraph."""
    if "TorchScript archive" not in str(error):
        return ""
    return "it is a TorchScript archive, code and all; save its state_dict() with torch.save"


def _other_kind(file: Path, start: bytes, size: int) -> str:
    """Return what a file is where its first bytes and its size tell, or ``""``."""
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file; run git lfs pull"
    if file.suffix == SUFFIX:
        return "it is a zip file, as torch.save writes" if start.startswith(b"PK") else ""
    if start[:1] == b"\x80" and start[1] > 2:  # torch.save's own, before it wrote zip files, are 2
        return "it is a pickle, which runs code as it is read; write its tensors with torch.save"
    # 8 bytes that say how long the JSON header is, then the header.
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length < size:
        return f"it looks like safetensors; name it {file.stem}{SUFFIX}"
    return ""
