"""Uninitialized memory made visible: a factory is run on memory that is poisoned, twice.

Every ``torch.empty`` and its kin are filled with one byte in the first run and another in the
second, under the same random states. An element that holds the poison of its run both times
was never written; a NaN or an odd number that the author wrote is the same in both runs. An
element that differs otherwise was computed from uninitialized memory, or at random from a
source that cannot be repeated: a third run, poisoned like the first, tells these apart.

The instrument is a dispatch mode, which is of one thread: each thread that the factory starts
gets one of its own, by the hook that :mod:`threading` has for profilers.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import plural
from ..parameters.running.modes import keep_modes
from ..parameters.running.randomness import keep_random_states
from ..parameters.running.undo import Undo
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.content import bits, no_values
from ..parameters.tensors.describe import describe
from ..parameters.tensors.memory import ADDRESSED, has_address, inner_tensors, is_fake

#: Bytes that give finite, far apart numbers in every floating dtype.
FIRST, SECOND = 0xA5, 0x5B


class Poison(TorchDispatchMode):  # type: ignore[no-untyped-call,unused-ignore]
    """Fill memory that nobody initialized yet with one byte, as long as the mode is on."""

    def __init__(self, byte: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call,unused-ignore]
        self.byte = byte
        self.over = False

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # torch's answer is to import torch._dynamo at the first operation: 800 modules, seconds.
        return False

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = func._schema.name
        if self.over or name not in _EMPTY:
            return func(*args, **(kwargs or {}))
        before = 0
        if name == "aten::resize_" and _holds(args[0]):
            before = args[0].untyped_storage().nbytes()
        result = func(*args, **(kwargs or {}))
        if isinstance(result, Tensor):
            self._fill(result, before)
        return result

    def _fill(self, tensor: Tensor, start: int = 0) -> None:
        if tensor.layout is not torch.strided:
            return  # its indices must stay valid
        parts = inner_tensors(tensor)
        if parts is not None:  # a DTensor or another wrapper, whose own storage is empty
            for part in parts:
                self._fill(part)
            return
        if not _holds(tensor):
            return
        storage = tensor.untyped_storage()
        if storage.nbytes() <= start:
            return
        whole = torch.empty(0, dtype=torch.uint8, device=tensor.device)
        whole.set_(storage, 0, (storage.nbytes(),))  # type: ignore[call-overload]
        # A bool holds 0 or 1: any other byte is no value of it.
        whole[start:].fill_(int(self.byte == FIRST) if tensor.dtype is torch.bool else self.byte)


@contextmanager
def _poisoned(byte: int) -> Iterator[None]:
    """Poison memory in this thread, and in every thread that is started inside the block."""
    modes = [Poison(byte)]
    profile = threading.getprofile()

    def enter(frame: Any, event: str, argument: Any) -> None:
        # Called in a new thread before anything of its own is.
        sys.setprofile(profile)
        mode = Poison(byte)
        modes.append(mode)
        mode.__enter__()  # type: ignore[no-untyped-call,unused-ignore]

    threading.setprofile(enter)
    try:
        with modes[0]:
            yield
    finally:
        threading.setprofile(profile)
        for mode in modes:
            mode.over = True  # one whose thread lives on can only be left there, to do nothing


_EMPTY = frozenset(
    f"aten::{name}"
    for name in (
        "empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided",
        "empty_permuted", "resize_",
    )
)  # fmt: skip


def _holds(tensor: Tensor) -> bool:
    """Whether a tensor holds bytes itself, at an address where there are addresses."""
    return (
        tensor.layout is torch.strided
        and tensor.device.type != "meta"
        and not is_fake(tensor)
        and not tensor.is_quantized
        and (tensor.device.type not in ADDRESSED or has_address(tensor))
    )


def uninitialized(factory: Callable[[], Any]) -> tuple[list[Finding], str]:
    """Find what a factory leaves uninitialized; return the findings and the subject's title."""
    __tracebackhide__ = True
    first_subject, first = _build(factory, FIRST)
    second_subject, second = _build(factory, SECOND)
    if first_subject is second_subject:
        raise ParamCheckUsageError(
            "factory() returned the same object twice: it has to build a new one at each call, "
            "so that it can be built on poisoned memory"
        )
    if list(first.named) != list(second.named):
        odd = sorted(set(first.named) ^ set(second.named)) or list(first.named)
        raise ParamCheckUsageError(
            f"factory() built two different things ({odd[0]!r} is in one of them, or elsewhere): "
            f"what it builds must not depend on how often it ran"
        )
    findings, odd_names = [], []
    for entry in first.entries:
        a, b = entry.tensor, second.named[entry.name]
        if a is None or b is None:
            continue
        if reason := no_values(a):
            raise ParamCheckUsageError(
                f"{entry.name}: {reason}; let the factory materialize and initialize it"
            )
        finding, differs = _compare(tuple(entry.names), a, b)
        if finding is not None:
            findings.append(finding)
        elif differs:
            odd_names.append(entry)
    if odd_names:
        _, again = _build(factory, FIRST)
        for entry in odd_names:
            a, c = entry.tensor, again.named.get(entry.name)
            if a is not None and c is not None and _equal(a, c):
                findings.append(
                    Finding(
                        tuple(entry.names),
                        "computed from uninitialized memory",
                        found=describe(a),
                        why="its values follow what the memory held before",
                        hint="torch.empty() is not zeros: write every element before reading one",
                    )
                )
    return findings, first.title


def _build(factory: Callable[[], Any], byte: int) -> tuple[Any, Inventory]:
    """Run the factory on poisoned memory; random states and modes are as before, afterwards."""
    __tracebackhide__ = True
    with Undo() as undo, undo:
        keep_modes(undo)
        undo.push(keep_random_states())
        with _poisoned(byte):
            subject = factory()
    return subject, take_inventory(subject)


def _compare(names: tuple[str, ...], a: Tensor, b: Tensor) -> tuple[Finding | None, bool]:
    """Return a finding where poison was left, and whether the two differ at all."""
    with torch.no_grad():
        left, right = bits(a), bits(b)
        count = total = 0
        differs = False
        at = -1
        for x, y in zip(left, right, strict=False):
            if x.shape != y.shape:
                return None, True
            differs = differs or not torch.equal(x, y)
            width = x.element_size()
            poisons = (FIRST, SECOND) if a.dtype is not torch.bool else (1, 0)
            marks = [
                int.from_bytes(bytes([p] * width), "little", signed=width > 1) for p in poisons
            ]
            left_over = x.eq(marks[0]) & y.eq(marks[1])
            if bool(left_over.any()) and at < 0:
                at = total + int(left_over.nonzero()[0])
            count += int(left_over.sum())
            total += x.numel()
    if not count:
        return None, differs
    every = count == total
    found = (
        describe(a) if every else f"{count:,} of {plural(total, 'value')}, first at flat index {at}"
    )
    return (
        Finding(
            names,
            "never initialized",
            found=found,
            why="it still holds uninitialized memory",
            hint="write it where it is made: nn.init.*, reset_parameters(), or torch.zeros",
        ),
        True,
    )


def _equal(a: Tensor, b: Tensor) -> bool:
    with torch.no_grad():
        return all(
            x.shape == y.shape and torch.equal(x, y) for x, y in zip(bits(a), bits(b), strict=True)
        )
