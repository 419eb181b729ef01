"""Ordinary tensors in host memory compared where they lie: what nearly all parameters are.

Reading both sides once is all that it costs. ``torch.equal`` takes 1.7 times as long, on the
fastest of its dtypes, and the calls around it ten times as long as a small tensor's bytes.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor

from .memory import PLAIN_TYPES, in_transform


def _memcmp() -> Callable[[int, int, int], int] | None:
    try:
        compare = ctypes.CDLL(None).memcmp
    except (TypeError, OSError, AttributeError):  # no C library to be had by this way
        return None
    compare.argtypes = [ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t]
    compare.restype = ctypes.c_int
    return compare


_compare = _memcmp()


def plain_address(tensor: Tensor) -> int | None:
    """Return where a tensor's bytes lie, one after the other; None for every other kind."""
    if (
        type(tensor) not in PLAIN_TYPES
        or not tensor.is_cpu
        or in_transform(tensor)
        or tensor.layout is not torch.strided
        or tensor.is_nested
        or tensor.is_quantized
        or not tensor.is_contiguous()
        or tensor.is_neg()
        or tensor.is_conj()
    ):
        return None
    try:
        freed = not tensor.untyped_storage().data_ptr()
    except RuntimeError:
        return None
    return None if freed else tensor.data_ptr()


def same_bytes(a: Tensor, b: Tensor) -> bool | None:
    """Whether two ordinary tensors have one shape, dtype and content; None for other kinds.

    Where it says True or False, ``same_bits`` would too.
    """
    here, there = plain_address(a), plain_address(b)
    if here is None or there is None or _compare is None:
        return None
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    return here == there or _compare(here, there, a.numel() * a.element_size()) == 0


def same_at(here: int, there: int, size: int) -> bool | None:
    """Whether two places in host memory hold the same bytes; None where that cannot be told."""
    return None if _compare is None else _compare(here, there, size) == 0
