"""What all whole-model checks of one model cost: passes and builds, counted."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

ROWS = torch.linspace(-1, 1, 12).reshape(3, 4)


class Net(nn.Module):
    """Tied layers; where ``zero``, behind a scale that starts at zero."""

    def __init__(self, count: Counter[str], zero: bool) -> None:
        super().__init__()
        self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)
        self.two.weight = self.one.weight
        self.scale = nn.Parameter(torch.zeros(4) if zero else torch.ones(4))
        self.norm = nn.LayerNorm(4)
        # A function is shared by all copies, so that their passes are counted too.
        self.counted = lambda what: count.update([what])

    def reset_parameters(self) -> None:
        for layer in (self.one, self.two, self.norm):
            layer.reset_parameters()
        nn.init.ones_(self.scale)

    def forward(self, x: Tensor) -> Tensor:
        self.counted("forward")
        y: Tensor = self.norm(x) + self.scale * self.two(self.one(x).tanh())
        y.register_hook(lambda grad: self.counted("backward"))
        return y


@pytest.mark.parametrize("zero", [False, True], ids=["plain", "zero at the start"])
def test_the_passes_and_builds_of_all_checks_are_counted(zero: bool) -> None:
    count: Counter[str] = Counter()

    def build() -> nn.Module:
        count["build"] += 1
        return Net(count, zero)

    skipped: list[str] = []
    run = CaseRun(ModelCase(build, inputs=ROWS, optimizer=torch.optim.SGD, name="model"))
    for name, check in CHECKS.items():
        if check.applies(run.declared):
            try:
                run_check(check, run)
            except NothingToCheck:
                skipped.append(name)

    assert count["forward"] <= 16
    assert count["backward"] <= 14
    assert count["build"] <= 14
    assert set(skipped) <= {"check_tied_grads_sum"}


@pytest.mark.slow  # loads torch in a process of its own
def test_no_check_loads_the_compiler() -> None:
    program = """
import sys, torch
from torch import nn
from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun
before = "torch._dynamo" in sys.modules
run = CaseRun(ModelCase(lambda: nn.Linear(3, 2), inputs=torch.ones(4, 3)))
for name in ("check_distinct", "check_init_complete", "check_grads_reach", "check_built_anew"):
    run_check(CHECKS[name], run)
print(before, "torch._dynamo" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    before, after = done.stdout.split()
    assert after == before, done.stderr
