"""How much of a tensor others hold through its memory, element by element."""

from __future__ import annotations

from collections import Counter

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_paramcheck.parameters.tensors.cover import Cover, cover, near

SIZE = 40


@st.composite
def views(draw: st.DrawFn) -> tuple[list[int], list[int], int]:
    sizes = draw(st.lists(st.integers(1, 4), max_size=3))
    strides = draw(st.lists(st.integers(0, 6), min_size=len(sizes), max_size=len(sizes)))
    reach = sum((n - 1) * s for n, s in zip(sizes, strides, strict=True))
    return sizes, strides, draw(st.integers(0, max(SIZE - 1 - reach, 0)))


@given(mine=views(), others=st.lists(views(), max_size=3))
def test_cover_against_the_elements_themselves(
    mine: tuple[list[int], list[int], int], others: list[tuple[list[int], list[int], int]]
) -> None:
    memory = torch.arange(2 * SIZE)
    views = [memory.as_strided(*layout) for layout in (mine, *others)]
    elements = views[0].flatten().tolist()
    times = Counter(i for view in views[1:] for i in set(view.flatten().tolist()))
    assert cover(views[0], views[1:]) == Cover(
        len(elements),
        sum(not times[i] for i in elements),
        sum(times[i] > 1 for i in elements),
    )


@given(layouts=st.lists(views(), min_size=1, max_size=6))
def test_near_leaves_out_only_what_meets_nothing(
    layouts: list[tuple[list[int], list[int], int]],
) -> None:
    memory = torch.arange(2 * SIZE)
    views = [memory.as_strided(*layout) for layout in layouts]
    left = {id(tensor) for tensor in near(views)}
    cells = [set(view.flatten().tolist()) for view in views]
    for number, view in enumerate(views):
        others = [mine for other, mine in enumerate(cells) if other != number]
        if any(mine & cells[number] for mine in others):
            assert id(view) in left
    apart = [torch.zeros(3), torch.zeros(2, 2).t(), nn.Parameter(torch.zeros(())), torch.zeros(0)]
    assert near(apart) == []
    assert len(near([*apart, torch.zeros(3, device="meta")])) == 5


def test_what_lies_before_a_tensor_is_no_element_of_it() -> None:
    memory = torch.arange(10)
    assert cover(memory[2:9:2], [memory[1:4:2]]) == Cover(4, 4, 0)


def test_neighbors_in_one_buffer_do_not_meet() -> None:
    assert near(torch.zeros(8).split(2)) == []


def test_elements_of_another_size_count_where_they_hold_all_bytes() -> None:
    memory = torch.zeros(8, dtype=torch.int16)

    def covered(*others: Tensor) -> Cover:
        return cover(memory[:4], others)

    assert covered(memory.view(torch.int32)[:2]) == Cover(4, 0, 0)
    assert covered(memory.view(torch.int8)[:3]) == Cover(4, 3, 0)
    assert covered(memory.view(torch.int8)[::2]) == Cover(4, 4, 0)
    assert covered(memory.view(torch.int32)[::2], memory.view(torch.int32)[1::2]) == Cover(4, 0, 0)
    assert covered(torch.zeros(8)) == Cover(4, 4, 0)
    assert cover(torch.zeros(0), [memory]) == Cover(0, 0, 0)
