"""Tensors below the top level of a file: a model beside its optimizer, an epoch and a config."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

#: How deep the state_dicts of trainers lie: {"state": {"model": {"encoder": {...}}}}.
DEEPEST = 3


def mappings_below(
    value: Mapping[Any, Any], above: str = "", depth: int = 1
) -> Iterator[tuple[str, Mapping[Any, Any]]]:
    """Yield each key (``a.b``) under which there are tensors by name."""
    for key, inner in value.items():
        if isinstance(key, str) and isinstance(inner, Mapping):
            if _holds_tensors(inner):
                yield above + key, inner
            if depth < DEEPEST:
                yield from mappings_below(inner, f"{above}{key}.", depth + 1)


def _holds_tensors(inner: Mapping[Any, Any]) -> bool:
    return any(isinstance(k, str) and isinstance(v, Tensor) for k, v in inner.items())


def every_tensor(value: Any, path: str = "") -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor in what a file holds, under the keys that lead to it, dotted."""
    todo: list[tuple[str, Any]] = [(path, value)]
    while todo:
        where, held = todo.pop()
        if isinstance(held, Tensor):
            yield where, held
            continue
        if isinstance(held, Mapping):
            inner = [(str(key), one) for key, one in held.items()]
        elif isinstance(held, (list, tuple)):
            inner = [(str(number), one) for number, one in enumerate(held)]
        else:
            continue
        todo += [(f"{where}.{key}" if where else key, one) for key, one in reversed(inner)]


def is_extra_state(key: object) -> bool:
    """Whether a key holds what a module's ``get_extra_state()`` returns, a tensor or not."""
    return isinstance(key, str) and key.rpartition(".")[2] == "_extra_state"
