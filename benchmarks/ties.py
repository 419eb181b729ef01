"""Tie groups, names and shapes against torch's own walk and other packages' detectors.

Run: ``python -m benchmarks.ties`` with ``accelerate``, ``safetensors`` and ``pytest-torch``
installed beside (``tox run -e bench``); a detector that is not installed is left out.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable

import torch
from torch import nn

from pytest_paramcheck.checks.ties import Ties
from pytest_paramcheck.parameters.inventory import take_inventory

from .timing import alternate, report


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


def walk(model: nn.Module) -> object:
    return list(model.named_parameters(remove_duplicate=False))


def ours(model: nn.Module) -> object:
    inventory = take_inventory(model)
    groups = Ties(inventory).groups
    shapes = [tensor.shape for tensor in inventory.named.values() if tensor is not None]
    return groups, shapes


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


def compare(title: str, model: nn.Module, rounds: int = 9) -> dict[str, float]:
    candidates: dict[str, Callable[[], object]] = {
        "named_parameters(remove_duplicate=False)": lambda: walk(model),
        "tie groups, names, shapes": lambda: ours(model),
    }
    for name, detect in detectors().items():
        candidates[name] = functools.partial(detect, model)
    medians = alternate(candidates, rounds=rounds)
    report(
        title,
        medians,
        against="named_parameters(remove_duplicate=False)",
        budget={"tie groups, names, shapes": 1.5},
    )
    return medians


def main() -> None:
    compare("20,000 parameters, no ties", layers(20_000, device="cpu"))
    compare("20,000 parameters, 2,000 ties", layers(20_000, ties=2_000, device="cpu"), rounds=5)
    start = time.perf_counter()
    model = seventy_billion()
    built = time.perf_counter() - start
    count = sum(p.numel() for p in model.parameters())
    compare(f"{count / 1e9:.1f} billion parameters on meta (built in {built:.2f} s)", model)

    print("\nlinear in parameters and in ties: microseconds per parameter")
    for size in (2_000, 20_000, 200_000):
        plain, tied = layers(size), layers(size, ties=size // 10)
        medians = alternate(
            {"plain": functools.partial(ours, plain), "tied": functools.partial(ours, tied)},
            rounds=5,
        )
        per = {name: seconds / size * 1e6 for name, seconds in medians.items()}
        print(f"  {size:>7,} parameters  {per['plain']:.2f}  with 10% tied {per['tied']:.2f}")


if __name__ == "__main__":
    main()
