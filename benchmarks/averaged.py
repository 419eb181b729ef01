"""Proving that 256 MiB of float32 were averaged: against one read of model and average.

    python benchmarks/averaged.py

Prints medians of alternating runs in one process, and their ratios to one read (``sum``) of the
model and of the average. Budget: at most 4 times that, what the copy of the average costs included.
"""

from __future__ import annotations

import copy

import torch
from timing import keep_memory, milliseconds
from torch import nn

from pytest_paramcheck import assert_averaged

RUNS = 7
DECAY = 0.99


def main() -> None:
    """Print one row per way to prove it, for few large and for many small tensors."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {RUNS} runs each")
    for title, count, elements in (
        ("256 MiB in 16 tensors", 16, 2**22),
        ("256 MiB in 1000 tensors", 1000, 2**26 // 1000),
    ):
        model = nn.ParameterList(torch.randn(elements) for _ in range(count))
        ema = copy.deepcopy(model)

        @torch.no_grad()
        def update(model: nn.Module = model, ema: nn.Module = ema) -> None:
            for mean, new in zip(ema.parameters(), model.parameters(), strict=True):
                new.add_(0.01)
                mean.mul_(DECAY).add_(new, alpha=1 - DECAY)

        @torch.no_grad()
        def read(model: nn.Module = model, ema: nn.Module = ema) -> None:
            for parameter in (*model.parameters(), *ema.parameters()):
                parameter.sum()

        @torch.no_grad()
        def clone(ema: nn.Module = ema) -> None:
            [parameter.clone() for parameter in ema.parameters()]

        def ours(model: nn.Module = model, ema: nn.Module = ema) -> None:
            with assert_averaged(ema, model, DECAY):
                update(model, ema)

        @torch.no_grad()
        def by_hand(model: nn.Module = model, ema: nn.Module = ema) -> None:
            kept = [parameter.clone() for parameter in ema.parameters()]
            update(model, ema)
            for old, new, mean in zip(kept, model.parameters(), ema.parameters(), strict=True):
                torch.testing.assert_close(mean, old * DECAY + new * (1 - DECAY))

        reading, copying, updating, asserted, compared = milliseconds(
            read, clone, update, ours, by_hand, runs=RUNS
        )
        print(title)
        for label, taken in (
            ("one read of both (sum)", reading),
            ("clone of the average alone", copying),
            ("assert_averaged, both ends", asserted - updating),
            ("  beside the clone", asserted - updating - copying),
            ("clone and assert_close", compared - updating),
        ):
            print(f"  {label:30} {taken:9.1f} ms {taken / reading:7.2f}")


if __name__ == "__main__":
    keep_memory()
    main()
