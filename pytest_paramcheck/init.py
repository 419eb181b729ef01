"""Distributions that parameters start from, for ``assert_init``.

Each is a frozen value that says what ``torch.nn.init`` would have drawn from; fans are computed
as there (``size(1)`` and ``size(0)`` times the receptive field), whatever the weight is used for.
A layout that is not torch's says its own: ``fan_in=``, ``fan_out=`` of a weight stored (in, out),
``stacked=3`` of three weights in one (a fused qkv, experts), each of which was drawn by itself.
``like(fn)`` stands for whatever the user's own function draws::

    from pytest_paramcheck import assert_init, init

    assert_init(model, {"*.weight": init.normal(0, 0.02), "*.bias": init.zeros()})
"""

from __future__ import annotations

import math
import numbers
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor, nn

from .messages.errors import ParamCheckUsageError

__all__ = [
    "Distribution", "constant", "kaiming_normal", "kaiming_uniform", "like", "normal", "ones",
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


@dataclass(frozen=True)
class FanDistribution(Distribution):
    """One whose spread follows from the fans of the weight, as torch counts them or as given.

    ``stacked``: so many weights are in one tensor, along its first dimension.
    """

    fan_in: int | None = field(default=None, kw_only=True)
    fan_out: int | None = field(default=None, kw_only=True)
    stacked: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        for name in ("fan_in", "fan_out", "stacked"):
            _count(name, getattr(self, name))

    def needed(self) -> tuple[str, ...]:
        """Which fans its spread takes."""
        return ("fan_in", "fan_out")

    def fans_text(self, shape: Sequence[int]) -> str:
        """Return which fans it takes from this shape: ``fan_in 512``."""
        pairs = zip(("fan_in", "fan_out"), fans(shape, self), strict=True)
        return ", ".join(f"{name} {fan}" for name, fan in pairs if name in self.needed())

    def layout_text(self) -> str:
        """Return what is said of the layout, as further arguments: ``, stacked=3``."""
        given = [("fan_in", self.fan_in), ("fan_out", self.fan_out)]
        given += [("stacked", self.stacked if self.stacked > 1 else None)]
        return "".join(f", {name}={value}" for name, value in given if value is not None)


@dataclass(frozen=True)
class XavierUniform(FanDistribution):
    """Uniform within ``gain * sqrt(6 / (fan_in + fan_out))``."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "gain", self.gain)

    def describe(self) -> str:
        return f"xavier_uniform(gain={self.gain:g}{self.layout_text()})"

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        bound = self.gain * math.sqrt(6.0 / sum(fans(shape, self)))
        return Uniform(-bound, bound)


@dataclass(frozen=True)
class XavierNormal(FanDistribution):
    """Normal with std ``gain * sqrt(2 / (fan_in + fan_out))``."""

    gain: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        _positive(self, "gain", self.gain)

    def describe(self) -> str:
        return f"xavier_normal(gain={self.gain:g}{self.layout_text()})"

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        return Normal(0.0, self.gain * math.sqrt(2.0 / sum(fans(shape, self))))


@dataclass(frozen=True)
class _Kaiming(FanDistribution):
    a: float = 0.0
    mode: Literal["fan_in", "fan_out"] = "fan_in"
    nonlinearity: str = "leaky_relu"

    def __post_init__(self) -> None:
        super().__post_init__()
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
        given = f"a={self.a:.4g}, mode={self.mode!r}, nonlinearity={self.nonlinearity!r}"
        return f"kaiming_{kind}({given}{self.layout_text()})"

    def needed(self) -> tuple[str, ...]:
        return (self.mode,)

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
    """Rows (or columns, where there are fewer) are orthogonal and of length ``gain``.

    ``stacked``: so many matrices are in one tensor, each of them orthogonal by itself.
    """

    gain: float = 1.0
    stacked: int = field(default=1, kw_only=True)

    def __post_init__(self) -> None:
        _positive(self, "gain", self.gain)
        _count("stacked", self.stacked)

    def describe(self) -> str:
        stacked = f", stacked={self.stacked}" if self.stacked > 1 else ""
        return f"orthogonal(gain={self.gain:g}{stacked})"

    def for_shape(self, shape: Sequence[int]) -> Distribution:
        if len(one_of(shape, self.stacked, self)) < 2:
            raise ParamCheckUsageError(
                f"{self.describe()} needs two dimensions or more, not shape {tuple(shape)}"
            )
        return self


@dataclass(frozen=True)
class Like(Distribution):
    """What a function draws: it fills the tensor it is given, or returns one."""

    function: Callable[..., Any]

    def __post_init__(self) -> None:
        function: object = self.function
        if not callable(function) or isinstance(function, (Tensor, nn.Module)):
            raise ParamCheckUsageError(
                f"like() takes a function that fills a tensor, or returns one, "
                f"not {type(function).__name__}"
            )

    def describe(self) -> str:
        name = getattr(self.function, "__name__", type(self.function).__name__)
        return f"like({'the lambda' if name == '<lambda>' else name})"


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
like = Like


def fans(shape: Sequence[int], of: FanDistribution) -> tuple[int, int]:
    """Return (fan_in, fan_out) of a weight of this shape: those given, or as ``torch.nn.init``
    computes them. One that is not needed may be 0."""
    one = one_of(shape, of.stacked, of)
    if len(one) < 2:
        missing = [name for name in of.needed() if getattr(of, name) is None]
        if missing:
            raise ParamCheckUsageError(
                f"{of.describe()} needs a fan, and shape {tuple(shape)} has none: "
                f"a bias takes zeros() or uniform(a, b), or {missing[0]}="
            )
        return of.fan_in or 0, of.fan_out or 0
    inside = math.prod(one[2:])
    return of.fan_in or one[1] * inside, of.fan_out or one[0] * inside


def one_of(shape: Sequence[int], stacked: int, of: Distribution) -> tuple[int, ...]:
    """Return the shape of each of several weights that are stacked along the first dimension."""
    if stacked == 1:
        return tuple(shape)
    if not shape or shape[0] % stacked:
        raise ParamCheckUsageError(
            f"{of.describe()}: shape {tuple(shape)} is not {stacked} weights along its first "
            f"dimension"
        )
    if shape[0] == stacked and len(shape) > 2:
        return tuple(shape[1:])
    return (shape[0] // stacked, *shape[1:])


def _numbers(of: Distribution, *values: object) -> None:
    for value in values:
        if isinstance(value, bool) or not isinstance(value, numbers.Real):
            raise ParamCheckUsageError(f"init.{type(of).__name__}: {value!r} is not a number")


def _finite(of: Distribution, *values: float) -> None:
    _numbers(of, *values)
    if not all(math.isfinite(value) for value in values):
        raise ParamCheckUsageError(f"{of.describe()}: its parameters must be finite")


def _positive(of: Distribution, name: str, value: float) -> None:
    _numbers(of, value)
    if not value > 0:
        raise ParamCheckUsageError(f"{of.describe()}: {name} must be greater than 0")


def _count(name: str, value: object) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParamCheckUsageError(f"{name}={value!r}: give a whole number above 0")
