"""What conftests answer about subjects and tensors, checked. No torch, no pytest at load."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..messages.errors import ParamCheckUsageError


def named_tensors(hook: Any, subject: object) -> list[Any] | None:
    """Return the (name, tensor) pairs that a conftest gives for a subject, or None.

    Raises :class:`ParamCheckUsageError`, naming the hook, for what are no pairs.
    """
    __tracebackhide__ = True
    answer = hook(subject=subject)
    if answer is None:
        return None
    pairs = _listed(answer, "pytest_paramcheck_named_tensors", "(name, tensor) pairs")
    for pair in pairs:
        if not (isinstance(pair, (tuple, list)) and len(pair) == 2 and isinstance(pair[0], str)):
            raise ParamCheckUsageError(
                f"hook pytest_paramcheck_named_tensors: expected (name, tensor) pairs, got "
                f"{_kind(pair)} among them"
            )
    return pairs


def storages(hook: Any, tensor: Any) -> list[Any] | None:
    """Return the tensors that a conftest says hold a tensor's bytes, or None.

    Raises :class:`ParamCheckUsageError`, naming the hook, for what are no other tensors.
    """
    __tracebackhide__ = True
    answer = hook(tensor=tensor)
    if answer is None:
        return None
    from torch import Tensor

    parts = _listed(answer, "pytest_paramcheck_storages", "a list of tensors")
    for part in parts:
        if not isinstance(part, Tensor):
            raise ParamCheckUsageError(
                f"hook pytest_paramcheck_storages: expected a list of tensors, got {_kind(part)} "
                f"among them"
            )
        if part is tensor:
            raise ParamCheckUsageError(
                "hook pytest_paramcheck_storages: a tensor does not hold itself: return the "
                "tensors inside it, or None"
            )
    return parts


def _listed(answer: object, hook: str, expected: str) -> list[Any]:
    __tracebackhide__ = True
    if isinstance(answer, (str, bytes)) or not isinstance(answer, Iterable) or _is_tensor(answer):
        raise ParamCheckUsageError(f"hook {hook}: expected {expected}, got {_kind(answer)}")
    return list(answer.items()) if hasattr(answer, "items") else list(answer)


def _is_tensor(answer: object) -> bool:
    return hasattr(answer, "untyped_storage")


def _kind(value: object) -> str:
    return type(value).__name__
