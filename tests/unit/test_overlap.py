"""Exact overlap, against an oracle that lists every byte."""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_paramcheck.parameters.tensors.identity import Relation, relate, shared_memory
from pytest_paramcheck.parameters.tensors.memory import memory_of
from pytest_paramcheck.parameters.tensors.overlap import Layout, overlap, overlaps_itself, reachable

CELLS = 96  # bytes of a storage in these tests: small enough to list, large enough to miss
DTYPES = [torch.uint8, torch.bfloat16, torch.float32, torch.float64, torch.complex64]


def elements_of(layout: Layout) -> list[range]:
    """The bytes of each element."""
    steps = [[i * stride for i in range(size)] for size, stride in layout.dims]
    starts = [layout.base + sum(combination) for combination in itertools.product(*steps)]
    return [range(start, start + layout.itemsize) for start in starts]


def bytes_of(layout: Layout) -> set[int]:
    return {byte for element in elements_of(layout) for byte in element}


def oracle_overlaps_itself(layout: Layout) -> bool:
    counts = Counter(byte for element in elements_of(layout) for byte in element)
    return max(counts.values()) > 1


@st.composite
def layouts(draw: st.DrawFn) -> Layout:
    shape = draw(st.lists(st.integers(1, 5), max_size=3))
    strides = draw(st.lists(st.integers(0, 24), min_size=len(shape), max_size=len(shape)))
    return Layout.of(draw(st.integers(0, 60)), shape, strides, draw(st.sampled_from([1, 2, 4, 8])))


@given(layouts(), layouts())
def test_overlap_is_a_byte_in_common(a: Layout, b: Layout) -> None:
    assert overlap(a, b) == bool(bytes_of(a) & bytes_of(b))
    assert overlap(b, a) == overlap(a, b)


@given(layouts())
def test_a_layout_overlaps_itself_where_two_elements_share_a_byte(layout: Layout) -> None:
    assert overlaps_itself(layout) == oracle_overlaps_itself(layout)


@given(layouts())
def test_the_end_is_one_past_the_last_byte(layout: Layout) -> None:
    assert layout.end == max(bytes_of(layout)) + 1


@given(
    st.lists(st.tuples(st.integers(0, 30), st.integers(0, 4)), max_size=4),
    st.integers(-5, 200),
)
def test_reachable_is_exact(terms: list[tuple[int, int]], target: int) -> None:
    sums = {
        sum(c * x for (c, _), x in zip(terms, xs, strict=True))
        for xs in itertools.product(*(range(bound + 1) for _, bound in terms))
    }

    assert reachable(target, terms) == (target in sums)


@pytest.mark.parametrize(
    ("target", "terms", "expected"),
    [
        (0, [], True),
        (1, [], False),
        (7, [(0, 9), (7, 0)], False),
        # Coprime strides of real size: searched, not listed.
        (99_991 * 65_536 + 3, [(99_991, 10**6), (65_537, 10**6)], True),
        (99_991 * 65_537 - 99_991 - 65_537, [(99_991, 10**6), (65_537, 10**6)], False),
    ],
)
def test_reachable_at_its_edges(target: int, terms: list[tuple[int, int]], expected: bool) -> None:
    assert reachable(target, terms) is expected


def test_large_tensors_are_decided_without_looking_at_their_cells() -> None:
    matrix = torch.empty(1 << 15, 1 << 15, dtype=torch.float16, device="meta")
    even, odd = matrix[:, ::2], matrix[:, 1::2]
    diagonal = torch.as_strided(matrix, (1 << 15,), ((1 << 15) + 1,))

    assert relate(even, odd).relation is Relation.DISTINCT
    assert relate(even, diagonal).relation is Relation.OVERLAPPING
    assert relate(odd, diagonal).relation is Relation.OVERLAPPING
    assert not memory_of(matrix).overlaps_itself()


# The same on real tensors: storages, dtypes of different size on one storage, views of views.


@st.composite
def views(draw: st.DrawFn, storages: list[torch.Tensor]) -> torch.Tensor:
    """A view of a view of one of the storages, of any dtype, with any strides."""
    storage = draw(st.sampled_from(storages))
    dtype = draw(st.sampled_from(DTYPES))
    flat = storage.view(dtype)
    shape = draw(st.lists(st.integers(0, 4), max_size=3))
    strides = draw(st.lists(st.integers(0, 5), min_size=len(shape), max_size=len(shape)))
    reach = sum(max(n - 1, 0) * s for n, s in zip(shape, strides, strict=True))
    assume(reach < flat.numel())
    offset = draw(st.integers(0, flat.numel() - 1 - reach))
    view = flat.as_strided(shape, strides, offset)
    for _ in range(draw(st.integers(0, 2))):
        view = draw(st.sampled_from(VIEWS))(view)
    return view


def _narrow(view: torch.Tensor) -> torch.Tensor:
    return view[1:] if view.dim() and view.shape[0] > 1 else view


def _select(view: torch.Tensor) -> torch.Tensor:
    return view[-1] if view.dim() and view.shape[0] else view


def _transpose(view: torch.Tensor) -> torch.Tensor:
    return view.transpose(0, -1) if view.dim() else view


def _expand(view: torch.Tensor) -> torch.Tensor:
    return view.unsqueeze(0).expand(3, *view.shape)


def _real(view: torch.Tensor) -> torch.Tensor:
    return torch.view_as_real(view) if view.is_complex() else view


VIEWS = [_narrow, _select, _transpose, _expand, _real, torch.Tensor.detach]


def cells_of(tensor: torch.Tensor) -> list[tuple[int, int]]:
    """Every (storage, byte) of a tensor, once per element that lies on it."""
    size = tensor.element_size()
    steps = [
        [i * stride * size for i in range(n)]
        for n, stride in zip(tensor.shape, tensor.stride(), strict=True)
    ]
    key = tensor.untyped_storage()._cdata
    first = tensor.storage_offset() * size
    return [
        (key, first + sum(combination) + byte)
        for combination in itertools.product(*steps)
        for byte in range(size)
    ]


def components(tensors: list[torch.Tensor]) -> list[tuple[int, ...]]:
    """Groups of indices connected by a cell in common, by the plainest means."""
    groups: list[tuple[set[int], set[tuple[int, int]]]] = []
    for index, tensor in enumerate(tensors):
        members, cells = {index}, set(cells_of(tensor))
        apart = []
        for group in groups:
            if group[1] & cells:
                members |= group[0]
                cells |= group[1]
            else:
                apart.append(group)
        groups = [*apart, (members, cells)]
    return sorted(tuple(sorted(members)) for members, _ in groups if len(members) > 1)


def geometry(tensor: torch.Tensor) -> tuple[object, ...]:
    """What two ALIASED tensors have in common; a size-1 dimension's stride means nothing."""
    strides = tuple(s for n, s in zip(tensor.shape, tensor.stride(), strict=True) if n > 1)
    return (
        tensor.untyped_storage()._cdata,
        tensor.storage_offset() * tensor.element_size(),
        tuple(tensor.shape),
        strides,
        tensor.element_size(),
    )


@pytest.mark.parametrize("device", ["cpu", "meta"])
@given(data=st.data())
def test_memory_of_real_tensors(device: str, data: st.DataObject) -> None:
    storages = [torch.zeros(CELLS, dtype=torch.uint8, device=device) for _ in range(2)]
    tensors = [data.draw(views(storages)) for _ in range(data.draw(st.integers(1, 5)))]

    shared = shared_memory(tensors, itself=True)

    assert shared.groups == components(tensors)
    assert [relation is Relation.ALIASED for relation in shared.relations] == [
        len({geometry(tensors[i]) for i in g}) == 1 for g in shared.groups
    ]
    assert shared.itself == [
        i for i, t in enumerate(tensors) if len(cells_of(t)) != len(set(cells_of(t)))
    ]
    assert shared.unknown == {}
    for a, b in itertools.combinations(tensors, 2):
        relation = relate(a, b).relation
        if a is b:
            assert relation is Relation.SAME
        elif set(cells_of(a)) & set(cells_of(b)):
            aliased = geometry(a) == geometry(b)
            assert relation is (Relation.ALIASED if aliased else Relation.OVERLAPPING)
        else:
            assert relation in (Relation.EQUAL, Relation.DISTINCT)
