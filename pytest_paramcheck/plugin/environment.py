"""What a marked test runs in: default device, default dtype, and random states put back.

Needs torch, so it is imported when the first marked test runs and not before.

Tests: ``tests/integration/test_environment.py`` and ``test_devices.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import torch

from ..parameters.running.randomness import random_states, seed_all
from ..parameters.tensors.default_device import default_device


class Running:
    """The environment of one marked test while it runs."""

    def __init__(self, device: torch.device, dtype: str | None, seed: int) -> None:
        self.device = device
        self.dtype: torch.dtype | None = getattr(torch, dtype) if dtype else None
        self.seed = seed
        self._outer_dtype = torch.get_default_dtype()
        self._is_inside = False
        self._leave_is_due = False
        self._entered: torch.device | None = None
        self._held: torch.device | None = None

    @contextmanager
    def inside(self) -> Iterator[None]:
        """Around the whole test: nothing it sets or draws leaks out."""
        with random_states([self.device]):
            try:
                yield
            finally:
                self.leave()

    def start(self) -> None:
        """Before the fixtures of every attempt: reruns start from the same seed."""
        seed_all(self.seed, [self.device])
        self.enter()
        self._leave_is_due = False

    def leave_after(self, add_finalizer: Callable[[Callable[[], object]], None]) -> None:
        """Leave before wider fixtures are torn down: they were not set up inside.

        Finalizers run last in, first out: what is added before the first of the test's own
        fixtures is set up runs after the teardown of all of them.
        """
        if not self._leave_is_due:
            self._leave_is_due = True
            add_finalizer(self.leave)

    @contextmanager
    def wider(self, bound: bool) -> Iterator[None]:
        """Around the set-up of a class-, module- or session-scoped fixture.

        It is built under the defaults that hold outside the test, and may change them for the
        tests to come, unless it is bound to ``param_device``; and from the seed whenever it is
        built, without moving the random stream of the test that happens to need it first.
        """
        with random_states([self.device]):
            seed_all(self.seed, [self.device])
            if bound:
                yield
                return
            self.leave()
            try:
                yield
            finally:
                self.enter()

    def enter(self) -> None:
        """Make device and dtype torch's defaults."""
        if self._is_inside:
            return
        self._is_inside = True
        # The default that already holds is left alone: nothing is slower, nothing can leak.
        if _default_device() != self.device:
            self.device.__enter__()
            self._entered = _default_device()
        if self.dtype is not None:
            self._outer_dtype = torch.get_default_dtype()
            torch.set_default_dtype(self.dtype)
        self._held = _default_device()

    def overridden(self) -> list[str]:
        """Return what something has set since :meth:`enter`, against what the id says."""
        if not self._is_inside:
            return []
        found = []
        now = _default_device()
        if now is None:
            if self._held is not None:
                found.append("a default device that is not there")
        elif now.type != self.device.type:
            found.append(f"default device {now.type}")
        elif self.device.index not in (None, now.index) and now != self._held:
            found.append(f"default device {now}")
        dtype = torch.get_default_dtype()
        if self.dtype not in (None, dtype):
            found.append(f"default dtype {str(dtype).removeprefix('torch.')}")
        return found

    def leave(self) -> None:
        """Put torch's defaults back."""
        if not self._is_inside:
            return
        self._is_inside = False
        if self.dtype is not None:
            torch.set_default_dtype(self._outer_dtype)
        if self._entered is None:
            return
        if _default_device() != self._entered:
            # The test left a set_default_device() behind: torch would bring ours back with
            # the next one. Where a context of the test's own is open, torch refuses.
            with suppress(AssertionError):
                torch.set_default_device(None)
        self._entered = None
        # Torch 2.8 has then taken away ours as well (pytorch#148874).
        with suppress(RuntimeError):
            self.device.__exit__(None, None, None)


def _default_device() -> torch.device | None:
    """Torch's default device; None where a test or a fixture chose one that is not there."""
    try:
        return default_device()
    except Exception:  # each backend has an error of its own
        return None
