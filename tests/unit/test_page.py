"""``param_page``: what it measures and writes; ``tests/pages`` looks at it in a browser."""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import ParamPage, param_page

from ..models import LM
from .messages import usage


def data_of(page: ParamPage) -> dict[str, Any]:
    """The data that the script of a page reads."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page.html, re.S)
    assert found is not None
    read: dict[str, Any] = json.loads(found.group(1))
    return read


class Row:
    """One parameter of a page's data, by name."""

    def __init__(self, data: Mapping[str, Any], given: list[Any]) -> None:
        padded = given + [None] * (18 - len(given))
        label, module, self.kind, self.flags = padded[:4]
        prefix = data["modules"][module][0]
        self.name = f"{prefix}.{label}" if prefix else label
        self.shape = data["words"][padded[4]]
        self.elements, self.bytes = padded[7:9]
        self.grad = None if padded[9] is None else data["states"][padded[9]]
        self.values, self.slope, self.update, self.change = padded[10:14]
        self.names, self.groups, self.findings, self.losses = padded[14:]


def rows_of(page: ParamPage) -> dict[str, Row]:
    data = data_of(page)
    rows = [Row(data, given) for given in data["parameters"]]
    return {row.name: row for row in rows}


def mlp() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 1))


def test_structure_of_a_model_that_is_not_run() -> None:
    model = LM(mask=True)
    model.requires_grad_(False)

    page = param_page(model)

    rows = rows_of(page)
    assert list(rows) == ["mask", "emb.weight"]
    assert rows["emb.weight"].names == [["head.weight", 2]]
    assert (rows["mask"].kind, rows["mask"].flags) == (1, 0)
    assert (rows["emb.weight"].kind, rows["emb.weight"].flags) == (0, 2)
    assert [row.grad for row in rows.values()] == [None, None]
    assert page.path is None
    assert data_of(page)["losses"] == []


def test_gradients_that_are_there_are_shown() -> None:
    model = mlp()
    model(torch.ones(2, 4)).sum().backward()
    model[0].bias.grad = torch.zeros(8)  # type: ignore[union-attr]
    model[2].bias.grad = None  # type: ignore[union-attr]
    model[2].weight.grad[0, 0] = float("nan")  # type: ignore[union-attr, index]

    grads = {name: row.grad for name, row in rows_of(param_page(model)).items()}

    assert grads == {
        "0.weight": "nonzero",
        "0.bias": "zero",
        "2.weight": "not finite",
        "2.bias": "none",
    }


def test_a_run_measures_gradients_and_leaves_nothing_behind() -> None:
    model = mlp()
    kept = model[0].weight.grad = torch.full((8, 4), 7.0)  # type: ignore[union-attr]

    rows = rows_of(param_page(model, inputs=torch.ones(2, 4), loss=lambda out: out.sum()))

    assert model[0].weight.grad is kept  # type: ignore[union-attr]
    assert bool((kept == 7).all())
    assert model[2].bias.grad is None  # type: ignore[union-attr]
    assert rows["2.bias"].slope[4] == 2.0  # the norm: two samples
    assert rows["2.bias"].grad == "nonzero"


def test_each_loss_is_told_apart() -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2), "c": nn.Linear(2, 2)})
    losses = {
        "first": lambda model: model["a"](torch.ones(2)).sum(),
        "second": lambda model: model["b"](torch.ones(2)).sum() + 0 * model["c"].weight.sum(),
    }

    page = param_page(model, loss=losses)

    states, rows = data_of(page)["states"], rows_of(page)
    assert data_of(page)["losses"] == ["first", "second"]
    said = {name: [states[n] for n in row.losses] for name, row in rows.items()}
    assert said["a.weight"] == ["nonzero", "none"]
    assert said["b.bias"] == ["none", "nonzero"]
    assert said["c.weight"] == ["none", "zero"]
    assert [rows[f"{m}.weight"].grad for m in "abc"] == ["nonzero", "nonzero", "zero"]


@pytest.mark.parametrize("given", ["instance", "class", "function", "list"])
def test_a_step_is_taken_by_a_copy(given: str) -> None:
    model = mlp()
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    optimizer: Any = torch.optim.SGD(model.parameters(), lr=0.5)
    if given == "class":
        optimizer = torch.optim.SGD
    elif given == "function":
        optimizer = lambda model: torch.optim.SGD(model.parameters(), lr=0.5)  # noqa: E731
    elif given == "list":
        optimizer = [torch.optim.SGD(part.parameters(), lr=0.5) for part in (model[0], model[2])]

    page = param_page(
        model, inputs=torch.ones(2, 4), loss=lambda out: out.sum(), optimizer=optimizer
    )

    for name, p in model.named_parameters():
        assert torch.equal(p, before[name])
    expected = 0.001 if given == "class" else 0.5
    update = rows_of(page)["2.bias"].update
    assert update == pytest.approx(2 * expected / before["2.bias"].abs().item(), rel=1e-2)
    assert len(data_of(page)["groups"]) == (2 if given == "list" else 1)


def test_an_optimizer_that_misses_a_parameter() -> None:
    model = mlp()
    optimizer = torch.optim.AdamW(model[0].parameters(), lr=0.1)  # type: ignore[union-attr]

    page = param_page(model, inputs=torch.ones(2, 4), optimizer=optimizer)

    rows = rows_of(page)
    assert data_of(page)["groups"] == ["0: AdamW lr 0.1, weight_decay 0.01"]
    assert (rows["0.weight"].groups, rows["2.weight"].groups) == ([0], None)
    assert rows["2.weight"].update == 0.0


def test_values_that_are_not_finite() -> None:
    model = mlp()
    with torch.no_grad():
        model[0].weight[0, :3] = torch.tensor([float("nan"), float("inf"), -float("inf")])  # type: ignore[union-attr, index]
        model[2].weight.fill_(float("nan"))  # type: ignore[union-attr]

    rows = rows_of(param_page(model))

    low, high, *_, missing, sampled, bars = rows["0.weight"].values
    assert (missing, sampled, len(bars)) == (3, 29, 24)
    assert -1 < low < high < 1
    assert rows["2.weight"].values[:6] == [None, None, None, None, None, 8]
    assert rows["0.bias"].values[5] == 0


def test_what_raises_is_said_on_the_page() -> None:
    class Breaks(nn.Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("no\nsuch thing")

        def __deepcopy__(self, memo: object) -> nn.Module:
            raise RuntimeError("cannot be copied")

    class NoCopy(nn.Linear):
        def __deepcopy__(self, memo: object) -> nn.Module:
            raise RuntimeError("cannot be copied")

    broken = data_of(param_page(Breaks(2, 2), inputs=torch.ones(2), optimizer=torch.optim.SGD))
    assert broken["notes"] == ["projection of the output could not be run: ValueError: no"]
    kept = data_of(param_page(NoCopy(2, 2), inputs=torch.ones(2), optimizer=torch.optim.SGD))
    assert kept["notes"] == ["no step was taken: RuntimeError: cannot be copied"]
    assert kept["losses"] == ["projection of the output"]


def test_what_a_forward_left_in_the_model_is_no_obstacle_to_a_step() -> None:
    model = nn.Linear(2, 2)
    model.cache = [model(torch.ones(2))]  # torch copies no such tensor
    made = torch.optim.SGD(model.parameters(), lr=0.1)

    for optimizer in (torch.optim.SGD, made):
        rows = rows_of(param_page(model, inputs=torch.ones(2), optimizer=optimizer))
        assert rows["weight"].update is not None


def test_on_meta_there_is_structure_only() -> None:
    with torch.device("meta"):
        model = LM(vocab=128_000, width=8192)

    page = param_page(model, inputs=torch.ones(2, dtype=torch.long), optimizer=torch.optim.SGD)

    [row] = rows_of(page).values()
    assert (row.elements, row.values, row.grad) == (1_048_576_000, None, None)
    assert row.groups == [0]
    assert data_of(page)["notes"] == ["on meta, where tensors have no values: structure only"]


def test_names_are_never_read_as_html() -> None:
    evil = "</script><script>alert(1)</script><!--"
    model = nn.Module()
    model.add_module(evil, nn.Linear(1, 1))
    model.register_parameter("x\x1b\u202e&amp;", nn.Parameter(torch.ones(1)))

    page = param_page(model, title=f"{evil}{{{{ 7 * 7 }}}}")

    assert page.html.count("<script") == page.html.count("</script>") == 2
    assert "alert(1)</script>" not in page.html
    assert set(rows_of(page)) == {f"{evil}.weight", f"{evil}.bias", "x\\x1b\\u202e&amp;"}
    assert (
        "<h1>&lt;/script&gt;&lt;script&gt;alert(1)&lt;/script&gt;&lt;!--{{ 7 * 7 }}</h1>"
        in page.html
    )


def test_nothing_is_loaded_from_anywhere() -> None:
    html = param_page(mlp()).html

    assert re.findall(r'(?:src|href)="([^"]*)"', html) == ["data:,", "#grid"]
    assert re.findall(r"url\(.|@import|fetch\(|import\(", html) == ["url(#"]
    # The namespace of SVG is a name and no address that anybody asks.
    assert re.findall(r"https?://[^\s\"']+", html) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in html


def test_two_subjects_are_compared() -> None:
    before, after = LM(mask=True), LM(mask=True)
    after.load_state_dict(before.state_dict())
    after.head.weight = nn.Parameter(after.emb.weight.detach().clone() * 1.5)
    after.extra = nn.Linear(2, 2)
    before.gone = nn.Linear(1, 1, bias=False)
    after.emb.weight.requires_grad_(False)

    page = param_page(after, before=before)

    data, rows = data_of(page), rows_of(page)
    assert data["before"] == "another LM"
    assert [(d["name"], d["kind"], d["text"]) for d in data["differences"]] == [
        ("emb.weight", "requires_grad", "requires_grad turned off"),
        ("extra.weight", "added", "Parameter 2x2 float32 cpu"),
        ("extra.bias", "added", "Parameter 2 float32 cpu"),
        ("gone.weight", "removed", "Parameter 1x1 float32 cpu"),
        ("emb.weight", "tie", "tie lost: emb.weight = head.weight"),
    ]
    assert rows["head.weight"].change == 0.5
    assert [name for name, row in rows.items() if row.flags & 4] == ["head.weight"]


@pytest.mark.parametrize("as_text", [True, False])
def test_a_model_and_a_checkpoint(tmp_path: Path, as_text: bool) -> None:
    model = LM(mask=True)  # the mask is not saved, and no difference
    path = tmp_path / "before.pt"
    torch.save(model.state_dict(), path)
    same = data_of(param_page(model, before=str(path) if as_text else path))
    with torch.no_grad():
        model.emb.weight.mul_(2)

    page = param_page(model, before=path)

    assert (same["differences"], same["before"]) == ([], "before.pt")
    mapping = {name: value.detach() for name, value in model.state_dict().items()}
    assert data_of(param_page(model, before=mapping))["differences"] == []
    assert rows_of(page)["emb.weight"].change == 1.0


def test_shapes_and_dtypes_that_differ() -> None:
    before = {"a": torch.ones(2), "b": torch.ones(2), "c": torch.ones(2)}
    after = {"a": torch.ones(3), "b": torch.ones(2, dtype=torch.bfloat16), "c": torch.ones(2)}

    data = data_of(param_page(after, before=before))

    assert [(d["name"], d["kind"], d["text"]) for d in data["differences"]] == [
        ("a", "shape", "(2,) -> (3,)"),
        ("b", "dtype", "float32 -> bfloat16"),
    ]
    assert data["before"] == "the given tensors"


def test_the_file_is_written_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "model.html"

    page = param_page(mlp(), path)

    assert path.read_text(encoding="utf-8") == page.html
    assert os.fspath(page) == str(path)
    assert [p.name for p in path.parent.iterdir()] == ["model.html"]
    assert repr(page) == f"<ParamPage {path}>"
    (tmp_path / "file").touch()
    assert usage(param_page, mlp(), tmp_path / "file" / "x.html") == (
        f"{tmp_path}/file/x.html cannot be written: Not a directory"
    )


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="pipes are made on POSIX systems")
def test_a_page_takes_the_place_of_a_file_only(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "round").symlink_to(tmp_path / "round")
    for name, said in (
        ("pipe", f"{tmp_path}/pipe is not a regular file: it is a named pipe"),
        ("round", f"{tmp_path}/round cannot be written: {os.strerror(errno.ELOOP)}"),
        (".", f"{tmp_path} is a folder: name a file in it"),
    ):
        assert usage(param_page, mlp(), tmp_path / name) == said
    found = usage(param_page, mlp(), tmp_path / "a\0b")
    assert re.search(r"a\\x00b cannot be written: (\w+: )?embedded null", found)
    assert (tmp_path / "pipe").is_fifo()
    assert (tmp_path / "round").is_symlink()

    target = tmp_path / "real.html"
    (tmp_path / "link.html").symlink_to(target)
    target.touch(0o600)
    page = param_page(mlp(), tmp_path / "link.html")
    assert (tmp_path / "link.html").is_symlink()
    assert target.read_text(encoding="utf-8") == page.html
    assert target.stat().st_mode & 0o777 == 0o600


def test_a_page_without_a_file() -> None:
    page = param_page(mlp())

    assert repr(page) == "<ParamPage in memory>"
    with pytest.raises(TypeError, match=r"^this page was not written to a file$"):
        os.fspath(page)
    frame = page._repr_html_()
    assert frame.startswith('<iframe title="Parameters" srcdoc="&lt;!doctype html&gt;')
    assert frame.count("<") == 2


def test_wrong_calls() -> None:
    assert usage(param_page, {"a": torch.ones(1)}, loss=sum) == (
        "there is no model to run: a dict of tensors holds tensors"
    )
    assert usage(param_page, mlp(), loss=3) == (
        "a loss is a function of the model that returns a scalar tensor; 'loss' is int"
    )
    assert usage(param_page, mlp(), optimizer=3) == (
        "expected an optimizer or a list of optimizers, got int 3"
    )
