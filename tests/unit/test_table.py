"""``param_table``: what it prints."""

from __future__ import annotations

from textwrap import dedent

import pytest
import torch
from torch import nn

from pytest_paramcheck import ParamCheckUsageError, param_table

from .messages import usage


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.attention = nn.Linear(width, 3 * width, bias=False)
        self.norm = nn.LayerNorm(width)


class LM(nn.Module):
    def __init__(self, layers: int = 3, width: int = 4, words: int = 11) -> None:
        super().__init__()
        self.emb = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(Block(width) for _ in range(layers))
        self.head = nn.Linear(width, words)
        self.head.weight = self.emb.weight
        self.register_buffer("positions", torch.arange(words), persistent=False)


@pytest.fixture(autouse=True)
def eighty_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")


def test_layers_are_folded_and_ties_are_listed() -> None:
    model = LM()
    model.blocks[1].norm.bias.requires_grad_(False)
    assert param_table(model) == dedent("""\
        LM: 223 parameters, 219 trainable, 1 buffer; on cpu

        name                            shape  dtype    elements  state
        positions                       11     int64          11  buffer, not saved
        emb.weight                      11x4   float32        44  trainable, 2 names
        blocks.{0..2}.attention.weight  12x4   float32    3 x 48  trainable
        blocks.{0..2}.norm.weight       4      float32     3 x 4  trainable
        blocks.{0,2}.norm.bias          4      float32     2 x 4  trainable
        blocks.1.norm.bias              4      float32         4  frozen
        head.bias                       11     float32        11  trainable

        tied:
          emb.weight = head.weight""")


def test_gradient_states() -> None:
    model = LM(layers=1)
    (model.head(model.emb.weight).sum() + 0 * model.blocks[0].norm.bias.sum()).backward()
    assert param_table(model, "head", "blocks.0.norm") == dedent("""\
        LM: 63 parameters, all trainable; float32 on cpu

        name                  shape  elements  state               grad
        emb.weight            11x4         44  trainable, 2 names  nonzero
        blocks.0.norm.weight  4             4  trainable           none
        blocks.0.norm.bias    4             4  trainable           zero
        head.bias             11           11  trainable           nonzero

        tied:
          emb.weight = head.weight""")


def test_lazy_and_plain_tensors() -> None:
    assert param_table(nn.LazyLinear(2)) == dedent("""\
        LazyLinear: 0 parameters and 2 lazy; float32 on cpu

        name    shape          elements  state
        weight  uninitialized         ?  trainable
        bias    uninitialized         ?  trainable""")
    assert param_table({"a": torch.ones(2), "b": torch.ones(()).bfloat16()}) == dedent("""\
        dict: 3 parameters, all frozen; on cpu

        name  shape   dtype     elements  state
        a     2       float32          2  tensor
        b     scalar  bfloat16         1  tensor""")


def test_it_fits_80_columns_whatever_the_names_are() -> None:
    model = nn.Module()
    inner = model
    for _ in range(6):
        inner.a_module_with_a_long_name = nn.Module()
        inner = inner.a_module_with_a_long_name
    inner.weight = nn.Parameter(torch.ones(2, 3))
    model.bias = nn.Parameter(torch.ones(2, dtype=torch.float64))
    lines = param_table(model).splitlines()
    assert [line for line in lines if len(line) > 80] == [
        ".".join(["a_module_with_a_long_name"] * 6 + ["weight"])
    ]
    assert lines[-1] == " " * 4 + "  2x3    float32         6  trainable"


def test_thousands_of_parameters_on_meta_are_a_few_rows() -> None:
    with torch.device("meta"):
        model = LM(layers=2000, width=8192, words=128_000)
    lines = param_table(model).splitlines()
    assert lines[0] == ("LM: 403,734,656,000 parameters, all trainable, 1 buffer; on meta")
    assert len(lines) == 15


def test_nothing_to_show() -> None:
    assert usage(param_table, {"a": None}) == "dict holds None only: there is nothing to show"
    with pytest.raises(ParamCheckUsageError, match="matches nothing in LM"):
        param_table(LM(), "body")


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_it_is_as_wide_as_the_terminal(monkeypatch: pytest.MonkeyPatch, columns: int) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    odd = nn.ModuleList([nn.Linear(i % 7 + 1, i % 5 + 1) for i in range(300)])
    odd.extra = nn.ModuleDict({"x" * n: nn.Linear(1, 1) for n in range(20, 30)})
    tied = nn.ModuleDict({"layer_" + "y" * n: odd[0] for n in range(15, 25)})

    for model in (odd, nn.ModuleDict({"odd": odd, "tied": tied})):
        lines = param_table(model).splitlines()
        assert max(map(len, lines)) <= columns


def test_a_row_stands_for_as_many_as_it_says() -> None:
    odd = nn.ModuleList([nn.Linear(i % 7 + 1, i % 5 + 1, bias=False) for i in range(300)])

    rows = [line.split("  ") for line in param_table(odd).splitlines()[3:]]
    counts = [int(cell.partition(" x ")[0]) for row in rows for cell in row if " x " in cell]

    assert sum(counts) == 300


def test_numbers_inside_a_component_fold() -> None:
    model = nn.Module()
    for number in range(60):
        model.add_module(f"layer{number}", nn.Linear(2, 2))

    assert param_table(model).splitlines()[2:] == [
        "name                 shape  elements  state",
        "layer{0..59}.weight  2x2      60 x 4  trainable",
        "layer{0..59}.bias    2        60 x 2  trainable",
    ]
