"""Where a tensor's bytes are, for every kind of tensor, and what outsiders can teach us."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from torch import Tensor

from pytest_paramcheck.parameters.tensors.memory import (
    inner_tensors,
    memory_of,
    raised_by,
    storage_openers,
)

from .tensor_kinds import EVERY_KIND, Opaque, Wrapper, fake, freed

#: Kinds that do not say where their memory is.
SILENT = {"mkldnn", "nested", "opaque"}
#: Kinds that have none: no elements, or none yet.
WITHOUT_MEMORY = {"empty", "lazy", "lazy_buffer"}


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_every_kind_says_where_it_is_or_why_it_cannot(kind: str) -> None:
    memory = memory_of(EVERY_KIND[kind]())

    assert bool(memory.unknown) == (kind in SILENT)
    assert bool(memory.blocks) == (kind not in SILENT | WITHOUT_MEMORY)


@pytest.mark.parametrize("kind", EVERY_KIND)
def test_two_of_a_kind_share_nothing_and_each_shares_with_itself(kind: str) -> None:
    a, b = EVERY_KIND[kind](), EVERY_KIND[kind]()
    of_a, of_b = memory_of(a), memory_of(b)

    assert not of_a.overlaps(of_b)
    assert of_a.overlaps(memory_of(a)) == bool(of_a.blocks)
    assert of_a.key == memory_of(a).key


def test_only_expanded_memory_overlaps_itself() -> None:
    assert {kind for kind in EVERY_KIND if memory_of(EVERY_KIND[kind]()).overlaps_itself()} == {
        "expanded"
    }


def test_sliding_windows_overlap_themselves() -> None:
    assert memory_of(torch.arange(10).unfold(0, 3, 1)).overlaps_itself()
    assert not memory_of(torch.arange(10).unfold(0, 3, 3)).overlaps_itself()


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: torch.eye(3).to_sparse(), 2),
        (lambda: torch.eye(3).to_sparse_csr(), 3),
        (lambda: torch.eye(3).to_sparse_csc(), 3),
        (lambda: torch.eye(4).to_sparse_bsr((2, 2)), 3),
        (lambda: torch.eye(4).to_sparse_bsc((2, 2)), 3),
        (lambda: Wrapper(torch.eye(3)), 1),
        (lambda: Wrapper(torch.eye(3).to_sparse()), 2),
    ],
)
@pytest.mark.filterwarnings("ignore:Sparse .* tensor support is in beta state")
def test_parts(build: Callable[[], Tensor], count: int) -> None:
    tensor = build()
    parts = inner_tensors(tensor)

    assert parts is not None
    assert len(memory_of(tensor).blocks) == count
    for part in parts:
        assert memory_of(tensor).overlaps(memory_of(part))


@pytest.mark.parametrize("build", [fake, freed, lambda: torch.empty(2, 3, device="meta")])
def test_without_an_address_the_storage_decides(build: Callable[[], Tensor]) -> None:
    tensor, other = build(), build()

    assert memory_of(tensor).overlaps(memory_of(tensor.detach()))
    assert memory_of(tensor).key == memory_of(tensor.detach()).key
    assert not memory_of(tensor).overlaps(memory_of(other))


def test_a_storage_is_kept_while_its_memory_is_asked_about() -> None:
    memories = [memory_of(torch.empty(4, device="meta")) for _ in range(200)]

    assert len({memory.key for memory in memories}) == 200


def test_no_memory_is_touched_and_no_large_tensor_is_listed() -> None:
    tensor = torch.empty(1 << 40, device="meta")

    (block,) = memory_of(tensor).blocks
    assert block.layout.end - block.layout.base == (1 << 40) * 4


# --- openers ---------------------------------------------------------------------------------


def _open(tensor: Tensor) -> Sequence[Tensor] | None:
    return [tensor.inner] if isinstance(tensor, Opaque) else None


def test_an_opener_names_the_inner_tensors_of_a_subclass() -> None:
    inner = torch.eye(3)
    tensor = Opaque(inner)

    assert inner_tensors(tensor) is None
    with storage_openers(_open):
        assert inner_tensors(tensor) == [inner]
        assert memory_of(tensor).key == memory_of(inner).key
        assert inner_tensors(torch.ones(1)) is None
    assert inner_tensors(tensor) is None


def test_an_opener_comes_before_what_torch_would_say() -> None:
    other = torch.zeros(2)

    with storage_openers(lambda tensor: [other]):
        assert memory_of(Wrapper(torch.eye(3))).key == memory_of(other).key


def test_a_subclass_that_no_opener_knows_is_asked_itself() -> None:
    inner = torch.eye(3)

    with storage_openers(lambda tensor: None, _open):
        assert memory_of(Wrapper(inner)).key == memory_of(inner).key


def test_an_opener_that_does_not_know_a_tensor_leaves_it_to_the_others() -> None:
    inner = torch.ones(3)
    with storage_openers(lambda tensor: None):
        assert inner_tensors(Wrapper(inner)) == [inner]
        assert memory_of(Wrapper(inner)).overlaps(memory_of(inner))
        assert inner_tensors(inner) is None


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RuntimeError("no such place"), "its class Opaque raised RuntimeError: no such place"),
        (KeyError(), "its class Opaque raised KeyError"),
    ],
)
def test_what_a_class_raised_instead_of_answering(error: Exception, said: str) -> None:
    assert raised_by(Opaque(torch.eye(2)), error) == said


def test_why_it_is_not_known_where_the_memory_is() -> None:
    seen = []

    def note(tensor: Tensor) -> Tensor:
        seen.append(memory_of(tensor).unknown)
        return tensor

    torch.func.vmap(note)(torch.ones(2, 3))
    assert seen == ["inside torch.func.vmap or grad a tensor does not say where its memory is"]
    assert memory_of(torch.eye(2).to_mkldnn()).unknown.startswith(
        "an mkldnn tensor does not say where its memory is ("
    )
