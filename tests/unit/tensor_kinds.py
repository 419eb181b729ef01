"""One tensor of every kind that a parameter or buffer can be, for the tests that need them all.

A new kind is one row here; what reads it is one place in ``parameters/tensors``.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
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


@dataclass(frozen=True)
class Block:
    """An object in a flatten context."""

    size: int


class Scaled(Wrapper):
    """A wrapper whose values follow from what stands in its flatten context as well."""

    context: tuple[Any, ...]

    @staticmethod
    def __new__(cls, inner: Tensor, *context: Any) -> Scaled:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, inner.shape, dtype=torch.float32, device=inner.device
        )

    def __init__(self, inner: Tensor, *context: Any) -> None:
        self.inner = inner
        self.context = context

    def __tensor_flatten__(self) -> tuple[list[str], Any]:  # type: ignore[override]
        return ["inner"], (*self.context, {"requires_grad": self.requires_grad})

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten.detach.default:
            return cls(args[0].inner.detach(), *args[0].context)
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


def shrunk() -> Tensor:
    """A transposed view of which only the beginning is still there."""
    tensor = torch.ones(9)[3:].view(3, 2).t()
    tensor.untyped_storage().resize_(20)
    return tensor


def inference(values: Tensor) -> Tensor:
    with torch.inference_mode():
        return values.clone()


@dataclass(frozen=True)
class Kind:
    """A kind of tensor: ``of`` makes one that holds what a plain 2x3 tensor holds, as far as
    its shape and dtype can. A call makes one more with ones on the diagonal."""

    of: Callable[[Tensor], Tensor]
    copied: bool = True  # torch has a deep copy of it
    computes: bool = True  # it takes part in arithmetic

    def __call__(self) -> Tensor:
        return self.of(torch.eye(2, 3))


#: Kinds whose values can be read.
WITH_VALUES: dict[str, Kind] = {
    "float32": Kind(lambda values: values.clone()),
    "parameter": Kind(lambda values: nn.Parameter(values.clone())),
    "bfloat16": Kind(lambda values: values.bfloat16()),
    "float64": Kind(lambda values: values.double()),
    "float8_e4m3fn": Kind(lambda values: values.to(torch.float8_e4m3fn)),
    "float8_e5m2": Kind(lambda values: values.to(torch.float8_e5m2)),
    "complex64": Kind(lambda values: torch.complex(values, values)),
    "complex128": Kind(lambda values: values.to(torch.complex128)),
    "conjugated": Kind(lambda values: torch.complex(values, values).conj()),
    "negated": Kind(lambda values: torch.complex(values, -values).conj().imag),
    "bool": Kind(lambda values: values == 1),
    "uint8": Kind(lambda values: values.to(torch.uint8)),
    "int16": Kind(lambda values: values.to(torch.int16)),
    "int64": Kind(lambda values: values.to(torch.int64)),
    "scalar": Kind(lambda values: values[0, 0].clone()),
    "expanded": Kind(lambda values: values[:1].clone().expand(2, 3)),
    "transposed": Kind(lambda values: values.t().contiguous().t()),
    "strided": Kind(lambda values: torch.empty(4, 6)[::2, ::2].copy_(values)),
    "inference": Kind(inference),
    "sparse_coo": Kind(lambda values: values.to_sparse()),
    "sparse_csr": Kind(lambda values: quiet(values.to_sparse_csr), copied=False),
    "sparse_csc": Kind(lambda values: quiet(values.to_sparse_csc), copied=False),
    "sparse_bsr": Kind(lambda values: quiet(lambda: values.to_sparse_bsr((1, 3))), copied=False),
    "sparse_bsc": Kind(lambda values: quiet(lambda: values.to_sparse_bsc((1, 3))), copied=False),
    "mkldnn": Kind(lambda values: values.to_mkldnn(), copied=False),
    "quantized": Kind(
        lambda values: quiet(lambda: torch.quantize_per_tensor(values, 0.5, 1, torch.qint8)),
    ),
    "quantized_per_channel": Kind(
        lambda values: quiet(
            lambda: torch.quantize_per_channel(
                values, torch.tensor([0.5, 1.0]), torch.tensor([0, 1]), 0, torch.quint8
            )
        ),
    ),
    "wrapper": Kind(lambda values: Wrapper(values.clone()), copied=False, computes=False),
    "scaled": Kind(
        lambda values: Scaled(values.to(torch.int8), 0.5, {"zero": 3}), copied=False, computes=False
    ),
    "wrapper_of_wrapper": Kind(
        lambda values: Wrapper(Wrapper(values.clone())), copied=False, computes=False
    ),
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
    "shrunk": (shrunk, "its memory was shrunk: the storage behind it ends before it does"),
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
