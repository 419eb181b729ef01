"""Which hyperparameters each parameter gets from its optimizer."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.findings import Finding
from ..messages.wording import did_you_mean
from ..parameters.subject.declared import Declared, with_rivals
from ..parameters.subject.inventory import Entry, Inventory
from ..parameters.subject.leaves import as_tensor
from ..parameters.subject.optimizers import Slot
from ..parameters.subject.patterns import pattern_text
from ..parameters.tensors.content import no_values
from ..parameters.tensors.describe import describe
from .masters import held_as_copy, undeclared


def validate_settings(expected: object) -> None:
    """Raise :class:`ParamCheckUsageError` for what does not map patterns to settings."""
    if not isinstance(expected, Mapping) or not expected:
        raise ParamCheckUsageError(
            f"expected hyperparameters map patterns to settings, "
            f"{{'*.bias': {{'weight_decay': 0}}}}, got {expected!r}"
        )
    for pattern, settings in expected.items():
        if not isinstance(settings, Mapping) or not settings:
            raise ParamCheckUsageError(
                f"{pattern!r}: expected a mapping of hyperparameters, got {settings!r}"
            )


def param_groups(
    slots: Sequence[Slot],
    decided: Sequence[Declared[Mapping[str, Any]]],
    inventory: Inventory,
    stepped: Mapping[int, Tensor],
) -> list[Finding]:
    """Find the parameters whose optimizer group has other hyperparameters than expected.

    ``stepped`` are their declared masters, by the id of the parameter.
    """
    known = {key for slot in slots for key in slot.group} - {"params", "param_names"}
    by_id: dict[int, list[Slot]] = {}
    for slot in slots:
        by_id.setdefault(id(slot.tensor), []).append(slot)
    for pattern, asked in dict.fromkeys((item.pattern, tuple(item.value)) for item in decided):
        for key in asked:
            if key not in known:
                suggestion = did_you_mean(key, known) or f" there are {', '.join(sorted(known))}"
                raise ParamCheckUsageError(
                    f"{pattern_text(pattern)}: no group has a hyperparameter {key!r};{suggestion}"
                )

    def slots_of(entry: Entry) -> list[Slot]:
        master = stepped.get(id(entry.tensor))
        ids = dict.fromkeys(id(one) for one in (entry.tensor, master) if one is not None)
        return [slot for one in ids for slot in by_id.get(one, [])]

    held = {item.pattern for item in decided if slots_of(item.entry)}
    absent = [item.entry for item in decided if item.entry.trainable and not slots_of(item.entry)]
    copied = {} if stepped or not absent else undeclared(absent, inventory, slots)
    findings = []
    for item in decided:
        entry, names, pattern, expected = item.entry, item.names, item.pattern, item.value
        own = slots_of(entry)
        # A frozen parameter that no optimizer holds gets no hyperparameters at all; only where
        # that is true of all a pattern decides, the pattern asked about nothing.
        if entry in copied:
            findings.append(held_as_copy(names, copied[entry]))
        elif not own and (entry.trainable or pattern not in held):
            findings.append(
                Finding(
                    names,
                    "not in the optimizer",
                    expected=_settings(expected),
                    hint="assert_optimizer_covers(optimizer, model) says more",
                )
            )
        for slot in own:
            wrong = [key for key in expected if not _equal(slot.group.get(key), expected[key])]
            if wrong:
                findings.append(
                    Finding(
                        names,
                        "wrong hyperparameter",
                        expected=_settings({key: expected[key] for key in wrong}),
                        found=_settings({key: slot.group.get(key) for key in wrong}),
                        why=f"{slot.where.partition(',')[0]}, by pattern {pattern_text(pattern)}",
                    )
                )
    return with_rivals(findings, decided, _settings)


def _settings(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={_text(value)}" for key, value in values.items())


#: Numbers are equal up to this share of what is expected.
CLOSE = 1e-12
#: A tensor of more elements is described, not written out.
_WRITTEN = 4


def _text(value: Any) -> str:
    """Write a setting; a tensor as the number or the list of numbers that it holds."""
    tensor = _opened(value)
    if not isinstance(tensor, Tensor):
        if isinstance(value, (tuple, list)):
            inside = ", ".join(map(_text, value))
            return f"[{inside}]" if isinstance(value, list) else f"({inside})"
        return repr(value)
    if no_values(tensor) or tensor.is_nested or tensor.numel() > _WRITTEN:
        return describe(tensor)
    written = [_shortest(tensor.dtype, number) for number in tensor.detach().flatten().tolist()]
    return written[0] if tensor.numel() == 1 else f"tensor([{', '.join(written)}])"


def _shortest(dtype: torch.dtype, value: Any) -> str:
    """Write a number with the digits that its dtype needs: float32 0.1, not 0.10000000149."""
    if isinstance(value, float) and value == value:
        for digits in range(1, 17):
            text = f"{value:.{digits}g}"
            if torch.tensor(float(text), dtype=dtype, device="cpu").item() == value:
                return repr(float(text))
    return repr(value)


def _equal(found: Any, expected: Any) -> bool:
    a, b = _opened(found), _opened(expected)
    if isinstance(a, Tensor) or isinstance(b, Tensor):
        return _equal_tensors(a, b)
    if isinstance(expected, bool) or isinstance(found, bool):
        return found is expected
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return found == expected or _near(found, expected)
    if isinstance(expected, (tuple, list)) and isinstance(found, (tuple, list)):
        return len(found) == len(expected) and all(map(_equal, found, expected))
    try:
        return bool(found == expected)
    except Exception:
        return False  # of a class whose == has no answer


def _near(found: float, expected: float) -> bool:
    """Whether two settings are one: 0.1 + 0.2 and 0.3 are, NaN and NaN; 1e-4 and 1.0001e-4 are
    not, nor two counts, nor anything and infinity."""
    if isinstance(found, int) and isinstance(expected, int):
        return False
    try:
        if math.isnan(found) or math.isnan(expected):
            return math.isnan(found) and math.isnan(expected)
        return math.isfinite(expected) and abs(found - expected) <= CLOSE * abs(expected)
    except OverflowError:
        return False  # an int that is larger than any float


def _opened(value: Any) -> Any:
    """Return a numpy value as a tensor, all else as it is."""
    array = as_tensor(value)
    return value if array is None else array


def _equal_tensors(found: Any, expected: Any) -> bool:
    """Compare in the narrower dtype: 0.1 is 0.1 in float32, though not in float64.

    A tensor of one element is a number; of more, a tensor or a list of them.
    """
    a, b = _like(found, expected), _like(expected, found)
    if a is None or b is None or (a.shape != b.shape and not a.numel() == b.numel() == 1):
        return False
    if (a.dtype is torch.bool) != (b.dtype is torch.bool):
        return False
    a, b = a.reshape(-1), b.reshape(-1)
    if a.is_floating_point() and b.is_floating_point():
        narrow = min(a.dtype, b.dtype, key=lambda dtype: dtype.itemsize)
        a, b = a.to(narrow), b.to(narrow)
        near = torch.zeros_like(a, dtype=torch.bool)
        if narrow is torch.float64:
            near = b.isfinite() & ((a - b).abs() <= CLOSE * b.abs())
        return bool(((a == b) | (a.isnan() & b.isnan()) | near).all())
    return bool((a == b).all())


def _like(value: Any, other: Any) -> Tensor | None:
    """Return a value as a tensor in host memory, in the dtype of the other; None if it is none."""
    if isinstance(value, Tensor):
        readable = not (no_values(value) or value.is_nested)
        return value.detach().cpu() if readable else None
    cast = isinstance(other, Tensor) and other.is_floating_point() and not isinstance(value, bool)
    try:
        return torch.tensor(value, dtype=other.dtype if cast else None, device="cpu")
    except (TypeError, ValueError, RuntimeError, OverflowError):
        return None  # a text, None, lists of other lengths
