"""Proving 1 GiB of float32 unchanged: against one read of the bytes, and clone-and-compare.

    python benchmarks/unchanged.py

Prints medians of alternating runs in one process, and their ratios to one read (``sum``).
Budget: keeping and comparing together at most 2.5 times one read in 16 tensors, 3 in 1000. With a
tolerance copies have to be kept: at most 4 times one read beside what a clone costs, where the
block changes nothing and where it changes every value within the tolerance.
"""

from __future__ import annotations

import torch
from timing import keep_memory, milliseconds
from torch import nn

from pytest_paramcheck import assert_unchanged

RUNS = 7


def main() -> None:
    """Print one row per way to prove it, for few large and for many small tensors."""
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {RUNS} runs each")
    for title, count, elements in (
        ("1 GiB in 16 tensors", 16, 2**24),
        ("1 GiB in 1000 tensors", 1000, 2**28 // 1000),
    ):
        model = nn.ParameterList(torch.randn(elements) for _ in range(count))

        def read(model: nn.Module = model) -> None:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sum()

        def clone_and_equal(model: nn.Module = model) -> None:
            with torch.no_grad():
                kept = [parameter.clone() for parameter in model.parameters()]
                pairs = zip(model.parameters(), kept, strict=True)
                if not all(torch.equal(a, b) for a, b in pairs):
                    raise SystemExit("changed")

        def ours(model: nn.Module = model) -> None:
            with assert_unchanged(model):
                pass

        def clone(model: nn.Module = model) -> None:
            with torch.no_grad():
                [parameter.clone() for parameter in model.parameters()]

        def nearly(model: nn.Module = model) -> None:
            with assert_unchanged(model, rtol=1e-5, atol=1e-8, only="values"):
                pass

        def change(model: nn.Module = model) -> None:
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.mul_(1 + 3e-7)

        def nearly_all_changed(model: nn.Module = model) -> None:
            with assert_unchanged(model, rtol=1e-5, atol=1e-8, only="values"):
                change(model)

        reading, by_hand, asserted, copying, near, changing, changed = milliseconds(
            read, clone_and_equal, ours, clone, nearly, change, nearly_all_changed, runs=RUNS
        )
        print(title)
        for label, taken in (
            ("one read (sum)", reading),
            ("clone and equal", by_hand),
            ("assert_unchanged, both ends", asserted),
            ("clone alone", copying),
            ("assert_unchanged(rtol=, atol=)", near),
            ("  beside the clone", near - copying),
            ("  where every value changes", changed - changing),
            ("  beside the clone", changed - changing - copying),
        ):
            print(f"  {label:30} {taken:9.1f} ms {taken / reading:7.2f}")


if __name__ == "__main__":
    keep_memory()
    main()
