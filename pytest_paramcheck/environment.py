"""What a marked test runs in: default device, default dtype, and random states put back.

Needs torch, so it is imported when the first marked test runs and not before.
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def defaults(device: torch.device, dtype: torch.dtype | None) -> Iterator[None]:
    """Make device and dtype torch's defaults inside the block, as they were after it."""
    before = torch.get_default_dtype()
    if dtype is not None:
        torch.set_default_dtype(dtype)
    try:
        with device:
            yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def random_states(device: torch.device) -> Iterator[None]:
    """Put the random states of torch (cpu and the device), Python and numpy back at the end."""
    numpy_random = _numpy_random()
    python_state = random.getstate()
    numpy_state = numpy_random.get_state() if numpy_random else None
    cpu_state = torch.get_rng_state()
    module = _generator_module(device)
    device_state = module.get_rng_state(device) if module else None
    try:
        yield
    finally:
        random.setstate(python_state)
        if numpy_random:
            numpy_random.set_state(numpy_state)
        torch.set_rng_state(cpu_state)
        if module:
            module.set_rng_state(device_state, device)


def seed_all(seed: int) -> None:
    """Seed torch on every device, Python and, where it is loaded, numpy."""
    torch.manual_seed(seed)
    random.seed(seed)
    numpy_random = _numpy_random()
    if numpy_random:
        numpy_random.seed(seed % 2**32)


class Running:
    """The environment of one marked test while it runs."""

    def __init__(self, device: torch.device, dtype: str | None, seed: int) -> None:
        self.device = device
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.seed = seed
        self._outer_device = torch.get_default_device()
        self._outer_dtype = torch.get_default_dtype()

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around the whole test: its function-scoped fixtures, its body, its teardown."""
        with random_states(self.device), defaults(self.device, self.dtype):
            yield

    def start(self) -> None:
        """Before the fixtures of every attempt: reruns start from the same seed."""
        seed_all(self.seed)

    @contextmanager
    def wider(self, bound: bool) -> Iterator[None]:
        """Around the set-up of a class-, module- or session-scoped fixture.

        It is built under torch's own defaults unless it is bound to ``param_device``, and from
        the seed whenever it is built, without moving the random stream of the test that
        happens to need it first.
        """
        device = self.device if bound else self._outer_device
        dtype = self.dtype if bound else self._outer_dtype
        with random_states(self.device), defaults(device, dtype):
            seed_all(self.seed)
            yield


def _numpy_random() -> Any:
    # Only where somebody loaded it: numpy is no dependency of ours.
    numpy = sys.modules.get("numpy")
    return getattr(numpy, "random", None)


def _generator_module(device: torch.device) -> Any:
    if device.type in ("cpu", "meta"):
        return None
    module = torch.get_device_module(device.type)
    return module if hasattr(module, "get_rng_state") else None
