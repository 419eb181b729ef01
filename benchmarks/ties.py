"""Tie groups, names and shapes against torch's own walk and other packages' detectors.

python benchmarks/ties.py, with accelerate, safetensors and pytest-torch installed beside
(tox run -e bench): a detector that is not installed is left out.
"""

from __future__ import annotations

import functools
import sys
import time
from collections.abc import Callable

import torch
from timing import Row, alternate, median, paired_ratio, show
from torch import nn

from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.subject.ties import Ties


def layers(parameters: int, ties: int = 0, device: str = "meta") -> nn.Module:
    """A stack of linear layers; the first ``ties`` of its second half are tied to the first."""
    model = nn.Sequential(*[nn.Linear(1, 1, device=device) for _ in range(parameters // 2)])
    half = parameters // 4
    for i in range(ties):
        model[half + i].weight = model[i].weight
    return model


def seventy_billion() -> nn.Module:
    """A decoder of 68.5 billion parameters on meta: 80 layers, 8192 wide."""

    class Block(nn.Module):
        def __init__(self, d: int = 8192, kv: int = 1024, hidden: int = 28672) -> None:
            super().__init__()
            self.q, self.o = nn.Linear(d, d, bias=False), nn.Linear(d, d, bias=False)
            self.k, self.v = nn.Linear(d, kv, bias=False), nn.Linear(d, kv, bias=False)
            self.gate, self.up = nn.Linear(d, hidden, bias=False), nn.Linear(d, hidden, bias=False)
            self.down = nn.Linear(hidden, d, bias=False)
            self.norm1, self.norm2 = nn.RMSNorm(d), nn.RMSNorm(d)

    with torch.device("meta"):
        return nn.ModuleDict(
            {
                "embed": nn.Embedding(32000, 8192),
                "layers": nn.ModuleList([Block() for _ in range(80)]),
                "norm": nn.RMSNorm(8192),
                "head": nn.Linear(8192, 32000, bias=False),
            }
        )


def walk(model: nn.Module) -> None:
    list(model.named_parameters(remove_duplicate=False))


def ours(model: nn.Module) -> None:
    inventory = take_inventory(model)
    _ = Ties(inventory).groups
    _ = [tensor.shape for tensor in inventory.named.values() if tensor is not None]


def detectors() -> dict[str, Callable[[nn.Module], object]]:
    """What a user would otherwise run, as far as it is installed."""
    found: dict[str, Callable[[nn.Module], object]] = {}
    try:
        from accelerate.utils import find_tied_parameters

        found["accelerate"] = find_tied_parameters
    except ImportError:
        pass
    try:
        from safetensors.torch import _find_shared_tensors

        found["safetensors"] = lambda model: _find_shared_tensors(model.state_dict())
    except ImportError:
        pass
    try:
        from pytest_torch.checkpoint import _shared_groups

        found["pytest-torch"] = _shared_groups
    except ImportError:
        pass
    return found


OURS = "tie groups, names, shapes"


def compare(title: str, model: nn.Module, runs: int = 9, most: float | None = 1.2) -> bool:
    """Print one table: every detector against torch's own walk of all names.

    ``most`` is how many times its time ours may take; None: 200 ms, whatever the walk takes.
    """
    found = detectors()
    times = alternate(
        runs,
        functools.partial(walk, model),
        *(functools.partial(detect, model) for detect in (ours, *found.values())),
    )
    walked, *others = times
    print(
        f"\n{title}: named_parameters(remove_duplicate=False) takes {median(walked) * 1e3:.1f} ms"
    )
    rows = []
    for name, taken in zip((OURS, *found), others, strict=True):
        ratio = paired_ratio(taken, walked)
        budget, fine = "-", True
        if name == OURS:
            budget, fine = "200 ms", median(taken) < 0.2
            if most is not None:
                budget, fine = f"{most}x", ratio <= most
        rows.append(Row(name, f"{ratio:.2f}x, {median(taken) * 1e3:.1f} ms", budget, fine))
    return show(rows)


def linear() -> None:
    """Print the cost per parameter for three sizes."""
    print("\nmicroseconds per parameter: linear in parameters and in ties")
    for size in (2_000, 20_000, 200_000):
        times = alternate(
            5,
            functools.partial(ours, layers(size)),
            functools.partial(ours, layers(size, ties=size // 10)),
        )
        plain, tied = (median(taken) / size * 1e6 for taken in times)
        print(f"  {size:>7,} parameters  {plain:.2f}  with 10% tied {tied:.2f}")


def main() -> int:
    kept = compare("20,000 parameters, no ties", layers(20_000, device="cpu"))
    kept &= compare("20,000 parameters, 2,000 ties", layers(20_000, 2_000, "cpu"), runs=5)
    start = time.perf_counter()
    model = seventy_billion()
    built = time.perf_counter() - start
    count = sum(p.numel() for p in model.parameters())
    title = f"{count / 1e9:.1f} billion parameters on meta, built in {built:.2f} s"
    kept &= compare(title, model, most=None)
    linear()
    return 0 if kept else 1


if __name__ == "__main__":
    sys.exit(main())
