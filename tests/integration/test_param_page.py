"""``--param-page``: a page of each model, findings in their place, and the index."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

MODELS = """
    import pytest
    import torch
    from torch import nn

    from pytest_paramcheck import ModelCase, parametrize_with_param_checks


    class Dead(nn.Module):
        def __init__(self):
            super().__init__()
            self.used = nn.Linear(2, 2)
            self.never = nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)


    def broken():
        raise RuntimeError("no weights here")


    CASES = [
        ModelCase(
            lambda: nn.Linear(2, 1), name="good", inputs=torch.ones(3, 2), optimizer=torch.optim.SGD
        ),
        ModelCase(Dead, name="dead <b>", inputs=torch.ones(3, 2)),
        ModelCase(
            Dead,
            name="known",
            inputs=torch.ones(3, 2),
            expected_failures={"check_grads_reach": "not yet", "check_training_step": "not yet"},
        ),
        ModelCase(broken, name="broken"),
    ]


    @pytest.mark.params
    @parametrize_with_param_checks(CASES)
    def test_parameters(check):
        check()
    """


def data_of(path: Path) -> dict[str, Any]:
    html = path.read_text(encoding="utf-8")
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.S)
    assert found is not None
    read: dict[str, Any] = json.loads(found.group(1))
    return read


@pytest.mark.parametrize(
    "workers", [("-n", "0"), pytest.param(("-n", "2"), marks=pytest.mark.slow)], ids=["n0", "n2"]
)
def test_a_page_of_each_model(pytester: pytest.Pytester, workers: tuple[str, ...]) -> None:
    pytester.makepyfile(test_models=MODELS)

    result = pytester.runpytest("--param-page=out/pages", *workers, "-k", "finite or reach or ties")

    folder = pytester.path / "out" / "pages"
    assert sorted(p.name for p in folder.iterdir()) == [
        "dead-b.html",
        "good.html",
        "index.html",
        "known.html",
    ]
    assert f"paramcheck: 3 pages: {folder / 'index.html'}" in result.outlines
    good, dead, known = (data_of(folder / f"{name}.html") for name in ("good", "dead-b", "known"))
    assert {check["outcome"] for check in good["checks"]} == {"passed"}
    assert (good["findings"], good["groups"]) == ([], ["0: SGD lr 0.001, weight_decay 0"])
    assert good["losses"] == ["projection of the output"]
    assert dead["title"] == "dead <b>"
    assert [(one["check"], one["names"], one["text"]) for one in dead["findings"]] == [
        ("check_grads_reach", ["never.weight"], "never used in the forward pass"),
        ("check_grads_reach", ["never.bias"], "never used in the forward pass"),
    ]
    assert [row[16] if len(row) > 16 else None for row in dead["parameters"]] == [
        None,
        None,
        [0],
        [1],
    ]
    assert [one["outcome"] for one in known["checks"] if one["name"] == "check_grads_reach"] == [
        "expected"
    ]
    index = (folder / "index.html").read_text(encoding="utf-8")
    assert re.findall(r'<a href="([^"]+)">([^<]+)</a>', index) == [
        ("good.html", "good"),
        ("dead-b.html", "dead &lt;b&gt;"),
        ("known.html", "known"),
    ]
    assert "no page: RuntimeError: no weights here" in index
    assert '<span class="badge dead">1 failed as expected</span>' in index


def test_models_without_a_test_file(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(zoo="from torch import nn\ndef net():\n    return nn.Linear(2, 2)\n")

    result = pytester.runpytest(
        "--param-model=zoo:net",
        "--param-page=pages",
        "--param-device=meta,cpu",
        "-k",
        "shapes or ties",
    )

    assert result.ret == 0
    data = data_of(pytester.path / "pages" / "net.html")
    assert data["notes"] == [
        "not run, so without gradients: no inputs to run it on: ModelCase(inputs=...)"
    ]
    assert data["parameters"][0][10] is not None  # the cpu's values, though meta came first


def test_without_whole_model_checks_nothing_is_written(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing():\n    pass\n")

    result = pytester.runpytest("--param-page=pages")

    assert list((pytester.path / "pages").iterdir()) == []
    assert "paramcheck" not in result.outlines[-1]


def test_a_folder_that_cannot_be(pytester: pytest.Pytester) -> None:
    pytester.makepyfile("def test_nothing():\n    pass\n")
    (pytester.path / "pages").touch()

    result = pytester.runpytest("--param-page=pages")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert "ERROR: --param-page=pages: File exists" in result.errlines
