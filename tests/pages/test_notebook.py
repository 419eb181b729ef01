"""A notebook shows a table and a page: executed, and what its cells put out is looked at."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from .browser import Browser

nbformat = pytest.importorskip("nbformat", reason="no notebooks: tox run -e docs installs them")
nbclient = pytest.importorskip("nbclient", reason="no notebooks: tox run -e docs installs them")

CELLS = (
    """
    from torch import nn
    from pytest_paramcheck import param_page, param_table
    body = nn.Sequential(*(nn.Linear(4, 4) for _ in range(6)))
    model = nn.ModuleDict({"body": body, "head": nn.Linear(4, 2)})
    param_table(model)
    """,
    "param_page(model, 'model.html')",
    "print(param_table(model, 'head'))",
)


def test_a_notebook_shows_a_table_and_a_page(page: Browser, tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook()
    for cell in CELLS:
        source = "\n".join(line.strip() for line in cell.strip().splitlines())
        notebook.cells.append(nbformat.v4.new_code_cell(source))
    resources = {"metadata": {"path": str(tmp_path)}}

    nbclient.NotebookClient(notebook, timeout=120, resources=resources).execute()

    table, shown, printed = (cell.outputs[0] for cell in notebook.cells)
    assert table.data["text/plain"].startswith("ModuleDict: 130 parameters, all trainable")
    assert "<td>body.{0..5}.weight</td>" in table.data["text/html"]
    assert shown.data["text/plain"] == "<ParamPage model.html>"
    frame = shown.data["text/html"]
    assert html.unescape(frame).count("<h1>ModuleDict</h1>") == 1
    assert (tmp_path / "model.html").exists()
    assert printed.text.splitlines()[0].startswith("ModuleDict: 10 parameters")

    # What a notebook does with them: put them into a document of its own.
    path = tmp_path / "notebook.html"
    path.write_text(f"<!doctype html><meta charset=utf-8>{table.data['text/html']}{frame}", "utf-8")
    page.open(path)
    assert page.texts(".paramcheck-table td:first-child") == [
        "body.{0..5}.weight",
        "body.{0..5}.bias",
        "head.weight",
        "head.bias",
        "body",
        "head",
    ]
    page.driver.switch_to.frame(page.all("iframe")[0])
    assert page.texts("h1") == ["ModuleDict"]
    assert page.texts("#grid .label")[:3] == ["ModuleDict", "body", "0"]
    page.driver.switch_to.default_content()
