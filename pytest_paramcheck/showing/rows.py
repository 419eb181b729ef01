"""What there is to show of each parameter, buffer and tensor: strings and numbers, no tensor."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..parameters.running.gradstate import GradState, grad_states
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.describe import dtype_text, shape_text
from ..parameters.tensors.memory import PLAIN_TYPES, inner_tensors


@dataclass(frozen=True, slots=True)
class ParamRow:
    """One parameter, buffer or tensor of a :class:`ParamTable`.

    ``names`` are all its names, ``name`` is the first. ``kind`` is ``parameter``, ``buffer`` or
    ``tensor`` (of a mapping). ``shape`` is as it is shown (``11x6``, ``scalar``,
    ``uninitialized``), ``sizes`` its numbers; ``elements`` and ``bytes`` are None where there is
    no telling. ``saved``: a state_dict holds it. ``grad`` is ``none``, ``zero``, ``not finite``,
    ``nonzero``, or ``""`` for what has no gradient. ``groups`` are the optimizer groups that it
    is in, ``losses`` says of each loss that was asked what it gave.
    """

    name: str
    names: tuple[str, ...]
    kind: str
    shape: str
    sizes: tuple[int, ...] | None
    dtype: str
    device: str
    elements: int | None
    bytes: int | None
    trainable: bool
    saved: bool
    grad: str
    groups: tuple[str, ...] = ()
    losses: tuple[tuple[str, str], ...] = ()

    @property
    def state(self) -> str:
        """What it is, in words: ``trainable, 2 names``, ``buffer, not saved``."""
        if self.kind == "buffer":
            state = "buffer" if self.saved else "buffer, not saved"
        elif self.kind == "tensor" and not self.trainable:
            state = "tensor"
        else:
            state = "trainable" if self.trainable else "frozen"
        return f"{state}, {len(self.names)} names" if len(self.names) > 1 else state


#: What optimizers and losses say of an entry, by the id of its tensor.
Said = Mapping[int, tuple[str, ...]]
SaidByLoss = Mapping[int, tuple[tuple[str, str], ...]]


def read_rows(
    entries: Sequence[Entry],
    groups: Said | None = None,
    losses: SaidByLoss | None = None,
    *,
    grads: bool = True,
) -> list[ParamRow]:
    """Return a row for each entry that has a tensor; ``grads=False`` asks for no gradients."""
    held = [(entry, entry.tensor) for entry in entries if entry.tensor is not None]
    asked = [
        (number, tensor.grad)
        for number, (entry, tensor) in enumerate(held)
        # A tensor that autograd computed has no .grad to ask for: torch would warn.
        if grads and entry.kind != "buffer" and tensor.is_leaf
    ]
    states = dict.fromkeys(range(len(held)), "")
    for (number, _), state in zip(asked, grad_states([grad for _, grad in asked]), strict=True):
        states[number] = state.value
    if not any(grad is not None for _, grad in asked):
        states = dict.fromkeys(states, "")
    return [
        _row(entry, tensor, states[number], groups or {}, losses or {})
        for number, (entry, tensor) in enumerate(held)
    ]


def _row(entry: Entry, tensor: Tensor, grad: str, groups: Said, losses: SaidByLoss) -> ParamRow:
    lazy = is_lazy(tensor)
    elements = None if lazy else tensor.numel()
    shapeless = lazy or tensor.is_nested
    return ParamRow(
        name=entry.name,
        names=tuple(entry.names),
        kind=entry.kind,
        shape=shape_text(tensor),
        sizes=None if shapeless else tuple(map(int, tensor.shape)),
        dtype=dtype_text(tensor),
        device=str(tensor.device),
        elements=elements,
        bytes=None if elements is None else bytes_of(tensor),
        trainable=entry.trainable,
        saved=entry.persistent,
        grad="" if grad == GradState.NONE.value and not entry.trainable else grad,
        groups=groups.get(id(tensor), ()),
        losses=losses.get(id(tensor), ()),
    )


def bytes_of(tensor: Tensor) -> int | None:
    """Return how many bytes a tensor's values take, of a DTensor the whole; None if unknown."""
    if type(tensor) in PLAIN_TYPES and tensor.layout is torch.strided:
        return tensor.numel() * tensor.element_size()
    if hasattr(tensor, "_local_tensor"):  # a DTensor is one tensor, whatever lies here
        return tensor.numel() * tensor.element_size()
    try:
        parts = inner_tensors(tensor)
        if parts is None:
            return tensor.numel() * tensor.element_size()
        sizes = [bytes_of(part) for part in parts]
    except Exception:  # a subclass that does not say what it holds
        return None
    return None if None in sizes else sum(size for size in sizes if size is not None)


def bytes_text(count: int) -> str:
    """Return ``12 bytes``, ``3.4 kB``, ``102 MB``, ``1.41 TB``: three digits.

    >>> bytes_text(1), bytes_text(999), bytes_text(3400), bytes_text(102_200_000)
    ('1 byte', '999 bytes', '3.40 kB', '102 MB')
    """
    if count < 1000:
        return f"{count} byte{'' if count == 1 else 's'}"
    power = 1
    while count / 1000**power >= 999.5:
        power += 1
    size = count / 1000**power
    digits = 2 if size < 9.995 else 1 if size < 99.95 else 0
    return f"{size:.{digits}f} {'?kMGTPEZY'[power]}B"
