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
from typing import Any

import torch

from .undo import Restore, Undo


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
    with Undo() as undo, undo:
        undo.push(keep_random_states(devices))
        yield


def keep_generator(value: Any) -> Restore | None:
    """Note the state of a generator that somebody holds; None for everything else."""
    if isinstance(value, torch.Generator):
        of_torch = value.get_state()

        def restore() -> None:
            # Only where it was drawn from: an accelerator's state is written with a copy.
            if not torch.equal(value.get_state(), of_torch):
                value.set_state(of_torch)

        return restore
    if isinstance(value, random.Random):
        # The system's own generator has no state.
        is_system = isinstance(value, random.SystemRandom)
        return None if is_system else partial(value.setstate, value.getstate())
    numpy_random = _numpy_random()
    bits: Any = value
    if isinstance(value, getattr(numpy_random, "RandomState", ())):
        return partial(bits.set_state, bits.get_state())
    if isinstance(value, getattr(numpy_random, "Generator", ())):
        bits = bits.bit_generator
    is_bits = isinstance(bits, getattr(numpy_random, "BitGenerator", ()))
    return partial(setattr, bits, "state", bits.state) if is_bits else None


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
    accelerator = torch.accelerator.current_accelerator()
    if accelerator is not None:  # another maker's, with a module of its own
        backends.setdefault(accelerator.type, getattr(torch, accelerator.type, None))
    found = {
        kind: module
        for kind, module in backends.items()
        if hasattr(module, "is_initialized") and module.is_initialized()
    }
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
