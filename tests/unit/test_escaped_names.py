"""Names that a terminal would act on: escaped in findings, wrong calls, titles and tables."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import pytest_paramcheck as pc

EVIL = "\x1b[2J\x07\u202e\ud800\nw"
SHOWN = r"\x1b[2J\x07\u202e\ud800\nw"


#: A class's name can hold no lone surrogate.
CLASS = EVIL.replace("\ud800", "")


def _model() -> nn.Module:
    return type(CLASS, (nn.ModuleDict,), {})({EVIL: nn.Linear(2, 2)})


def _nan() -> dict[str, torch.Tensor]:
    return {EVIL: torch.tensor(float("nan"))}


FAILURES: dict[str, Callable[[], object]] = {
    "frozen": lambda: pc.assert_frozen(_model()),
    "finite": lambda: pc.assert_finite(_nan()),
    "loaded": lambda: pc.assert_loaded(nn.Linear(1, 1), {EVIL: torch.ones(1)}),
    "same values": lambda: pc.assert_same_values(_nan(), {"w": torch.ones(1)}),
    "ties": lambda: pc.assert_ties(_model(), [{f"{EVIL}.weight", f"{EVIL}.bias"}]),
    "shapes": lambda: pc.assert_shapes(_nan(), {EVIL: (3,)}),
    "count": lambda: pc.assert_param_count(_model(), 1),
    "unknown pattern": lambda: pc.assert_frozen(_model(), "backbone"),
    "pattern": lambda: pc.assert_frozen(nn.Linear(2, 2), EVIL),
    "shape": lambda: pc.assert_shapes(_nan(), {EVIL: "2 x"}),
    "subject": lambda: pc.assert_finite(type(CLASS, (nn.Module,), {})()),
    "file": lambda: pc.assert_loaded(nn.Linear(1, 1), f"{EVIL[:-8]}missing.pt"),
    "case": lambda: pc.ModelCase(nn.Identity, frozen=EVIL),
    "table": lambda: pc.param_table(_model(), EVIL + "x"),
}


@pytest.mark.parametrize("call", FAILURES.values(), ids=FAILURES)
def test_every_line_of_a_message_can_be_printed(call: Callable[[], object]) -> None:
    with pytest.raises((pc.ParamCheckError, pc.ParamCheckUsageError)) as caught:
        call()

    assert [line for line in str(caught.value).split("\n") if not line.isprintable()] == []


def test_a_finding_shows_the_name_escaped_and_keeps_it_as_it_is() -> None:
    with pytest.raises(pc.ParamCheckError) as caught:
        pc.assert_finite(_nan())

    assert str(caught.value).partition("\n")[0] == f"not finite: {SHOWN} (a dict of tensors)"
    assert caught.value.findings[0].names == (EVIL,)


def test_the_lines_of_a_wrong_call_are_those_it_was_made_of() -> None:
    error: Any = pc.ParamCheckUsageError("no such name: a\nb", "the second line")

    assert str(error) == "no such name: a\\nb\nthe second line"


def test_a_table_is_one_row_for_each_name() -> None:
    lines = pc.param_table(_model()).split("\n")

    assert (
        lines[0] == r"\x1b[2J\x07\u202e\nw: 6 parameters, all trainable; float32 on cpu, 24 bytes"
    )
    assert [line.split()[0] for line in lines[3:]] == [f"{SHOWN}.weight", f"{SHOWN}.bias"]
    assert all(line.isprintable() for line in lines)


def test_the_name_of_a_case_goes_into_ids_and_the_summary() -> None:
    def factory() -> nn.Module:
        return nn.Linear(1, 1)

    factory.__name__ = EVIL

    assert pc.ModelCase(factory).name == SHOWN
    assert pc.ModelCase(nn.Identity, name=EVIL).name == SHOWN
