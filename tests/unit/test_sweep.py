"""The sweep against every pair, and what it does not ask."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from pytest_paramcheck.parameters.tensors import sweep
from pytest_paramcheck.parameters.tensors.memory import memory_of
from pytest_paramcheck.parameters.tensors.overlap import Layout, overlap
from pytest_paramcheck.parameters.tensors.sweep import Union, is_solid, join_overlapping


def cells(layout: Layout) -> set[int]:
    starts = {layout.base}
    for size, stride in layout.dims:
        starts = {start + n * stride for start in starts for n in range(size)}
    return {start + byte for start in starts for byte in range(layout.itemsize)}


def every_pair(layouts: list[Layout]) -> list[tuple[int, ...]]:
    union = Union(len(layouts))
    occupied = [cells(layout) for layout in layouts]
    for a, b in combinations(range(len(layouts)), 2):
        if occupied[a] & occupied[b]:
            union.join(a, b)
    return union.groups()


def swept(layouts: list[Layout]) -> list[tuple[int, ...]]:
    union = Union(len(layouts))
    join_overlapping([(layout, index) for index, layout in enumerate(layouts)], union)
    return union.groups()


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    """Mostly rows of few lengths, so that many lie in one another's intervals."""
    shape = draw(st.lists(st.integers(1, 4), max_size=3))
    strides = [draw(st.sampled_from([0, 1, 2, 3, 4, 6, 7, 8, 12, 16, 20, 24])) for _ in shape]
    return Layout.of(draw(st.integers(0, 60)), shape, strides, draw(st.sampled_from([1, 2, 4])))


@settings(max_examples=settings.default.max_examples // 2)
@given(st.lists(layouts(), max_size=9))
def test_the_sweep_finds_what_every_pair_finds(given_layouts: list[Layout]) -> None:
    assert swept(given_layouts) == every_pair(given_layouts)


@given(layouts())
def test_solid_has_every_byte(layout: Layout) -> None:
    assert is_solid(layout) == (cells(layout) == set(range(layout.base, layout.end)))


@settings(max_examples=settings.default.max_examples // 2)
@given(st.data())
def test_tiles_windows_and_columns_of_one_matrix(data: st.DataObject) -> None:
    rows, columns = data.draw(st.integers(1, 7)), data.draw(st.integers(1, 9))
    matrix = torch.zeros(rows, columns, device="cpu")
    views: list[Tensor] = []
    for _ in range(data.draw(st.integers(1, 8))):
        top, left = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, columns - 1))
        view = matrix[top : data.draw(st.integers(top + 1, rows))]
        view = view[:, left : data.draw(st.integers(left + 1, columns))]
        step = data.draw(st.integers(1, 3))
        view = data.draw(
            st.sampled_from([view, view.t(), view[::step], view[:, ::step], view[:, 0]])
        )
        views.append(view)
    found = [memory_of(view).blocks[0].layout for view in views]
    assert swept(found) == every_pair(found)


MANY = 400


def _columns() -> list[Tensor]:
    return list(torch.zeros(5, MANY).unbind(1))


def _tiles() -> list[Tensor]:
    matrix = torch.zeros(80, 80)
    return [matrix[i : i + 4, j : j + 4] for i in range(0, 80, 4) for j in range(0, 80, 4)]


def _heads() -> list[Tensor]:
    """Query, key and value of each head in one fused weight, interleaved."""
    fused = torch.zeros(MANY // 4, 3, 2, 6)
    return [fused[:, i, j, k] for i in range(3) for j in range(2) for k in range(6)] + [
        torch.zeros(7, MANY)[:, n] for n in range(MANY)
    ]


@pytest.mark.parametrize("build", [_columns, _tiles, _heads])
def test_interleaved_views_are_not_asked_in_pairs(
    build: Callable[[], list[Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """2,000 columns took a minute: two million exact questions."""
    asked = []

    def counted(a: Layout, b: Layout) -> bool:
        asked.append((a, b))
        return overlap(a, b)

    monkeypatch.setattr(sweep, "overlap", counted)
    views = build()
    found = [memory_of(view).blocks[0].layout for view in views]

    assert swept(found) == []
    assert len(asked) <= 12 * len(views)


def test_windows_over_one_another_are_one_group() -> None:
    vector = torch.zeros(3000)
    matrix = torch.zeros(3, 600)
    windows = [vector[n : n + 1000] for n in range(2000)]
    columns = [matrix[:, n : n + 2] for n in range(599)]
    found = [memory_of(view).blocks[0].layout for view in (*windows, *columns)]

    assert swept(found) == [tuple(range(2000)), tuple(range(2000, 2599))]
