"""Numbers about values, against the plain way to get them; and for every kind of tensor."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_paramcheck import param_page
from pytest_paramcheck.showing import statistics
from pytest_paramcheck.showing.statistics import BINS, TALLEST, Statistics, statistics_of

from .tensor_kinds import EVERY_KIND, WITH_VALUES, WITHOUT_VALUES

numbers = st.one_of(
    st.floats(-1000, 1000, width=32),
    st.sampled_from([0.0, -0.0, math.nan, math.inf, -math.inf, 1e30, -1e-30]),
)


def plain(tensor: torch.Tensor) -> tuple[float, ...]:
    """Range, mean, deviation and norm of the finite values, and how many are not, one by one."""
    values = [value for value in tensor.double().flatten().tolist() if math.isfinite(value)]
    missing = tensor.numel() - len(values)
    if not values:
        return (*[math.nan] * 5, missing)
    mean = math.fsum(values) / len(values)
    std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / len(values))
    norm = math.sqrt(math.fsum(value**2 for value in values))
    return min(values), max(values), mean, std, norm, missing


@settings(max_examples=40)
@given(
    st.lists(st.lists(numbers, min_size=1, max_size=12), min_size=1, max_size=6),
    st.sampled_from([torch.float32, torch.float64]),
)
def test_all_that_are_read_together_and_alone(rows: list[list[float]], dtype: torch.dtype) -> None:
    tensors = [torch.tensor(row, dtype=dtype) for row in rows]
    alone = [statistics._flat(tensor) for tensor in tensors]

    for together in (statistics_of(tensors), alone):
        for tensor, found in zip(tensors, together, strict=True):
            assert found is not None
            low, high, mean, std, norm, missing = plain(tensor)
            scale = max(abs(low), abs(high), 1e-30) if math.isfinite(low) else 1.0
            told = (found.low, found.high, found.mean, found.std, found.norm)
            assert told == pytest.approx(
                (low, high, mean, std, norm), rel=1e-4, abs=1e-5 * scale, nan_ok=True
            )
            assert (found.not_finite, found.sampled) == (missing, tensor.numel() - missing)
            assert len(found.histogram) == (BINS if found.sampled else 0)
            assert max(found.histogram, default=0) == (TALLEST if found.sampled else 0)
            assert sum(map(bool, found.histogram)) <= found.sampled


def test_a_histogram() -> None:
    values = torch.cat([torch.zeros(10), torch.full((5,), 24.0), torch.tensor([11.5])])

    [found] = statistics_of([values])

    assert found is not None
    assert list(found.histogram) == [35, *[0] * 10, 4, *[0] * 11, 18]


def test_a_large_tensor_is_sampled_over_all_its_columns() -> None:
    columns = torch.zeros(4096, 256)
    columns[:, 7] = 1.0
    columns[3, 3] = -5.0

    [found] = statistics_of([columns])

    assert found is not None
    assert (found.low, found.high) == (-5.0, 1.0)
    assert found.norm == pytest.approx(math.sqrt(4096 + 25))
    assert 60_000 < found.sampled <= 65_536
    assert found.mean == pytest.approx(1 / 256, rel=0.05)


def test_values_as_far_apart_as_the_dtype_goes() -> None:
    large = torch.finfo(torch.float32).max

    [found] = statistics_of([torch.tensor([-large, 0.0, large])])

    assert found is not None
    assert (found.low, found.high, found.not_finite) == (-large, large, 0)


def test_what_there_is_nothing_of() -> None:
    assert statistics_of([None, torch.ones(0), torch.ones(2, device="meta")]) == [None, None, None]


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_of_tensor_has_a_page(kind: str) -> None:
    tensor = EVERY_KIND[kind]()

    [found] = statistics_of([tensor])
    param_page({"w": tensor})

    if kind in WITHOUT_VALUES:
        assert found is None
    elif kind in WITH_VALUES and WITH_VALUES[kind].computes:
        assert isinstance(found, Statistics)
