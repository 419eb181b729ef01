"""Shapes against specs: sizes, ``None`` (any), ``...`` and symbols that must agree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import EllipsisType
from typing import Any, TypeAlias

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import plural
from ..parameters.subject.declared import Declared, with_rivals
from ..parameters.subject.inventory import Entry
from ..parameters.tensors.describe import describe, shape_text

Dim: TypeAlias = int | str | EllipsisType | None
#: A shape: sizes, symbols that must agree (``"vocab"``), ``None`` (any size) and ``...``.
ShapeSpec: TypeAlias = Sequence[Dim]


def parse_spec(spec: object, of: str = "shape") -> tuple[Dim, ...]:
    """Return a spec as a tuple, or raise :class:`ParamCheckUsageError` that names what is wrong."""
    if isinstance(spec, (str, bytes)) or not isinstance(spec, (tuple, list, torch.Size)):
        hint = f"; did you mean ({spec!r},)?" if isinstance(spec, (int, str)) else ""
        raise ParamCheckUsageError(
            f"{of}: a shape is a tuple of sizes, symbols, None and ..., "
            f"not {type(spec).__name__} {spec!r}{hint}"
        )
    for dim in spec:
        if isinstance(dim, bool) or not (
            dim is None or dim is Ellipsis or isinstance(dim, (int, str))
        ):
            raise ParamCheckUsageError(
                f"{of}: {dim!r} in {spec_text(spec)} is not a dimension: "
                f"use a size, a symbol like 'd', None for any size, or ..."
            )
        if isinstance(dim, int) and dim < 0:
            raise ParamCheckUsageError(
                f"{of}: size {dim} in {spec_text(spec)} is negative; None is any size"
            )
        if isinstance(dim, str) and not dim.isidentifier():
            raise ParamCheckUsageError(
                f"{of}: symbol {dim!r} in {spec_text(spec)} is not a name: write 'd', no expression"
            )
    if sum(dim is Ellipsis for dim in spec) > 1:
        raise ParamCheckUsageError(f"{of}: {spec_text(spec)} has more than one ...")
    return tuple(spec)


def spec_text(spec: Sequence[object]) -> str:
    """Return ``(vocab, 3, *, ...)``, one-element shapes with their comma."""
    texts = ["..." if d is Ellipsis else "None" if d is None else str(d) for d in spec]
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def shapes(items: Iterable[tuple[tuple[str, ...], Tensor, ShapeSpec]]) -> list[Finding]:
    """Find the tensors whose shape does not match its spec.

    A symbol means the same size wherever it occurs; its size is the one most occurrences
    agree on, so that one wrong tensor is named and not all the right ones after it.
    """
    rows = list(items)
    sizes = _symbol_sizes(rows)
    findings = []
    for names, tensor, spec in rows:
        if is_lazy(tensor):
            findings.append(
                Finding(
                    names,
                    "shape not known",
                    expected=spec_text(spec),
                    found=describe(tensor),
                    hint="run a forward pass first: it gives a lazy parameter its shape",
                )
            )
            continue
        why = _mismatch(tuple(tensor.shape), spec, sizes)
        if why is not None:
            findings.append(
                Finding(
                    names,
                    "wrong shape",
                    expected=spec_text(spec),
                    found=spec_text(tuple(tensor.shape)),
                    why=why,
                )
            )
    return findings


def declared_shapes(
    parameters: Iterable[Entry],
    declared: Sequence[tuple[Declared[Any], ShapeSpec]],
    *,
    partial: bool,
) -> list[Finding]:
    """Find the entries that do not have the shape declared for them.

    Unless ``partial``, a parameter for which none is declared is found too.
    """
    findings = shapes(
        (item.names, item.entry.tensor, spec)
        for item, spec in declared
        if item.entry.tensor is not None
    )
    findings += [
        Finding(item.names, "no tensor", spec_text(spec), "None")
        for item, spec in declared
        if item.entry.tensor is None
    ]
    findings = with_rivals(findings, (item for item, _ in declared), spec_text)
    if partial:
        return findings
    covered = {item.entry for item, _ in declared}
    return findings + [
        Finding(
            tuple(entry.names),
            "shape not declared",
            found=shape_text(entry.tensor),
            hint="declare it, or pass partial=True if the others do not matter here",
        )
        for entry in parameters
        if entry not in covered and entry.tensor is not None
    ]


def _pairs(shape: tuple[int, ...], spec: ShapeSpec) -> list[tuple[int, int, Dim]] | None:
    """Return (position, size, dim) with ``...`` expanded, or None where the ranks differ."""
    if Ellipsis in spec:
        at = list(spec).index(Ellipsis)
        left_out = len(shape) - (len(spec) - 1)
        if left_out < 0:
            return None
        spec = (*spec[:at], *[None] * left_out, *spec[at + 1 :])
    if len(shape) != len(spec):
        return None
    return [(i, size, dim) for i, (size, dim) in enumerate(zip(shape, spec, strict=True))]


def _symbol_sizes(
    rows: Sequence[tuple[tuple[str, ...], Tensor, ShapeSpec]],
) -> dict[str, tuple[int, str]]:
    """Return for each symbol its size and the name of a tensor that has it there."""
    votes: dict[str, dict[int, list[str]]] = {}
    for names, tensor, spec in rows:
        if is_lazy(tensor):
            continue
        for _, size, dim in _pairs(tuple(tensor.shape), spec) or ():
            if isinstance(dim, str):
                votes.setdefault(dim, {}).setdefault(size, []).append(names[0])
    return {
        symbol: max(
            ((size, voters[0]) for size, voters in by_size.items()),
            key=lambda pair: len(by_size[pair[0]]),
        )
        for symbol, by_size in votes.items()
    }


def _mismatch(
    shape: tuple[int, ...], spec: ShapeSpec, sizes: dict[str, tuple[int, str]]
) -> str | None:
    pairs = _pairs(shape, spec)
    if pairs is None:
        wanted = len(spec) - 1 if Ellipsis in spec else len(spec)
        least = "at least " if Ellipsis in spec else ""
        return f"{plural(len(shape), 'dimension')}, not {least}{wanted}"
    wrong = []
    for position, size, dim in pairs:
        if isinstance(dim, int) and size != dim:
            wrong.append(f"dimension {position} is {size}, not {dim}")
        elif isinstance(dim, str) and size != sizes[dim][0]:
            agreed, voter = sizes[dim]
            wrong.append(f"{dim} is {size} here and {agreed} in {voter}")
    if len(wrong) > 1 and shape[::-1] == spec:
        wrong.append("as if it were transposed")
    return ", ".join(wrong) or None
