"""What of a model is drawn at random, and what is the same in every build."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ..parameters.running.randomness import random_states, seed_all
from ..parameters.subject.inventory import Inventory
from ..parameters.subject.reading import take_inventory
from ..parameters.tensors.content import no_values, same_bits
from .run import CaseRun


def following_the_seed(case: CaseRun, inventory: Inventory, names: Iterable[str]) -> set[str]:
    """Return the names whose values other random numbers change.

    A table of positions or of slopes is the same in every build, on purpose. A factory that
    seeds torch, or brings a generator, gets other numbers all the same; of one that seeds
    Python or numpy it cannot be told, and all names are returned.
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
    # A generator that ends where it ends, wherever it started, was seeded by the factory.
    seeds_itself = any(a == b for a, b in zip(state, another, strict=True))
    return set(listed) if seeds_itself else following


def _same(one: Any, other: Any) -> bool:
    if not isinstance(one, torch.Tensor) or not isinstance(other, torch.Tensor):
        return False
    return one.shape == other.shape and not no_values(other) and same_bits(one, other) is True


def _built(case: CaseRun, seed: int) -> tuple[torch.nn.Module, list[Any]]:
    """Build with other random numbers; return the model and where the generators are then."""
    __tracebackhide__ = True
    with random_states([case.device]):
        seed_all(seed, [case.device])
        with _OtherDraws(seed, case.device):
            model = case.declared.factory()
        state: list[Any] = [random.getstate()]
        numpy = sys.modules.get("numpy")
        if numpy is not None:
            state.append(numpy.random.get_state()[1].tolist())
        return model, state


#: What draws, and takes a generator.
_DRAWS = frozenset(
    {
        "bernoulli", "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_",
        "multinomial", "normal", "normal_", "rand", "randint", "randn", "random_", "randperm",
        "uniform_",
        # Of nn.init: a mode sees the call from outside, and nothing below it.
        "kaiming_normal_", "kaiming_uniform_", "orthogonal_", "sparse_", "trunc_normal_",
        "xavier_normal_", "xavier_uniform_",
    }
)  # fmt: skip


class _OtherDraws(TorchFunctionMode):
    """Draws from generators of its own, whatever the caller seeds or hands over."""

    def __init__(self, seed: int, device: torch.device) -> None:
        super().__init__()
        self._seed = seed
        self._device = device
        self._generators: dict[torch.device, torch.Generator] = {}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if getattr(func, "__name__", "") in _DRAWS:
            try:
                return func(*args, **{**given, "generator": self._generator(args, given)})
            except (TypeError, RuntimeError):
                pass  # called in a way that takes none: as the caller meant it
        return func(*args, **given)

    def _generator(self, args: Sequence[Any], given: Mapping[str, Any]) -> torch.Generator:
        first = args[0] if args and isinstance(args[0], torch.Tensor) else None
        own = given.get("generator")
        chosen = next((held.device for held in (own, first) if held is not None), None)
        device = torch.device(chosen or given.get("device") or self._device)
        if device not in self._generators:
            self._generators[device] = torch.Generator(device).manual_seed(self._seed)
        return self._generators[device]
