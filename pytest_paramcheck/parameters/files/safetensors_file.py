"""Files of the safetensors format: a header that says where each tensor lies, then the bytes.

Read here and not by the library: its reader asks the system to read the whole file ahead (6
seconds for 10 GB of which nobody asked for a value), and whoever looks at names and shapes needs
no extra. A tensor's bytes are read when its values are. What is written goes through the library.
"""

from __future__ import annotations

import json
import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import plural

SUFFIX = ".safetensors"
INSTALL = "pip install 'pytest-paramcheck[safetensors]'"

#: The library's own bound: a header that announces more is not a header.
_LARGEST_HEADER = 100_000_000
_DTYPES = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U64": "uint64",
    "U32": "uint32",
    "U16": "uint16",
    "U8": "uint8",
    "BOOL": "bool",
    "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
}


class FormatError(Exception):
    """What of a file is not as the format says."""


def safetensors_torch() -> Any:
    """Return the module ``safetensors.torch``, or raise the error that says how to install it."""
    try:
        import safetensors.torch
    except ImportError:
        raise ParamCheckUsageError(
            f"this needs safetensors, which is not installed: {INSTALL}"
        ) from None
    return safetensors.torch


def read_safetensors(file: Path) -> dict[str, Tensor]:
    """Return the tensors of a file, mapped: their bytes are read when their values are.

    Raises :class:`FormatError` where the header does not describe the file to its last byte.
    """
    with file.open("rb") as opened:
        length = int.from_bytes(opened.read(8), "little")
        size = opened.seek(0, 2)
        if length > min(_LARGEST_HEADER, size - 8):
            raise FormatError("the file ends before its header does")
        opened.seek(8)
        header = _parsed(opened.read(length))
    begin = 8 + length
    described = sorted(header.items(), key=lambda item: item[1][2:])
    end = 0
    for name, (_, _, start, stop) in described:
        if start != end:
            raise FormatError(
                f"{name!r} begins at byte {start:,}, what is before it ends at {end:,}"
            )
        end = stop
    if begin + end != size:
        missing, more = begin + end - size, size - begin - end
        raise FormatError(
            f"it is truncated: {plural(missing, 'byte')} of {begin + end:,} are missing"
            if missing > 0
            else f"{plural(more, 'byte')} more than its tensors have"
        )
    storage: Any = torch.UntypedStorage.from_file(str(file), False, size) if end else None
    tensors = {}
    for name, (dtype, shape, start, stop) in header.items():
        if stop == start or storage is None:
            tensors[name] = torch.empty(shape, dtype=dtype, device="cpu")
            continue
        flat = torch.empty(0, dtype=torch.uint8, device="cpu")
        flat.set_(storage, begin + start, (stop - start,), (1,))
        if (begin + start) % dtype.itemsize:  # a header that was not padded: read this one
            flat = flat.clone()
        tensors[name] = flat.view(dtype).view(shape)
    return tensors


def _parsed(text: bytes) -> dict[str, tuple[torch.dtype, list[int], int, int]]:
    try:
        header = json.loads(text)
        found = {
            name: (said["dtype"], list(said["shape"]), *said["data_offsets"])
            for name, said in header.items()
            if name != "__metadata__"
        }
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise FormatError("its header is not one of safetensors") from None
    described = {}
    for name, (kind, shape, *offsets) in found.items():
        if len(offsets) != 2 or not all(type(n) is int and n >= 0 for n in (*shape, *offsets)):
            raise FormatError(f"its header does not say where {name!r} is")
        dtype = getattr(torch, _DTYPES.get(kind, ""), None) if isinstance(kind, str) else None
        if dtype is None:
            shown = kind if isinstance(kind, str) and re.fullmatch(r"\w{1,20}", kind) else "?"
            raise FormatError(f"{name!r} has the dtype {shown}, which torch does not have")
        if math.prod(shape) * dtype.itemsize != offsets[1] - offsets[0]:
            raise FormatError(
                f"{name!r} of shape {shape} has {plural(offsets[1] - offsets[0], 'byte')}, "
                f"not {math.prod(shape) * dtype.itemsize:,}"
            )
        described[name] = (dtype, shape, offsets[0], offsets[1])
    return described
