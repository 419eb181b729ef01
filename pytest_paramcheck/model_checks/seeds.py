"""What of a model follows the seed it is built from, and what is the same in every build."""

from __future__ import annotations

import random
import sys
from collections.abc import Iterable
from typing import Any

import torch

from ..parameters.running.randomness import random_states, seed_all
from ..parameters.subject.inventory import Inventory, take_inventory
from ..parameters.tensors.content import no_values, same_bits
from .run import CaseRun


def following_the_seed(case: CaseRun, inventory: Inventory, names: Iterable[str]) -> set[str]:
    """Return the names whose values another seed changes.

    A table of positions or of slopes is the same in every build, on purpose. Of a factory that
    seeds torch, Python or numpy itself it cannot be told: all names are returned.
    """
    __tracebackhide__ = True
    listed = list(names)
    if not listed:
        return set()
    other, state = _built(case, case.seed + 1)
    named = take_inventory(other).named
    following = {name for name in listed if not _same(inventory.named[name], named.get(name))}
    if len(following) == len(listed):
        return following
    del other, named
    _, another = _built(case, case.seed + 2)
    # The generator is where it is after this build, wherever it started: it was seeded in it.
    seeds_itself = any(a == b for a, b in zip(state, another, strict=True))
    return set(listed) if seeds_itself else following


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return one.shape == other.shape and not no_values(other) and same_bits(one, other) is True


def _built(case: CaseRun, seed: int) -> tuple[torch.nn.Module, list[Any]]:
    """Build from a seed; return the model and where the generators are afterwards."""
    __tracebackhide__ = True
    with random_states([case.device]):
        seed_all(seed, [case.device])
        model = case.declared.factory()
        state: list[Any] = [torch.get_rng_state().tolist(), random.getstate()]
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            state.append(numpy.random.get_state()[1].tolist())
        return model, state
