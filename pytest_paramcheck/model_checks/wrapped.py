"""Checks of a model that is wrapped or sharded over ranks, against the model itself.

Each is collected for cases with ``wrap`` only and runs on every rank.

Tests: ``tests/unit/test_wrapped.py`` on one rank, and ``tests/ranks`` on several.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import replace
from importlib import import_module
from tempfile import TemporaryDirectory
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from ..assertions.checkpoints import assert_roundtrip
from ..assertions.sharding import assert_replicated
from ..assertions.ties import assert_same_ties
from ..assertions.values import assert_same_values
from ..checks.manifest import COPY, record_differences
from ..checks.wrapped import different_gradients, different_moves
from ..messages.errors import ParamCheckError, raise_if
from ..messages.findings import Finding
from ..parameters.running.alone import alone
from ..parameters.saving.dcp import load_anew
from ..parameters.subject.reading import take_inventory
from ..parameters.subject.records import records
from .case import ModelCase, NothingToCheck
from .check import check
from .needs import need_trainable, need_values
from .outputs import tensors_of
from .run import CaseRun
from .steps import backward, step


def _is_wrapped(case: ModelCase) -> bool:
    return case.wrap is not None


@check(applies=_is_wrapped)
def check_replicated(case: CaseRun) -> None:
    """All ranks hold the same, as it is wrapped and after a training step."""
    __tracebackhide__ = True
    need_values(case.model)
    assert_replicated(case.model)
    need_trainable(case.model)
    model = case.build()
    _train(case, model)
    _same_on_all(model)


def _same_on_all(model: nn.Module) -> None:
    """Parameters alone: running statistics are each rank's own until the next forward pass."""
    __tracebackhide__ = True
    names = [entry.name for entry in take_inventory(model).parameters]
    assert_replicated(model, *names, only=["values", "flags"])


def _train(case: CaseRun, model: nn.Module) -> None:
    __tracebackhide__ = True
    optimizers = case.optimizers(model)
    backward(case, model)
    for optimizer in optimizers:
        step(case, model, optimizer)


@check(applies=_is_wrapped)
def check_wrap(case: CaseRun) -> None:
    """The wrap keeps names, shapes, flags and ties, and the values of rank 0's model."""
    __tracebackhide__ = True
    plain = _of_rank_0(case)
    before, after = (records(take_inventory(m, allow_empty=True)) for m in (plain, case.model))
    raise_if(record_differences(before, after, words=COPY), case.title)
    assert_same_ties(plain, case.model)
    need_values(case.model)
    assert_same_values(case.model, plain)


def _of_rank_0(case: CaseRun) -> nn.Module:
    """Return the model that no wrap has seen, with rank 0's values on every rank."""
    __tracebackhide__ = True
    plain = case._unwrapped()
    for tensor in {id(t): t for t in (*plain.parameters(), *plain.buffers())}.values():
        dist.broadcast(tensor.data, src=0)
    return plain


@check(applies=_is_wrapped)
def check_step(case: CaseRun) -> None:
    """Gradients are the mean of the model's own over the parts, and a step moves what it moves.

    In eval mode, each part of the inputs alone, in a world of one: a reduction that is missing,
    done twice or scaled, and a loss that reckons with the size of the world are differences.
    """
    __tracebackhide__ = True
    need_values(case.model)
    need_trainable(case.model)
    ranks = dist.get_world_size()
    if case.declared.split is None and ranks > 1 and _is_data_parallel(case.model):
        raise NothingToCheck(
            "all ranks get the same inputs, which hides a missing reduction: declare split="
        )
    if case.declared.split is not None and ranks > 1 and _equal_parts(case, ranks):
        raise NothingToCheck(
            "each rank's part of the inputs is the same, which hides a missing reduction"
        )
    model, plain = case.build().eval(), _of_rank_0(case).eval()
    backward(case, model)
    found = [g if g is None else g.clone() for g in _gradients(model)]
    parts = 1 if case.declared.split is None else ranks
    with alone() if ranks > 1 else nullcontext():
        try:
            for number in range(parts):
                case._part = number, parts
                backward(case, plain)
        finally:
            case._part = None
    for parameter in plain.parameters():
        if parameter.grad is not None:
            parameter.grad /= parts
    names = [entry.name for entry in take_inventory(plain).parameters]
    expected = _gradients(plain)
    _raise_on_all(different_gradients(names, found, expected, ranks), case.title)
    before = [_values(m) for m in (model, plain)]
    for each in (model, plain):
        for optimizer in case.optimizers(each):
            step(case, each, optimizer)
    after = [_values(m) for m in (model, plain)]
    moved = [
        [not torch.equal(old, new) for old, new in zip(olds, news, strict=True)]
        for olds, news in zip(before, after, strict=True)
    ]
    _raise_on_all(different_moves(names, *moved), case.title)
    _same_on_all(model)


@check(applies=_is_wrapped)
def check_dcp_roundtrip(case: CaseRun) -> None:
    """Values and keys survive a checkpoint of ``torch.distributed.checkpoint``.

    It is read into builds of another seed too: wrapped, and as a single process has the model.
    """
    __tracebackhide__ = True
    need_values(case.model)
    assert_roundtrip(case.model, through="dcp")
    seed, entries = case.seed + 1, take_inventory(case.model).entries
    saved = [name for entry in entries if entry.persistent for name in entry.names]
    with _saved_by_all(case.model) as folder:
        for model, into, alone in (
            (case.build(seed), "loaded into another build of it", False),
            (case._unwrapped(seed), "loaded into a build of it that is not wrapped", True),
        ):
            found = load_anew(model, folder, alone=alone)
            said = [Finding((), "does not load back", found=found, why=into)] if found else []
            _raise_on_all(said, case.title)
            different: Sequence[Finding] = ()
            try:
                assert_same_values(model, case.model, *saved)
            except ParamCheckError as error:
                different = error.findings
            raise_if([replace(each, why=into) for each in different], case.title)


@contextmanager
def _saved_by_all(model: nn.Module) -> Iterator[str]:
    """Lend a folder that all ranks have saved a model to; the first removes it after the last."""
    checkpoint: Any = import_module("torch.distributed.checkpoint")  # imported by who uses it
    states: Any = import_module("torch.distributed.checkpoint.state_dict")
    with ExitStack() as stack:
        own = stack.enter_context(TemporaryDirectory()) if dist.get_rank() == 0 else ""
        said = [own]
        dist.broadcast_object_list(said, src=0)
        checkpoint.save(states.get_model_state_dict(model), checkpoint_id=said[0])
        yield said[0]


def _equal_parts(case: CaseRun, ranks: int) -> bool:
    try:
        parts = []
        for number in range(ranks):
            case._part = number, ranks
            parts.append(tensors_of(case.inputs))
    finally:
        case._part = None
    return all(
        torch.equal(one, other) for part in parts for one, other in zip(parts[0], part, strict=True)
    )


def _is_data_parallel(model: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule, FullyShardedDataParallel

    kinds = (nn.parallel.DistributedDataParallel, FSDPModule, FullyShardedDataParallel)
    return any(isinstance(module, kinds) for module in model.modules())


def _parameters(model: nn.Module) -> Iterable[nn.Parameter]:
    for entry in take_inventory(model).parameters:
        if isinstance(entry.tensor, nn.Parameter):
            yield entry.tensor


def _whole(tensor: Tensor) -> Tensor:
    full = getattr(tensor, "full_tensor", None)
    return full() if full is not None else tensor


def _gradients(model: nn.Module) -> list[Tensor | None]:
    """Return the whole gradient of each parameter, in the order of the names."""
    return [None if p.grad is None else _whole(p.grad).detach() for p in _parameters(model)]


def _values(model: nn.Module) -> list[Tensor]:
    return [_whole(p.detach()).clone() for p in _parameters(model)]


def _raise_on_all(findings: Sequence[Finding], title: str) -> None:
    """Raise on every rank what any of them has found: the next step would wait for them."""
    __tracebackhide__ = True
    said: list[list[Finding]] = [[]] * dist.get_world_size()
    dist.all_gather_object(said, list(findings))
    raise_if(next((each for each in said if each), []), title)
