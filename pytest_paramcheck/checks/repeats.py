"""Values that repeat where each should have been drawn by itself: certain at once, or not said.

Under a continuous distribution a value comes again only where rounding and coarse random bits
put two draws on one number: with a probability that is known for each number and a bound for
all. What is less probable than :data:`CERTAIN` is taken for impossible, and costs nothing of
the false-alarm rate.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..messages.wording import plural

#: Below this probability an observation is no chance.
CERTAIN = 1e-15


def repeated(stored: Tensor, counts: Tensor, chance: Tensor) -> str:
    """Say which values of a sample repeat as no draws do, or ``""``.

    ``stored`` are the values it has and ``counts`` how often, ``chance`` a bound for the
    probability of each.
    """
    n = int(counts.sum())
    # A value comes k times with C(n, k) * q**k at most, so that some value v does for which
    # C(n, k) * (2 * q)**(k - 1) is below t with t at most, whatever k is.
    k = counts.double()
    logs = _log_choose(n, k) + (k - 1) * (2 * chance).clamp(max=1.0).log()
    at = int(logs.argmin())
    if float(logs[at]) < math.log(CERTAIN) and int(counts[at]) > 1:
        value, count = f"{float(stored[at]) or 0.0:.4g}", int(counts[at])
        if count == n:
            return f"all {plural(n, 'value')} are {value}"
        return f"{count:,} of {plural(n, 'value')} are exactly {value}"
    # The n-th draw is a value that was there with n * q at most: repeats are fewer than those
    # of a coin. Values of one size and two signs are one value.
    again = _sizes(stored, counts)
    largest = float(chance.max()) * 2 * (2 if again is not None else 1)
    distinct = len(stored) if again is None else again
    if _coins(n, n - distinct, n * largest) < math.log(CERTAIN):
        signs = "" if again is None or len(stored) <= 1.5 * distinct else " but for their signs"
        return f"only {distinct:,} of {plural(n, 'value')} differ{signs}"
    return ""


def _sizes(stored: Tensor, counts: Tensor) -> int | None:
    """How many sizes the values have, of both signs; None where they have one sign."""
    if float(stored[0]) >= 0 or float(stored[-1]) <= 0:
        return None
    return len(torch.unique(stored.abs()))


def _coins(n: int, heads: int, chance: float) -> float:
    """The logarithm of a bound for ``n`` coins of this chance to show so many heads or more."""
    share = heads / n
    if chance >= share:
        return 0.0
    if share == 1:
        return n * math.log(chance)
    tails = (1 - share) * math.log((1 - share) / (1 - chance))
    return -n * (share * math.log(share / chance) + tails)


def _log_choose(n: int, k: Tensor) -> Tensor:
    total = torch.tensor(float(n), dtype=torch.float64, device="cpu")
    return torch.lgamma(total + 1) - torch.lgamma(k + 1) - torch.lgamma(total - k + 1)


def equal_slices(values: Tensor, chance: float) -> tuple[int, int, int] | None:
    """Return (dimension, i, j) of two slices that are equal bit for bit, or None.

    ``chance`` bounds the probability of one number. Slices so short that two could be equal by
    chance are not compared.
    """
    for dimension in range(values.dim()):
        slices = values.movedim(dimension, 0)
        count, size = len(slices), values.numel() // max(1, len(slices))
        if count < 2 or not size:
            continue
        if 2 * math.log(count) + size * math.log(min(1.0, chance)) >= math.log(CERTAIN):
            continue
        found = _equal_pair(slices)
        if found is not None:
            return dimension, *found
    return None


#: Rows and columns whose rank is asked for, and how many singular values have to vanish: four
#: of 64 below a ten-thousandth of the largest come by chance with 1e-20 or so.
_RANKED = 64
_VANISHED = 4


def low_rank(values: Tensor, mean: float = 0.0) -> int | None:
    """Return the rank of 64 rows and columns, where it is below that of draws around ``mean``."""
    if values.dim() < 2 or min(len(values), values.numel() // max(1, len(values))) < _RANKED:
        return None
    generator = torch.Generator("cpu").manual_seed(0)
    part = values.reshape(len(values), -1)
    for dimension in (0, 1):
        places = torch.randperm(part.shape[dimension], generator=generator, device="cpu")
        part = part.index_select(dimension, places[:_RANKED].to(part.device))
    part = part.cpu().float() if part.element_size() == 1 else part.cpu()
    sizes = torch.linalg.svdvals(part.double() - mean)
    rank = int((sizes > 1e-4 * sizes[0]).sum())
    return rank if rank <= _RANKED - _VANISHED else None


#: Values read at a time.
_CHUNK = 1 << 22


def _equal_pair(slices: Tensor) -> tuple[int, int] | None:
    """Return the first two equal ones: by a hash, and then bit for bit."""
    size = slices.numel() // len(slices)
    generator = torch.Generator("cpu").manual_seed(0)
    weights = torch.randint(-(2**62), 2**62, (size,), generator=generator, device="cpu") * 2 + 1
    step = max(1, _CHUNK // size)
    hashes = torch.cat(
        [
            (_integers(slices[start : start + step]) * weights).sum(1)
            for start in range(0, len(slices), step)
        ]
    ).tolist()
    seen: dict[int, int] = {}
    for number, key in enumerate(hashes):
        first = seen.setdefault(key, number)
        if first != number and torch.equal(
            _integers(slices[first : first + 1]), _integers(slices[number : number + 1])
        ):
            return first, number
    return None


def _integers(slices: Tensor) -> Tensor:
    flat = slices.cpu().resolve_neg().contiguous().reshape(len(slices), -1)
    integer = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
    return flat.view(integer[flat.element_size()]).to(torch.int64)
