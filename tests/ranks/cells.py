"""Assertion x kind of distributed model: what each must say of a right and of a wrong one.

A cell is a function that runs on every rank, and what must come out of it: ``pass``, ``finding`` or
``usage`` on all ranks, with one text; ``one`` where the subject is plain on each rank, so that only
the rank that sees it raises (a harness makes one verdict of that).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping

import torch
from torch import nn
from torch.distributed.tensor import DTensor, Replicate
from torch.nn.functional import cross_entropy

import pytest_paramcheck as pc
from pytest_paramcheck import init

from .wrapped import (
    DTENSORS,
    WEIGHT,
    WRAPS,
    local,
    loss_of,
    mesh,
    norm_of_gradients,
    parameter,
    plain,
    rank,
    tokens,
    with_unused_block,
)

RUN: dict[str, Callable[[], None]] = {}
#: name -> what must come out of it.
CELLS: dict[str, str] = {}

Body = Callable[[str], None]


def cell(name: str, want: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """One function, under its own name."""

    def add(function: Callable[[], None]) -> Callable[[], None]:
        assert name not in RUN
        RUN[name] = function
        CELLS[name] = want
        return function

    return add


#: What is asked of slices of parameters is refused; of a model whose names are hidden, more so.
REFUSED = {"fsdp1": "usage", "flat": "usage"}
NAMELESS = {"flat": "usage"}
ONE_SIDED = {"plain": "one", "ddp": "one", "fsdp1": "one", "flat": "one"}


def cells(
    assertion: str, case: str, want: str, *others: Mapping[str, str], without: str = ""
) -> Callable[[Body], Body]:
    """One function of the kind of model, for each kind."""

    def add(function: Body) -> Body:
        for kind in WRAPS:
            if kind in without.split():
                continue
            wanted = want
            for other in others:
                wanted = other.get(kind, wanted)
            cell(f"{kind}/{assertion}/{case}", wanted)(lambda kind=kind: function(kind))
        return function

    return add


def wrapped(kind: str, tied: bool = True, seed: int = 0) -> nn.Module:
    return WRAPS[kind](plain(seed, tied))


def name_of(kind: str) -> str:
    """A parameter of which each rank holds something."""
    return "blocks.1.fc2.weight" if kind == "fsdp1" else WEIGHT


def some(kind: str, model: nn.Module) -> nn.Parameter:
    return next(model.parameters()) if kind == "flat" else parameter(model, name_of(kind))


def sgd(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1)


def step(kind: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    loss_of(kind)(model).backward()
    optimizer.step()


def on_rank_1(write: Callable[[], object]) -> None:
    if rank() == 1:
        with torch.no_grad():
            write()


def poison(tensor: torch.Tensor) -> None:
    on_rank_1(lambda: local(tensor).view(-1)[-1:].fill_(float("nan")))


# -- ties ---------------------------------------------------------------------------------------

LOST = {"replicated": "finding"}


@cells("assert_tied", "tied", "pass", LOST, NAMELESS)
def _(kind: str) -> None:
    pc.assert_tied(wrapped(kind), "emb.weight", "head.weight")


@cells("assert_tied", "copied", "finding", NAMELESS)
def _(kind: str) -> None:
    model = plain(tied=False)
    model.head.weight.data.copy_(model.emb.weight.data)
    pc.assert_tied(WRAPS[kind](model), "emb.weight", "head.weight")


@cells("assert_untied", "untied", "pass", NAMELESS)
def _(kind: str) -> None:
    pc.assert_untied(wrapped(kind, tied=False))


@cells("assert_untied", "tied", "finding", NAMELESS)
def _(kind: str) -> None:
    pc.assert_untied(wrapped(kind))


@cells("assert_untied", "a copy", "pass", NAMELESS)
def _(kind: str) -> None:
    pc.assert_untied(wrapped(kind, tied=False), wrapped(kind, tied=False))


@cells("assert_distinct", "distinct", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_distinct(wrapped(kind, tied=False))


@cells("assert_distinct", "the first half is equal", "pass", REFUSED)
def _(kind: str) -> None:
    model = plain(tied=False)
    with torch.no_grad():
        first, second = model.blocks[0].fc1.weight, model.blocks[1].fc1.weight
        second[:8] = first[:8]
    pc.assert_distinct(WRAPS[kind](model))


@cells("assert_distinct", "equal layers", "finding", REFUSED)
def _(kind: str) -> None:
    model = plain(tied=False)
    model.blocks[1].load_state_dict(model.blocks[0].state_dict())
    pc.assert_distinct(WRAPS[kind](model))


@cells("assert_distinct", "equal layers, constant on one rank", "finding", REFUSED)
def _(kind: str) -> None:
    model = plain(tied=False)
    with torch.no_grad():
        model.blocks[0].fc1.weight[8:] = 0
    model.blocks[1].load_state_dict(model.blocks[0].state_dict())
    pc.assert_distinct(WRAPS[kind](model))


@cells("assert_ties", "exact", "pass", LOST, NAMELESS)
def _(kind: str) -> None:
    pc.assert_ties(wrapped(kind), [{"emb.weight", "head.weight"}])


@cells("assert_ties", "lost", "finding", NAMELESS)
def _(kind: str) -> None:
    pc.assert_ties(wrapped(kind, tied=False), [{"emb.weight", "head.weight"}])


@cells("assert_same_ties", "before and after the wrap", "pass", LOST, NAMELESS)
def _(kind: str) -> None:
    pc.assert_same_ties(plain(), wrapped(kind))


@cells("assert_same_ties", "lost before the wrap", "finding", NAMELESS)
def _(kind: str) -> None:
    pc.assert_same_ties(plain(), wrapped(kind, tied=False))


# -- gradients ----------------------------------------------------------------------------------


@cells("assert_grads_none", "fresh", "pass")
def _(kind: str) -> None:
    pc.assert_grads_none(wrapped(kind))


@cells("assert_grads_none", "after backward", "finding")
def _(kind: str) -> None:
    model = wrapped(kind)
    loss_of(kind)(model).backward()
    pc.assert_grads_none(model)


@cells("assert_grads_present", "after backward", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    loss_of(kind)(model).backward()
    pc.assert_grads_present(model)


@cells("assert_grads_present", "an unused block", "finding", REFUSED)
def _(kind: str) -> None:
    model = WRAPS[kind](with_unused_block())
    loss_of(kind)(model).backward()
    pc.assert_grads_present(model)


@cells("assert_grads_present", "none on rank 1", "finding", ONE_SIDED, REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    loss_of(kind)(model).backward()
    if rank() == 1:
        some(kind, model).grad = None
    pc.assert_grads_present(model)


@cells("assert_grads_present", "zero on rank 1", "pass", REFUSED, {"plain": "one", "ddp": "one"})
def _(kind: str) -> None:
    model = wrapped(kind)
    loss_of(kind)(model).backward()
    on_rank_1(lambda: local(some(kind, model).grad).zero_())
    pc.assert_grads_present(model)


@cells("assert_grads_finite", "finite", "pass")
def _(kind: str) -> None:
    model = wrapped(kind)
    loss_of(kind)(model).backward()
    pc.assert_grads_finite(model)


@cells("assert_grads_finite", "NaN on rank 1", "finding", ONE_SIDED)
def _(kind: str) -> None:
    model = wrapped(kind)
    loss_of(kind)(model).backward()
    poison(some(kind, model).grad)
    pc.assert_grads_finite(model)


@cells("assert_grad_norm", "of the whole", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind, tied=False)
    loss_of(kind)(model).backward()
    norm = norm_of_gradients(model)
    pc.assert_grad_norm(model, at_most=norm * 1.001, at_least=norm * 0.999)


@cells("assert_grad_norm", "too large", "finding", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind, tied=False)
    loss_of(kind)(model).backward()
    norm = norm_of_gradients(model)
    pc.assert_grad_norm(model, at_most=norm * 0.99)


@cells("assert_grads_reach", "all reached", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_grads_reach(wrapped(kind), loss_of(kind))


@cells("assert_grads_reach", "a step afterwards", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    pc.assert_grads_reach(model, loss_of(kind))
    step(kind, model, sgd(model))
    assert all(p.grad is not None for p in model.parameters())


@cells("assert_grads_reach", "an unused block", "finding", REFUSED)
def _(kind: str) -> None:
    pc.assert_grads_reach(WRAPS[kind](with_unused_block()), loss_of(kind))


@cells(
    "assert_grads_reach",
    "rows of rank 1 get no gradient",
    "pass",
    REFUSED,
)
def _(kind: str) -> None:
    pc.assert_grads_reach(wrapped(kind, tied=False), _first_rows(kind), "emb")


def _first_rows(kind: str) -> Callable[[nn.Module], torch.Tensor]:
    def loss(model: nn.Module) -> torch.Tensor:
        part = torch.arange(8)
        given = part
        if kind == "replicated":
            given = DTensor.from_local(part, mesh(), [Replicate()], run_check=False)
        out = model(given)
        return cross_entropy(out.full_tensor() if isinstance(out, DTensor) else out, part)

    return loss


@cells(
    "assert_tied_grads_sum",
    "tied",
    "pass",
    REFUSED,
    {"fsdp2": "usage", "replicated": "usage"},
)
def _(kind: str) -> None:
    pc.assert_tied_grads_sum(wrapped(kind), loss_of(kind))


# -- flags --------------------------------------------------------------------------------------


@cells("assert_frozen", "frozen blocks", "pass", NAMELESS)
def _(kind: str) -> None:
    model = plain()
    model.blocks.requires_grad_(False)
    model = WRAPS[kind](model)
    for name, frozen in model.named_parameters():
        if "blocks." in name:  # torch 2.8 shards a frozen parameter into one that trains
            frozen.requires_grad_(False)
    pc.assert_frozen(model, exactly=["blocks"])


@cells("assert_frozen", "trainable on rank 1", "finding", ONE_SIDED, NAMELESS)
def _(kind: str) -> None:
    model = plain()
    model.blocks.requires_grad_(False)
    model = WRAPS[kind](model)
    if rank() == 1:
        some(kind, model).requires_grad_(True)
    pc.assert_frozen(model, "blocks")


@cells("assert_trainable", "all", "pass")
def _(kind: str) -> None:
    pc.assert_trainable(wrapped(kind))


@cells("assert_trainable", "frozen on rank 1", "finding", ONE_SIDED)
def _(kind: str) -> None:
    model = wrapped(kind)
    if rank() == 1:
        some(kind, model).requires_grad_(False)
    pc.assert_trainable(model)


# -- blocks -------------------------------------------------------------------------------------


@cells("assert_unchanged", "forward", "pass", NAMELESS)
def _(kind: str) -> None:
    model = wrapped(kind)
    with pc.assert_unchanged(model):
        loss_of(kind)(model)


@cells("assert_unchanged", "forward and backward", "pass", NAMELESS)
def _(kind: str) -> None:
    model = wrapped(kind)
    with pc.assert_unchanged(model):
        loss_of(kind)(model).backward()


@cells("assert_unchanged", "written on rank 1", "finding", ONE_SIDED, NAMELESS)
def _(kind: str) -> None:
    model = wrapped(kind)
    with pc.assert_unchanged(model):
        on_rank_1(lambda: local(some(kind, model)).add_(1))


@cells("assert_changed", "a step", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    optimizer = sgd(model)
    with pc.assert_changed(model):
        step(kind, model, optimizer)


@cells("assert_changed", "no step", "finding", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    with pc.assert_changed(model):
        loss_of(kind)(model).backward()


@cells("assert_changed", "written on rank 1", "pass", REFUSED, {"plain": "one", "ddp": "one"})
def _(kind: str) -> None:
    model = wrapped(kind)
    with pc.assert_changed(model, WEIGHT):
        on_rank_1(lambda: local(parameter(model)).add_(1))


@cells("assert_updated", "a step", "pass", REFUSED)
def _(kind: str) -> None:
    # torch 2.8 leaves the two halves of a lost tie on the same memory.
    model = wrapped(kind, tied=kind != "replicated")
    optimizer = sgd(model)
    with pc.assert_updated(model):
        step(kind, model, optimizer)


@cells("assert_updated", "rows of rank 1 get no gradient", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind, tied=False)
    optimizer = sgd(model)
    with pc.assert_updated(model, "emb"):
        _first_rows(kind)(model).backward()
        optimizer.step()


@cells("assert_updated", "weight decay alone", "finding", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind, tied=False)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with pc.assert_updated(model):
        out = model(tokens(kind))
        out = out.full_tensor() if isinstance(out, DTensor) else out
        (out * 0).sum().backward()
        optimizer.step()


# -- optimizers ---------------------------------------------------------------------------------


@cells("assert_optimizer_covers", "all", "pass")
def _(kind: str) -> None:
    model = wrapped(kind, tied=False)
    pc.assert_optimizer_covers(sgd(model), model)


@cells(
    "assert_optimizer_covers",
    "built before the wrap",
    "finding",
    {"plain": "pass", "ddp": "pass"},
    without="fsdp1 flat",
)
def _(kind: str) -> None:
    model = plain()
    optimizer = sgd(model)
    pc.assert_optimizer_covers(optimizer, WRAPS[kind](model))


@cells("assert_optimizer_covers", "one missing on rank 1", "finding", ONE_SIDED)
def _(kind: str) -> None:
    model = wrapped(kind)
    held = list(model.parameters())
    held = held[:-1] if rank() == 1 else held
    if not held:
        held = [nn.Parameter(torch.ones(1))]
    pc.assert_optimizer_covers(torch.optim.SGD(held, lr=0.1), model)


def _adam(kind: str, model: nn.Module) -> torch.optim.Optimizer:
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)
    step(kind, model, optimizer)
    return optimizer


@cells("assert_optimizer_state", "Adam", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    pc.assert_optimizer_state(_adam(kind, model), model)


@cells("assert_optimizer_state", "another shape on rank 1", "finding", ONE_SIDED, REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    optimizer = _adam(kind, model)
    if rank() == 1:
        optimizer.state[some(kind, model)]["exp_avg"] = torch.zeros(3, 5)
    pc.assert_optimizer_state(optimizer, model)


@cells("assert_param_groups", "as declared", "pass")
def _(kind: str) -> None:
    model = wrapped(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    pc.assert_param_groups(optimizer, model, {"*": {"weight_decay": 0.1}})


@cells("assert_param_groups", "another on rank 1", "finding", ONE_SIDED)
def _(kind: str) -> None:
    model = wrapped(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1 * (1 + rank()))
    pc.assert_param_groups(optimizer, model, {"*": {"weight_decay": 0.1}})


# -- structure ----------------------------------------------------------------------------------


@cells("assert_shapes", "of the whole", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_shapes(wrapped(kind), {"emb": (16, 8), "*.fc1.weight": (16, 8)}, partial=True)


@cells("assert_shapes", "of a shard", "finding", REFUSED)
def _(kind: str) -> None:
    pc.assert_shapes(wrapped(kind), {"*.fc1.weight": (8, 8)}, partial=True)


@cells("assert_param_count", "of the whole", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind, tied=False)
    pc.assert_param_count(model, sum(p.numel() for p in plain(tied=False).parameters()))


@cells("assert_param_count", "one more", "finding", REFUSED)
def _(kind: str) -> None:
    pc.assert_param_count(wrapped(kind, tied=False), 1)


@cells("assert_dtypes", "float32", "pass", NAMELESS)
def _(kind: str) -> None:
    pc.assert_dtypes(wrapped(kind), torch.float32)


@cells("assert_dtypes", "bfloat16", "finding", NAMELESS)
def _(kind: str) -> None:
    pc.assert_dtypes(wrapped(kind), torch.bfloat16)


@cells("assert_devices", "cpu", "pass", NAMELESS)
def _(kind: str) -> None:
    pc.assert_devices(wrapped(kind), "cpu")


@cells("assert_devices", "cuda", "finding", NAMELESS)
def _(kind: str) -> None:
    pc.assert_devices(wrapped(kind), "cuda")


@cells("assert_materialized", "real", "pass", NAMELESS)
def _(kind: str) -> None:
    pc.assert_materialized(wrapped(kind))


@cells("assert_registered", "as wrapped", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_registered(wrapped(kind))


@cells("assert_registered", "after a step", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    step(kind, model, sgd(model))
    pc.assert_registered(model, tensors=True)


@cells("assert_registered", "hidden in a list", "finding", REFUSED)
def _(kind: str) -> None:
    model = plain()
    model.blocks[0].hidden = [nn.Parameter(torch.ones(3))]
    pc.assert_registered(WRAPS[kind](model))


@cells("assert_registered", "leaves of a loss", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_registered(wrapped(kind), loss_of(kind))


@cells("assert_registered", "a foreign leaf of a loss", "finding", REFUSED)
def _(kind: str) -> None:
    foreign = nn.Parameter(torch.ones(()))
    loss = loss_of(kind)
    pc.assert_registered(wrapped(kind), lambda model: loss(model) * foreign)


@cells("assert_manifest", "of the plain model", "pass", LOST, REFUSED)
def _(kind: str) -> None:
    path = f"{rank()}.params"
    pc.assert_manifest(plain(), path=path, update=True)
    pc.assert_manifest(wrapped(kind), path=path)


# -- values -------------------------------------------------------------------------------------


@cells("assert_finite", "finite", "pass")
def _(kind: str) -> None:
    pc.assert_finite(wrapped(kind))


@cells("assert_finite", "NaN on rank 1", "finding", ONE_SIDED)
def _(kind: str) -> None:
    model = wrapped(kind)
    poison(some(kind, model))
    pc.assert_finite(model)


@cells("assert_same_values", "two wrapped", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_same_values(wrapped(kind), wrapped(kind))


@cells("assert_same_values", "against the plain one", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_same_values(wrapped(kind), plain())


@cells("assert_same_values", "the plain one against it", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_same_values(plain(), wrapped(kind), rtol=1e-3, atol=1e-3)


@cells("assert_same_values", "another plain one", "finding", REFUSED)
def _(kind: str) -> None:
    pc.assert_same_values(wrapped(kind), plain(seed=1))


@cells("assert_same_values", "different on rank 1", "finding", ONE_SIDED, REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    on_rank_1(lambda: local(some(kind, model)).view(-1)[-1:].add_(1))
    pc.assert_same_values(model, plain())


@cells("assert_same_values", "different on rank 1, within", "pass", REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    on_rank_1(lambda: local(some(kind, model)).view(-1)[-1:].add_(1e-4))
    pc.assert_same_values(model, wrapped(kind), atol=1e-2)


BOUND = 8**-0.5
DRAWN = {"emb": init.normal(0, 1), "*.fc1.weight": init.uniform(-BOUND, BOUND)}


@cells("assert_init", "as drawn", "pass", REFUSED)
def _(kind: str) -> None:
    pc.assert_init(wrapped(kind), DRAWN)


@cells("assert_init", "twice as wide on rank 1", "finding", ONE_SIDED, REFUSED)
def _(kind: str) -> None:
    model = wrapped(kind)
    on_rank_1(lambda: local(some(kind, model)).mul_(2))
    pc.assert_init(model, DRAWN)


@cells("assert_init_complete", "a factory that wraps", "pass", NAMELESS, {"fsdp1": "pass"})
def _(kind: str) -> None:
    pc.assert_init_complete(lambda: wrapped(kind))


# -- checkpoints --------------------------------------------------------------------------------

NO_COPY = {"fsdp2": "usage"}


@cells("assert_roundtrip", "state_dict", "pass", REFUSED, NO_COPY)
def _(kind: str) -> None:
    pc.assert_roundtrip(wrapped(kind))


@cells("assert_loaded", "before the wrap", "pass", REFUSED)
def _(kind: str) -> None:
    saved = copy.deepcopy(plain(seed=3).state_dict())
    model = plain()
    model.load_state_dict(saved)
    pc.assert_loaded(WRAPS[kind](model), saved)


@cells("assert_loaded", "another one", "finding", REFUSED)
def _(kind: str) -> None:
    pc.assert_loaded(wrapped(kind), copy.deepcopy(plain(seed=3).state_dict()))


@cells("assert_loaded", "not on rank 1", "finding", ONE_SIDED, REFUSED)
def _(kind: str) -> None:
    saved = copy.deepcopy(plain(seed=3, tied=False).state_dict())
    model = plain(seed=3 if rank() == 0 else 4, tied=False)
    wrapped_one = WRAPS[kind](model)
    if kind == "ddp":  # it broadcasts rank 0's parameters
        on_rank_1(lambda: local(parameter(wrapped_one)).add_(1))
    if kind in DTENSORS:
        on_rank_1(lambda: local(parameter(wrapped_one)).add_(1))
    pc.assert_loaded(wrapped_one, saved)


@cells("param_table", "after a step", "pass")
def _(kind: str) -> None:
    model = wrapped(kind)
    step(kind, model, sgd(model))
    str(pc.param_table(model))
