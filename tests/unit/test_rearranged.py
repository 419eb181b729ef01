"""Values that are another tensor's in another order, as converters of checkpoints leave them."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_paramcheck import assert_loaded, assert_same_values
from pytest_paramcheck.checks.rearranged import rearranged

from .messages import failure_lines


def values(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0)).to(dtype)


def swapped(tensor: Tensor, *order: int) -> Tensor:
    parts = tensor.chunk(len(order))
    return torch.cat([parts[number] for number in order])


ROWS = "the same rows in another order"


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        (values(4, 4).T, values(4, 4), "transposed (dimensions 0 and 1)"),
        (values(6, 5, 5).mT, values(6, 5, 5), "transposed (dimensions 1 and 2)"),
        (values(3, 3, dtype=torch.bfloat16).T, values(3, 3, dtype=torch.bfloat16),
         "transposed (dimensions 0 and 1)"),
        (swapped(values(6, 3), 1, 0, 2), values(6, 3), f"{ROWS} (rows 0..1 are rows 2..3 of B)"),
        (values(5, 3)[[0, 2, 1, 3, 4]], values(5, 3), f"{ROWS} (row 1 is row 2 of B)"),
        (values(40, 3).flip(0), values(40, 3), ROWS),
        (values(4, 3, 2, 2).flip(1), values(4, 3, 2, 2),
         "the same slices of dimension 1 in another order (slice 0 is slice 2 of B)"),
        (swapped(values(6, 4).T, 1, 0).T, values(6, 4),
         "the same columns in another order (columns 0..1 are columns 2..3 of B)"),
        (values(9).flip(0), values(9), "the same values in another order"),
        (swapped(values(8), 0, 2, 1, 3), values(8),
         "the same values in another order (values 2..3 are values 4..5 of B)"),
        (values(4, 6).reshape(6, 4).T, values(4, 6), "the same values in another order"),
        # Not the same values, or values of which every mask has the same.
        (values(4, 4).T + 1e-6, values(4, 4), ""),
        (-values(4, 4).T, values(4, 4), ""),
        (torch.eye(6).flip(0), torch.eye(6), ""),
        (torch.ones(4, 4), torch.zeros(4, 4), ""),
        (values(3, 4).T, values(3, 4), ""),
        (values(4, 4).T.double(), values(4, 4), ""),
        (torch.full((4,), float("nan")), values(4), ""),
        (torch.arange(9).flip(0), torch.arange(9), ""),
        (values(4, 4).to_sparse(), values(4, 4), ""),
        (values(4, 4).to("meta"), values(4, 4), ""),
        (values(1, 3).flip(1), values(1, 3), ""),
    ],
)  # fmt: skip
def test_in_which_order(ours: Tensor, theirs: Tensor, said: str) -> None:
    assert rearranged(ours, theirs, "of B") == said


@given(st.permutations(range(8)) | st.permutations(range(2)))
def test_any_order_of_rows(order: list[int]) -> None:
    count = len(order)
    rows = values(count, 4)
    said = rearranged(rows[order], rows, "of B")
    if order == sorted(order):
        assert said == ""
        return
    first = next(row for row in range(count) if order[row] != row)
    assert said.startswith(ROWS)
    assert f"(row {first} is row {order[first]} " in said or f"(rows {first}.." in said


def test_a_checkpoint_whose_square_weight_was_not_transposed() -> None:
    model = nn.Linear(4, 4)
    state = {"weight": model.weight.detach().T.clone(), "bias": model.bias.detach().clone()}

    said = failure_lines(assert_loaded, model, state)

    assert said[0] == "not the checkpoint's values: weight (Linear)"
    assert said[2].endswith(": transposed (dimensions 0 and 1)")


def test_gates_in_the_order_of_another_library() -> None:
    lstm, other = nn.LSTM(3, 2), nn.LSTM(3, 2)
    other.load_state_dict({k: swapped(v, 0, 2, 1, 3) for k, v in lstm.state_dict().items()})

    said = failure_lines(assert_same_values, lstm, other)

    assert said[0].startswith("different values: weight_ih_l0, weight_hh_l0")
    assert f"{ROWS} (rows 2..3 are rows 4..5 of the second)" in " ".join(said[2].split())


def test_values_drawn_anew_are_in_no_order() -> None:
    said = failure_lines(assert_same_values, nn.Linear(4, 4), nn.Linear(4, 4))
    assert "order" not in " ".join(said)
    assert "transposed" not in " ".join(said)
