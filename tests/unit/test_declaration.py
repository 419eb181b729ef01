"""``python -m pytest_paramcheck declare``: a test file that says of a model what was measured."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from torch import nn

from pytest_paramcheck.__main__ import main
from pytest_paramcheck.model_checks.measured import Line, _lines
from pytest_paramcheck.parameters.subject.reading import take_inventory

MODELS = """
import torch
from torch import nn
from pytest_paramcheck import ModelCase

class LM(nn.Module):
    dummy_inputs = {"x": torch.tensor([[1, 2, 3]])}

    def __init__(self, layers=2):
        super().__init__()
        self.emb = nn.Embedding(10, 4)
        self.head = nn.Linear(4, 10, bias=False)
        self.head.weight = self.emb.weight
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(layers))
        self.norm = nn.LayerNorm(4).requires_grad_(False)
        self.unused = nn.ModuleList(nn.Linear(4, 4) for _ in range(2))

    def forward(self, x):
        x = self.emb(x)
        for layer in self.layers:
            x = layer(x).tanh()
        return self.head(self.norm(x))

def build(size, extra=()):
    return nn.Sequential(*(nn.Linear(size, size) for _ in range(2)))

def on_meta():
    return nn.Linear(4, 4, device="meta")

CASE = ModelCase(LM, inputs=torch.tensor([[1, 2]]), name="case")
"""


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A module of models that no other test has imported."""
    name = f"declared_{abs(hash(str(tmp_path)))}"
    (tmp_path / f"{name}.py").write_text(MODELS, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return name


def test_a_declaration_is_a_test_file(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["declare", f"{module}:LM"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        '"""What holds of the parameters of LM, measured from the seeds 0, 1 and 2 by',
        "",
        f"    python -m pytest_paramcheck declare {module}:LM",
        "",
        "Correct what is not meant to be so, and commit the rest: it is checked from here on.",
        '"""',
        "",
        "import torch",
        f"from {module} import LM",
        "from pytest_paramcheck import ModelCase, parametrize_with_param_checks",
        "",
        "",
        "CASE = ModelCase(",
        "    LM,",
        "    # inputs from dummy_inputs",
        '    inputs=lambda: {"x": torch.tensor([[1, 2, 3]]).repeat(1, 11)[:, :32]},',
        '    ties=[{"emb.weight", "head.weight"}],',
        '    frozen=["norm"],',
        "    unreached=[",
        "        # no gradient: never used in the forward pass",
        '        "unused",',
        "    ],",
        "    alike=[],",
        ")",
        "",
        "",
        "@parametrize_with_param_checks(CASE)",
        "def test_parameters(check):",
        "    check()",
    ]


@pytest.mark.parametrize(
    ("spec", "lines"),
    [
        (
            'build(3, extra=["a"])',
            [
                "import {0}",
                "def build():",
                '    return {0}.build(3, extra=["a"])',
                "    build,",
                "    name='build(3, extra=[\"a\"])',",
                "    # inputs=...: nobody says what it takes, so that nothing below is said of "
                "training",
                "    unreached=[],",
            ],
        ),
        (
            "on_meta",
            [
                "    # unreached: weight: on meta, where tensors have no values",
                "    frozen=[],",
                '        "check_materialized": "not materialized: weight, bias (Linear)",',
            ],
        ),
        ("CASE", ["from dataclasses import replace", "CASE = replace(", "    {0}.CASE,"]),
    ],
)
def test_what_can_be_declared(
    module: str, spec: str, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["declare", f"{module}:{spec}"]) == 0
    written = capsys.readouterr().out
    compile(written, "declaration", "exec")
    assert [
        line.format(module) for line in lines if line.format(module) in written.split("\n")
    ] == [line.format(module) for line in lines]


def test_what_cannot_be_meant_is_a_line(module: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["declare", f"{module}:buil"]) == 2
    assert capsys.readouterr().err == (
        f"error: {module}:buil: {module} has no 'buil'; did you mean 'build'?\n"
    )


@pytest.mark.slow
def test_pytest_is_not_loaded(module: str, tmp_path: Path) -> None:
    program = (
        "import sys; from pytest_paramcheck.__main__ import main; "
        f"main(['declare', '{module}:LM']); sys.exit('pytest' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True)

    assert done.returncode == 0, done.stderr


def test_the_command_line_explains_itself(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as done:
        main(["--help"])

    assert done.value.code == 0
    assert "declare" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("reasons", "said"),
    [
        ([""] * 4, ""),
        (["unused"] * 4, "unused"),
        (["unused", "", "detached", "unused"], "unused; detached"),
        (["unused", "zero", "detached", ""], "unused and 2 more"),
    ],
    ids=["none", "one", "two", "three"],
)
def test_the_reasons_of_a_pattern_stand_in_one_line(reasons: list[str], said: str) -> None:
    model = nn.ModuleDict({"a": nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2)), "b": nn.PReLU()})
    inventory = take_inventory(model)
    names = [name for name in inventory.named if name.startswith("a.")]
    lines = _lines(inventory, names, inventory.parameters, dict(zip(names, reasons, strict=True)))
    assert lines == [Line("a", said)]
