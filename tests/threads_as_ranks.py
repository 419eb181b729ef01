"""Several ranks in one process, for tests of what is said: no process group, no communication.

The first rank is this thread, the others are threads of their own; what they tell each other goes
through a barrier. ``tests/ranks`` has real ranks.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from types import SimpleNamespace
from typing import Any
from unittest import mock

from pytest_paramcheck.assertions import verdict
from pytest_paramcheck.parameters.tensors import call, shards

_WAIT = 20.0


class Group:
    """Stands for a process group of all ranks."""


def on_ranks(calls: Sequence[Callable[[], object]]) -> list[BaseException | None]:
    """Run each call as one rank; return what each raised. What this thread raises is raised."""
    world, rank = len(calls), threading.local()
    barrier = threading.Barrier(world)
    board: list[Any] = [None] * world
    raised: list[BaseException | None] = [None] * world

    def gather(dist: Any, said: object, group: Any) -> dict[int, Any]:
        board[rank.number] = said
        barrier.wait(_WAIT)
        heard = dict(enumerate(board))
        barrier.wait(_WAIT)
        return heard

    stub = SimpleNamespace(
        get_rank=lambda group=None: rank.number,
        get_world_size=lambda group=None: world,
        get_backend=lambda group=None: "threads",
        ProcessGroup=Group,
        group=SimpleNamespace(WORLD=Group()),
    )

    def run(number: int) -> None:
        rank.number = number
        try:
            calls[number]()
        except BaseException as error:
            raised[number] = error
            if number == 0:
                raise

    others = [threading.Thread(target=run, args=(number,)) for number in range(1, world)]
    with (
        mock.patch.object(call, "_gather", gather),
        mock.patch.object(call, "distributed", return_value=stub),
        mock.patch.object(verdict, "distributed", return_value=stub),
        mock.patch.object(shards, "distributed", return_value=stub),
    ):
        for thread in others:
            thread.start()
        try:
            run(0)
        finally:
            for thread in others:
                thread.join(0.5)
            barrier.abort()  # where the first rank was stopped, the others wait no longer
            for thread in others:
                thread.join()
    return raised
