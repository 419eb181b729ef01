"""What entries were before a block of code, and what became of them after it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from torch import Tensor
from torch.nn.parameter import is_lazy

from ...messages.errors import ParamCheckUsageError
from ..subject.inventory import Entry, Inventory
from ..tensors.content import is_ordinary, no_values, version_of
from ..tensors.describe import describe
from ..tensors.digest import Content, read_contents
from ..tensors.finite import are_finite, count_text
from ..tensors.memory import Memory, inner_tensors, memory_of


def require_values(entries: Iterable[Entry], instead: str = "") -> None:
    """Raise :class:`ParamCheckUsageError` for the first entry whose values cannot be read."""
    for entry in entries:
        if entry.tensor is not None and (reason := no_values(entry.tensor)):
            raise ParamCheckUsageError(
                f"{entry.name}: {reason}; whether its values change cannot be told{instead}"
            )


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of one entry: the object and its memory (alive), flags and content."""

    names: tuple[str, ...]
    kind: str
    tensor: Tensor
    described: str
    memory: Memory
    requires_grad: bool
    version: int | None
    content: Content | None
    aliases: tuple[Tensor, ...]  # hold the old memory, so that no new one can get its address

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


def keep(entries: Iterable[Entry], *, values: bool) -> list[Kept]:
    """Keep what has to be known of entries to compare them later; contents if ``values``."""
    held = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
    contents: Sequence[Content | None] = [None] * len(held)
    if values:
        contents = read_contents([tensor for _, tensor in held])
    return [
        Kept(
            tuple(entry.names),
            entry.kind,
            tensor,
            describe(tensor),
            memory_of(tensor),
            tensor.requires_grad,
            version_of(tensor),
            content,
            tuple(_aliases(tensor)),
        )
        for (entry, tensor), content in zip(held, contents, strict=True)
    ]


def _aliases(tensor: Tensor) -> Iterator[Tensor]:
    parts = inner_tensors(tensor)
    if parts is not None:
        for part in parts:
            yield from _aliases(part)
    elif not is_lazy(tensor):
        yield tensor.detach()


def finite_before(kept: Sequence[Kept]) -> dict[int, bool]:
    """Return by object whether all values are finite, where they are kept as they are now."""
    tensors = [old.tensor for old in kept]
    return dict(zip(map(id, tensors), are_finite(tensors), strict=True))


class AfterBlock:
    """What became of kept entries: who has their names now, and with which content."""

    def __init__(self, kept: Sequence[Kept], inventory: Inventory, *, values: bool) -> None:
        #: (what was kept, the names it still has or had, who has them now)
        self.rows: list[tuple[Kept, tuple[str, ...], Tensor | None]] = []
        for old in kept:
            by_now: dict[int, tuple[list[str], Tensor | None]] = {}
            for name in old.names:
                now = inventory.tensor_at(name)
                by_now.setdefault(id(now), ([], now))[0].append(name)
            self.rows += [(old, tuple(names), now) for names, now in by_now.values()]
        self._contents: dict[int, Content] = {}
        if values:
            unique = {id(t): t for _, _, t in self.rows if t is not None and not no_values(t)}
            contents = read_contents(list(unique.values()))
            self._contents = dict(zip(unique, contents, strict=True))

    def content(self, tensor: Tensor) -> Content | None:
        """Return the content of a tensor now; None where its values can no longer be read."""
        return self._contents.get(id(tensor))

    def moved(self, old: Kept, now: Tensor) -> bool:
        """Whether shape, dtype, layout or a bit differs from what was kept."""
        content = self.content(now)
        if content is None or old.content is None:
            return True  # it had values and has none any more
        return content.digest != old.content.digest

    def only_cast(self, old: Kept, now: Tensor) -> bool:
        """Whether what differs is the dtype, and the old values are all there."""
        if old.content is None or now.dtype.is_complex or now.dtype == old.content.dtype:
            return False
        try:
            back = read_contents([now.detach().to(old.content.dtype)])[0]
        except (RuntimeError, NotImplementedError, ValueError):
            return False  # kinds of tensor that cannot be cast
        return back.digest == old.content.digest

    def not_finite(self) -> dict[int, str]:
        """Count by object the values that are not finite now; nothing where all are."""
        tensors = [t for _, _, t in self.rows if t is not None and not no_values(t)]
        finite = zip(tensors, are_finite(tensors), strict=True)
        return {id(tensor): count_text(tensor) for tensor, fine in finite if not fine}
