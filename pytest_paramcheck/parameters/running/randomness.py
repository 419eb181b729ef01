"""Random states: noted, put back, seeded. Torch's on all devices, Python's, and numpy's.

Noted and seeded are the backends in use and those of the devices named, with all their devices:
what draws on ``cuda:0`` may draw on ``cuda:1`` too.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, TypeAlias

import torch

Restore: TypeAlias = Callable[[], None]


def keep_random_states(devices: Iterable[torch.device] = ()) -> Restore:
    """Note the random states; return how to put them back."""
    of_python = random.getstate()
    numpy_random = _numpy_random()
    of_numpy = numpy_random.get_state() if numpy_random else None
    of_cpu = torch.get_rng_state()
    of_devices = [state for kind in _backends(devices).items() for state in _states(*kind)]

    def restore() -> None:
        random.setstate(of_python)
        if numpy_random:
            numpy_random.set_state(of_numpy)
        torch.set_rng_state(of_cpu)
        for put_back, state in of_devices:
            put_back(state)

    return restore


@contextmanager
def random_states(devices: Iterable[torch.device] = ()) -> Iterator[None]:
    """Put the random states back at the end of the block, however it ends."""
    __tracebackhide__ = True
    restore = keep_random_states(devices)
    try:
        yield
    finally:
        restore()


def seed_all(seed: int, devices: Iterable[torch.device] = ()) -> None:
    """Seed torch, Python and, where it is loaded, numpy.

    ``torch.manual_seed`` would also leave the seed behind for backends that nobody has used
    yet, and takes two milliseconds to note from where.
    """
    torch.default_generator.manual_seed(seed)
    for module in _backends(devices).values():
        if hasattr(module, "manual_seed"):
            getattr(module, "manual_seed_all", module.manual_seed)(seed)
    random.seed(seed)
    numpy_random = _numpy_random()
    if numpy_random:
        numpy_random.seed(seed % 2**32)


def _numpy_random() -> Any:
    # Only where somebody loaded it: numpy is no dependency of ours.
    numpy = sys.modules.get("numpy")
    return getattr(numpy, "random", None)


def _backends(devices: Iterable[torch.device]) -> dict[str, Any]:
    """The modules of the backends in use, and of those named, that have random states."""
    backends: dict[str, Any] = {"cuda": torch.cuda, "xpu": torch.xpu}
    found = {kind: module for kind, module in backends.items() if module.is_initialized()}
    for kind in sorted({device.type for device in devices} - {"cpu", "meta", *found}):
        module: Any = getattr(torch, kind, None)
        # A FakeTensor says "cuda" where there is none: nothing draws there.
        absent = hasattr(module, "is_available") and not module.is_available()
        if hasattr(module, "get_rng_state") and not absent:
            found[kind] = module
    return found


def _states(kind: str, module: Any) -> Iterator[tuple[Callable[[Any], None], Any]]:
    """The states of all devices of a backend, each with what puts it back."""
    if hasattr(module, "get_rng_state_all"):
        yield module.set_rng_state_all, module.get_rng_state_all()
        return
    for index in range(module.device_count()):
        device = torch.device(kind, index)
        yield partial(module.set_rng_state, device=device), module.get_rng_state(device)
