"""The pages of ``pytest --param-page`` in a browser: findings in their place, and the index."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from textwrap import dedent

import pytest

from .browser import Browser
from .test_page import ROWS, click

SUITE = """
    import pytest
    import torch

    from pytest_paramcheck import ModelCase, parametrize_with_param_checks

    from tests.pages.models import ResNet50, Transformer


    def resnet():
        model = ResNet50()
        model.layer3[1].bn2.weight.data[0] = float("nan")
        model.layer4[2] = model.layer4[1]
        model.aux = [torch.nn.Linear(4, 4)]
        return model


    @pytest.mark.params
    @parametrize_with_param_checks(
        [
            ModelCase(resnet, name="resnet50", inputs=torch.rand(4, 3, 32, 32), ties=[]),
            ModelCase(
                Transformer,
                inputs=lambda: torch.randint(0, 500, (2, 16)),
                unreached=["h.7"],
                optimizer=torch.optim.AdamW,
            ),
        ]
    )
    def test_parameters(check):
        check()
    """


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pages of a run of its own, whose tests fail."""
    path = tmp_path_factory.mktemp("suite")
    (path / "test_models.py").write_text(dedent(SUITE), encoding="utf-8")
    root = Path(__file__).resolve().parents[2]
    paths = os.pathsep.join(filter(None, [str(root), os.environ.get("PYTHONPATH")]))
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--param-page=pages"]
    chosen = "ties or registered or finite or reach or frozen or materialized"
    done = subprocess.run(
        [*command, "-q", "-k", chosen],
        cwd=path,
        env={**os.environ, "PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout
    return path / "pages"


def test_findings_stand_in_their_rows(page: Browser, folder: Path, pictures: Path) -> None:
    page.open(folder / "resnet50.html")

    assert page.texts("h1") == ["resnet50"]
    assert page.texts("#checks summary") == [
        "check_registered 2 findings",
        "check_finite 1 finding",
        "check_ties 1 finding",
        "check_grads_reach 151 findings",
        "check_grads_finite 151 findings",
        "1 check passed",
    ]
    [button] = [e for e in page.all("#checks .link") if e.text == "layer3.1.bn2.weight"]
    button.click()
    assert page.texts("#detail h3") == ["layer3.1.bn2.weight"]
    assert page.texts("#detail .found strong")[0] == "not finite"
    click(page, "button.card", "findings")
    assert page.texts("#count") == ["151 of 302 parameters and buffers"]
    assert page.texts(f"{ROWS} .label")[:3] == ["ResNet50", "conv1", "weight"]
    assert page.texts(f"{ROWS}.parameter .badge.finding")
    page.press("\ue00c")
    page.picture(pictures / "findings-light.png")
    page.looks(theme="dark")
    page.picture(pictures / "findings-dark.png")


def test_the_index_leads_to_each_page(page: Browser, folder: Path, pictures: Path) -> None:
    page.open(folder / "index.html")
    page.picture(pictures / "index-light.png")

    assert page.texts("tbody th a") == ["resnet50", "Transformer"]
    assert page.texts("tbody td:nth-child(2)") == ["ResNet50", "Transformer"]
    click(page, "a", "Transformer")

    assert page.texts("h1") == ["Transformer"]
    assert page.texts("#groups tbody th") == ["0: AdamW lr 0.001, weight_decay 0.01"]
    assert page.texts("#checks .check summary")[-1].endswith("checks passed")
