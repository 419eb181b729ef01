"""Conditions on values, for ``assert_values``.

Each is a frozen value that says what has to hold of a parameter or buffer; so does any function
that takes a tensor and returns a bool tensor (or a bool)::

    from pytest_paramcheck import assert_values, values

    assert_values(model, {"log_std": values.between(-5, 2), "emb": values.norm(dim=1, equals=1)})

A NaN satisfies no condition. Bounds are rounded to the dtype of what they bound, as ``clamp_``
rounds them; norms and orthogonality allow for what the dtype rounds.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .messages.errors import ParamCheckUsageError
from .messages.wording import a_or_an

__all__ = [
    "Condition", "between", "nonnegative", "norm", "orthogonal", "positive", "symmetric",
    "triangular", "zero_where",
]  # fmt: skip


class Condition:
    """What has to hold of the values of a parameter or buffer."""

    def describe(self) -> str:
        """Return it as it was written: ``between(0, 1)``."""
        raise NotImplementedError

    def problem(self) -> str:
        """Return what is wrong where it does not hold: ``not positive``."""
        raise NotImplementedError


@dataclass(frozen=True)
class Between(Condition):
    """Every value lies in ``[low, high]``; with ``open`` the bounds do not count."""

    low: float
    high: float
    open: bool = False
    said: str = ""

    def __post_init__(self) -> None:
        for bound in (self.low, self.high):
            if not _is_number(bound):
                raise ParamCheckUsageError(f"between: {bound!r} is not a bound: give a number")
        if self.low > self.high:
            raise ParamCheckUsageError(f"{self.describe()}: low is above high")

    def describe(self) -> str:
        return self.said or f"between({self.low:g}, {self.high:g})"

    def problem(self) -> str:
        if self.said:
            return "not positive" if self.open else "negative"
        return f"outside [{self.low:g}, {self.high:g}]"


@dataclass(frozen=True)
class Norm(Condition):
    """The p-norms over ``dim`` (of the whole tensor without one) are as given."""

    p: float = 2.0
    dim: int | tuple[int, ...] | None = None
    equals: float | None = None
    at_most: float | None = None

    def __post_init__(self) -> None:
        if (self.equals is None) == (self.at_most is None):
            raise ParamCheckUsageError(f"{self.describe()}: give equals= or at_most=")
        for value in (self.p, self.bound):
            if not (_is_number(value) and value >= 0):
                raise ParamCheckUsageError(f"{self.describe()}: {value!r} is not a number >= 0")

    @property
    def bound(self) -> float:
        """What the norms are held against."""
        bound = self.equals if self.at_most is None else self.at_most
        return math.nan if bound is None else bound

    def describe(self) -> str:
        given = [_text(self.p)]
        given += [f"dim={self.dim}"] if self.dim is not None else []
        named = (("equals", self.equals), ("at_most", self.at_most))
        given += [f"{name}={_text(value)}" for name, value in named if value is not None]
        return f"norm({', '.join(given)})"

    def problem(self) -> str:
        return "norm too large" if self.equals is None else f"norm is not {self.equals:g}"


@dataclass(frozen=True)
class Orthogonal(Condition):
    """Rows (or columns, where there are fewer) are orthogonal and of length ``gain``."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        if not self.gain > 0:
            raise ParamCheckUsageError(f"{self.describe()}: gain must be greater than 0")

    def describe(self) -> str:
        return f"orthogonal(gain={self.gain:g})" if self.gain != 1 else "orthogonal()"

    def problem(self) -> str:
        return "not orthogonal"


@dataclass(frozen=True)
class Symmetric(Condition):
    """Square in its last two dimensions, and equal to its transpose there."""

    def describe(self) -> str:
        return "symmetric()"

    def problem(self) -> str:
        return "not symmetric"


@dataclass(frozen=True)
class Triangular(Condition):
    """All zero above the diagonal of the last two dimensions (``upper``: below it)."""

    upper: bool = False
    diagonal: int = 0

    def describe(self) -> str:
        given = [f"upper={self.upper}"] if self.upper else []
        given += [f"diagonal={self.diagonal}"] if self.diagonal else []
        return f"triangular({', '.join(given)})"

    def problem(self) -> str:
        return f"not {'upper' if self.upper else 'lower'} triangular"


@dataclass(frozen=True, eq=False)
class ZeroWhere(Condition):
    """Zero wherever the mask is True (what was pruned, what has to stay zero)."""

    mask: Tensor

    def __post_init__(self) -> None:
        mask: object = self.mask
        if not isinstance(mask, Tensor) or mask.dtype is not torch.bool:
            kind = f"{mask.dtype} tensor" if isinstance(mask, Tensor) else type(mask).__name__
            raise ParamCheckUsageError(
                f"zero_where takes a bool tensor, not {a_or_an(kind.removeprefix('torch.'))}: "
                f"True where the values are zero (mask == 0 of a pruning mask)"
            )

        if mask.device.type != "meta" and not mask.any():
            raise ParamCheckUsageError("zero_where: no value of the mask is True: it asks nothing")

    def describe(self) -> str:
        return f"zero_where(mask of {int(self.mask.sum()):,})"

    def problem(self) -> str:
        return "not zero where it has to be"


def between(low: float, high: float) -> Condition:
    """Every value lies in ``[low, high]``."""
    return Between(low, high)


def positive() -> Condition:
    """Every value is above zero."""
    return Between(0.0, math.inf, open=True, said="positive()")


def nonnegative() -> Condition:
    """No value is below zero."""
    return Between(0.0, math.inf, said="nonnegative()")


def norm(
    p: float = 2.0,
    dim: int | tuple[int, ...] | None = None,
    *,
    equals: float | None = None,
    at_most: float | None = None,
) -> Condition:
    """The p-norm over ``dim``, as ``torch.linalg.vector_norm`` takes it, is so large."""
    return Norm(p, dim, equals, at_most)


def orthogonal(gain: float = 1.0) -> Condition:
    """Rows, or columns where there are fewer, are orthogonal and of length ``gain``."""
    return Orthogonal(gain)


def symmetric() -> Condition:
    """Equal to its transpose in the last two dimensions."""
    return Symmetric()


def triangular(*, upper: bool = False, diagonal: int = 0) -> Condition:
    """All zero above the diagonal, as ``torch.tril`` leaves it; ``upper``: as ``torch.triu``."""
    return Triangular(upper, diagonal)


def zero_where(mask: Tensor) -> Condition:
    """Zero wherever the mask is True."""
    return ZeroWhere(mask)


def _is_number(value: object) -> bool:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and not math.isnan(value)  # type: ignore[arg-type]


def _text(value: object) -> str:
    return f"{value:g}" if isinstance(value, (int, float)) else repr(value)
