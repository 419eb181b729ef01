"""Relations and groups: the layouts that other tools get wrong, and how tensors come and go."""

from __future__ import annotations

import copy
import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.tensors.identity import Relation, relate, shared_memory

from ..models import LM
from .tensor_kinds import Wrapper, fake, freed

SAME, ALIASED, OVERLAPPING, EQUAL, DISTINCT = Relation


def _two(a: Tensor, b: Tensor) -> nn.Module:
    """A module with these two parameters."""
    module = nn.Module()
    for name, tensor in (("a", a), ("b", b)):
        if not isinstance(tensor, nn.Parameter):
            tensor = nn.Parameter(tensor, requires_grad=False)
        module.register_parameter(name, tensor)
    return module


def _flat(*spans: tuple[int, int]) -> nn.Module:
    """Parameters on spans of one flat buffer, every value another."""
    flat = torch.arange(100.0)
    module = nn.Module()
    for name, (start, end) in zip("abc", spans, strict=False):
        module.register_parameter(name, nn.Parameter(flat[start:end]))
    return module


def _shared_submodule() -> nn.Module:
    shared = nn.Linear(3, 3, bias=False)
    return nn.ModuleDict({"a": shared, "b": shared})


def _transposed() -> nn.Module:
    matrix = torch.arange(9.0).view(3, 3)
    return _two(matrix, matrix.t())


def _lazy() -> nn.Module:
    return nn.ModuleDict({"a": nn.LazyLinear(3, bias=False), "b": nn.LazyLinear(3, bias=False)})


def _parameter_and_buffer() -> nn.Module:
    module = nn.Module()
    module.a = nn.Parameter(torch.ones(3))
    module.register_buffer("b", module.a.data)
    return module


def _weight_norm_on_one_side() -> nn.Module:
    model = LM()
    nn.utils.parametrizations.weight_norm(model.head)
    return model


def _loaded_with_assign() -> nn.Module:
    model = LM()
    state = LM().state_dict()
    model.load_state_dict(state, assign=True)
    return model


def _to_empty() -> nn.Module:
    with torch.device("meta"):
        model = LM()
    model = model.to_empty(device="cpu")
    with torch.no_grad():  # what memory happens to hold is no test's business
        model.emb.weight.fill_(1)
        model.head.weight.fill_(2)
    return model


def _meta(tied: bool) -> nn.Module:
    with torch.device("meta"):
        return LM(tied=tied)


def _interleaved() -> nn.Module:
    matrix = torch.arange(12.0).view(3, 4)
    return _two(matrix[:, ::2], matrix[:, 1::2])


def _complex_and_real_view() -> nn.Module:
    values = torch.arange(3) + 1j
    return _two(values, torch.view_as_real(values))


def _one_cell_two_geometries() -> nn.Module:
    flat = torch.arange(4.0)
    return _two(flat[2], flat[2:3])


def _expanded() -> nn.Module:
    row = torch.arange(3.0)
    return _two(row, row.expand(4, 3))


@dataclass(frozen=True)
class Layout:
    """A model, the relation between two of its names, and the groups of names that share."""

    build: Callable[[], nn.Module]
    relation: Relation
    names: tuple[str, str] = ("a", "b")
    ties: tuple[tuple[str, ...], ...] = ()
    #: Groups of first names that share memory, and whether exactly the same.
    groups: tuple[tuple[tuple[str, ...], bool], ...] = ()
    itself: tuple[str, ...] = ()
    unknown: str = ""


TIED = ("emb.weight", "head.weight")
NO_VALUES = "values cannot be read"

LAYOUTS = {
    "one Parameter under two names": Layout(LM, SAME, TIED, ties=(TIED,)),
    "a shared submodule": Layout(
        _shared_submodule, SAME, ("a.weight", "b.weight"), ties=(("a.weight", "b.weight"),)
    ),
    "two Parameters on one storage": Layout(
        lambda: _flat((0, 9), (0, 9)), ALIASED, groups=((("a", "b"), True),)
    ),
    "a transposed view": Layout(_transposed, OVERLAPPING, groups=((("a", "b"), False),)),
    "disjoint slices of a flat buffer": Layout(lambda: _flat((0, 9), (9, 18)), DISTINCT),
    "overlapping slices": Layout(
        lambda: _flat((0, 9), (8, 17)), OVERLAPPING, groups=((("a", "b"), False),)
    ),
    "a prefix view": Layout(
        lambda: _flat((0, 9), (0, 4)), OVERLAPPING, groups=((("a", "b"), False),)
    ),
    "nested intervals": Layout(
        lambda: _flat((0, 100), (10, 20), (50, 60)),
        DISTINCT,
        ("b", "c"),
        groups=((("a", "b", "c"), False),),
    ),
    "meta, untied": Layout(lambda: _meta(False), DISTINCT, TIED, unknown=NO_VALUES),
    "meta, tied": Layout(lambda: _meta(True), SAME, TIED, ties=(TIED,)),
    "empty": Layout(lambda: _two(torch.empty(0, 3), torch.empty(0, 3)), EQUAL),
    "empty slices of one storage": Layout(lambda: _flat((5, 5), (5, 5)), EQUAL),
    "FakeTensor": Layout(lambda: _two(fake(), fake()), DISTINCT, unknown=NO_VALUES),
    "lazy": Layout(
        _lazy,
        DISTINCT,
        ("a.weight", "b.weight"),
        unknown=NO_VALUES,
    ),
    "parameter and buffer on one memory": Layout(
        _parameter_and_buffer, ALIASED, groups=((("a", "b"), True),)
    ),
    "weight_norm on one side": Layout(
        _weight_norm_on_one_side,
        ALIASED,
        ("emb.weight", "head.parametrizations.weight.original1"),
        groups=((("emb.weight", "head.parametrizations.weight.original1"), True),),
    ),
    "sparse, own memory": Layout(
        lambda: _two(torch.eye(3).to_sparse(), torch.eye(3).to_sparse()), EQUAL
    ),
    "sparse, one memory": Layout(
        lambda: (lambda s: _two(s, s.detach()))(torch.eye(3).to_sparse()),
        ALIASED,
        groups=((("a", "b"), True),),
    ),
    "float8": Layout(
        lambda: _two(torch.ones(3).to(torch.float8_e4m3fn), torch.ones(3).to(torch.float8_e4m3fn)),
        EQUAL,
    ),
    "complex and its real view": Layout(
        _complex_and_real_view, OVERLAPPING, groups=((("a", "b"), False),)
    ),
    "expand": Layout(_expanded, OVERLAPPING, groups=((("a", "b"), False),), itself=("b",)),
    "tied, then deepcopied": Layout(lambda: copy.deepcopy(LM()), SAME, TIED, ties=(TIED,)),
    "tied, then loaded with assign=True": Layout(
        _loaded_with_assign, ALIASED, TIED, groups=((TIED, True),)
    ),
    "to_empty": Layout(_to_empty, DISTINCT, TIED),
    "interleaved columns": Layout(_interleaved, DISTINCT),
    "compiled": Layout(
        lambda: torch.compile(LM()),  # type: ignore[arg-type,return-value]
        SAME,
        TIED,
        ties=(TIED,),
    ),
    "one cell with two geometries": Layout(
        _one_cell_two_geometries, OVERLAPPING, groups=((("a", "b"), False),)
    ),
    "wrapper subclass, own memory": Layout(
        lambda: _two(Wrapper(torch.ones(3)), Wrapper(torch.ones(3))), EQUAL
    ),
    "wrapper subclass, one memory": Layout(
        lambda: (lambda inner: _two(Wrapper(inner), Wrapper(inner)))(torch.ones(3)),
        ALIASED,
        groups=((("a", "b"), True),),
    ),
    "a wrapper and what it wraps": Layout(
        lambda: (lambda inner: _two(Wrapper(inner), inner))(torch.ones(3)),
        ALIASED,
        groups=((("a", "b"), True),),
    ),
    "mkldnn": Layout(
        lambda: _two(torch.ones(2, 2).to_mkldnn(), torch.zeros(2, 2).to_mkldnn()),
        DISTINCT,
        unknown=(
            "an mkldnn tensor does not say where its memory is "
            "(Cannot access storage of OpaqueTensorImpl)"
        ),
    ),
    "freed": Layout(lambda: _two(freed(), freed()), DISTINCT, unknown=NO_VALUES),
}


def check_layout(model: nn.Module, layout: Layout) -> None:
    inventory = take_inventory(model)
    tensors: list[Tensor] = []
    for entry in inventory.entries:
        assert entry.tensor is not None
        tensors.append(entry.tensor)
    a, b = (inventory.named[name] for name in layout.names)
    assert a is not None
    assert b is not None

    shared = shared_memory(tensors, itself=True)

    assert (relate(a, b).relation, relate(a, b).unknown) == (layout.relation, layout.unknown)
    assert relate(b, a).relation is layout.relation
    assert tuple(inventory.tie_groups) == layout.ties
    entries = inventory.entries
    found = [tuple(entries[i].name for i in group) for group in shared.groups]
    assert [
        (names, relation is Relation.ALIASED)
        for names, relation in zip(found, shared.relations, strict=True)
    ] == list(layout.groups)
    assert tuple(entries[i].name for i in shared.itself) == layout.itself


@pytest.mark.parametrize("name", LAYOUTS)
def test_layout(name: str) -> None:
    check_layout(LAYOUTS[name].build(), LAYOUTS[name])


def test_layout_dtensor(two_ranks: Any) -> None:
    from torch.distributed.tensor import DTensor, Shard

    def shard(local: Tensor) -> Tensor:
        return DTensor.from_local(local, two_ranks, [Shard(0)], run_check=False)

    local = torch.arange(6.0).view(2, 3)
    a, b = shard(local), shard(local.clone())

    check_layout(_two(a, b), Layout(nn.Module, EQUAL))
    check_layout(_two(a, shard(local)), Layout(nn.Module, ALIASED, groups=((("a", "b"), True),)))
    check_layout(_two(a, shard(local + 1)), Layout(nn.Module, DISTINCT))
    assert a.data_ptr() == b.data_ptr() == 0  # what a comparison of pointers would see


def test_layout_dtensor_with_an_empty_local_shard(two_ranks: Any) -> None:
    from torch.distributed.tensor import DTensor, Shard

    def shard() -> Tensor:
        return DTensor.from_local(
            torch.empty(0, 3), two_ranks, [Shard(0)], shape=torch.Size([1, 3]), stride=(3, 1)
        )

    a, b = shard(), shard()

    assert shared_memory([a, b]).groups == []
    assert relate(a, b).relation is EQUAL


def test_fully_shard_keeps_a_tie_within_one_group(two_ranks: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    model = LM()
    fully_shard(model, mesh=two_ranks)

    check_layout(model, Layout(LM, SAME, TIED, ties=(TIED,)))


# --- values ----------------------------------------------------------------------------------


def test_equal_and_distinct() -> None:
    assert relate(torch.ones(2), torch.ones(2)).relation is EQUAL
    assert relate(torch.ones(2), torch.zeros(2)).relation is DISTINCT
    assert relate(torch.ones(2), torch.ones(2, 1)).relation is DISTINCT
    nan = torch.tensor([float("nan")])
    assert relate(nan, nan.clone()).relation is EQUAL


# --- address spaces --------------------------------------------------------------------------


def test_memory_that_came_back_through_numpy_is_the_same_memory() -> None:
    tensor = torch.arange(6.0)
    back = torch.from_numpy(tensor.numpy())

    assert tensor.untyped_storage()._cdata != back.untyped_storage()._cdata
    assert relate(tensor, back).relation is ALIASED
    assert relate(tensor[:4], back[3:]).relation is OVERLAPPING
    assert relate(tensor[:3], back[3:]).relation is DISTINCT
    assert shared_memory([tensor, back[2:4]]).groups == [(0, 1)]


def test_memory_that_came_back_through_dlpack_is_the_same_memory() -> None:
    tensor = torch.arange(6.0)

    assert relate(tensor, torch.from_dlpack(tensor)).relation is ALIASED


def test_views_on_meta_share_what_they_would_share() -> None:
    flat = torch.empty(100, device="meta")

    assert relate(flat[:50], flat[:50]).relation is ALIASED
    assert relate(flat[:50], flat[49:]).relation is OVERLAPPING
    assert relate(flat[:50], flat[50:]).relation is DISTINCT


def test_meta_and_cpu_share_nothing() -> None:
    assert shared_memory([torch.empty(3, device="meta"), torch.empty(3)]).groups == []


# --- groups ----------------------------------------------------------------------------------


def test_groups_are_transitive_and_in_order() -> None:
    flat, other = torch.arange(30.0), torch.arange(30.0)
    tensors = [
        flat[20:30],
        other[0:5],
        flat[0:12],
        torch.ones(3),
        flat[11:21],
        other[0:5],
    ]

    shared = shared_memory(tensors)

    assert shared.groups == [(0, 2, 4), (1, 5)]
    assert shared.relations == [Relation.OVERLAPPING, Relation.ALIASED]


def test_what_cannot_be_asked_is_named() -> None:
    shared = shared_memory(
        [torch.ones(2), torch.ones(2, 2).to_mkldnn(), nn.UninitializedParameter()]
    )

    assert shared.groups == []
    assert shared.unknown == {
        1: "an mkldnn tensor does not say where its memory is "
        "(Cannot access storage of OpaqueTensorImpl)",
    }


def test_nothing_shares_with_nothing() -> None:
    shared = shared_memory([])

    assert (shared.groups, shared.relations, shared.itself, shared.unknown) == ([], [], [], {})


def test_many_tensors_on_one_buffer() -> None:
    flat = torch.zeros(20_000)
    disjoint = list(flat.split(4))

    assert shared_memory(disjoint).groups == []
    assert shared_memory([*disjoint, flat]).groups == [tuple(range(5001))]


@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_memory_freed_while_groups_are_computed_is_not_taken_for_shared(device: str) -> None:
    class Reading:
        """A sequence that makes each tensor as it is read and keeps none: addresses come back."""

        def __len__(self) -> int:
            return 64

        def __iter__(self) -> Any:
            for _ in range(64):
                yield torch.empty(4096, device=device)
                gc.collect(0)

    if device == "meta":
        assert shared_memory(Reading()).groups == []  # type: ignore[arg-type]
    kept = list(Reading())
    assert shared_memory(kept).groups == []


def test_ids_of_tensors_that_came_and_went_do_not_tie_names() -> None:
    def named() -> Any:
        for i in range(200):
            yield f"p{i}", torch.empty(8)

    inventory = take_inventory(named())

    assert len(inventory.entries) == 200
    assert inventory.tie_groups == []
    assert shared_memory([e.tensor for e in inventory.entries if e.tensor is not None]).groups == []
