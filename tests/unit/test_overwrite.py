"""What a round trip loads into: other values in every place, of every dtype and layout."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from pytest_paramcheck.parameters.saving.overwrite import overwrite
from pytest_paramcheck.parameters.subject.inventory import Inventory
from pytest_paramcheck.parameters.subject.reading import take_inventory

from .messages import usage

DTYPES = [
    *(getattr(torch, f"{sign}int{bits}") for sign in ("", "u") for bits in (8, 16, 32, 64)),
    *(torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.bool),
    *(torch.float8_e4m3fn, torch.float8_e5m2, torch.float8_e4m3fnuz, torch.float8_e8m0fnu),
    *(torch.complex64, torch.complex128),
]


def _raw(tensor: Tensor) -> Tensor:
    return tensor.contiguous().view(-1, 1).view(torch.uint8)


@given(st.binary(min_size=16, max_size=256), st.sampled_from(DTYPES))
def test_whatever_the_bits_were(data: bytes, dtype: torch.dtype) -> None:
    data = data[: len(data) // 16 * 16]
    kept = torch.frombuffer(bytearray(data), dtype=torch.uint8)
    tensor = (kept % 2).bool() if dtype == torch.bool else kept.view(dtype)
    before = _raw(tensor).clone()
    overwrite(take_inventory({"w": tensor}))
    if dtype.is_complex:
        tensor = torch.view_as_real(tensor)
        before = before.view(-1, tensor.element_size())
    assert bool((_raw(tensor).view(before.shape) != before).any(1).all())
    if dtype.is_floating_point or dtype.is_complex:
        values = tensor.float() if tensor.element_size() == 1 else tensor
        assert bool((values.isfinite() & (values != 0)).all())
    elif dtype != torch.bool:
        # Added to what is loaded, it would change that too.
        assert bool(((tensor.view(-1) != 0) | (before == 0).all(1)).all())


def test_the_same_values_in_every_run_and_others_in_every_tensor() -> None:
    def written() -> list[Tensor]:
        tensors = {name: torch.zeros(5) for name in "ab"}
        overwrite(take_inventory(tensors))
        return list(tensors.values())

    state = torch.get_rng_state()
    (a, b), again = written(), written()
    assert torch.equal(torch.stack([a, b]), torch.stack(again))
    assert not bool((a == b).any())
    assert torch.equal(torch.get_rng_state(), state)


def test_a_tensor_longer_than_the_random_numbers() -> None:
    tensor = torch.full((200_000,), 0.5)
    overwrite(take_inventory({"w": tensor}))
    assert not bool((tensor == 0.5).any())
    assert len(tensor[-70_000:].unique()) > 60_000


@pytest.mark.parametrize(
    "view",
    [
        lambda t: t.t(),
        lambda t: t[::2, ::3],
        lambda t: t[:1].expand(4, 6),
        lambda t: t.view(-1).unfold(0, 5, 2),
        lambda t: t.view(-1).as_strided((3, 3), (1, 1), 2),
    ],
    ids=["transposed", "strided", "expanded", "windows", "every cell thrice"],
)
def test_views_are_written_cell_by_cell(view: Callable[[Tensor], Tensor]) -> None:
    base = torch.ones(4, 6)
    tensor = view(base)
    before = tensor.clone()
    overwrite(take_inventory({"w": tensor}))
    assert bool((tensor != before).all())
    # No cell beside it: as many changed as the view has cells.
    cells = view(torch.arange(24).view(4, 6)).unique().numel()
    assert int((base != 1).sum()) == cells


def test_what_torch_cannot_write_is_named() -> None:
    tensor = torch.zeros(2, 2).to_mkldnn()
    assert usage(overwrite, take_inventory({"w": tensor})).startswith(
        "w: a copy of it cannot be overwritten, so a load that does nothing would go unnoticed ("
    )
    overwrite(Inventory("nothing"))
