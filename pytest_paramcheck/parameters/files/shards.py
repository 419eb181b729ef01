"""A checkpoint in several files: the index that says what is in which, and how it is found."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import shorten
from .damage import DamagedError
from .dcp import METADATA, SHARD
from .paths import reason_of

INDEX = ".index.json"
#: What hubs and trainers call the one checkpoint of a folder, the best format first.
_NAMES = (
    *("model.safetensors.index.json", "model.safetensors"),
    *("diffusion_pytorch_model.safetensors.index.json", "diffusion_pytorch_model.safetensors"),
    *("adapter_model.safetensors", "pytorch_model.bin.index.json", "pytorch_model.bin"),
    "adapter_model.bin",
)
_SUFFIXES = (".safetensors", ".pt", ".pth", ".bin", ".ckpt")
_NUMBERED = re.compile(r"(.*)-(\d+)-of-(\d+)(\.\w+)")


@dataclass(frozen=True)
class Shards:
    """The files of a checkpoint: which name is in which, as its index says."""

    index: Path
    weight_map: dict[str, str]
    names_of: dict[Path, list[str]] = field(default_factory=dict)


def is_index(file: Path) -> bool:
    """Whether a file is the index of others, by its name."""
    return file.name.endswith(INDEX)


def read_index(index: Path) -> Shards:
    """Return what an index says; :class:`DamagedError` where it is not one."""
    try:
        text = index.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        text = ""
    except OSError as error:
        raise ParamCheckUsageError(f"{index} cannot be read: {reason_of(error)}") from None
    try:
        weight_map = json.loads(text)["weight_map"]
        names_of: dict[Path, list[str]] = {}
        for name, file in weight_map.items():
            # An index names files beside it; what leads elsewhere is not part of the checkpoint.
            if not file or Path(file).name != file:
                raise ValueError(file)
            names_of.setdefault(index.parent / file, []).append(name)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        found = "it is not an index: no 'weight_map' of names to files beside it"
        raise DamagedError(index, "damaged", f"{index}: {found}", found=found) from None
    if not names_of:
        found = "its 'weight_map' is empty"
        raise DamagedError(index, "damaged", f"{index}: {found}", found=found)
    return Shards(index, weight_map, names_of)


def in_folder(folder: Path) -> Path:
    """Return the checkpoint file, or the index, that a folder is meant to stand for."""
    try:
        names = sorted(entry.name for entry in folder.iterdir() if entry.is_file())
    except OSError as error:
        raise ParamCheckUsageError(f"{folder} cannot be read: {reason_of(error)}") from None
    for name in _NAMES:
        if name in names:
            return folder / name
    if any(name.endswith(SHARD) for name in names):
        found = f"it has shards and no {METADATA}, which is written last: the save did not finish"
        raise DamagedError(folder, "damaged", f"{folder}: {found}", found=found)
    indices = [name for name in names if name.endswith(INDEX)]
    files = indices or [name for name in names if name.endswith(_SUFFIXES)]
    if len(files) == 1:
        return folder / files[0]
    if not files:
        raise ParamCheckUsageError(f"{folder} is a folder without a checkpoint file in it")
    raise ParamCheckUsageError(
        f"{folder} is a folder; name the checkpoint file in it: {shorten(files, 4)}"
    )


def left_over(shards: Shards) -> list[Path]:
    """Return files that are numbered as the shards are and that the index does not name."""
    patterns = {
        (match[1], match[3], match[4])
        for file in shards.names_of
        if (match := _NUMBERED.fullmatch(file.name))
    }
    return [
        file
        for file in sorted(shards.index.parent.iterdir())
        if file not in shards.names_of
        and (match := _NUMBERED.fullmatch(file.name))
        and (match[1], match[3], match[4]) in patterns
    ]
