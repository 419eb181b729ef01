"""Was this sample drawn from that distribution? Tests with a p-value that holds.

Values become normal scores ``z`` (for a normal, ``(x - mean) / std``; for a truncated one
``ndtri(F(x))``), so that three exact tests serve all sizes from one value up:

* mean: ``sum(z) / sqrt(n)`` is standard normal;
* spread: ``sum(z**2)`` is chi-square with ``n`` degrees of freedom;
* extremes: ``P(max|z| > m) = 1 - (1 - 2 Q(m))**n``.

The shape is tested by Kolmogorov's distance with the bound of Dvoretzky, Kiefer, Wolfowitz and
Massart, ``P(D > d) <= 2 exp(-2 n d**2)``, which holds for every ``n``. A uniform sample is
tested by its support, by its smallest and largest value (``P(max U <= u) = u**n``), and by D.

A dtype rounds what was drawn. The distance is therefore taken at the borders between stored
values, where rounding to nearest changes nothing, and means and spreads get the slack that
coarse random bits (torch draws bfloat16 uniforms from 8 bits) and rounding can cause.

Values that repeat are evidence of their own (``checks/repeats.py``), certain or not said at all.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..init import Normal, TruncNormal, Uniform
from .repeats import repeated

#: Values looked at for the shape: a distance of 0.003 is plain among a million.
SHAPE_SAMPLE = 1 << 20
CHUNK = 1 << 24


class Test(str, enum.Enum):
    """What a test looks at."""

    SUPPORT = "support"
    MEAN = "mean"
    STD = "std"
    EXTREMES = "extremes"
    LARGEST = "largest"
    SMALLEST = "smallest"
    SHAPE = "shape"
    REPEATS = "repeats"


@dataclass(frozen=True, slots=True)
class Outcome:
    """One test: what it looked at, its p-value (0 where no sample could look so), and words.

    ``beside`` is the p-value of a mean under the spread that was found, and of a spread around
    the mean that was found.
    """

    what: Test
    p: float
    text: str
    beside: float = 1.0


def number_of_tests(distribution: Normal | TruncNormal | Uniform) -> int:
    """How many tests a sample gets: the false-alarm rate is shared among them."""
    return {Normal: 4, TruncNormal: 3, Uniform: 3}[type(distribution)]


def failed(outcomes: Sequence[Outcome], share: float, n: int) -> list[Outcome]:
    """Return the tests that fail, each fact once: a wrong spread moves the other figures too."""
    failing = {outcome.what: outcome for outcome in outcomes if not outcome.p >= share}
    if n == 1 and Test.EXTREMES in failing:
        return [failing[Test.EXTREMES]]  # one value has no spread
    if Test.REPEATS in failing:
        return [failing[Test.REPEATS]]  # the figures of values that repeat are those of fewer ones
    if Test.STD in failing:
        failing.pop(Test.EXTREMES, None)
        if Test.MEAN in failing and failing[Test.MEAN].beside >= share:
            del failing[Test.MEAN]
        elif Test.MEAN in failing and failing[Test.STD].beside >= share:
            del failing[Test.STD]
    if len(failing) > 1:
        failing.pop(Test.SHAPE, None)
    return list(failing.values())


def sample_tests(flat: Tensor, distribution: Normal | TruncNormal | Uniform) -> list[Outcome]:
    """Return the tests of one sample, a flat floating tensor of any dtype."""
    eps = _coarseness(flat.dtype)
    if isinstance(distribution, Uniform):
        return _uniform(flat, distribution, eps)
    return _normal(flat, distribution, eps)


def _normal(flat: Tensor, of: Normal | TruncNormal, eps: float) -> list[Outcome]:
    n = flat.numel()
    total = squares = plain = plain_squares = 0.0
    largest = 0.0
    for start in range(0, n, CHUNK):
        x = _double(flat[start : start + CHUNK])
        if isinstance(of, TruncNormal):
            outside = (x < of.a - _ulps(of.a, flat.dtype)) | (x > of.b + _ulps(of.b, flat.dtype))
            if bool((outside | x.isnan()).any()):
                worst = float(x[outside | x.isnan()][0])
                return [Outcome(Test.SUPPORT, 0.0, f"{worst:.4g} is outside [{of.a:g}, {of.b:g}]")]
        elif not bool(x.isfinite().all()):
            return [Outcome(Test.SUPPORT, 0.0, "NaN or infinity among the values")]
        z = _scores(x, of, flat.dtype)
        total += float(z.sum())
        squares += float((z * z).sum())
        largest = max(largest, float(z.abs().max()))
        plain += float(x.sum())
        plain_squares += float(((x - of.mean) ** 2).sum())
    std = math.sqrt(max(0.0, plain_squares / n - (plain / n - of.mean) ** 2)) if n > 1 else 0.0
    # Rounding a value of size s moves it by at most s * eps / 2, and by half a subnormal step.
    step = torch.finfo(flat.dtype).smallest_normal * torch.finfo(flat.dtype).eps / of.std
    size = abs(of.mean) / of.std
    mean_slack = eps + 0.5 * step
    spread_slack = 4 * eps + (size * eps) ** 2 + step + step * step
    shift = max(0.0, abs(total / n) - mean_slack)
    tests = [
        Outcome(
            Test.MEAN,
            math.erfc(shift * math.sqrt(n / 2)),
            f"mean {plain / n:.4g}",
            math.erfc(abs(plain / n - of.mean) / std * math.sqrt(n / 2)) if std else 1.0,
        ),
        Outcome(
            Test.STD,
            _chi_square(squares, n, spread_slack),
            _std_text(std, of),
            _chi_square(squares - total * total / n, n - 1, spread_slack) if n > 1 else 1.0,
        ),
        *_shape(flat, of, lambda x: _cdf(x, of), "wrong distribution shape"),
    ]
    if isinstance(of, Normal):
        reach = largest * (1 - eps)
        p = -math.expm1(n * math.log1p(-min(math.erfc(reach / math.sqrt(2)), 1 - 1e-16)))
        tests.append(Outcome(Test.EXTREMES, p, f"a value {largest:.3g} standard deviations away"))
    return tests


def _std_text(std: float, of: Normal | TruncNormal) -> str:
    ratio = std / of.std
    if isinstance(of, TruncNormal) or not ratio:
        return f"std {std:.4g}"
    if 0.9 < ratio < 1.1:
        return f"std {std:.4g}, {ratio:.3g} times as wide"
    times = f"{ratio:.2g} times as wide" if ratio > 1 else f"{1 / ratio:.2g} times as narrow"
    return f"std {std:.2g}, {times}"


def _uniform(flat: Tensor, of: Uniform, eps: float) -> list[Outcome]:
    n = flat.numel()
    low, high = _extent(flat)
    width = of.b - of.a
    slack = _ulps(max(abs(of.a), abs(of.b)), flat.dtype)
    bounds = f"[{of.a:.4g}, {of.b:.4g}]"
    if not (low >= of.a - slack and high <= of.b + slack):
        worst = low if not low >= of.a - slack else high
        return [Outcome(Test.SUPPORT, 0.0, f"{worst:.4g} is outside {bounds}")]
    slack = slack / width + eps / 2
    top = min(1.0, (high - of.a) / width + slack)
    bottom = min(1.0, (of.b - low) / width + slack)
    return [
        Outcome(Test.LARGEST, top**n, f"no value above {high:.4g} in {bounds}"),
        Outcome(Test.SMALLEST, bottom**n, f"no value below {low:.4g} in {bounds}"),
        *_shape(flat, of, lambda x: ((x - of.a) / width).clamp(0, 1), f"not uniform over {bounds}"),
    ]


def _extent(flat: Tensor) -> tuple[float, float]:
    if flat.element_size() == 1:
        flat = flat.float()  # min and max are not there for float8
    return float(flat.min()), float(flat.max())


def _chi_square(squares: float, n: int, slack: float) -> float:
    """Two-sided p-value of a sum of n squared scores, its expectation off by ``slack`` at most."""
    ratio = squares / n
    low, high = ratio * (1 + slack), max(ratio / (1 + slack), 0.0)
    if low < 1:
        ratio, upper = low, False
    elif high > 1:
        ratio, upper = high, True
    else:
        return 1.0
    if n <= 10_000:
        a = torch.tensor(n / 2, dtype=torch.float64, device="cpu")
        x = torch.tensor(ratio * n / 2, dtype=torch.float64, device="cpu")
        side = torch.special.gammaincc(a, x) if upper else torch.special.gammainc(a, x)
        return min(1.0, 2 * float(side))
    # Wilson and Hilferty: the cube root is normal; at these n exact to a fraction of a percent
    # of the p-values that matter, where the incomplete gamma function loses digits.
    z = (ratio ** (1 / 3) - (1 - 2 / (9 * n))) / math.sqrt(2 / (9 * n))
    return min(1.0, math.erfc((z if upper else -z) / math.sqrt(2)))


def _shape(
    flat: Tensor, of: Normal | TruncNormal | Uniform, cdf: Callable[[Tensor], Tensor], text: str
) -> list[Outcome]:
    """Bound the p-value of the largest distance between the sample's distribution and ``cdf``.

    An outcome more says which values repeat, where that is certain.
    """
    flat = spread_sample(flat, SHAPE_SAMPLE)
    n = flat.numel()
    stored, counts = torch.unique(_double(flat), sorted=True, return_counts=True)
    below = counts.cumsum(0).double() / n
    # Between a stored value and its neighbors lie the borders at which rounding decides.
    upper = cdf(_border(stored, flat.dtype, up=True))
    lower = cdf(_border(stored, flat.dtype, up=False))
    before = torch.cat([below.new_zeros(1), below[:-1]])
    distance = max(float((below - upper).abs().max()), float((before - lower).abs().max()))
    d = max(0.0, distance - _coarseness(flat.dtype) / 2)
    outcomes = [Outcome(Test.SHAPE, min(1.0, 2 * math.exp(-2 * n * d * d)), text)]
    grid = grid_of(flat)
    if grid is not flat.dtype:
        upper, lower = (cdf(_border(stored, grid, up=up)) for up in (True, False))
    # The random bits of torch's generators: 24 for float32, those of the mantissa below.
    bits = max(torch.finfo(grid).eps, torch.finfo(torch.float64).eps * 2)
    if said := repeated(stored, counts, (upper - lower).abs() + 4 * bits):
        outcomes.append(Outcome(Test.REPEATS, 0.0, said))
    return outcomes


def grid_of(flat: Tensor) -> torch.dtype:
    """The narrowest dtype that holds all values: what was drawn in it and widened repeats."""
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        if flat.element_size() <= dtype.itemsize:
            break
        if torch.equal(flat.to(dtype).to(flat.dtype), flat):
            return dtype
    return flat.dtype


def chance_of_one(values: Tensor, of: Normal | TruncNormal | Uniform) -> float:
    """Bound the probability of each single number that a sample can hold."""
    info = torch.finfo(grid_of(values.reshape(-1)))
    if isinstance(of, Uniform):
        size, width = max(abs(of.a), abs(of.b)), of.b - of.a
    else:
        size, width = abs(of.mean) + 4 * of.std, of.std
    # What rounds to one number, and the random bits (at least 24 for float32).
    return min(1.0, 2 * size * info.eps / width + 4 * info.eps)


def spread_sample(values: Tensor, at_most: int) -> Tensor:
    """Return at most so many rows, spread evenly, each at random within its share.

    A fixed stride would never look at the columns or rows that it has a divisor in common with.
    """
    step = -(-len(values) // at_most)
    if step <= 1:
        return values
    generator = torch.Generator("cpu").manual_seed(0)
    count = len(values) // step
    within = torch.randint(step, (count,), generator=generator, device="cpu")
    places = torch.arange(count, device="cpu") * step + within
    return values[places.to(values.device)]


def _border(stored: Tensor, dtype: torch.dtype, *, up: bool) -> Tensor:
    """Half way to the next value above or below that the dtype can store."""
    info = torch.finfo(dtype)
    smallest = info.smallest_normal * info.eps
    # frexp gives |x| = m * 2**e with m in [0.5, 1): the spacing away from zero is
    # eps * 2**(e - 1), and towards zero half of that where m is 0.5, a power of two.
    mantissa, exponent = torch.frexp(stored)
    spacing = torch.ldexp(torch.full_like(stored, info.eps), exponent - 1)
    inward = (stored < 0) if up else (stored > 0)
    spacing = torch.where(inward & (mantissa.abs() == 0.5), spacing / 2, spacing)
    spacing = torch.where(stored == 0, torch.zeros_like(spacing), spacing).clamp(min=smallest)
    return stored + spacing / 2 if up else stored - spacing / 2


def _scores(x: Tensor, of: Normal | TruncNormal, dtype: torch.dtype) -> Tensor:
    z: Tensor = (x - of.mean) / of.std
    if isinstance(of, Normal):
        return z
    # What was rounded onto a bound came from half a step inside it, not from infinity.
    half = 0.5 * torch.finfo(dtype).eps
    ends = torch.tensor([of.a, of.b], dtype=torch.float64, device="cpu")
    inside = torch.stack([ends[0] + half * ends[0].abs(), ends[1] - half * ends[1].abs()])
    low, high = _cdf(inside, of).tolist()
    low, high = max(low / 2, 1e-12), min((1 + high) / 2, 1 - 1e-12)
    scores: Tensor = torch.special.ndtri(_cdf(x, of).clamp(low, high))
    return scores


def _cdf(x: Tensor, of: Normal | TruncNormal) -> Tensor:
    below: Tensor = torch.special.ndtr((x - of.mean) / of.std)
    if isinstance(of, Normal):
        return below
    low = 0.5 * math.erfc(-(of.a - of.mean) / of.std / math.sqrt(2))
    high = 0.5 * math.erfc(-(of.b - of.mean) / of.std / math.sqrt(2))
    return ((below - low) / (high - low)).clamp(0, 1)


def _coarseness(dtype: torch.dtype) -> float:
    """How coarse the numbers are that torch draws for a dtype, relative to the distribution."""
    if torch.finfo(dtype).bits >= 32:
        return 0.0
    if torch.finfo(dtype).bits == 16:
        return torch.finfo(dtype).eps
    return torch.finfo(torch.bfloat16).eps  # float8 is only ever cast to


def _ulps(size: float, dtype: torch.dtype) -> float:
    """Four steps of a dtype at this size: what scaling into an interval may round."""
    info = torch.finfo(dtype)
    return 4 * max(abs(size) * info.eps, info.smallest_normal * info.eps)


def _double(values: Tensor) -> Tensor:
    values = values.detach().cpu()
    return (values.float() if values.element_size() == 1 else values).double()
