"""Whether two tensors differ by no more than that one was rounded to a narrower dtype on the way.

Tests: ``tests/unit/test_rounded.py``.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import dtype_name
from ..parameters.tensors.memory import PLAIN_TYPES

#: What checkpoints are saved in to be smaller, the widest first.
_NARROWER = (torch.float32, torch.float16, torch.bfloat16)
#: Fewer values may be those of a narrower dtype by chance.
_LEAST = 2
_MOST = 1 << 24


def rounded(a: Tensor, b: Tensor, sides: tuple[str, str]) -> str:
    """Return which of two tensors of one dtype is the other one rounded, or ``""``.

    ``rounded to bfloat16 in the first``: bit for bit what a cast there and back makes of it.
    """
    if not (_is_plain(a) and _is_plain(b)) or not _LEAST <= a.numel() <= _MOST:
        return ""
    with torch.no_grad():
        a, b = a.detach().cpu(), b.detach().cpu()
        for narrow in _NARROWER:
            if narrow.itemsize >= a.dtype.itemsize:
                continue
            for one, other, side in ((a, b, sides[0]), (b, a, sides[1])):
                if torch.equal(one, other.to(narrow).to(a.dtype)):
                    return f"rounded to {dtype_name(narrow)} {side}"
    return ""


def _is_plain(tensor: Tensor) -> bool:
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.layout is torch.strided
        and tensor.dtype in (torch.float32, torch.float64)
        and not no_values(tensor)
    )
