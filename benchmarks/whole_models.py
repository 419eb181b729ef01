"""The whole-model battery against the passes it has to run, and the collection of 200 cases.

    python benchmarks/whole_models.py [--runs N] [--profile MODEL]

A counting loss says how many forward and backward passes and how many builds the battery makes
of a model; so many bare ones, one after the other, are what it is measured against, in turn
with it. The second row leaves the builds out of what it is measured against, though not out of
the battery: where a pass is no dearer than a build, as in the MLP, that is the larger part.
"""

from __future__ import annotations

import argparse
import cProfile
import os
import pstats
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from plugin import CLOCK, pytest_args, run, told
from timing import Row, alternate, median, paired_ratio, show
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

BUDGET = 3.0
CASES = 200


class Transformer(nn.Module):
    """A small language model: tied, causal, two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(1000, 128)
        self.positions = nn.Embedding(64, 128)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(128)
        self.head = nn.Linear(128, 1000, bias=False)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        length = tokens.shape[1]
        mask = torch.ones(length, length, dtype=torch.bool).triu(1)
        x = self.tokens(tokens) + self.positions.weight[:length]
        for layer in self.layers:
            x = layer(x, src_mask=mask)
        return self.head(self.norm(x))


class Residual(nn.Module):
    """Two convolutions beside a skip connection."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv_1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_1 = nn.BatchNorm2d(channels)
        self.conv_2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm_2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm_1(self.conv_1(x)).relu()
        return (x + self.norm_2(self.conv_2(y))).relu()


def resnet() -> nn.Module:
    """A ResNet-like network: a stem, three stages, a head."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16)]
    for channels in (16, 32, 64):
        if channels > 16:
            layers.append(nn.Conv2d(channels // 2, channels, 3, stride=2, padding=1, bias=False))
        layers += [Residual(channels), Residual(channels)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 10))


def mlp() -> nn.Module:
    """Three linear layers."""
    return nn.Sequential(
        nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 512), nn.GELU(), nn.Linear(512, 10)
    )


def tokens() -> Tensor:
    return torch.randint(1000, (8, 64))


def images() -> Tensor:
    return torch.rand(16, 3, 32, 32)


def rows() -> Tensor:
    return torch.rand(256, 256)


MODELS: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor]]] = {
    "transformer": (Transformer, tokens),
    "resnet": (resnet, images),
    "mlp": (mlp, rows),
}


def battery(case: ModelCase) -> int:
    """Run every check that applies; return how many ran."""
    shared, ran = CaseRun(case), 0
    for check in CHECKS.values():
        if check.applies(case):
            try:
                run_check(check, shared)
                ran += 1
            except NothingToCheck:
                pass
    return ran


def cpu(function: Callable[[], object]) -> float:
    """Return the processor's time for a call: other processes take none of it away."""
    start = time.process_time()
    function()
    return time.process_time() - start


class Counted:
    """A case that counts its builds, forward passes and backward passes."""

    def __init__(self, factory: Callable[[], nn.Module], inputs: Callable[[], Tensor]) -> None:
        self.builds = self.forwards = self.backwards = 0
        made = inputs()

        def build() -> nn.Module:
            self.builds += 1
            return factory()

        def loss(model: nn.Module) -> Tensor:
            self.forwards += 1
            value: Tensor = model(made).square().mean()
            if value.requires_grad:
                value.register_hook(self._backward)
            return value

        self.case = ModelCase(
            build, loss=loss, optimizer=torch.optim.Adam, name=factory.__name__, frozen=[]
        )

    def _backward(self, grad: Tensor) -> None:
        self.backwards += 1


def measure(name: str, runs: int) -> list[Row]:
    """Return the rows of one model."""
    factory, inputs = MODELS[name]
    counted = Counted(factory, inputs)
    ran = battery(counted.case)
    builds, forwards, backwards = counted.builds, counted.forwards, counted.backwards
    if not (builds and backwards and forwards >= backwards):
        raise SystemExit(f"{name}: counted {forwards} forward and {backwards} backward passes")
    made, model = inputs(), factory()

    def loss(model: nn.Module) -> Tensor:
        return model(made).square().mean()

    case = ModelCase(factory, loss=loss, optimizer=torch.optim.Adam, name=name, frozen=[])

    def passes() -> None:
        for number in range(forwards):
            value = loss(model)
            if number < backwards:
                model.zero_grad()
                value.backward()

    def building() -> None:
        for _ in range(builds):
            factory()

    whole, bare, built = alternate(
        runs, lambda: cpu(lambda: battery(case)), lambda: cpu(passes), lambda: cpu(building)
    )
    strict = paired_ratio(whole, bare)
    both = [a + b for a, b in zip(bare, built, strict=True)]
    ratio = paired_ratio(whole, both)
    size = sum(p.numel() for p in model.parameters())
    return [
        Row(
            f"{name} ({size / 1e6:.1f}M): {ran} checks, {median(whole) * 1e3:.0f} ms, against "
            f"{forwards} forwards, {backwards} backwards, {builds} builds "
            f"({median(both) * 1e3:.0f} ms)",
            f"{ratio:.2f}x",
            f"{BUDGET:.0f}x",
            ratio < BUDGET,
        ),
        Row(f"  without the builds ({median(bare) * 1e3:.0f} ms)", f"{strict:.2f}x", "-", True),
    ]


OURS = f"""
from torch import nn
from pytest_paramcheck import ModelCase, parametrize_with_param_checks

def make():
    return nn.Linear(2, 2)

@parametrize_with_param_checks(
    [ModelCase(make, inputs=lambda: None, name=f"case{{n}}") for n in range({CASES})]
)
def test_parameters(check):
    check()
"""
PLAIN = """
import pytest
import torch

@pytest.mark.parametrize("check", range({items}), ids=[f"case{{n}}-check" for n in range({items})])
def test_parameters(check):
    pass
"""


def collection(runs: int) -> Row:
    """Return the row of 200 cases collected, against as many items of a plain parametrize."""
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    ours = pytest_args("-p", "pytest_paramcheck.plugin", "--co")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        for name in ("ours", "plain"):
            (folder / name).mkdir()
            (folder / name / "conftest.py").write_text(CLOCK, encoding="utf-8")
        (folder / "ours" / "test_cases.py").write_text(OURS, encoding="utf-8")
        listed = run(folder / "ours", *ours)
        items = listed.count("test_parameters[")
        (folder / "plain" / "test_plain.py").write_text(PLAIN.format(items=items), encoding="utf-8")
        first, second = alternate(
            runs,
            lambda: told(run(folder / "ours", *ours, "-qqq"), "COLLECTED"),
            lambda: told(run(folder / "plain", *ours, "-qqq"), "COLLECTED"),
        )
    ratio = paired_ratio(first, second)
    return Row(
        f"collecting {CASES} cases, {items:,} items: {median(first):.2f} s "
        f"against {median(second):.2f} s of parametrize",
        f"{ratio:.2f}x",
        f"{BUDGET:.0f}x",
        bool(items) and ratio < BUDGET,
    )


def profile(name: str) -> None:
    """Print where the battery of one model spends its time, per check and per function."""
    factory, inputs = MODELS[name]
    case = Counted(factory, inputs).case
    battery(case)  # warm
    shared = CaseRun(case)
    for check in CHECKS.values():
        start = time.perf_counter()
        try:
            if check.applies(case):
                run_check(check, shared)
        except NothingToCheck:
            pass
        print(f"{check.name:30} {(time.perf_counter() - start) * 1e3:8.1f} ms")
    profiler = cProfile.Profile()
    profiler.runcall(battery, case)
    pstats.Stats(profiler).sort_stats("cumulative").print_stats(60)


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--profile", choices=MODELS)
    given = parser.parse_args()
    torch.set_num_threads(1)  # threads that wait for one another measure the machine
    if given.profile:
        profile(given.profile)
        return True
    print(f"torch {torch.__version__}, one thread, processor time")
    measured = [row for name in MODELS for row in measure(name, given.runs)]
    return show([*measured, collection(given.runs)])


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
