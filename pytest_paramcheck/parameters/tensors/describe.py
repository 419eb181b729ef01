"""A tensor in a few words: ``Parameter 11x6 float32 cpu``."""

from __future__ import annotations

import types

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ...messages.wording import cut


def describe(tensor: Tensor | None) -> str:
    """Return kind, shape, dtype and device of a tensor of any kind; never its values."""
    if tensor is None:
        return "None"
    return f"{kind_of(tensor)} {shape_text(tensor)} {dtype_text(tensor)} {tensor.device}"


def kind_of(tensor: Tensor) -> str:
    """Return the class a user would name: ``Parameter``, ``Tensor``, ``DTensor``."""
    if is_lazy(tensor):
        return type(tensor).__name__
    if isinstance(tensor, nn.Parameter) and type(tensor) is not nn.Parameter:
        name = type(tensor).__name__
        return name if "Parameter" in name else f"Parameter {name}"
    return type(tensor).__name__


def shape_text(tensor: Tensor) -> str:
    """Return ``11x6``, ``scalar``, ``uninitialized`` or ``nested``."""
    if is_lazy(tensor):
        return "uninitialized"
    if tensor.is_nested:
        return "nested"  # its rows have shapes of their own; asking for one shape raises
    return "x".join(map(str, tensor.shape)) or "scalar"


def size_text(tensor: Tensor) -> str:
    """Return ``11x6``, and ``(4,)`` for one dimension: a bare 4 reads as a value or a count."""
    one = not is_lazy(tensor) and not tensor.is_nested and tensor.dim() == 1
    return f"({tensor.shape[0]},)" if one else shape_text(tensor)


def dtype_name(dtype: torch.dtype) -> str:
    """Return ``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")


def dtype_named(name: str) -> torch.dtype | None:
    """Return the dtype of a name, with or without ``torch.``; None where it is none's."""
    dtype = getattr(torch, name.removeprefix("torch."), None)
    return dtype if isinstance(dtype, torch.dtype) else None


def layout_name(layout: torch.layout) -> str:
    """Return ``sparse_coo`` for ``torch.sparse_coo``, ``mkldnn`` for ``torch._mkldnn``."""
    return str(layout).removeprefix("torch.").lstrip("_")


def dtype_text(tensor: Tensor) -> str:
    """Return the dtype without ``torch.``, and the layout where it is not strided."""
    dtype = dtype_name(tensor.dtype)
    return dtype if tensor.layout is torch.strided else f"{dtype} {layout_name(tensor.layout)}"


def kind_in_words(value: object) -> str:
    """Return what something is that should be a subject, a pair or a tensor: ``int 3``."""
    if isinstance(value, Tensor):
        return "a tensor"
    if isinstance(value, type):
        return f"the class {value.__name__}; build one: {value.__name__}(...)"
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return f"{type(value).__name__} {cut(repr(value), 40)}"
    if isinstance(value, (types.FunctionType, types.MethodType)):
        return f"the {type(value).__name__} {value.__name__}; call it: {value.__name__}()"
    if isinstance(value, torch.optim.Optimizer):
        return f"the optimizer {type(value).__name__}; pass the model that it steps"
    return type(value).__name__
