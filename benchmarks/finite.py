"""All parameters finite: ours against a loop of ``isfinite().all()``, side by side.

    python benchmarks/finite.py

Prints medians of alternating runs in one process, and their ratio. Budget: under 0.5 where
tensors are many and small, and no slower anywhere.
"""

from __future__ import annotations

import torch
from timing import milliseconds
from torch import nn

from pytest_paramcheck import assert_finite

RUNS = 7


def model_of(count: int, mebibytes: float) -> nn.ParameterList:
    """Make many tensors of this size together, of float32."""
    elements = int(mebibytes * 2**20 / 4 / count)
    return nn.ParameterList(torch.randn(elements) for _ in range(count))


def main() -> None:
    """Print one row per shape of model."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {RUNS} runs each")
    print(f"{'':32} {'loop ms':>9} {'ours ms':>9} {'ratio':>7}")
    shapes = {
        "7000 x 16 elements": (7000, 7000 * 16 * 4 / 2**20),
        "7000 tensors, 344 MiB": (7000, 344.0),
        "1000 tensors, 1000 MiB": (1000, 1000.0),
    }
    for title, (count, mebibytes) in shapes.items():
        model = model_of(count, mebibytes)
        loop, ours = milliseconds(
            lambda model=model: [bool(p.isfinite().all()) for p in model.parameters()],
            lambda model=model: assert_finite(model),
        )
        print(f"{title:32} {loop:9.1f} {ours:9.1f} {ours / loop:7.2f}")


if __name__ == "__main__":
    main()
