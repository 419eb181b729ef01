"""One tensor of every kind that a parameter or buffer can be, for the tests that need them all."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode


class Wrapper(Tensor):
    """A traceable wrapper subclass: its bytes are those of ``inner``."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Wrapper:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, inner.shape, dtype=inner.dtype, device=inner.device
        )

    def __init__(self, inner: Tensor) -> None:
        self.inner = inner

    def __tensor_flatten__(self) -> tuple[list[str], None]:
        return ["inner"], None

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner.detach())
        raise NotImplementedError(f"{cls.__name__} does not know {func}")


class Opaque(Wrapper):
    """A wrapper subclass that does not say what it wraps, and computes nothing."""

    __tensor_flatten__ = None  # type: ignore[assignment]

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        raise NotImplementedError(f"{cls.__name__} does not know {func}")


def quiet(build: Callable[[], Tensor]) -> Tensor:
    """Build without torch's announcements (sparse CSR is beta, quantized is deprecated, ...)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return build()


def fake() -> Tensor:
    with FakeTensorMode():
        return torch.ones(2, 3)


def freed() -> Tensor:
    """A view whose storage was freed, as FSDP leaves them between two uses."""
    tensor = torch.ones(9)[3:].view(2, 3)
    tensor.untyped_storage().resize_(0)
    return tensor


def inference() -> Tensor:
    with torch.inference_mode():
        return torch.eye(2, 3)


#: Kinds whose values can be read. Each call builds one more with the same values.
WITH_VALUES: dict[str, Callable[[], Tensor]] = {
    "float32": lambda: torch.eye(2, 3),
    "parameter": lambda: nn.Parameter(torch.eye(2, 3)),
    "bfloat16": lambda: torch.eye(2, 3, dtype=torch.bfloat16),
    "float64": lambda: torch.eye(2, 3, dtype=torch.float64),
    "float8_e4m3fn": lambda: torch.eye(2, 3).to(torch.float8_e4m3fn),
    "float8_e5m2": lambda: torch.eye(2, 3).to(torch.float8_e5m2),
    "complex64": lambda: torch.eye(2, 3) + 1j * torch.eye(2, 3),
    "complex128": lambda: torch.eye(2, 3, dtype=torch.complex128),
    "conjugated": lambda: (torch.eye(2, 3) + 1j * torch.eye(2, 3)).conj(),
    "negated": lambda: (torch.eye(2, 3) + 1j * torch.eye(2, 3)).conj().imag,
    "bool": lambda: torch.eye(2, 3, dtype=torch.bool),
    "uint8": lambda: torch.eye(2, 3, dtype=torch.uint8),
    "int16": lambda: torch.eye(2, 3, dtype=torch.int16),
    "int64": lambda: torch.eye(2, 3, dtype=torch.int64),
    "scalar": lambda: torch.tensor(1.0),
    "expanded": lambda: torch.ones(1, 3).expand(2, 3),
    "transposed": lambda: torch.eye(3, 2).t(),
    "strided": lambda: torch.eye(4, 6)[::2, ::2],
    "inference": inference,
    "sparse_coo": lambda: torch.eye(2, 3).to_sparse(),
    "sparse_csr": lambda: quiet(lambda: torch.eye(2, 3).to_sparse_csr()),
    "sparse_csc": lambda: quiet(lambda: torch.eye(2, 3).to_sparse_csc()),
    "sparse_bsr": lambda: quiet(lambda: torch.eye(4).to_sparse_bsr((2, 2))),
    "sparse_bsc": lambda: quiet(lambda: torch.eye(4).to_sparse_bsc((2, 2))),
    "mkldnn": lambda: torch.eye(2, 3).to_mkldnn(),
    "quantized": lambda: quiet(
        lambda: torch.quantize_per_tensor(torch.eye(2, 3), 0.5, 1, torch.qint8)
    ),
    "quantized_per_channel": lambda: quiet(
        lambda: torch.quantize_per_channel(
            torch.eye(2, 3), torch.tensor([0.5, 1.0]), torch.tensor([0, 1]), 0, torch.quint8
        )
    ),
    "wrapper": lambda: Wrapper(torch.eye(2, 3)),
    "wrapper_of_wrapper": lambda: Wrapper(Wrapper(torch.eye(2, 3))),
}

#: Kinds whose values cannot be read, and why.
WITHOUT_VALUES: dict[str, tuple[Callable[[], Tensor], str]] = {
    "meta": (
        lambda: torch.empty(2, 3, device="meta"),
        "on meta, where tensors have no values",
    ),
    "fake": (fake, "a FakeTensor has no values"),
    "lazy": (
        nn.UninitializedParameter,
        "uninitialized: a lazy parameter gets its values in the first forward",
    ),
    "lazy_buffer": (
        lambda: nn.UninitializedBuffer(),
        "uninitialized: a lazy parameter gets its values in the first forward",
    ),
    "wrapped_meta": (
        lambda: Wrapper(torch.empty(2, 3, device="meta")),
        "on meta, where tensors have no values",
    ),
    "opaque": (
        lambda: Opaque(torch.eye(2, 3)),
        "Opaque does not say which tensors hold its values",
    ),
    "freed": (freed, "its memory was freed: the storage behind it is empty"),
    "nested": (
        lambda: quiet(lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])),
        "a nested tensor has no one shape to read it by",
    ),
    "jagged": (
        lambda: quiet(
            lambda: torch.nested.nested_tensor([torch.ones(2), torch.ones(3)], layout=torch.jagged)
        ),
        "a nested tensor has no one shape to read it by",
    ),
}

EVERY_KIND: dict[str, Callable[[], Tensor]] = {
    **WITH_VALUES,
    "empty": lambda: torch.empty(0, 3),
    **{name: build for name, (build, _) in WITHOUT_VALUES.items()},
}
