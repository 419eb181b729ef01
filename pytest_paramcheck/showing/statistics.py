"""Numbers about the values of many tensors: range, mean, norm, how many are not finite, histogram.

Small tensors of one size are read together, so that a model of 20,000 of them takes a fraction of
a second; of a large one the histogram is made of a sample.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ..parameters.running.gradstate import stored_values
from ..parameters.tensors.content import no_values, value_parts
from ..parameters.tensors.memory import PLAIN_TYPES
from ..parameters.tensors.sharded import read_whole

BINS = 24
TALLEST = 35
#: A larger tensor is read by itself, and its histogram is of about as many values.
SAMPLE = 1 << 16
#: How many values are read together at most.
BATCH = 1 << 22


@dataclass(frozen=True, slots=True)
class Statistics:
    """What is known of a tensor's values; of those that are finite, but for their number.

    ``histogram`` is the height of each of ``BINS`` bars between ``low`` and ``high``, the highest
    one ``TALLEST``, made of ``sampled`` of the values.
    """

    low: float
    high: float
    mean: float
    std: float
    norm: float
    not_finite: int
    sampled: int
    histogram: bytes


def statistics_of(tensors: Sequence[Tensor | None]) -> list[Statistics | None]:
    """Return the statistics of each tensor; None where it has no values that can be read."""
    found: list[Statistics | None] = [None] * len(tensors)
    alike: dict[tuple[torch.device, torch.dtype, int], list[int]] = {}
    with torch.no_grad():
        for index, tensor in enumerate(tensors):
            if tensor is None:
                continue
            if _small(tensor):
                alike.setdefault((tensor.device, tensor.dtype, tensor.numel()), []).append(index)
            else:
                found[index] = _alone(tensor)
        for (_, _, size), indices in alike.items():
            step = max(BATCH // size, 1)
            for start in range(0, len(indices), step):
                batch = indices[start : start + step]
                flat = [tensors[i].detach().reshape(-1) for i in batch]  # type: ignore[union-attr]
                for index, one in zip(batch, _together(torch.stack(flat)), strict=True):
                    found[index] = one
    return found


def _small(tensor: Tensor) -> bool:
    """Whether a tensor can be read together with others of its size."""
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.layout is torch.strided
        and tensor.is_floating_point()
        and tensor.element_size() > 1
        and not no_values(tensor)
        and 0 < tensor.numel() <= SAMPLE
    )


def _together(values: Tensor) -> list[Statistics | None]:
    """Statistics of each row of a matrix."""
    wide = values.double() if values.dtype is torch.float64 else values.float()
    finite = torch.isfinite(wide)
    all_finite = finite.all(dim=1).tolist()
    found: list[Statistics | None] = [None] * len(all_finite)
    for fine in (True, False):
        rows = [row for row, is_fine in enumerate(all_finite) if is_fine is fine]
        if not rows:
            continue
        chosen = torch.tensor(rows, device=wide.device)
        some = wide if len(rows) == len(found) else wide[chosen]
        done = _of_rows(some) if fine else _of_rows(some, finite[chosen])
        for row, one in zip(rows, done, strict=True):
            found[row] = one
    return found


def _of_rows(values: Tensor, finite: Tensor | None = None) -> list[Statistics]:
    """Statistics of each row of a matrix, of the finite values where some are not."""
    size = values.shape[1]
    if finite is None:
        low, high = values.aminmax(dim=1)
        counts = torch.full_like(low, size)
    else:
        counts = finite.sum(dim=1).to(values.dtype)
        low = values.masked_fill(~finite, math.inf).amin(dim=1)
        high = values.masked_fill(~finite, -math.inf).amax(dim=1)
        values = values.masked_fill(~finite, 0)
    # Squares of 1e30 and of 1e-30 leave float32: all is taken of values of about 1.
    scale = torch.maximum(low.abs(), high.abs()).clamp(min=torch.finfo(values.dtype).tiny)
    even = values / scale[:, None]
    norm = torch.linalg.vector_norm(even, dim=1) * scale
    if finite is None:
        std, mean = torch.std_mean(even, dim=1, correction=0)
    else:
        mean = even.sum(dim=1) / counts
        apart = (even - mean[:, None]).masked_fill(~finite, 0)
        std = apart.square().sum(dim=1).div(counts).sqrt()
    std, mean = std * scale, mean * scale
    bars = _bars(even, low / scale, high / scale, finite)
    columns = (column.tolist() for column in (low, high, mean, std, norm, counts))
    return [
        Statistics(a, b, c, d, e, size - int(count), int(count), bytes(bar))
        if count
        else _nothing(size)
        for a, b, c, d, e, count, bar in zip(*columns, bars, strict=True)
    ]


def _nothing(total: int) -> Statistics:
    """Statistics of values none of which is finite."""
    return Statistics(math.nan, math.nan, math.nan, math.nan, math.nan, total, 0, b"")


def _bars(values: Tensor, low: Tensor, high: Tensor, finite: Tensor | None) -> list[list[int]]:
    """Return the histogram of each row, its highest bar ``TALLEST``."""
    rows = len(values)
    span = torch.where(high > low, high - low, torch.ones_like(low))
    places = ((values - low[:, None]) * (BINS / span)[:, None]).nan_to_num(0)
    places = places.clamp(0, BINS - 1).long()
    places += torch.arange(rows, device=values.device)[:, None] * BINS
    weights = None if finite is None else finite.reshape(-1).double()
    counts = torch.bincount(places.reshape(-1), weights, minlength=rows * BINS)
    counts = counts.reshape(rows, BINS).double()
    most = counts.amax(dim=1, keepdim=True).clamp(min=1)
    heights: list[list[int]] = torch.ceil(counts * TALLEST / most).long().tolist()
    return heights


def _alone(tensor: Tensor) -> Statistics | None:
    """Statistics of a tensor of any kind."""
    try:
        # Of what other ranks hold too, all of it: they ask for it at the same time.
        read = read_whole(tensor)
        if no_values(read) or not read.numel():
            return None
        return _flat(_readable(read))
    except Exception:  # a subclass that does not compute, whatever it raises
        return None


def _readable(tensor: Tensor) -> Tensor:
    """Return a tensor's values as a flat tensor of floating numbers on the cpu or its device."""
    plain = tensor.detach()
    if type(plain) in PLAIN_TYPES and plain.layout is torch.strided:
        if plain.is_quantized:
            plain = plain.dequantize()
    elif callable(getattr(plain, "full_tensor", None)) or plain.layout is not torch.strided:
        plain = stored_values(plain)
    else:
        plain = torch.cat([part.reshape(-1).float() for part in value_parts(plain)])
    if plain.is_complex():
        plain = torch.view_as_real(plain.resolve_conj())
    if not plain.is_floating_point() or plain.element_size() == 1:
        plain = plain.float()
    return plain.reshape(-1)


def _flat(values: Tensor) -> Statistics | None:
    """Statistics of a flat floating tensor of any size, NaN and infinities left out."""
    total = values.numel()
    low, high = (float(bound) for bound in values.aminmax())
    if not (math.isfinite(low) and math.isfinite(high)):
        values = values[torch.isfinite(values)]
        if not values.numel():
            return _nothing(total)
        low, high = (float(bound) for bound in values.aminmax())
    wide = torch.float64 if values.dtype is torch.float64 else torch.float32
    norm = float(torch.linalg.vector_norm(values, dtype=wide))
    sample = values[:: _step(values.numel())]
    [one] = _of_rows(sample.to(wide)[None])
    if not norm or not math.isfinite(norm):  # its squares left the dtype
        norm = one.norm * math.sqrt(values.numel() / len(sample))
    missing = total - values.numel()
    bars = one.histogram if len(sample) == values.numel() else _between(sample.to(wide), low, high)
    return Statistics(low, high, one.mean, one.std, norm, missing, len(sample), bars)


def _between(sample: Tensor, low: float, high: float) -> bytes:
    """Return the histogram of a sample between the bounds of what it is a sample of."""
    bounds = torch.tensor([[low], [high]], dtype=sample.dtype, device=sample.device)
    [bars] = _bars(sample[None], bounds[0], bounds[1], None)
    return bytes(bars)


def _step(size: int) -> int:
    """How far apart the values of a sample are: with no factor that rows are likely to have, so
    that the sample is not of some columns only."""
    step = -(-size // SAMPLE)
    while step > 1 and math.gcd(step, 2 * 3 * 5 * 7) > 1:
        step += 1
    return step
