"""One tensor as it was: the memory it lies on, what that holds, its graph, hooks and counter.

The object stays, on the same memory, with the same geometry; memory that several tensors share
is kept and written once. Nothing is written where nothing changed, nor where there is no
memory: a storage that was freed gets its size back first.

``_version``, by which a pending backward pass knows that what it saved was written, goes back
with the content: the user's own forward pass counts it up as well.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from ..tensors.content import no_values, same_bits, version_of
from ..tensors.memory import has_address, inner_tensors, is_fake, memory_of
from .containers import keep_container
from .undo import Restore, Undo

_INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_preserve_version = getattr(torch.autograd, "_unsafe_preserve_version_counter", None)
_plain = torch._C.DisableTorchFunctionSubclass


class _Cells:
    """The memory below a tensor: its size, what it holds, and whether that is back."""

    def __init__(self, label: str, alias: Tensor) -> None:
        self.label = label
        self.is_back = True
        self.storage = alias.untyped_storage()
        self.size = self.storage.nbytes()
        self.view = None if no_values(alias) or not alias.numel() else _written_as(alias)
        self.content = None if self.view is None else self.view.clone()

    def restore(self) -> None:
        self.is_back = False
        try:
            if self.storage.nbytes() != self.size:
                self.storage.resize_(self.size)
            if self.view is not None and self.content is not None:
                if self.storage.data_ptr() == 0:
                    raise RuntimeError("its memory was freed")
                if not torch.equal(self.view, self.content):
                    self.view.copy_(self.content)
        except Exception as error:
            raise RuntimeError(f"{self.label}: {error}") from error
        self.is_back = True


class _Opaque:
    """The content of a tensor without memory that could be asked for (mkldnn): as a whole."""

    def __init__(self, label: str, tensor: Tensor) -> None:
        self.label, self.tensor, self.is_back = label, tensor, True
        self.copy = tensor.detach().clone()

    def restore(self) -> None:
        self.is_back = False
        try:
            if not same_bits(self.tensor, self.copy):
                self.tensor.data = self.copy
        except Exception as error:
            raise RuntimeError(f"{self.label}: {error}") from error
        self.is_back = True


_Content: TypeAlias = _Cells | _Opaque
Parts: TypeAlias = Callable[[Tensor], list[Tensor] | None]


class _Rest:
    """What a tensor is beside its memory: class, attributes, hooks, graph, flag and counter."""

    __slots__ = (
        "attributes", "cells", "cls", "counter", "flag", "hooks", "label", "node", "tensor",
    )  # fmt: skip

    def __init__(self, tensor: Tensor, label: str, cells: list[_Content] | None) -> None:
        self.tensor, self.label, self.cells, self.cls = tensor, label, cells, type(tensor)
        self.flag, self.node = tensor.requires_grad, tensor.grad_fn
        self.attributes = keep_container(tensor.__dict__) if tensor.__dict__ else None
        self.hooks = [(h, keep_container(h) if h else None) for h in _hooks_of(tensor)]
        if self.hooks == _NO_HOOKS:
            self.hooks = _NO_HOOKS
        self.counter: Any = None
        if cells and _preserve_version is not None and version_of(tensor) is not None:
            self.counter = _preserve_version(tensor)  # notes it; ``__exit__`` sets it

    def __call__(self) -> None:
        tensor = self.tensor
        if type(tensor) is not self.cls:
            tensor.__class__ = self.cls
        if self.attributes is not None or tensor.__dict__:
            (self.attributes or tensor.__dict__.clear)()
        for name, now, (hooks, members) in zip(_HOOKS, _hooks_of(tensor), self.hooks, strict=True):
            if now and now is not hooks:
                now.clear()
            if hooks is not None:
                (members or hooks.clear)()
            if now is not hooks:
                setattr(tensor, name, hooks)
        with _plain():
            if tensor.grad_fn is not self.node:
                _restore_node(tensor, self.label, self.node)
            if tensor.is_leaf and tensor.requires_grad is not self.flag:
                tensor.requires_grad_(self.flag)
        # A pending backward must not run on what is not back.
        if self.counter is not None and all(one.is_back for one in self.cells or ()):
            self.counter.__exit__(None, None, None)


_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_NO_HOOKS: list[tuple[Any, Restore | None]] = [(None, None), (None, None)]


def _hooks_of(tensor: Tensor) -> list[Any]:
    return [getattr(tensor, name, None) for name in _HOOKS]


class TensorStates:
    """What is noted of many tensors, and how it is put back, in the order that works."""

    def __init__(self) -> None:
        self._geometry: list[Restore] = []
        self._content: dict[Any, _Content] = {}
        self._rest: list[Restore] = []

    def push_to(self, undo: Undo) -> None:
        """Hand the steps over: what is pushed last is taken first."""
        undo.push(*self._rest, *(one.restore for one in self._content.values()), *self._geometry)

    def keep(self, tensors: Iterable[tuple[Tensor, str]]) -> None:
        """Note all of some tensors, their content included."""
        with torch.no_grad(), _plain():
            for tensor, label in tensors:
                self._rest.append(_Rest(tensor, label, self._keep_content(tensor, label)))

    def keep_places(self, tensors: Iterable[tuple[Tensor, str]], *, geometry: bool) -> None:
        """Note all of some tensors but their content: parameters, which may be large."""
        with torch.no_grad(), _plain():
            for tensor, label in tensors:
                if geometry and _has_place(tensor):
                    self._geometry.append(_Place(tensor, label, tensor.data, _strided))
                self._rest.append(_Rest(tensor, label, None))

    def _keep_content(self, tensor: Tensor, label: str) -> list[_Content] | None:
        """Note what lies below a tensor; return its cells, or None where that cannot be done."""
        inner = None if is_lazy(tensor) else inner_tensors(tensor)
        if inner is not None and tensor.layout is torch.strided:
            # A wrapper: what it names is kept, and its ``__dict__`` names the same again.
            every = []
            for part in inner:
                cells = self._keep_content(part, label)
                self._rest.append(_Rest(part, label, cells))
                every.append(cells)
            return _together(every)
        if inner is not None:  # sparse: an operation in place gives it other indices and values
            alias = tensor.data
            self._geometry.append(_Place(tensor, label, alias, inner_tensors))
            return _together(self._keep_content(p, label) for p in inner_tensors(alias) or ())
        if _has_place(tensor):
            alias = tensor.data
            self._geometry.append(_Place(tensor, label, alias, _strided))
            return [] if is_lazy(tensor) else [self._cells_of(alias, label)]
        if is_fake(tensor):
            return []
        if tensor.is_nested:
            return [self._cells_of(_whole_storage(tensor), label)]
        if tensor.layout is torch.strided:
            return None  # a wrapper that does not say which tensors hold its values
        self._content[id(tensor)] = opaque = _Opaque(label, tensor)
        return [opaque]

    def _cells_of(self, alias: Tensor, label: str) -> _Content:
        storage = alias.untyped_storage()
        place = (alias.storage_offset(), alias.size(), alias.stride(), alias.dtype)
        key = (getattr(storage, "_cdata", id(storage)), *place)
        if key not in self._content:
            self._content[key] = _Cells(label, alias)
        return self._content[key]


def _together(groups: Iterable[list[_Content] | None]) -> list[_Content] | None:
    every: list[_Content] = []
    for cells in groups:
        if cells is None:
            return None
        every += cells
    return every


def _has_place(tensor: Tensor) -> bool:
    """Whether a tensor lies in a storage of its own, by offset, sizes and strides."""
    if tensor.layout is not torch.strided or tensor.is_nested or is_fake(tensor):
        return False
    if is_lazy(tensor) or type(tensor) in (Tensor, nn.Parameter):
        return True
    # A wrapper subclass has no storage, or one that says a size and has no memory.
    return inner_tensors(tensor) is None and (not tensor.numel() or has_address(tensor))


def _written_as(alias: Tensor) -> Tensor:
    """Return a tensor over the same memory in which no cell comes twice: one can write to it.

    Without gaps: flat, as integers. With gaps (a column of a matrix): without stride 0.
    """
    steps = zip(alias.shape, alias.stride(), strict=True)
    span = 1 + sum((size - 1) * stride for size, stride in steps)
    width = alias.element_size()
    if span <= alias.numel() or (memory_of(alias).overlaps_itself() and 0 not in alias.stride()):
        scale = max(1, width // 8)
        storage = alias.untyped_storage()
        flat = torch.empty(0, dtype=_INTEGER_OF_SIZE[min(width, 8)], device=storage.device)
        start = alias.storage_offset() * scale
        flat.set_(storage, start, (span * scale,), (1,))
        return flat
    for dimension, stride in enumerate(alias.stride()):
        if stride == 0:
            alias = alias.narrow(dimension, 0, 1)
    if alias.is_quantized or alias.is_conj() or alias.is_neg() or width > 8:
        return alias
    return alias.view(_INTEGER_OF_SIZE[width])


def _whole_storage(tensor: Tensor) -> Tensor:
    storage = tensor.untyped_storage()
    flat = torch.empty(0, dtype=torch.uint8, device=storage.device)
    flat.set_(storage, 0, (storage.nbytes(),), (1,))
    return flat


def _strided(tensor: Tensor) -> list[Tensor]:
    return [tensor]


class _Place:
    """The memory that a tensor lies on. ``parts`` names the strided tensors that decide it."""

    __slots__ = ("alias", "label", "parts", "tensor")

    def __init__(self, tensor: Tensor, label: str, alias: Tensor, parts: Parts) -> None:
        self.tensor, self.label, self.alias, self.parts = tensor, label, alias, parts

    def __call__(self) -> None:
        tensor, alias = self.tensor, self.alias
        try:
            with _plain():
                now, before = self.parts(tensor) or [], self.parts(alias) or []
                if len(now) == len(before) and all(map(_same_place, now, before)):
                    return
                with torch.inference_mode(tensor.is_inference()), torch.no_grad():
                    if tensor.is_inference():
                        storage = alias.untyped_storage()
                        tensor.set_(storage, alias.storage_offset(), alias.size(), alias.stride())
                    else:
                        tensor.data = alias
        except Exception as error:
            raise RuntimeError(f"{self.label}: {error}") from error


def _same_place(a: Tensor, b: Tensor) -> bool:
    if a.dtype != b.dtype or a.device != b.device or a.shape != b.shape:
        return False
    if a.stride() != b.stride() or a.storage_offset() != b.storage_offset():
        return False
    x, y = a.untyped_storage(), b.untyped_storage()
    return bool(getattr(x, "_cdata", id(x)) == getattr(y, "_cdata", id(y)))


def _restore_node(tensor: Tensor, label: str, node: Any) -> None:
    """Cut off the graph that an operation in place gave a tensor that had none."""
    if node is None:
        base = tensor._base if tensor._is_view() else tensor
        if base is not None and base.grad_fn is not None:
            base.detach_()
    if tensor.grad_fn is not node:
        raise RuntimeError(f"{label}: it was written in place, with a graph")
