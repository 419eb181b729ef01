"""Whether this process is a rank, and which."""

from __future__ import annotations

from collections.abc import Mapping

import pytest


class Here:
    """What a rank was started as."""

    def __init__(
        self, rank: int, ranks: int, devices: tuple[str, ...] = (), worker: int = 0
    ) -> None:
        self.rank = rank
        self.ranks = ranks
        #: The devices that the process of the user resolved: ids must be equal.
        self.devices = devices
        #: Of xdist, where that process is one: workers share out the accelerators.
        self.worker = worker

    @property
    def place(self) -> int:
        """The place of this process among all ranks of all workers."""
        return self.worker * self.ranks + self.rank


def launched(environment: Mapping[str, str]) -> Here | None:
    """Return which rank torchrun has started this process as; None where it has not.

    By what only torchrun sets: containers and schedulers leave a RANK or a WORLD_SIZE behind, and
    who reads those as torchrun waits for ranks that nobody has started.
    """
    names = ("TORCHELASTIC_RUN_ID", "RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    numbers = [environment.get(name, "") for name in ("RANK", "WORLD_SIZE")]
    if not all(environment.get(name) for name in names) or not all(map(str.isdigit, numbers)):
        return None
    return Here(int(numbers[0]), int(numbers[1]))


_HERE = pytest.StashKey[Here]()


def set_here(config: pytest.Config, here: Here) -> None:
    """Note that this process is a rank."""
    config.stash[_HERE] = here


def rank_here(config: pytest.Config) -> Here | None:
    """Return which rank this process is; None in the process that the user started."""
    return config.stash.get(_HERE, None)
