"""A declaration that was written by itself passes as it is, and fails once the model changes."""

from __future__ import annotations

import sys
from pathlib import Path
from textwrap import dedent

import pytest

from pytest_paramcheck.model_checks.declaration import declaration

from .conftest import Run

MODEL = """
import torch
from torch import nn

class Net(nn.Module):
    dummy_inputs = {"ids": torch.tensor([[1, 2, 3]])}

    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(7, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.emb.weight
        self.one = nn.Linear(4, 4)
        self.two = nn.Linear(4, 4)
        self.two.load_state_dict(self.one.state_dict())
        self.norm = nn.LayerNorm(4).requires_grad_(False)
        self.gate = nn.Parameter(torch.zeros(4))
        self.pooler = nn.Linear(4, 4)
        self.kept = nn.ModuleList([nn.Linear(4, 1)])

    def forward(self, ids):
        x = self.one(self.emb(ids))
        x = x + self.gate * self.two(x).tanh()
        return self.head(self.norm(x))
"""
#: What is changed, by what, and the check that says so.
CHANGES = {
    "tie": ("        self.head.weight = self.emb.weight\n", "", "check_ties"),
    "frozen": ("nn.LayerNorm(4).requires_grad_(False)", "nn.LayerNorm(4)", "check_frozen"),
    "reached": ("self.head(self.norm(x))", "self.head(self.pooler(self.norm(x)))", "reach"),
    "unreached": ("x = self.one(self.emb(ids))", "x = self.emb(ids)", "check_grads_reach"),
    "no longer alike": (
        "        self.two.load_state_dict(self.one.state_dict())\n",
        "",
        "distinct",
    ),
    "hidden": ("nn.ModuleList([nn.Linear(4, 1)])", "[nn.Linear(4, 1)]", "check_registered"),
    # Another length: in the same second, the bytecode of a file of the same size counts as its own.
    "not initialized": ("nn.Parameter(torch.zeros(4))", "nn.Parameter(torch.empty((4,)))", "init"),
}


def declared(pytester: pytest.Pytester, spec: str, source: str) -> str:
    """Write a module and the declaration of what is in it; return that."""
    module = spec.partition(":")[0]
    (pytester.path / f"{module}.py").write_text(dedent(source), encoding="utf-8")
    try:
        written = declaration(spec, pytester.path)
    finally:
        sys.modules.pop(module, None)
        sys.path.remove(str(pytester.path))
    (pytester.path / "test_declared.py").write_text(written, encoding="utf-8")
    return written


def change(path: Path, before: str, after: str) -> None:
    source = path.read_text(encoding="utf-8")
    assert source.count(before) == 1
    path.write_text(source.replace(before, after), encoding="utf-8")


@pytest.mark.parametrize(
    "what", [w if w == "tie" else pytest.param(w, marks=pytest.mark.slow) for w in CHANGES]
)
def test_it_passes_and_fails_once_the_model_changes(
    run: Run, pytester: pytest.Pytester, what: str
) -> None:
    before, after, check = CHANGES[what]
    written = declared(pytester, "models_of_mine:Net", MODEL)
    pytester.syspathinsert()
    right = run("")
    sys.modules.pop("models_of_mine", None)
    change(pytester.path / "models_of_mine.py", before, after)
    changed = run("", "--tb=no")

    assert 'alike=[ "one", "two", ],' in " ".join(written.split())
    assert right.ret == pytest.ExitCode.OK
    failed = [line for line in changed.outlines if line.startswith("FAILED")]
    assert failed
    assert any(check in line for line in failed), failed


def test_what_fails_anyway_is_expected_to(run: Run, pytester: pytest.Pytester) -> None:
    """It is there to be read and corrected; a model that is repaired fails it."""
    source = """
    from torch import nn

    def build(width, *, more=()):
        model = nn.Linear(width, 2)
        model.more = [nn.Linear(width, n) for n in more]
        return model
    """
    written = declared(pytester, "models_of_mine:build(3, more=[1, 2])", source)
    pytester.syspathinsert()
    result = run("", "-rx")
    sys.modules.pop("models_of_mine", None)
    change(pytester.path / "models_of_mine.py", "[nn.Linear(width, n) for n in more]", "None")
    repaired = run("", "--tb=no")

    assert "    # Findings: correct the model, and take them out here." in written.splitlines()
    assert '"check_registered": "not registered: more[' in written
    assert result.ret == pytest.ExitCode.OK
    assert result.parseoutcomes()["xfailed"] >= 1
    assert any("check_registered" in line for line in repaired.outlines if "FAILED" in line)


def test_a_case_keeps_what_it_declares(run: Run, pytester: pytest.Pytester) -> None:
    source = MODEL + (
        "\nfrom pytest_paramcheck import ModelCase\n"
        "CASE = ModelCase(Net, inputs=lambda: torch.tensor([[1, 5]]), shapes={'*': (...,)},\n"
        "                 optimizer=torch.optim.SGD, name='mine')\n"
    )
    written = declared(pytester, "models_of_mine:CASE", source)
    pytester.syspathinsert()
    result = run("", "-v")

    assert "inputs=" not in written
    assert result.ret == pytest.ExitCode.OK
    assert any("mine-check_optimizer_covers" in line for line in result.outlines)
    assert any("mine-check_shapes" in line for line in result.outlines)
