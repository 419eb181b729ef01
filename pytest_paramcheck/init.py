"""Distributions that parameters start from, for ``assert_init``.

Each is a frozen value that says what ``torch.nn.init`` would have drawn from; fans are computed
as there (``size(1)`` and ``size(0)`` times the receptive field), whatever the weight is used for::

    from pytest_paramcheck import assert_init, init

    assert_init(model, {"*.weight": init.normal(0, 0.02), "*.bias": init.zeros()})
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from torch import nn

from .messages.errors import ParamCheckUsageError

__all__ = [
    "Distribution", "constant", "kaiming_normal", "kaiming_uniform", "normal", "ones",
    "orthogonal", "trunc_normal", "uniform", "xavier_normal", "xavier_uniform", "zeros",
]  # fmt: skip


class Distribution:
    """What a parameter's values were drawn from. ``for_shape`` fills in what its shape decides."""

    def describe(self) -> str:
        """Return it as it was written: ``normal(0, 0.02)``."""
        raise NotImplementedError

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        """Return the constant, normal, uniform, truncated or orthogonal one for this shape."""
        return self


@dataclass(frozen=True)
class Constant(Distribution):
    """Every value is ``value``, rounded to the parameter's dtype."""

    value: float

    def describe(self) -> str:
        return f"constant({self.value:g})"


@dataclass(frozen=True)
class Normal(Distribution):
    """Normal with this mean and standard deviation."""

    mean: float = 0.0
    std: float = 1.0

    def __post_init__(self) -> None:
        _finite(self, self.mean, self.std)
        _positive(self, "std", self.std)

    def describe(self) -> str:
        return f"normal({self.mean:g}, {self.std:g})"


@dataclass(frozen=True)
class TruncNormal(Distribution):
    """Normal, redrawn until it lies in ``[a, b]``: absolute bounds, as in torch."""

    mean: float = 0.0
    std: float = 1.0
    a: float = -2.0
    b: float = 2.0

    def __post_init__(self) -> None:
        _finite(self, self.mean, self.std)
        _positive(self, "std", self.std)
        if not self.a < self.b:
            raise ParamCheckUsageError(f"{self.describe()}: a must be less than b")

    def describe(self) -> str:
        return f"trunc_normal({self.mean:g}, {self.std:g}, {self.a:g}, {self.b:g})"


@dataclass(frozen=True)
class Uniform(Distribution):
    """Uniform between ``a`` and ``b``."""

    a: float = 0.0
    b: float = 1.0

    def __post_init__(self) -> None:
        _finite(self, self.a, self.b)
        if not self.a < self.b:
            raise ParamCheckUsageError(f"{self.describe()}: a must be less than b")

    def describe(self) -> str:
        return f"uniform({self.a:g}, {self.b:g})"


class FanDistribution(Distribution):
    """One whose spread follows from the fans of the weight, as torch counts them."""

    def fans_text(self, shape: Sequence[int]) -> str:
        """Return which fans it takes from this shape: ``fan_in 512``."""
        fan_in, fan_out = fans(shape, self)
        return f"fan_in {fan_in}, fan_out {fan_out}"


@dataclass(frozen=True)
class XavierUniform(FanDistribution):
    """Uniform within ``gain * sqrt(6 / (fan_in + fan_out))``."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "gain", self.gain)

    def describe(self) -> str:
        return f"xavier_uniform(gain={self.gain:g})"

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        bound = self.gain * math.sqrt(6.0 / sum(fans(shape, self)))
        return Uniform(-bound, bound)


@dataclass(frozen=True)
class XavierNormal(FanDistribution):
    """Normal with std ``gain * sqrt(2 / (fan_in + fan_out))``."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "gain", self.gain)

    def describe(self) -> str:
        return f"xavier_normal(gain={self.gain:g})"

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        return Normal(0.0, self.gain * math.sqrt(2.0 / sum(fans(shape, self))))


@dataclass(frozen=True)
class _Kaiming(FanDistribution):
    a: float = 0.0
    mode: Literal["fan_in", "fan_out"] = "fan_in"
    nonlinearity: str = "leaky_relu"

    def __post_init__(self) -> None:
        if self.mode not in ("fan_in", "fan_out"):
            raise ParamCheckUsageError(
                f"{self.describe()}: mode is 'fan_in' or 'fan_out', not {self.mode!r}"
            )
        try:
            self.gain()
        except ValueError as error:
            raise ParamCheckUsageError(f"{self.describe()}: {error}") from None

    def gain(self) -> float:
        """The gain of the nonlinearity, as torch calculates it."""
        return float(nn.init.calculate_gain(self.nonlinearity, self.a))  # type: ignore[arg-type,unused-ignore]

    def describe(self) -> str:
        kind = "uniform" if isinstance(self, KaimingUniform) else "normal"
        return f"kaiming_{kind}(a={self.a:.4g}, mode={self.mode!r}, {self.nonlinearity!r})"

    def fans_text(self, shape: Sequence[int]) -> str:
        fan_in, fan_out = fans(shape, self)
        return f"fan_in {fan_in}" if self.mode == "fan_in" else f"fan_out {fan_out}"

    def std(self, shape: Sequence[int]) -> float:
        """The standard deviation for a parameter of this shape."""
        fan_in, fan_out = fans(shape, self)
        return self.gain() / math.sqrt(fan_in if self.mode == "fan_in" else fan_out)


@dataclass(frozen=True)
class KaimingUniform(_Kaiming):
    """Uniform within ``gain * sqrt(3 / fan)``. ``a=math.sqrt(5)`` is ``nn.Linear``'s own."""

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        bound = math.sqrt(3.0) * self.std(shape)
        return Uniform(-bound, bound)


@dataclass(frozen=True)
class KaimingNormal(_Kaiming):
    """Normal with std ``gain / sqrt(fan)``."""

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        return Normal(0.0, self.std(shape))


@dataclass(frozen=True)
class Orthogonal(Distribution):
    """Rows (or columns, where there are fewer) are orthogonal and of length ``gain``."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        _positive(self, "gain", self.gain)

    def describe(self) -> str:
        return f"orthogonal(gain={self.gain:g})"

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        if len(shape) < 2:
            raise ParamCheckUsageError(
                f"{self.describe()} needs two dimensions or more, not shape {tuple(shape)}"
            )
        return self


def zeros() -> Distribution:
    """All zeros."""
    return Constant(0.0)


def ones() -> Distribution:
    """All ones."""
    return Constant(1.0)


constant = Constant
normal = Normal
trunc_normal = TruncNormal
uniform = Uniform
xavier_uniform = XavierUniform
xavier_normal = XavierNormal
kaiming_uniform = KaimingUniform
kaiming_normal = KaimingNormal
orthogonal = Orthogonal


def fans(shape: Sequence[int], of: Distribution) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of this shape, as ``torch.nn.init`` computes them."""
    if len(shape) < 2:
        raise ParamCheckUsageError(
            f"{of.describe()} needs a fan, and shape {tuple(shape)} has none: "
            f"a bias takes zeros() or uniform(a, b)"
        )
    field = math.prod(shape[2:])
    return shape[1] * field, shape[0] * field


def _finite(of: Distribution, *values: float) -> None:
    if not all(math.isfinite(value) for value in values):
        raise ParamCheckUsageError(f"{of.describe()}: its parameters must be finite")


def _positive(of: Distribution, name: str, value: float) -> None:
    if not value > 0:
        raise ParamCheckUsageError(f"{of.describe()}: {name} must be greater than 0")
