"""Reading a checkpoint from disk: tensors on the cpu, mapped where possible, never pickled code.

Files of ``torch.save`` are read with ``weights_only=True``: a checkpoint is data, and a test
must not run code that came with it. A file that cannot be read is a usage error that says what
it is instead; it is opened for reading only.

Tests: ``tests/unit/test_loaded.py``.
"""

from __future__ import annotations

import os
import re
import warnings
import zipfile
from pathlib import Path
from typing import Any

import torch

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line
from .files import is_there, not_there, reason_of

SAFETENSORS = ".safetensors"
INSTALL = "pip install 'pytest-paramcheck[safetensors]'"


def read_checkpoint(path: str | os.PathLike[str]) -> Any:
    """Return what a checkpoint file holds; whether that is a state_dict is not decided here.

    Raises :class:`ParamCheckUsageError` for a file that is missing, not a regular one (a folder,
    a pipe, a device), unreadable, damaged, of another kind, or that holds more than tensors and
    plain Python values.
    """
    file = Path(os.fsdecode(path))
    if not is_there(file, str(file)):
        raise not_there(file, str(file))
    if file.is_dir():
        raise ParamCheckUsageError(f"{file} is a folder; name the checkpoint file in it")
    try:
        with file.open("rb") as opened:
            start = opened.read(64)
            size = opened.seek(0, os.SEEK_END)
    except OSError as error:
        raise ParamCheckUsageError(f"{file} cannot be read: {reason_of(error)}") from None
    try:
        if file.suffix == SAFETENSORS:
            return _read_safetensors(file)
        return load_file(file)
    except ParamCheckUsageError:
        raise
    except Exception as error:
        # Readers raise whatever their parsers raise: RuntimeError, EOFError, KeyError,
        # UnpicklingError, SafetensorError, UnicodeDecodeError, ... for one and the same damage.
        kind = "safetensors" if file.suffix == SAFETENSORS else "torch.save"
        if other := _other_kind(file, start, size):
            raise ParamCheckUsageError(f"{file} cannot be read as a {kind} file: {other}") from None
        if refused := refused_name(str(error)):
            raise ParamCheckUsageError(
                f"{file} holds more than tensors and plain values, and reading it would run code "
                f"that it names ({refused}); if you trust it, pass the state_dict of "
                f"torch.load(path, weights_only=False) yourself"
            ) from None
        raise ParamCheckUsageError(
            f"{file} cannot be read as a {kind} file: it is damaged or another kind of file "
            f"({type(error).__name__}: {first_line(error, 160) or 'no reason given'})"
        ) from None


def safetensors_torch() -> Any:
    """Return the module ``safetensors.torch``, or raise the error that says how to install it."""
    try:
        import safetensors.torch
    except ImportError:
        raise ParamCheckUsageError(
            f"this needs safetensors, which is not installed: {INSTALL}"
        ) from None
    return safetensors.torch


def _read_safetensors(file: Path) -> Any:
    return safetensors_torch().load_file(file, device="cpu")


def load_file(file: Path) -> Any:
    """Read a file of ``torch.save`` with ``weights_only``; errors are torch's own."""
    with warnings.catch_warnings():
        # Old formats warn about torch's own storage classes: nothing a test could change.
        warnings.simplefilter("ignore")
        # Only the zip format can be mapped; torch's older ones are read whole.
        mapped = zipfile.is_zipfile(file)
        return torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)


def refused_name(text: str) -> str:
    """Return the class or function that weights_only refused, from torch's message, or ``""``."""
    found = re.search(r"GLOBAL (\S+)", text)
    return found.group(1) if found else ""


def _other_kind(file: Path, start: bytes, size: int) -> str:
    """Return what a file is where its first bytes and its size tell, or ``""``."""
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file; run git lfs pull"
    if file.suffix == SAFETENSORS:
        return "it is a zip file, as torch.save writes" if start.startswith(b"PK") else ""
    # 8 bytes that say how long the JSON header is, then the header.
    length = int.from_bytes(start[:8], "little")
    if start[8:9] == b"{" and length < size:
        return f"it looks like safetensors; name it {file.stem}{SAFETENSORS}"
    return ""
