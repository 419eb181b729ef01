"""``param_table``: what it prints."""

from __future__ import annotations

import copy
import io
import json
import pickle
import re
from collections.abc import Callable
from textwrap import dedent
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckUsageError, param_table
from pytest_paramcheck.showing.rows import bytes_of, bytes_text
from pytest_paramcheck.showing.table_text import wants_color

from .messages import usage
from .tensor_kinds import Wrapper


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
        LM: 223 parameters, 219 trainable, 1 buffer; on cpu, 980 bytes

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
        LM: 63 parameters, all trainable; float32 on cpu, 252 bytes

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
        a dict of tensors: 3 elements in 2 tensors; on cpu, 10 bytes

        name  shape   dtype     elements  state
        a     2       float32          2  tensor
        b     scalar  bfloat16         1  tensor""")


@pytest.mark.parametrize(
    "use",
    [
        lambda text: (isinstance(text, str), len(text), list(text)),
        lambda text: (text[:10], text[-1], text.splitlines(), "weight" in text),
        lambda text: (text + "x", "x" + text, text * 2, "\n".join([text, text])),
        lambda text: (f"{text}", f"{text:.9}", f"{text:>200}", "%s" % text, "{}".format(text)),  # noqa: UP031, UP032
        lambda text: (text.upper(), text.replace("a", "b"), text.encode(), hash(text)),
        lambda text: (json.dumps(text), json.dumps({text: [text]}), {text: 1}, sorted(["a", text])),
        lambda text: (re.findall("[0-9]+", text), io.StringIO(text).read()),
        lambda text: (text == str(text), str(text) == text, text != "x", text < "a"),
    ],
)
def test_it_is_a_string_wherever_one_is_used(use: Callable[[str], object]) -> None:
    table = param_table(LM())

    assert use(table) == use(str(table))
    assert type(str(table)) is str


def test_copies_are_tables() -> None:
    table = param_table(LM())

    for copied in (copy.copy(table), copy.deepcopy(table)):
        assert copied == table
        assert copied.rows == table.rows
        assert copied._repr_html_() == table._repr_html_()


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
    assert lines[0] == ("LM: 403,734,656,000 parameters, all trainable, 1 buffer; on meta, 1.61 TB")
    assert len(lines) == 15


def test_nothing_to_show() -> None:
    assert (
        usage(param_table, {"a": None})
        == "a dict of tensors holds None only: there is nothing to show"
    )
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


def deep() -> nn.Module:
    block = nn.ModuleDict({"attention": nn.Linear(4, 4), "mlp": nn.Sequential(nn.Linear(4, 8))})
    return nn.ModuleDict({"body": nn.ModuleList([block, LM(1).blocks[0]]), "head": LM(2)})


def test_the_parts_add_up_to_the_whole() -> None:
    table = param_table(deep())

    for name, total in table.modules.items():
        below = [table.modules[child] for child in total.children]
        own = [row for row in table.rows if row.name.rpartition(".")[0] == name]
        assert total.bytes == sum(t.bytes for t in below) + sum(row.bytes or 0 for row in own)
        assert total.tensors == sum(t.tensors for t in below) + len(own)
    assert table.modules[""].elements == sum(p.numel() for p in deep().parameters())
    assert table.modules[""].trainable == table.modules[""].elements
    assert table.modules["head.blocks"].kind == "ModuleList"


def test_what_trains_of_a_part() -> None:
    model = nn.ModuleDict({"body": nn.Linear(4, 4), "head": nn.Linear(4, 2)})
    model["body"].requires_grad_(False)
    model["head"].bias.requires_grad_(False)
    modules = param_table(model).modules

    assert {name: total.trainable for name, total in modules.items()} == {
        "": 8,
        "body": 0,
        "head": 8,
    }


def test_a_tied_parameter_counts_where_it_comes_first() -> None:
    modules = param_table(LM()).modules

    assert (modules["emb"].elements, modules["head"].elements) == (44, 11)


def test_what_modules_hold_is_said_of_a_model_of_some_size() -> None:
    model = nn.Transformer(8, 2, 2, 3, 16, batch_first=True)

    assert param_table(model).split("\n\n")[2] == dedent("""\
        module                 elements      size  share
        encoder.layers.{0,1}    2 x 600   2.40 kB  30.4%
        encoder.norm                 16  64 bytes   0.4%
        decoder.layers.{0..2}   3 x 904   3.62 kB  68.8%
        decoder.norm                 16  64 bytes   0.4%""")


def test_rows_are_data() -> None:
    model = LM(layers=1)
    model.emb.weight.requires_grad_(False)
    table = param_table(model, "emb", "positions")

    read = json.loads(table.to_json())

    assert read["rows"] == [
        {
            "name": "positions",
            "names": ["positions"],
            "kind": "buffer",
            "shape": "11",
            "sizes": [11],
            "dtype": "int64",
            "device": "cpu",
            "elements": 11,
            "bytes": 88,
            "trainable": False,
            "saved": False,
            "grad": "",
            "groups": [],
            "losses": {},
        },
        {
            "name": "emb.weight",
            "names": ["emb.weight", "head.weight"],
            "kind": "parameter",
            "shape": "11x4",
            "sizes": [11, 4],
            "dtype": "float32",
            "device": "cpu",
            "elements": 44,
            "bytes": 176,
            "trainable": False,
            "saved": True,
            "grad": "",
            "groups": [],
            "losses": {},
        },
    ]
    assert [module["name"] for module in read["modules"]] == ["", "emb"]
    assert read["model"] == table.model == "LM"


def test_the_table_is_a_string_and_can_be_sent() -> None:
    table = param_table(LM())

    assert isinstance(table, str)
    assert table.splitlines()[0] == "LM: 223 parameters, all trainable, 1 buffer; on cpu, 980 bytes"
    assert repr(table) == str(table) == table.text(80)
    again = pickle.loads(pickle.dumps(table))
    assert (again, again.rows, again.modules) == (table, table.rows, table.modules)


def test_the_text_is_made_anew_for_another_width() -> None:
    table = param_table(deep())

    assert max(map(len, table.text(70).splitlines())) <= 70
    assert table.text(200).splitlines()[2:4] == [
        "name                                shape  dtype    elements  state",
        "body.0.attention.weight             4x4    float32        16  trainable",
    ]


def test_colors_are_asked_for() -> None:
    model = LM(layers=1)
    model.head.bias.requires_grad_(False)
    model.emb(torch.tensor([1])).mul(float("nan")).sum().backward()
    table = param_table(model, "emb", "head")

    assert "\x1b" not in table
    colored = table.text(80, color=True)
    assert re.sub(r"\x1b\[[0-9]+m", "", colored) == table
    assert "\x1b[31mnot finite\x1b[0m" in colored
    assert "\x1b[2mfrozen\x1b[0m" in colored


@pytest.mark.parametrize(
    ("variables", "terminal", "expected"),
    [
        ({}, True, True),
        ({}, False, False),
        ({"NO_COLOR": "1"}, True, False),
        ({"NO_COLOR": ""}, True, True),  # no-color.org: set and not empty
        ({"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ({"FORCE_COLOR": "1"}, False, True),
        ({"TERM": "dumb"}, True, False),
    ],
)
def test_when_colors_are_wanted(
    monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], terminal: bool, expected: bool
) -> None:
    for name in ("NO_COLOR", "FORCE_COLOR", "TERM"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    stream = io.StringIO()
    stream.isatty = lambda: terminal  # type: ignore[method-assign]

    assert wants_color(stream) is expected


def test_optimizer_groups_and_losses() -> None:
    model = LM(layers=1)
    optimizer = torch.optim.AdamW(
        [
            {"params": [model.emb.weight], "weight_decay": 0.0},
            {"params": [*model.blocks.parameters()]},
        ],
        lr=0.01,
        weight_decay=0.1,
    )
    losses = {
        "lm": lambda model: model.head(model.emb(torch.arange(3))).square().sum(),
        "norm": lambda model: (
            model.blocks[0].norm.weight.sum() + 0 * model.blocks[0].norm.bias.sum()
        ),
    }

    table = param_table(model, "!positions", optimizer=optimizer, losses=losses)

    assert table == dedent("""\
        LM: 111 parameters, all trainable; float32 on cpu, 444 bytes

        name                  shape  elements  state               group  reached by
        emb.weight            11x4         44  trainable, 2 names  0      lm
        blocks.0.attention.weight
                              12x4         48  trainable           1
        blocks.0.norm.weight  4             4  trainable           1      norm
        blocks.0.norm.bias    4             4  trainable           1      norm (zero)
        head.bias             11           11  trainable                  lm

        groups:
          0: AdamW lr 0.01, weight_decay 0
          1: AdamW lr 0.01, weight_decay 0.1

        tied:
          emb.weight = head.weight""")
    assert [row.groups for row in table.rows] == [("0",), ("1",), ("1",), ("1",), ()]
    assert table.rows[2].losses == (("lm", "none"), ("norm", "nonzero"))
    assert all(p.grad is None for p in model.parameters())


def test_groups_that_hold_other_tensors() -> None:
    """Built of another model, or before a layer was replaced: then there is no column to see it."""
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(copy.deepcopy(model).parameters(), lr=0.1)

    table = param_table(model, optimizer=optimizer)

    assert table.endswith(
        "groups:\n  0: SGD lr 0.1, weight_decay 0 (none of its 2 tensors is in the model)"
    )
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.weight = nn.Parameter(model.weight.detach().clone())
    assert param_table(model, optimizer=optimizer) == dedent("""\
        Linear: 6 parameters, all trainable; float32 on cpu, 24 bytes

        name    shape  elements  state      group
        weight  2x2           4  trainable
        bias    2             2  trainable  0

        groups:
          0: SGD lr 0.1, weight_decay 0 (1 of its 2 tensors not in the model)""")


def test_groups_of_several_optimizers() -> None:
    model = nn.Linear(2, 2)
    optimizers = [
        torch.optim.SGD([p], lr=0.1, momentum=m) for p, m in ((model.weight, 0.9), (model.bias, 0))
    ]

    table = param_table(model, optimizer=optimizers)

    assert [row.groups for row in table.rows] == [("SGD 0/0",), ("SGD 1/0",)]
    assert table.groups == (
        "SGD 0/0: SGD lr 0.1, weight_decay 0, momentum 0.9",
        "SGD 1/0: SGD lr 0.1, weight_decay 0, momentum 0",
    )


def test_a_loss_that_cannot_be_run() -> None:
    model = nn.Linear(2, 2)

    assert usage(param_table, model, losses=lambda model: model.weight) == (
        "losses: loss returned no scalar but Parameter 2x2 float32 cpu"
    )
    assert usage(param_table, model, losses=[]) == (
        "an empty list of losses: there is nothing to run"
    )
    assert usage(param_table, model, losses={"mse": model}) == (
        "a loss is a function of the model that returns a scalar tensor; 'mse' is Linear"
    )
    assert usage(param_table, {"a": torch.ones(1)}, losses=sum) == (
        "losses= runs a model: expected an nn.Module, got dict"
    )


def test_html_for_notebooks() -> None:
    class Evil(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module("</div><script>alert(1)</script>", nn.Linear(1, 1))
            self.lm = LM(layers=40)

    html = param_table(Evil())._repr_html_()

    assert "<script" not in html
    assert "&lt;/div&gt;&lt;script&gt;alert(1)&lt;/script&gt;.weight" in html
    assert "<td>lm.blocks.{0..39}.norm.weight</td>" in html
    assert "<li>lm.emb.weight = lm.head.weight</li>" in html
    ElementTree.fromstring(html.replace("&#", "#"))  # every tag is closed


def test_html_shows_the_share_of_each_module() -> None:
    html = param_table(nn.Transformer(8, 2, 2, 3, 16, batch_first=True))._repr_html_()
    shares = re.findall(r"<tr><td>([^<]+)<.*width: ([0-9.]+)em.* ([0-9.]+)%", html)
    assert shares == [
        ("encoder.layers.{0,1}", "2.4", "30.4"),
        ("encoder.norm", "0.0", "0.4"),
        ("decoder.layers.{0..2}", "5.5", "68.8"),
        ("decoder.norm", "0.0", "0.4"),
    ]


def test_html_shows_some_of_very_many_rows() -> None:
    subject = {f"{'x' * n}.w": torch.ones(1) for n in range(1, 601)}

    html = param_table(subject)._repr_html_()

    assert html.count("<td>x") == 500
    assert "... and 100 more: print() shows all" in html


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 bytes"),
        (1, "1 byte"),
        (999, "999 bytes"),
        (1000, "1.00 kB"),
        (9_994, "9.99 kB"),
        (9_995, "10.0 kB"),
        (99_950, "100 kB"),
        (999_499, "999 kB"),
        (999_500, "1.00 MB"),
        (1_410_000_000_000, "1.41 TB"),
    ],
)
def test_bytes_in_words(count: int, text: str) -> None:
    assert bytes_text(count) == text


def test_numbers_inside_a_component_fold() -> None:
    model = nn.Module()
    for number in range(60):
        model.add_module(f"layer{number}", nn.Linear(2, 2))

    assert param_table(model).splitlines()[2:] == [
        "name                 shape  elements  state",
        "layer{0..59}.weight  2x2      60 x 4  trainable",
        "layer{0..59}.bias    2        60 x 2  trainable",
    ]


class Tagged(Tensor):
    """A subclass that adds nothing to the values."""


def test_bytes_of_what_is_no_plain_tensor() -> None:
    values = torch.ones(3, dtype=torch.float64)

    assert bytes_of(values.as_subclass(Tagged)) == 24
    assert bytes_of(Wrapper(values)) == 24
    assert bytes_of(values.to(torch.float8_e4m3fn).as_subclass(Tagged)) == 3


def test_html_of_all_rows_speaks_of_no_more() -> None:
    assert " more" not in param_table(nn.Linear(3, 2))._repr_html_()
