"""Initial values against what a user's own function draws: two samples, no distribution named.

Some draws are made of the same shape. Where all of them agree, the function writes a constant
(a padding row, the bias of a forget gate), and so has the parameter to: they agree by chance with a
probability that is bounded by the commonest of the other values. The others are one sample against
the pooled draws. With F the common distribution, the distance of two samples is at most the sum of
their distances from F, so that the bound of Dvoretzky, Kiefer, Wolfowitz and Massart gives, split
evenly, ``P(D > d) <= 4 exp(-2 d**2 n m / (sqrt(n) + sqrt(m))**2)`` for all sizes.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..init import Like
from ..messages.errors import ParamCheckUsageError
from ..messages.wording import plural
from ..parameters.running.graph import held_by
from ..parameters.running.held_state import brought_along
from ..parameters.running.randomness import keep_generator, keep_random_states
from ..parameters.running.undo import Undo
from ..parameters.tensors.describe import size_text
from .repeats import equal_slices
from .statistics import SHAPE_SAMPLE, spread_sample

#: Draws that are made at least and at most to tell constants from chance.
_FEW, _MANY = 3, 8
#: With fewer values than this the pooled draws say little: more of them are made.
_POOLED = 4096
#: Below this probability an agreement is no chance.
_CERTAIN = 1e-9


@dataclass(frozen=True, slots=True)
class Compared:
    """What does not fit, and its probability; whether the function writes constants only."""

    text: str = ""
    p: float = 1.0
    constant: bool = False


class Draws:
    """What a function draws for one parameter; ``pick`` takes what is compared of each draw."""

    def __init__(self, name: str, said: Like, whole: Tensor, pick: Callable[[Tensor], Tensor]):
        self._name = name
        self._said = said
        self._whole = whole
        self._pick = pick
        self.function = said.function
        self._alone = _takes_nothing(said.function)

    def one(self) -> Tensor:
        """Return one draw."""
        __tracebackhide__ = True
        whole, said = self._whole, self._said.describe()
        number = torch.nan if whole.is_floating_point() or whole.is_complex() else 0
        given = torch.full_like(whole, number, memory_format=torch.contiguous_format)
        returned = self.function() if self._alone else self.function(given)
        drawn = given if returned is None and not self._alone else returned
        if not isinstance(drawn, Tensor):
            raise ParamCheckUsageError(
                f"{said} returned {type(returned).__name__} for {self._name}: it fills the tensor "
                f"it is given, or returns one"
            )
        if drawn.shape != whole.shape:
            raise ParamCheckUsageError(
                f"{said} drew {size_text(drawn)} for {self._name}, which is {size_text(whole)}"
            )
        drawn = drawn.detach().to(whole.device, whole.dtype)
        if number != 0 and bool(drawn.isnan().any()):
            raise ParamCheckUsageError(
                f"{said} leaves values of {self._name} as they were: it has to write all of them"
            )
        return self._pick(drawn)


def _takes_nothing(function: Callable[..., object]) -> bool:
    try:
        inspect.signature(function).bind(None)
    except TypeError:
        return True
    except ValueError:
        return False  # a builtin that does not say
    return False


def unlike(values: Tensor, draws: Draws, share: float) -> Compared:
    """Return what tells values from what a function draws.

    Random states are put back, those of generators that the function holds too; the draws are the
    same in every run.
    """
    __tracebackhide__ = True
    with Undo() as undo, undo:
        undo.push(keep_random_states([values.device]))
        held = map(keep_generator, brought_along(held_by(draws.function)))
        undo.push(*(restore for restore in held if restore is not None))
        torch.manual_seed(0x11CE)
        drawn = [draws.one() for _ in range(_FEW)]
        agree = drawn[0].eq(drawn[1]) & drawn[0].eq(drawn[2])
        chance = _commonest(drawn, ~agree)
        while values.numel() * chance ** (len(drawn) - 1) >= _CERTAIN and len(drawn) < _MANY:
            drawn.append(draws.one())
            agree &= drawn[0].eq(drawn[-1])
            chance = _commonest(drawn, ~agree)
        if values.numel() * chance ** (len(drawn) - 1) >= _CERTAIN:
            agree = torch.zeros_like(agree)  # too few different values to know who is constant
        wrong = agree & values.ne(drawn[0])
        if bool(wrong.any()):
            return Compared(_constants(values, drawn[0], agree, wrong), 0.0)
        if bool(agree.all()):
            return Compared(constant=True)
        free = ~agree
        count = int(free.sum())
        while count * len(drawn) < _POOLED:
            drawn.append(draws.one())
    samples = [_sample(one, free) for one in drawn]
    own, pooled = _sample(values, free), torch.cat(samples)
    p = _p_value(own, pooled)
    if p >= share:
        pair = equal_slices(values, max(chance, 2.0**-24)) if bool(free.all()) else None
        if pair is not None and equal_slices(drawn[0], max(chance, 2.0**-24)) is None:
            dimension, i, j = pair
            where = ":, " * dimension
            return Compared(f"[{where}{i}] and [{where}{j}] are equal bit for bit", 0.0)
        return Compared(p=p)
    # Draws that differ from one another as much were not drawn from one distribution.
    if min(_p_value(one, pooled) for one in samples) < 10 * share:
        raise ParamCheckUsageError(
            "like(): the function draws from another distribution each time, so that one "
            "parameter cannot be compared with it"
        )
    text = f"{_figures(own)}, where it draws {_figures(pooled)}, over {plural(len(own), 'value')}"
    return Compared(text, p)


def _commonest(drawn: list[Tensor], free: Tensor) -> float:
    """The share of the commonest value where draws do not agree."""
    values = torch.cat([_sample(one, free) for one in drawn])
    if not len(values):
        return 0.0
    _, counts = torch.unique(values, return_counts=True)
    return float(counts.max()) / len(values) if len(counts) < len(values) else 1 / len(values)


def _sample(values: Tensor, mask: Tensor) -> Tensor:
    flat = spread_sample(values[mask], SHAPE_SAMPLE).cpu()
    return (flat.float() if flat.element_size() == 1 else flat).double()


def _p_value(a: Tensor, b: Tensor) -> float:
    """Bound the probability that two samples of one distribution lie so far apart."""
    a, b = a.sort().values, b.sort().values
    n, m = len(a), len(b)
    places = torch.cat([a, b])
    below_a = torch.searchsorted(a, places, right=True).double() / n
    below_b = torch.searchsorted(b, places, right=True).double() / m
    d = float((below_a - below_b).abs().max())
    return min(1.0, 1e-300 + 4 * math.exp(-2 * d * d * n * m / (math.sqrt(n) + math.sqrt(m)) ** 2))


def _figures(sample: Tensor) -> str:
    std = float(sample.std(correction=0))
    return f"mean {float(sample.mean()):.4g}, std {std:.4g}"


def _constants(values: Tensor, drawn: Tensor, agree: Tensor, wrong: Tensor) -> str:
    at = wrong.nonzero()[0].tolist()
    found, wanted = (float(tensor[tuple(at)]) for tensor in (values, drawn))
    return (
        f"{int(wrong.sum()):,} of {int(agree.sum()):,} values that are the same in every draw off, "
        f"first {found:.4g} at {at} instead of {wanted:.4g}"
    )
