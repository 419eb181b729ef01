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
