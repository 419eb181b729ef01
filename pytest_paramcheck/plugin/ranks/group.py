"""The process group that a test finds: made before its first fixture, gone before the next test.

On the cpu each test has a group of its own: a collective that one rank left unfinished would be
paired with the next test's in a shared group, and hang it. Groups and models that wider fixtures
made go on working after WORLD was replaced (measured with gloo). Accelerators keep one group for
as long as the ranks live: theirs cost seconds.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from ..marked import variant_of
from ..session import session_of

if TYPE_CHECKING:
    from torch.distributed import ProcessGroup
    from torch.distributed.distributed_c10d import Store


class RankGroup:
    """The group of the test that runs, in one rank."""

    def __init__(self, rank: int, ranks: int, store: Callable[[str], Store], timeout: timedelta):
        self._rank = rank
        self._ranks = ranks
        self._store = store
        self._timeout = timeout
        self._group: ProcessGroup | None = None
        self._kind = ""

    def enter(self, number: int, device: str) -> None:
        """Make the group of a test, or keep the one that is there on an accelerator."""
        kind = device if device not in ("cpu", "meta") else "cpu"
        if self._group is not None and kind == self._kind != "cpu" and self.intact():
            return
        self.leave()
        import torch.distributed as dist

        # gloo on the cpu alone: with None torch starts a backend for each device it was built for.
        backend = "gloo" if kind == "cpu" else None
        dist.init_process_group(
            backend,
            store=self._store(f"{number}"),
            rank=self._rank,
            world_size=self._ranks,
            timeout=self._timeout,
        )
        self._group, self._kind = _world(), kind

    def intact(self) -> bool:
        """Whether the group is still the one that was made."""
        import torch.distributed as dist

        return dist.is_initialized() and _world() is self._group

    def leave(self) -> None:
        """Take the group away, whoever made it."""
        import torch.distributed as dist

        if not dist.is_initialized():
            return
        held = [_world()] if self._kind == "cpu" else []
        self._group = None
        dist.destroy_process_group()
        if held:
            # gloo's threads look only every 10 ms whether they are to end, and who drops the last
            # reference waits for them: 16 to 20 ms, of 25 that a short test took. torch lets go
            # of the GIL meanwhile.
            threading.Thread(target=held.clear, name="end of a process group").start()


def device_of(item: pytest.Item) -> str:
    """Return the type of device a test runs on, with this rank's own made the current one."""
    variant = variant_of(item)
    if variant is None or variant.device in ("cpu", "meta"):
        return "cpu"
    import torch

    device = session_of(item.config).machine.device(variant.device)
    if device.index is not None:
        torch.accelerator.set_device_index(device.index)
    return device.type


def _world() -> Any:
    import torch.distributed as dist

    return dist.group.WORLD
