"""What entries were before a block of code, and what became of them after it.

Tests: ``tests/unit/test_unchanged.py``, ``test_updated.py``, ``test_tolerances.py`` and
``test_writers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ...messages.errors import ParamCheckUsageError
from ..subject.inventory import Entry, Inventory
from ..subject.parts import Part
from ..tensors.content import is_ordinary, no_values, version_of
from ..tensors.describe import describe
from ..tensors.digest import Content, read_contents
from ..tensors.finite import are_finite, count_text
from ..tensors.memory import PLAIN_TYPES, Memory, inner_tensors, memory_of


def require_values(entries: Iterable[Entry], instead: str = "") -> None:
    """Raise :class:`ParamCheckUsageError` for the first entry whose values cannot be read."""
    for entry in entries:
        if entry.tensor is not None and (reason := no_values(entry.tensor)):
            raise ParamCheckUsageError(
                f"{entry.name}: {reason}; cannot check whether its values change{instead}"
            )


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one entry: the object and its memory (alive), flags and content.

    ``names`` are those of the whole tensor; of a part the content is that of its elements.
    ``watched`` is what a watch knows it by: the tensor, or the elements of it. ``copy`` is there
    where values are compared with a tolerance, in the place of a content. ``attributes`` are the
    names of what hangs on the object.
    """

    names: tuple[str, ...]
    kind: str
    tensor: Tensor
    described: str
    memory: Memory
    requires_grad: bool
    version: int | None
    content: Content | None
    aliases: tuple[Tensor, ...]  # hold the old memory, so that no new one can get its address
    watched: Tensor
    part: Part | None = None
    copy: Tensor | None = None
    attributes: tuple[str, ...] = ()

    def elements_of(self, now: Tensor) -> Tensor:
        """Return what of a tensor is asked about."""
        return now if self.part is None else self.part.of(now, self.names[0])

    def same_memory(self, now: Tensor) -> bool:
        """Whether it is exactly the memory that was kept; where that cannot be told, it is."""
        old, blocks = self.aliases[0] if self.aliases else None, self.memory.blocks
        if (
            old is not None
            and len(blocks) == 1
            and is_ordinary(now)
            and blocks[0].layout.base == now.data_ptr()
            and old.shape == now.shape
            and old.dtype == now.dtype
            and old.is_contiguous()
        ):
            return True  # what nearly all parameters are, told without taking them apart
        memory = memory_of(now)
        return memory.key == self.memory.key or bool(memory.unknown or self.memory.unknown)


def keep(
    entries: Iterable[Entry], *, values: bool, copies: bool = False, attributes: bool = False
) -> list[Kept]:
    """Keep what has to be known of entries to compare them later; contents if ``values``, and
    where those have to be measured, ``copies`` instead. ``attributes``: what hangs on them too."""
    held = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
    some = [t if entry.part is None else entry.part.of(t, entry.name) for entry, t in held]
    contents: Sequence[Content | None] = [None] * len(held)
    if values and not copies:
        contents = read_contents(some)
    copied: Sequence[Tensor | None] = [None] * len(held)
    if values and copies:
        with torch.no_grad():
            copied = [tensor.detach().clone() for tensor in some]
    return [
        Kept(
            tuple(entry.names) if entry.part is None else _bare(entry, entry.part),
            entry.kind,
            tensor,
            describe(tensor),
            memory_of(tensor),
            tensor.requires_grad,
            version_of(tensor),
            content,
            tuple(_aliases(tensor)),
            elements,
            entry.part,
            copy,
            attributes_of(tensor) if attributes else (),
        )
        for (entry, tensor), elements, content, copy in zip(
            held, some, contents, copied, strict=True
        )
    ]


def _bare(entry: Entry, part: Part) -> tuple[str, ...]:
    return tuple(name.removesuffix(part.text) for name in entry.names)


def attributes_of(tensor: Tensor) -> tuple[str, ...]:
    """Return the names of what users and libraries hang on a tensor (``_no_weight_decay``).

    Not those by which a wrapper subclass holds the tensors that it is made of.
    """
    held = getattr(tensor, "__dict__", {})
    if not held or type(tensor) in PLAIN_TYPES:
        return tuple(held)
    own = set(map(id, inner_tensors(tensor) or ()))
    return tuple(name for name, value in held.items() if id(value) not in own)


def _aliases(tensor: Tensor) -> Iterator[Tensor]:
    parts = inner_tensors(tensor)
    if parts is not None:
        for part in parts:
            yield from _aliases(part)
    elif not is_lazy(tensor):
        yield tensor.detach()


def finite_before(kept: Sequence[Kept]) -> dict[int, bool]:
    """Return by what is watched whether all values are finite, as they are now."""
    tensors = [old.watched for old in kept]
    return dict(zip(map(id, tensors), are_finite(tensors), strict=True))


class AfterBlock:
    """What became of kept entries: who has their names now, and with which content.

    ``differs`` says how far a copy and its tensor are apart, where they are too far: ``""`` where
    they are not.
    """

    def __init__(
        self,
        kept: Sequence[Kept],
        inventory: Inventory,
        *,
        values: bool,
        differs: Callable[[Tensor, Tensor], str] | None = None,
    ) -> None:
        self._differs = differs
        self._apart: dict[tuple[int, int], str] = {}
        #: (what was kept, the names it still has or had, who has them now)
        self.rows: list[tuple[Kept, tuple[str, ...], Tensor | None]] = []
        for old in kept:
            by_now: dict[int, tuple[list[str], Tensor | None]] = {}
            for name in old.names:
                now = inventory.tensor_at(name)
                by_now.setdefault(id(now), ([], now))[0].append(name)
            if old.part is None:
                self.rows += [(old, tuple(names), now) for names, now in by_now.values()]
                continue
            end = old.part.text
            self.rows += [
                (old, tuple(name + end for name in names), now) for names, now in by_now.values()
            ]
        self._contents: dict[tuple[int, int], Content] = {}
        if values and differs is None:
            unique = {
                (id(now), id(old.part)): some
                for old, _, now in self.rows
                if now is not None and (some := _readable(old, now)) is not None
            }
            contents = read_contents(list(unique.values()))
            self._contents = dict(zip(unique, contents, strict=True))

    def content(self, old: Kept, now: Tensor) -> Content | None:
        """Return the content that is asked about; None where it can no longer be read."""
        return self._contents.get((id(now), id(old.part)))

    def apart(self, old: Kept, now: Tensor) -> str:
        """Say how far a tensor is from the copy that was kept, ``""`` where it is near enough."""
        key = id(old), id(now)
        if key not in self._apart:
            some = _readable(old, now)
            text = ""
            if some is None:
                text = f"is {describe(now)}, {no_values(now) or 'which it does not fit'}"
            elif self._differs is not None and old.copy is not None:
                text = self._differs(old.copy, some)
            self._apart[key] = text
        return self._apart[key]

    def moved(self, old: Kept, now: Tensor) -> bool:
        """Whether shape, dtype, layout or a bit differs from what was kept, or too much does."""
        if old.copy is not None:
            return bool(self.apart(old, now))
        content = self.content(old, now)
        if content is None or old.content is None:
            return True  # it had values and has none any more
        return content.digest != old.content.digest

    def only_cast(self, old: Kept, now: Tensor) -> bool:
        """Whether what differs is the dtype, and the old values are all there."""
        if old.content is None or now.dtype.is_complex or now.dtype == old.content.dtype:
            return False
        try:
            back = read_contents([old.elements_of(now).detach().to(old.content.dtype)])[0]
        except (RuntimeError, ValueError):
            return False  # kinds of tensor that cannot be cast
        return back.digest == old.content.digest

    def not_finite(self) -> dict[int, str]:
        """Count by what is watched the values that are not finite now; nothing where all are."""
        rows = [
            (old, some)
            for old, _, now in self.rows
            if now is not None and (some := _readable(old, now)) is not None
        ]
        finite = zip(rows, are_finite([some for _, some in rows]), strict=True)
        return {id(old.watched): count_text(some) for (old, some), fine in finite if not fine}


def _readable(old: Kept, now: Tensor) -> Tensor | None:
    """Return the elements asked about; None where they have no values, or the part does not fit."""
    if no_values(now):
        return None
    if old.part is None:
        return now
    try:
        return old.elements_of(now)
    except ParamCheckUsageError:
        return None  # another shape
