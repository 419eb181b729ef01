"""What all ranks say in one call of ours: whom it talks to, and whether all has been said.

The ranks tell each other what they found in one place, :func:`exchange`. A rank that raised before
it would leave the others waiting in it: so whatever a rank has to say, an error too, is said there.

Tests: ``tests/unit/test_one_verdict.py`` and ``tests/ranks``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import join_words
from .sharded import distributed, is_dtensor, mesh_of, whole_of

FAKE = "a fake group has no other ranks: only structure can be checked"


def gathered(tensor: Tensor) -> Tensor:
    """Return all of a tensor, without a graph: of a DTensor what all ranks hold, on each of them.

    A collective: every rank calls it, or waits for an error that another one tells.
    """
    values = tensor.detach()
    if not is_dtensor(values):
        return values
    exchange(None)  # everybody is here
    return whole_of(values)


@dataclass
class Call:
    """One assertion that was called: whom it talks to, and whether all has been said."""

    name: str
    #: Whether it reads values or gradients, which other ranks of a fake group do not have.
    values: bool = True
    #: Whether it is right of what FullyShardedDataParallel holds: slices of flattened parameters,
    #: and with ``use_orig_params=False`` the flat ones, which hide the names.
    slices: bool = False
    flat: bool = False
    title: str = ""
    meshes: list[Any] = field(default_factory=list)
    group: Any = None
    #: Whether an exchange ended the call: every rank knows the same, and says no more.
    over: bool = False
    stage: int = 0

    def read(self, title: str, tensors: Iterable[object]) -> None:
        """Note a subject: the call talks to the ranks of its tensors' meshes."""
        self.title = self.title or title
        if sys.modules.get("torch.distributed.tensor") is None:
            return
        for tensor in tensors:
            mesh = mesh_of(tensor)
            if mesh is not None and not any(mesh is known for known in self.meshes):
                self.meshes.append(mesh)
        if self.values and self.fake:
            raise ParamCheckUsageError(FAKE)

    @property
    def fake(self) -> bool:
        """Whether there are no other ranks to ask for what they hold."""
        return any(_is_fake(mesh) for mesh in self.meshes)

    @property
    def alone(self) -> bool:
        """Whether there is nobody to talk to: a plain subject, or a fake group."""
        if self.group is not None:
            return False
        return not self.meshes or self.fake

    @property
    def outside(self) -> bool:
        """Whether this rank is on none of the meshes, and so takes no part."""
        if self.group is not None:
            return False
        return bool(self.meshes) and all(mesh.get_coordinate() is None for mesh in self.meshes)

    @property
    def first(self) -> bool:
        """Whether this rank is the first of those the subject is spread over."""
        return self.alone or this_rank() == min(int(mesh.mesh.min()) for mesh in self.meshes)

    def exchange(self, facts: object, error: str = "") -> dict[int, Any]:
        """Tell all ranks of the call something, and return what each says, by its rank.

        Raises :class:`ParamCheckUsageError`, with one text on every rank, where one of them has
        an error to tell, and where the ranks called different assertions.
        """
        if self.alone or self.outside:
            return {this_rank(): facts}
        self.stage += 1
        dist = distributed()
        said = (self.name, self.title, self.stage, error, facts)
        if self.group is not None and not hasattr(self.group, "get_coordinate"):
            everything = _gather(dist, said, self.group)
        elif self.group is not None:
            everything = _gather_over(dist, said, self.group)
        else:
            everything = _gather_over(dist, said, self.widest())
        self._agree(everything)
        return {rank: facts for rank, (*_, facts) in everything.items()}

    def widest(self) -> Any:
        """The mesh that has the ranks of all others."""
        of = [(set(mesh.mesh.flatten().tolist()), mesh) for mesh in self.meshes]
        for ranks, mesh in of:
            if all(ranks >= others for others, _ in of):
                return mesh
        everyone = set(range(distributed().get_world_size()))
        if set().union(*(ranks for ranks, _ in of)) == everyone:
            return None
        self.over = True
        raise ParamCheckUsageError(
            f"the tensors of {self.title} are on {len(of)} meshes, and none has the ranks of all: "
            f"pass the part of the model that is on one mesh at a time"
        )

    def _agree(self, everything: dict[int, Any]) -> None:
        errors: dict[str, list[int]] = {}
        calls: dict[tuple[str, str, int], list[int]] = {}
        for rank, (name, title, stage, error, _) in everything.items():
            if self.group is not None:
                title = ""  # pipeline stages are models of their own
            calls.setdefault((name, title, stage), []).append(rank)
            if error:
                errors.setdefault(error, []).append(rank)
        if errors:
            self.over = True
            text, ranks = next(iter(errors.items()))
            raise ParamCheckUsageError(
                text if len(ranks) == len(everything) else f"{ranks_text(ranks)}: {text}"
            )
        if len(calls) > 1:
            self.over = True
            made = ", ".join(
                f"{name}({title}) on {ranks_text(ranks)}".replace("()", "")
                for (name, title, _), ranks in calls.items()
            )
            raise ParamCheckUsageError(
                f"the ranks called different assertions: {made}; each belongs on every rank"
            )


#: The call that is running, where this process is a rank.
_running: ContextVar[Call | None] = ContextVar("paramcheck_call", default=None)


def running_call() -> Call | None:
    """Return the call that is running on ranks, if one is."""
    return _running.get()


@contextmanager
def running(call: Call) -> Iterator[None]:
    """Let readers note in this call what they read."""
    token = _running.set(call)
    try:
        yield
    finally:
        _running.reset(token)


def group_of_call() -> Any:
    """Return the process group of all ranks the running call talks to; None where there is none.

    Raises :class:`ParamCheckUsageError` for a mesh that is no group: to make one is a collective.
    """
    call, dist = _running.get(), distributed()
    if call is None or call.alone or call.outside:
        return None
    mesh = call.widest()
    if mesh is None or mesh.size() == dist.get_world_size():
        return dist.group.WORLD
    if mesh.ndim == 1:
        return mesh.get_group()
    raise ParamCheckUsageError(
        f"the ranks of {call.title} are not a process group of their own: a mesh of "
        f"{'x'.join(map(str, mesh.shape))} out of {dist.get_world_size()} ranks"
    )


def writes_here() -> bool:
    """Whether what is written once for a subject is written by this rank."""
    call = _running.get()
    return call is None or call.first


def asks_a_group() -> bool:
    """Whether the caller of the running assertion named the ranks to compare with."""
    call = _running.get()
    return call is not None and call.group is not None


def use_group(group: Any) -> None:
    """Let the running call talk to the ranks of a ProcessGroup or a DeviceMesh.

    Raises :class:`ParamCheckUsageError` where this process is no rank, or none of that group, and
    for a group that has no other ranks to ask.
    """
    call, dist = _running.get(), distributed()
    if call is None or dist is None:
        raise ParamCheckUsageError(
            "there is no process group, so there are no ranks to compare: run it in a test with "
            "@pytest.mark.params(ranks=2), or under torchrun"
        )
    group = dist.group.WORLD if group is None else group
    mesh = group if hasattr(group, "get_coordinate") else None
    if mesh is None and not isinstance(group, dist.ProcessGroup):
        raise ParamCheckUsageError(
            f"group={group!r} is not a group of ranks: pass a ProcessGroup or a DeviceMesh"
        )
    outside = mesh.get_coordinate() is None if mesh is not None else dist.get_rank(group) < 0
    if outside:
        call.over = True
        raise ParamCheckUsageError(
            f"rank {dist.get_rank()} is not in the group: only its ranks call the assertion"
        )
    if dist.get_backend(mesh.get_group(0) if mesh is not None else group) == "fake":
        call.over = True
        raise ParamCheckUsageError(FAKE)
    call.group = group


def asks_nobody() -> bool:
    """Whether the running call is about DTensors of a fake group, which has no other ranks."""
    call = _running.get()
    return call is not None and call.fake


def tells_others() -> bool:
    """Whether the running call has other ranks to talk to."""
    call = _running.get()
    return call is not None and not call.alone and not call.outside


def exchange(facts: object) -> dict[int, Any]:
    """Tell the other ranks of the running call something; return what each rank says, by rank.

    Where the subject is not distributed there is one rank, and nothing is sent.
    """
    call = _running.get()
    return {0: facts} if call is None else call.exchange(facts)


def ranks_text(ranks: Sequence[int]) -> str:
    """Return ``rank 1`` or ``ranks 0, 2 and 3``."""
    if len(ranks) == 1:
        return f"rank {ranks[0]}"
    shown = [str(rank) for rank in ranks[:8]]
    if len(ranks) > 8:
        shown[7:] = [f"{len(ranks) - 7} more"]
    return f"ranks {join_words(shown)}"


def this_rank() -> int:
    """Return which rank this process is; 0 where it is none."""
    dist = distributed()
    return int(dist.get_rank()) if dist is not None else 0


def _is_fake(mesh: Any) -> bool:
    dist = distributed()
    if dist is None:
        return True  # a mesh whose group is gone has no other ranks either
    return bool(dist.get_backend(mesh.get_group(0)) == "fake")


def _gather(dist: Any, said: object, group: Any) -> dict[int, Any]:
    ranks = dist.get_process_group_ranks(group)
    heard: list[Any] = [None] * len(ranks)
    dist.all_gather_object(heard, said, group=group)
    return dict(zip(ranks, heard, strict=True))


def _gather_over(dist: Any, said: object, mesh: Any) -> dict[int, Any]:
    """Gather over all ranks of a mesh, with groups that are there: to make one is a collective."""
    if mesh is None or mesh.size() == dist.get_world_size():
        return _gather(dist, said, dist.group.WORLD)
    if mesh.ndim == 1:
        return _gather(dist, said, mesh.get_group())
    heard: dict[int, Any] = {int(dist.get_rank()): said}
    for dimension in reversed(range(mesh.ndim)):
        of_each = _gather(dist, heard, mesh.get_group(dimension))
        heard = {rank: one for some in of_each.values() for rank, one in some.items()}
    return dict(sorted(heard.items()))
