"""Where a tensor's bytes are: its blocks of memory, for every kind of tensor that has some.

``data_ptr()`` alone says nothing: it is 0 for meta, fake, empty, DTensor and wrapper-subclass
tensors and raises for lazy, sparse and mkldnn ones. So a tensor is first taken apart (subclass
-> inner tensors, sparse -> indices and values) and each strided part is placed in an address
space: the device's own addresses where they are real (a tensor that came back through numpy
or dlpack has another storage over the same bytes), else its storage.

Tests: ``tests/unit/test_memory.py``, ``test_overlap.py`` and ``test_finite.py``.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import a_or_an, first_line
from .describe import layout_name
from .overlap import Layout, overlap, overlaps_itself

#: Devices on which ``data_ptr()`` is an address of the device. Elsewhere (mps: a handle) it is not.
ADDRESSED = frozenset({"cpu", "cuda", "xpu"})


#: Whose operations are torch's own; every other class may do with them what it likes.
PLAIN_TYPES = (torch.nn.Parameter, Tensor)


@dataclass(frozen=True, slots=True)
class MemoryBlock:
    """One strided part of a tensor: an address space and the bytes in it.

    ``keep`` holds what the address space is named after, so that its id is not recycled while
    the block exists.
    """

    space: tuple[str, int]
    layout: Layout
    keep: Any


@dataclass(frozen=True, slots=True)
class Memory:
    """The blocks of one tensor, or the reason why they cannot be asked for.

    A tensor without elements has no blocks: it shares memory with nothing.
    """

    blocks: tuple[MemoryBlock, ...]
    unknown: str = ""

    @property
    def key(self) -> tuple[tuple[tuple[str, int], Layout], ...]:
        """Equal for two tensors on exactly the same memory: offset, shape and strides."""
        return tuple((block.space, block.layout) for block in self.blocks)

    def overlaps(self, other: Memory) -> bool:
        """Whether some byte belongs to both."""
        return any(
            a.space == b.space and overlap(a.layout, b.layout)
            for a in self.blocks
            for b in other.blocks
        )

    def overlaps_itself(self) -> bool:
        """Whether two elements share a byte (stride 0, sliding windows)."""
        return any(overlaps_itself(block.layout) for block in self.blocks)


Storages = Callable[[Tensor], Iterable[Tensor] | None]
#: Who knows the inner tensors of a subclass (the hook ``pytest_paramcheck_storages``).
_openers: ContextVar[tuple[Storages, ...]] = ContextVar("paramcheck_openers", default=())


@contextmanager
def storage_openers(*openers: Storages) -> Iterator[None]:
    """Let these functions name the inner tensors of a tensor subclass inside the block; each
    returns None for what it does not know."""
    token = _openers.set(openers)
    try:
        yield
    finally:
        _openers.reset(token)


def memory_of(tensor: Tensor) -> Memory:
    """Return the memory of a tensor of any kind, or why it cannot be told.

    Raises only :class:`ParamCheckUsageError`, for a hook that answers wrongly.
    """
    try:
        parts = inner_tensors(tensor)
        if parts is not None:
            blocks: list[MemoryBlock] = []
            for part in parts:
                inner = memory_of(part)
                if inner.unknown:
                    return inner
                blocks += inner.blocks
            return Memory(tuple(blocks))
        if is_lazy(tensor):
            return Memory(())  # none before its first forward, so none in common with anything
        return _strided(tensor)
    except ParamCheckUsageError:
        raise  # a hook's wrong answer is not the tensor's
    except Exception as error:
        return Memory((), _why_unknown(tensor, error))


def _why_unknown(tensor: Tensor, error: Exception) -> str:
    if in_transform(tensor):
        return "inside torch.func.vmap or grad a tensor does not say where its memory is"
    if type(tensor) not in PLAIN_TYPES:
        return raised_by(tensor, error)
    # Opaque layouts (mkldnn, vendor backends) have no storage to ask.
    reason = first_line(error, 80) or type(error).__name__
    what = a_or_an(f"{layout_name(tensor.layout)} tensor")
    return f"{what} does not say where its memory is ({reason})"


def raised_by(tensor: Tensor, error: Exception) -> str:
    """Return what a tensor's class did instead of answering."""
    said = first_line(error, 80)
    raised = f"its class {type(tensor).__name__} raised {type(error).__name__}"
    return f"{raised}: {said}" if said else raised


def in_transform(tensor: Tensor) -> bool:
    """Whether it is the tensor of a running ``torch.func`` transform: it has no storage."""
    ask = getattr(getattr(torch._C, "_functorch", None), "is_functorch_wrapped_tensor", None)
    return ask is not None and bool(ask(tensor))


def inner_tensors(tensor: Tensor) -> list[Tensor] | None:
    """Return the tensors that hold a tensor's bytes, or None where it holds them itself.

    Wrapper subclasses: what the first of their readers names. Sparse: indices and values.
    """
    if type(tensor) not in PLAIN_TYPES:
        for opener in (*_openers.get(), *_WRAPPERS):
            named = opener(tensor)
            if named is not None:
                return list(named)
    layout = tensor.layout
    if layout is torch.strided:
        return None
    with torch.no_grad():
        if layout is torch.sparse_coo:
            return [tensor._indices(), tensor._values()]
        if layout in (torch.sparse_csr, torch.sparse_bsr):
            return [tensor.crow_indices(), tensor.col_indices(), tensor.values()]
        if layout in (torch.sparse_csc, torch.sparse_bsc):
            return [tensor.ccol_indices(), tensor.row_indices(), tensor.values()]
    return None


def _local_shard(tensor: Tensor) -> list[Tensor] | None:
    """A DTensor's own object: ``to_local()`` would make a new one at each call."""
    local = getattr(tensor, "_local_tensor", None)
    return [local] if isinstance(local, Tensor) else None


def _flattened(tensor: Tensor) -> list[Tensor] | None:
    """What a traceable wrapper subclass names itself."""
    flatten = getattr(tensor, "__tensor_flatten__", None)
    return [getattr(tensor, name) for name in flatten()[0]] if callable(flatten) else None


#: Who knows the inner tensors of which wrapper: a new kind is one more here.
_WRAPPERS: tuple[Storages, ...] = (_local_shard, _flattened)


def _strided(tensor: Tensor) -> Memory:
    if tensor.numel() == 0:
        return Memory(())
    device = tensor.device
    itemsize = tensor.element_size()
    strides = [stride * itemsize for stride in tensor.stride()]
    if has_address(tensor):
        space = (str(device), 0)
        layout = Layout.of(tensor.data_ptr(), tensor.shape, strides, itemsize)
        return Memory((MemoryBlock(space, layout, None),))
    if type(tensor) not in PLAIN_TYPES and _is_wrapper(tensor):
        said = f"{type(tensor).__name__} does not say which tensors hold its memory"
        return Memory((), said)
    storage = tensor.untyped_storage()
    # No real address: tensors share memory if they share the storage object. _cdata is the
    # address of torch's storage; without it, the Python object stands for the storage (torch
    # keeps one per storage) and is kept alive by the block.
    space = (f"storage on {device}", getattr(storage, "_cdata", id(storage)))
    start = int(tensor.storage_offset()) * itemsize
    return Memory((MemoryBlock(space, Layout.of(start, tensor.shape, strides, itemsize), storage),))


def has_address(tensor: Tensor) -> bool:
    """Whether a strided tensor's ``data_ptr()`` is an address where its bytes are.

    It is none on meta, for fake tensors and wrapper subclasses, and where the storage was freed
    (``storage.resize_(0)``, FSDP between two uses): there ``data_ptr()`` is the offset alone,
    so that two freed tensors would look like one memory.
    """
    if tensor.device.type not in ADDRESSED or is_fake(tensor):
        return False
    try:
        return tensor.untyped_storage().data_ptr() != 0
    except (RuntimeError, ValueError):
        return False  # wrapper subclasses: "an invalid python storage"


def in_storage(tensor: Tensor) -> bool:
    """Whether the storage of a plain strided tensor holds all its bytes.

    It does not where the storage was freed or shrunk (``storage.resize_()``). Torch looks at this
    when a view is made, and not when one is read: what comes then is what lies behind, or the end
    of the process.
    """
    size = tensor.untyped_storage().nbytes()
    contiguous = tensor.is_contiguous()
    if contiguous and not tensor.storage_offset() and tensor.nbytes <= size:
        return True  # nearly all of thousands
    if tensor.is_quantized or not tensor.numel():
        return size > 0 or not tensor.numel()  # of some, two elements lie in a byte
    reach = tensor.numel()
    if not contiguous:
        steps = zip(tensor.shape, tensor.stride(), strict=True)
        reach = 1 + sum((n - 1) * stride for n, stride in steps)
    return int(tensor.storage_offset() + reach) * tensor.element_size() <= size


def _is_wrapper(tensor: Tensor) -> bool:
    """Whether a subclass whose storage has no address may keep its bytes in other tensors.

    Torch lets a class make such a tensor (``_make_wrapper_subclass``) only where it dispatches
    operations itself; a fake tensor does so too, and has no bytes.
    """
    default = Tensor.__torch_dispatch__
    return type(tensor).__torch_dispatch__ is not default and not is_fake(tensor)


def is_fake(tensor: Tensor) -> bool:
    """Whether it is a FakeTensor: any device's name, no values, and a pointer it warns about."""
    module = sys.modules.get("torch._subclasses.fake_tensor")
    return module is not None and isinstance(tensor, module.FakeTensor)
