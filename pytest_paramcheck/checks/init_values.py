"""Initial values as they are tested: which ones of each entry, and what they should come from."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..init import Constant, Distribution, Like, Normal, Orthogonal
from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.subject.declared import Declared
from ..parameters.subject.elements import whole_rows
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.parts import Part
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import dtype_name
from ..parameters.tensors.sharded import is_dtensor, is_partial, local_of, mesh_of, offset_of
from .readable import plain_values


@dataclass(frozen=True, slots=True)
class Drawn:
    """The values of one entry that a test looks at, and what they should come from."""

    names: tuple[str, ...]
    entry: Entry
    values: Tensor
    shape: tuple[int, ...]
    said: Distribution
    meant: Distribution
    padding: int | None = None
    pick: Callable[[Tensor], Tensor] | None = None


def prepare(
    inventory: Inventory, expected: Sequence[Declared[Distribution]]
) -> tuple[list[Drawn], list[Finding]]:
    padded = _padding_rows(inventory)
    drawn, findings = [], []
    for item in expected:
        entry, said = item.entry, item.value
        tensor = entry.tensor
        if tensor is None:
            continue
        if reason := no_values(tensor):
            raise ParamCheckUsageError(f"{entry.name}: {reason}; its values cannot be checked")
        if is_partial(tensor):
            raise ParamCheckUsageError(
                f"{entry.name} holds partial sums, which nobody has added up: redistribute it first"
            )
        values = _held(item.entry, said)
        shape = tuple(tensor.shape)  # of a shard the fans are those of the whole
        meant = said.for_shape(shape) if values.numel() else said
        if isinstance(meant, Orthogonal) and mesh_of(tensor) is not None:
            raise ParamCheckUsageError(
                f"{entry.name}: whether a sharded matrix is orthogonal no shard can say: "
                f"pass {{{entry.name!r}: parameter.full_tensor()}}"
            )
        random = not isinstance(meant, (Constant, Orthogonal))
        if isinstance(meant, Like):
            pass  # whatever the dtype, the function draws it
        elif random and values.is_complex():
            if not isinstance(meant, Normal) or meant.mean:
                raise ParamCheckUsageError(
                    f"{entry.name}: {said.describe()} of a complex parameter is not defined here; "
                    f"normal(0, std) is"
                )
            # torch's complex normal has half of its variance in each part.
            meant = Normal(0.0, meant.std * 0.5**0.5)
            values = torch.view_as_real(values.resolve_conj())
        elif not isinstance(meant, Constant) and not values.dtype.is_floating_point:
            raise ParamCheckUsageError(
                f"{entry.name} is {dtype_name(values.dtype)}: "
                f"{said.describe()} is for floating dtypes"
            )
        padding = padded.get(id(tensor))
        row = _row_here(tensor, padding)
        if entry.part is not None or isinstance(meant, Like):
            values = _without_padding(entry, padding, values) if random else values
            row = None
        pick = _picker(entry, padding) if isinstance(meant, Like) else None
        if row is not None and random:
            if bool(comparable(values[row]).ne(0).any()):
                findings.append(
                    Finding(
                        item.names,
                        "padding row is not zero",
                        found=f"row {padding} (padding_idx)",
                        why="an initializer or a load wrote it; it gets no gradient and stays so",
                        hint=f"after the initialization: weight[{padding}].zero_() under no_grad",
                    )
                )
            values = torch.cat([values[:row], values[row + 1 :]])
        left_out = row if random else None
        drawn.append(Drawn(item.names, entry, values, shape, said, meant, left_out, pick))
    return drawn, findings


def _held(entry: Entry, said: Distribution) -> Tensor:
    """Return what of an entry's values is asked about here: of a DTensor this rank's shard, but
    for elements of it, and for draws of the whole."""
    tensor = entry.tensor
    if tensor is None:
        raise ParamCheckUsageError(f"{entry.name} is None: it has no values")
    if entry.part is not None:
        return plain_values(entry.name, entry.part.of(tensor, entry.name))
    if isinstance(said, Like):
        return plain_values(entry.name, tensor)
    return plain_values(entry.name, local_of(tensor), keep_dtype=True)


def _picker(entry: Entry, padding: int | None) -> Callable[[Tensor], Tensor]:
    """Return what takes the elements that are compared out of a draw of the whole tensor."""
    rows = _rows_beside(entry, padding)

    def pick(whole: Tensor) -> Tensor:
        some = whole if rows is None else rows.of(whole, entry.name)
        if entry.part is not None and rows is None:
            some = entry.part.of(whole, entry.name)
        return torch.view_as_real(some.resolve_conj()) if some.is_complex() else some

    return pick


def _without_padding(entry: Entry, padding: int | None, values: Tensor) -> Tensor:
    rows = _rows_beside(entry, padding)
    if rows is not None and entry.tensor is not None:
        values = plain_values(entry.name, rows.of(entry.tensor, entry.name))
    return torch.view_as_real(values.resolve_conj()) if values.is_complex() else values


def _rows_beside(entry: Entry, padding: int | None) -> Part | None:
    """Return what is asked about beside the padding row; None where that row is not in it."""
    if padding is None or entry.tensor is None:
        return None
    marks = torch.ones(tuple(entry.tensor.shape), dtype=torch.bool, device="cpu")
    if entry.part is not None:
        marks = entry.part.mask(entry.tensor, entry.name)
    if not bool(marks[padding].any()):
        return None
    marks[padding] = False
    return Part(entry.name, whole_rows(marks), "") if bool(marks.any()) else None


def _row_here(tensor: Tensor, row: int | None) -> int | None:
    """Return which row of this rank's shard a row of the whole tensor is; None for another's."""
    if row is None or not is_dtensor(tensor):
        return row
    own = row - offset_of(tensor)[0]
    local = local_of(tensor)
    return own if local.numel() and 0 <= own < local.shape[0] else None


def ranks_of(entry: Entry) -> int:
    mesh = mesh_of(entry.tensor)
    return 1 if mesh is None else int(mesh.size())


def _padding_rows(inventory: Inventory) -> dict[int, int]:
    """The padding row of each embedding weight, by the weight's id."""
    return {
        id(module._parameters.get("weight")): module.padding_idx
        for _, module in inventory.modules
        if isinstance(module, (nn.Embedding, nn.EmbeddingBag)) and module.padding_idx is not None
    }


def comparable(values: Tensor) -> Tensor:
    if values.element_size() == 1 and values.dtype.is_floating_point:
        return values.float()
    return values
