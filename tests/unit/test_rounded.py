"""What was rounded to a narrower dtype on the way is known by its bits."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pytest_paramcheck import assert_loaded, assert_same_values
from pytest_paramcheck.checks.rounded import rounded

from .messages import failure_lines

SIDES = ("here", "there")
VALUES = torch.linspace(-1, 1, 12).view(3, 4) / 3


@pytest.mark.parametrize("narrow", [torch.float16, torch.bfloat16])
def test_either_side_may_be_the_rounded_one(narrow: torch.dtype) -> None:
    other = VALUES.to(narrow).float()
    name = str(narrow).removeprefix("torch.")

    assert rounded(VALUES, other, SIDES) == f"rounded to {name} there"
    assert rounded(other, VALUES, SIDES) == f"rounded to {name} here"


def test_float64_may_have_been_float32() -> None:
    wide = VALUES.double() / 7

    assert rounded(wide, wide.float().double(), SIDES) == "rounded to float32 there"


def test_other_values_are_not_rounded_ones() -> None:
    other = VALUES.bfloat16().float()
    other[0, 0] += 1e-3

    assert rounded(VALUES, other, SIDES) == ""
    assert rounded(VALUES[0, :1], VALUES[0, :1].bfloat16().float(), SIDES) == ""  # one may be
    assert rounded(VALUES.long(), VALUES.long(), SIDES) == ""
    assert rounded(VALUES.bfloat16(), VALUES.bfloat16(), SIDES) == ""  # nothing is narrower
    assert rounded(VALUES.to_sparse(), VALUES.bfloat16().float().to_sparse(), SIDES) == ""
    assert rounded(VALUES, VALUES.to("meta"), SIDES) == ""


def test_a_checkpoint_that_was_converted_on_the_way() -> None:
    model = nn.Linear(4, 3, bias=False)
    saved = {"weight": VALUES}
    model.load_state_dict({"weight": VALUES.bfloat16()})

    assert failure_lines(assert_loaded, model, saved)[2].endswith(
        ": rounded to bfloat16 in the model"
    )
    assert failure_lines(assert_same_values, saved, model)[2].endswith(
        ": rounded to bfloat16 in the second"
    )
