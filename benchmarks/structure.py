"""What the structural assertions cost, in ratios: python benchmarks/structure.py

The registered-walk of 20,000 parameters against ``state_dict()`` and against a bare
``named_parameters()`` walk, and a 70-billion-parameter model on meta. One process, the things
compared run in turn, medians.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from pytest_paramcheck import (
    assert_dtypes,
    assert_param_count,
    assert_registered,
    assert_shapes,
    param_table,
)

ROUNDS = 15


class Block(nn.Module):
    """One layer of a 70B language model: grouped attention and a gated MLP."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.q = nn.Linear(width, width, bias=False)
        self.k = nn.Linear(width, width // 8, bias=False)
        self.v = nn.Linear(width, width // 8, bias=False)
        self.o = nn.Linear(width, width, bias=False)
        self.gate = nn.Linear(width, hidden, bias=False)
        self.up = nn.Linear(width, hidden, bias=False)
        self.down = nn.Linear(hidden, width, bias=False)
        self.norms = nn.ModuleList(nn.RMSNorm(width) for _ in range(2))


class LM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(128_256, 8192)
        self.blocks = nn.ModuleList(Block(8192, 28_672) for _ in range(80))
        self.norm = nn.RMSNorm(8192)
        self.head = nn.Linear(8192, 128_256, bias=False)


SHAPES = {
    "emb": ("vocab", "d"), "head": ("vocab", "d"), "*norm*": ("d",), "blocks.*.[qo]": ("d", "d"),
    "blocks.*.[kv]": ("kv", "d"), "blocks.*.gate": ("h", "d"), "blocks.*.up": ("h", "d"),
    "blocks.*.down": ("d", "h"),
}  # fmt: skip


def medians(calls: dict[str, Callable[[], object]]) -> dict[str, float]:
    """Run the calls in turn, ROUNDS times, and return the median milliseconds of each."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(ROUNDS):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            times[name].append(1000 * (time.perf_counter() - start))
    return {name: statistics.median(values) for name, values in times.items()}


def main() -> None:
    """Print both tables."""
    many = nn.Sequential(*[nn.Linear(1, 1) for _ in range(10_000)])
    found = medians(
        {
            "state_dict()": many.state_dict,
            "named_parameters()": lambda: list(many.named_parameters(remove_duplicate=False)),
            "assert_registered": lambda: assert_registered(many),
            "assert_dtypes": lambda: assert_dtypes(many, torch.float32),
        }
    )
    print("20,000 parameters            ms   x state_dict   x named_parameters")
    for name, ms in found.items():
        by_state, by_names = ms / found["state_dict()"], ms / found["named_parameters()"]
        print(f"{name:<22} {ms:9.1f}   {by_state:12.2f}   {by_names:18.2f}")
    with torch.device("meta"):
        model = LM()
    total = sum(p.numel() for p in model.parameters())
    found = medians(
        {
            "state_dict()": model.state_dict,
            "assert_shapes": lambda: assert_shapes(model, SHAPES),
            "assert_param_count": lambda: assert_param_count(model, total),
            "assert_registered": lambda: assert_registered(model),
            "param_table": lambda: param_table(model),
        }
    )
    print(f"\n{total:,} parameters on meta: ms")
    for name, ms in found.items():
        print(f"{name:<22} {ms:9.1f}")


if __name__ == "__main__":
    main()
