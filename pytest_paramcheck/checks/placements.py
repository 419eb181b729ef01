"""Where the shards of parameters should lie, and where they do."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..parameters.subject.declared import Declared
from ..parameters.subject.patterns import pattern_text
from ..parameters.tensors.placements import (
    is_placement,
    key_of,
    mesh_text,
    placement_text,
    placements_of,
    placements_text,
)

#: One placement, one per mesh dimension, or None for a plain tensor.
Placements = Any


def parse_placements(expected: object) -> Mapping[Any, Placements]:
    """Return what is expected, or raise :class:`ParamCheckUsageError` for what is none."""
    if not isinstance(expected, Mapping) or not expected:
        raise ParamCheckUsageError(
            "assert_placements takes {pattern: placement}, with one pattern at least: "
            '{"*": Shard(0)}'
        )
    for pattern, value in expected.items():
        several = value if isinstance(value, tuple) else (value,)
        if value is not None and not (several and all(map(is_placement, several))):
            raise ParamCheckUsageError(
                f"{pattern_text(pattern)}: {value!r} is not a placement: pass Shard(dim), "
                f"Replicate() or Partial(), a tuple of one per mesh dimension, or None for a "
                f"plain tensor"
            )
    return expected


def other_placements(declared: Iterable[Declared[Placements]]) -> list[Finding]:
    """Find the entries that lie otherwise than declared."""
    findings = []
    for item in declared:
        tensor, meant = item.entry.tensor, item.value
        if tensor is None:
            continue
        held = placements_of(tensor)
        wanted = meant if meant is None or isinstance(meant, tuple) else (meant,)
        if _keys(held, tensor.dim()) == _keys(wanted, tensor.dim()):
            continue
        found, why = placements_text(held), ""
        if held is None:
            why = "nothing sharded it"
        elif len(held) > 1:
            found += f" on {mesh_text(tensor)}"
        findings.append(
            Finding(
                item.names, "other placement", expected=expected_text(meant), found=found, why=why
            )
        )
    return findings


def _keys(placements: tuple[Any, ...] | None, dimensions: int) -> object:
    return placements and [key_of(placement, dimensions) for placement in placements]


def expected_text(meant: Placements) -> str:
    """Return what was declared, as it is written."""
    if meant is None:
        return "plain"
    if not isinstance(meant, tuple):
        return placement_text(meant)
    return f"({', '.join(map(placement_text, meant))}{',' if len(meant) == 1 else ''})"
