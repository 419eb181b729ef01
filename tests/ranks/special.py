"""Cells of some models only: split ties, empty shards, gathered ones, stages, ZeRO, meta, DCP."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.pipelining import PipelineStage, ScheduleGPipe
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

import pytest_paramcheck as pc
from pytest_paramcheck import init, values

from . import cells
from .cells import cell, on_rank_1, sgd, step
from .wrapped import (
    LM,
    WEIGHT,
    fsdp2,
    local,
    loss_of,
    mesh,
    norm_of_gradients,
    parameter,
    plain,
    rank,
    tensor_parallel,
)

RUN = cells.RUN

# -- replicas -----------------------------------------------------------------------------------


@cell("ddp/assert_replicated/after a step", "pass")
def _() -> None:
    model = DistributedDataParallel(plain())
    step("ddp", model, sgd(model))
    pc.assert_replicated(model)


@cell("ddp/assert_replicated/no_sync", "finding")
def _() -> None:
    model = DistributedDataParallel(plain())
    with model.no_sync():
        loss_of("ddp")(model).backward()
    pc.assert_replicated(model)


@cell("ddp/assert_replicated/seeded by rank", "finding")
def _() -> None:
    pc.assert_replicated(plain(seed=rank()))


@cell("ddp/assert_replicated/buffers of BatchNorm", "finding")
def _() -> None:
    torch.manual_seed(0)
    model = DistributedDataParallel(
        nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4)), broadcast_buffers=False
    )
    torch.manual_seed(rank())
    model(torch.randn(8, 4))
    pc.assert_replicated(model)


@cell("tp/assert_replicated/plain beside sharded", "pass")
def _() -> None:
    model = tensor_parallel(plain())
    step("tp", model, sgd(model))
    pc.assert_replicated(model)


@cell("tp/assert_replicated/a norm of one rank", "finding")
def _() -> None:
    model = tensor_parallel(plain())
    on_rank_1(lambda: model.blocks[0].ln.weight.add_(1))
    pc.assert_replicated(model)


@cell("fsdp2/assert_replicated/shards have no copies", "pass")
def _() -> None:
    model = fsdp2(plain())
    step("fsdp2", model, sgd(model))
    pc.assert_replicated(model)


@cell("fsdp2/assert_replicated/a flag of one rank", "finding")
def _() -> None:
    model = fsdp2(plain())
    if rank() == 1:
        parameter(model).requires_grad_(False)
    pc.assert_replicated(model)


@cell("replicated/assert_replicated/a copy of one rank", "finding")
def _() -> None:
    model = cells.wrapped("replicated")
    on_rank_1(lambda: local(parameter(model)).view(-1)[3:4].add_(1))
    pc.assert_replicated(model)


@cell("replicated/assert_replicated/partial sums", "usage")
def _() -> None:
    whole = DTensor.from_local(torch.ones(3), mesh(), [Partial()], run_check=False)
    pc.assert_replicated({"w": whole})


@cell("replicated/assert_replicated/to_local without grad_placements", "finding")
def _() -> None:
    weight = nn.Parameter(distribute_tensor(torch.ones(4), mesh(), [Replicate()]))
    (weight.to_local() * (1 + rank())).sum().backward()
    pc.assert_replicated({"w": weight})


@cell("fsdp1/assert_replicated/refused", "usage")
def _() -> None:
    pc.assert_replicated(cells.wrapped("fsdp1"))


# -- placements ---------------------------------------------------------------------------------


@cell("fsdp2/assert_placements/sharded", "pass")
def _() -> None:
    pc.assert_placements(fsdp2(plain()), {"*": Shard(0)})


@cell("fsdp2/assert_placements/replicated", "finding")
def _() -> None:
    pc.assert_placements(fsdp2(plain()), {"*": Replicate()})


@cell("fsdp2/assert_placements/after a forward", "pass")
def _() -> None:
    model = fsdp2(plain(), reshard_after_forward=False)
    loss_of("fsdp2")(model)
    pc.assert_placements(model, {"*": Shard(0)})


@cell("tp/assert_placements/as planned", "pass")
def _() -> None:
    expected = {"*": None, "*.fc1": Shard(0), "*.fc2.weight": Shard(1), "*.fc2.bias": Replicate()}
    pc.assert_placements(tensor_parallel(plain()), expected)


@cell("tp/assert_placements/a layer nobody sharded", "finding")
def _() -> None:
    pc.assert_placements(tensor_parallel(plain()), {"head": Shard(0)})


# -- ties that a wrap splits --------------------------------------------------------------------


def _split() -> nn.Module:
    model = plain()
    on = mesh()
    for module in (model.emb, model.head, model):
        fully_shard(module, mesh=on)
    return model


@cell("fsdp2/assert_tied/embedding and head wrapped apart", "finding")
def _() -> None:
    pc.assert_tied(_split(), "emb.weight", "head.weight")


@cell("fsdp2/assert_same_ties/embedding and head wrapped apart", "finding")
def _() -> None:
    pc.assert_same_ties(plain(), _split())


@cell("fsdp2/assert_ties_survive/a wrap that splits", "finding")
def _() -> None:
    def wrap(model: LM) -> nn.Module:
        on = mesh()
        for module in (model.emb, model.head, model):
            fully_shard(module, mesh=on)
        return model

    pc.assert_ties_survive(plain(), wrap)


@cell("fsdp2/assert_ties_survive/of a wrapped one", "usage")
def _() -> None:
    pc.assert_ties_survive(fsdp2(plain()))


@cell("tp/assert_tied/Rowwise and Colwise", "finding")
def _() -> None:
    plan = {
        "emb": RowwiseParallel(input_layouts=Replicate()),
        "head": ColwiseParallel(output_layouts=Replicate()),
    }
    pc.assert_tied(parallelize_module(plain(), mesh(), plan), "emb.weight", "head.weight")


# -- shards without elements --------------------------------------------------------------------


class Tiny(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(1, 4))
        self.shift = nn.Parameter(torch.randn(1, 4))
        self.odd = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.odd(x * self.scale + self.shift)


def _tiny(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return fsdp2(Tiny())


def _plain_tiny(seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny()


def _empty(assertion: str, case: str, want: str) -> Callable[[Callable[[], None]], object]:
    return cell(f"fsdp2/{assertion}/an empty shard: {case}", want)


@_empty("assert_finite", "finite", "pass")
def _() -> None:
    pc.assert_finite(_tiny())


@_empty("assert_finite", "NaN in the other", "finding")
def _() -> None:
    model = _tiny()
    if rank() == 0:
        local(model.scale).fill_(float("nan"))
    pc.assert_finite(model)


@_empty("assert_distinct", "distinct", "pass")
def _() -> None:
    pc.assert_distinct(_tiny())


@_empty("assert_distinct", "equal", "finding")
def _() -> None:
    model = _plain_tiny()
    with torch.no_grad():
        model.shift.copy_(model.scale)
    pc.assert_distinct(fsdp2(model), "scale", "shift")


@_empty("assert_untied", "untied", "pass")
def _() -> None:
    pc.assert_untied(_tiny())


@_empty("assert_param_count", "all", "pass")
def _() -> None:
    pc.assert_param_count(_tiny(), 23)


@_empty("assert_init", "as drawn", "pass")
def _() -> None:
    pc.assert_init(_tiny(), {"scale": init.normal(0, 1)})


@_empty("assert_init", "not as drawn", "finding")
def _() -> None:
    pc.assert_init(_tiny(), {"scale": init.normal(100, 1)})


@_empty("assert_grads_present", "present", "pass")
def _() -> None:
    model = _tiny()
    model(torch.ones(2, 4)).sum().backward()
    pc.assert_grads_present(model)


@_empty("assert_grads_present", "zero", "finding")
def _() -> None:
    model = _tiny()
    (model(torch.zeros(2, 4))).sum().backward()
    pc.assert_grads_present(model)


@_empty("assert_changed", "a step", "pass")
def _() -> None:
    model = _tiny()
    optimizer = sgd(model)
    with pc.assert_changed(model):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()


@_empty("assert_changed", "no step", "finding")
def _() -> None:
    model = _tiny()
    with pc.assert_changed(model, "scale"):
        pass


@_empty("assert_updated", "a step", "pass")
def _() -> None:
    model = _tiny()
    optimizer = sgd(model)
    with pc.assert_updated(model):
        model(torch.ones(2, 4)).square().sum().backward()
        optimizer.step()


@_empty("assert_same_values", "against the plain one", "pass")
def _() -> None:
    pc.assert_same_values(_tiny(), _plain_tiny())


@_empty("assert_same_values", "against another", "finding")
def _() -> None:
    pc.assert_same_values(_tiny(), _plain_tiny(1))


@_empty("assert_grad_norm", "of the whole", "pass")
def _() -> None:
    model = _tiny()
    model(torch.ones(2, 4)).square().sum().backward()
    norm = norm_of_gradients(model)
    pc.assert_grad_norm(model, at_most=norm * 1.001, at_least=norm * 0.999)


@_empty("assert_optimizer_state", "Adam", "pass")
def _() -> None:
    model = _tiny()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    pc.assert_optimizer_state(optimizer, model)


@_empty("assert_grads_reach", "all reached", "pass")
def _() -> None:
    pc.assert_grads_reach(_tiny(), lambda model: model(torch.ones(2, 4)).square().sum())


@_empty("assert_loaded", "loaded", "pass")
def _() -> None:
    pc.assert_loaded(_tiny(), copy.deepcopy(_plain_tiny().state_dict()))


# -- from meta ----------------------------------------------------------------------------------


def _from_meta(seed: int = 0, without: tuple[type, ...] = ()) -> nn.Module:
    with torch.device("meta"):
        model = LM()
    fsdp2(model)
    model.to_empty(device="cpu")
    torch.manual_seed(seed)
    for module in model.modules():
        if hasattr(module, "reset_parameters") and not isinstance(module, without):
            module.reset_parameters()
    return model


@cell("fsdp2/assert_materialized/on meta", "finding")
def _() -> None:
    with torch.device("meta"):
        model = LM()
    pc.assert_materialized(fsdp2(model))


@cell("fsdp2/assert_materialized/from meta", "pass")
def _() -> None:
    pc.assert_materialized(_from_meta())


@cell("fsdp2/assert_ties/from meta", "pass")
def _() -> None:
    pc.assert_ties(_from_meta(), [{"emb.weight", "head.weight"}])


@cell("fsdp2/assert_init/from meta", "pass")
def _() -> None:
    bound = 8**-0.5
    expected = {"*.ln.weight": init.ones(), "*.fc1.weight": init.uniform(-bound, bound)}
    pc.assert_init(_from_meta(), expected)


@cell("fsdp2/assert_init_complete/from meta", "pass")
def _() -> None:
    pc.assert_init_complete(_from_meta)


@cell("fsdp2/assert_init_complete/from meta, a norm forgotten", "finding")
def _() -> None:
    pc.assert_init_complete(lambda: _from_meta(without=(nn.LayerNorm,)))


@cell("fsdp2/assert_placements/on meta", "pass")
def _() -> None:
    with torch.device("meta"):
        model = LM()
    pc.assert_placements(fsdp2(model), {"*": Shard(0)})


# -- between unshard and reshard ----------------------------------------------------------------


@cell("fsdp2/assert_same_values/unsharded", "pass")
def _() -> None:
    model = fsdp2(plain(tied=False))
    model.unshard()
    pc.assert_same_values(model, plain(tied=False))


@cell("fsdp2/assert_optimizer_covers/unsharded", "pass")
def _() -> None:
    model = fsdp2(plain(tied=False), reshard_after_forward=False)
    optimizer = sgd(model)
    loss_of("fsdp2")(model)
    pc.assert_optimizer_covers(optimizer, model)


@cell("fsdp2/assert_unchanged/unsharded", "pass")
def _() -> None:
    model = fsdp2(plain(tied=False), reshard_after_forward=False)
    with pc.assert_unchanged(model):
        loss_of("fsdp2")(model)


@cell("fsdp2/assert_dtypes/mixed precision", "pass")
def _() -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = fsdp2(plain(tied=False), mp_policy=policy)
    loss_of("fsdp2")(model).backward()
    pc.assert_dtypes(model, torch.float32)
    pc.assert_grads_finite(model)


# -- ZeRO ---------------------------------------------------------------------------------------


def _zero(model: nn.Module) -> ZeroRedundancyOptimizer:
    return ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.1)


@cell("zero/assert_optimizer_covers/all", "pass")
def _() -> None:
    model = DistributedDataParallel(plain())
    pc.assert_optimizer_covers(_zero(model), model)


@cell("zero/assert_optimizer_state/after a step", "pass")
def _() -> None:
    model = DistributedDataParallel(plain())
    optimizer = _zero(model)
    step("ddp", model, optimizer)
    pc.assert_optimizer_state(optimizer, model)


@cell("zero/assert_optimizer_state/another shape on one rank", "finding")
def _() -> None:
    model = DistributedDataParallel(plain())
    optimizer = _zero(model)
    step("ddp", model, optimizer)
    if rank() == 1:
        held = next(iter(optimizer.optim.state.values()))
        held["exp_avg"] = torch.zeros(3, 5)
    pc.assert_optimizer_state(optimizer, model)


@cell("zero/assert_optimizer_state/lost on one rank", "finding")
def _() -> None:
    model = DistributedDataParallel(plain())
    optimizer = _zero(model)
    step("ddp", model, optimizer)
    if rank() == 1:
        optimizer.optim.state.clear()
    pc.assert_optimizer_state(optimizer, model)


@cell("zero/assert_optimizer_state/saved", "usage")
def _() -> None:
    model = DistributedDataParallel(plain())
    optimizer = _zero(model)
    step("ddp", model, optimizer)
    optimizer.consolidate_state_dict(to=0)
    saved = optimizer.state_dict() if rank() == 0 else {"state": {}, "param_groups": []}
    pc.assert_optimizer_state(optimizer, model, saved=saved)


@cell("zero/assert_optimizer_state/masters", "usage")
def _() -> None:
    model = DistributedDataParallel(plain())
    optimizer = _zero(model)
    step("ddp", model, optimizer)
    pc.assert_optimizer_state(optimizer, model, masters=True)


@cell("zero/assert_param_groups/lr", "pass")
def _() -> None:
    model = DistributedDataParallel(plain())
    pc.assert_param_groups(_zero(model), model, {"*": {"lr": 0.1}})


@cell("zero/assert_updated/a step", "pass")
def _() -> None:
    model = DistributedDataParallel(plain())
    optimizer = _zero(model)
    with pc.assert_updated(model):
        step("ddp", model, optimizer)


# -- pipeline stages ----------------------------------------------------------------------------


class First(nn.Module):
    def __init__(self, model: LM) -> None:
        super().__init__()
        self.emb, self.block = model.emb, model.blocks[0]

    def forward(self, tokens: Tensor) -> Tensor:
        return self.block(self.emb(tokens))


class Last(nn.Module):
    def __init__(self, model: LM) -> None:
        super().__init__()
        self.block, self.head = model.blocks[1], model.head

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.block(x))


def _stage() -> nn.Module:
    return (First if rank() == 0 else Last)(plain())


def _schedule(stage: nn.Module) -> None:
    given = torch.arange(16)
    schedule = ScheduleGPipe(
        PipelineStage(stage, rank(), 2, torch.device("cpu")),
        n_microbatches=2,
        loss_fn=cross_entropy,
    )
    if rank() == 0:
        schedule.step(given)
    else:
        schedule.step(target=(given + 1) % 16)


def _end(stage: nn.Module) -> nn.Parameter:
    return stage.emb.weight if rank() == 0 else stage.head.weight


@cell("pp/assert_replicated/a tie across two stages", "pass")
def _() -> None:
    pc.assert_replicated([("tied", _end(_stage()))])


@cell("pp/assert_replicated/a tie whose gradients nobody added up", "finding")
def _() -> None:
    stage = _stage()
    _schedule(stage)
    pc.assert_replicated([("tied", _end(stage))])


@cell("pp/assert_replicated/a tie whose gradients were added up", "pass")
def _() -> None:
    stage = _stage()
    _schedule(stage)
    dist.all_reduce(_end(stage).grad)
    pc.assert_replicated([("tied", _end(stage))])


@cell("pp/assert_grads_present/after the schedule", "pass")
def _() -> None:
    stage = _stage()
    _schedule(stage)
    pc.assert_grads_present(stage)


@cell("pp/assert_updated/the schedule", "pass")
def _() -> None:
    stage = _stage()
    optimizer = sgd(stage)
    with pc.assert_updated(stage):
        _schedule(stage)
        optimizer.step()


@cell("pp/assert_grads_reach/a schedule in the loss", "usage")
def _() -> None:
    def loss(stage: nn.Module) -> Tensor:
        _schedule(stage)
        return torch.zeros((), requires_grad=True)

    pc.assert_grads_reach(_stage(), loss)


@cell("pp/assert_tied/a name of another stage", "usage")
def _() -> None:
    pc.assert_tied(_stage(), "emb.weight", "head.weight")


@cell("pp/assert_finite/NaN on one stage", "one")
def _() -> None:
    stage = _stage()
    on_rank_1(lambda: _end(stage).fill_(float("nan")))
    pc.assert_finite(stage)


# -- DCP ----------------------------------------------------------------------------------------


def _shared_folder() -> str:
    """One folder for all ranks: each runs in its own."""
    told = [str(Path.cwd())]
    dist.broadcast_object_list(told, src=0)
    return f"{told[0]}/checkpoint"


def _loaded_through_dcp(model: nn.Module, folder: str, without: str = "") -> None:
    state = get_model_state_dict(model)
    if without:
        state = {key: value for key, value in state.items() if without not in key}
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(model, state, options=StateDictOptions(strict=False))


@cell("fsdp2/assert_loaded/through dcp, against the state_dict", "pass")
def _() -> None:
    saved, folder = fsdp2(plain(3, tied=False)), _shared_folder()
    dcp.save(get_model_state_dict(saved), checkpoint_id=folder)
    model = fsdp2(plain(4, tied=False))
    _loaded_through_dcp(model, folder)
    pc.assert_loaded(model, get_model_state_dict(saved))
    dist.barrier()


@cell("fsdp2/assert_loaded/a part was not loaded", "finding")
def _() -> None:
    saved, folder = fsdp2(plain(3, tied=False)), _shared_folder()
    dcp.save(get_model_state_dict(saved), checkpoint_id=folder)
    model = fsdp2(plain(4, tied=False))
    _loaded_through_dcp(model, folder, without="fc1")
    dist.barrier()
    pc.assert_loaded(model, get_model_state_dict(saved))


@cell("fsdp2/assert_loaded/from one full state_dict", "pass")
def _() -> None:
    saved = fsdp2(plain(3))
    full = get_model_state_dict(saved, options=StateDictOptions(full_state_dict=True))
    pc.assert_loaded(saved, full)


@cell("fsdp2/assert_loaded/a full state_dict on rank 0 alone", "usage")
def _() -> None:
    saved = fsdp2(plain(3))
    options = StateDictOptions(full_state_dict=True, cpu_offload=True)
    pc.assert_loaded(saved, get_model_state_dict(saved, options=options))


@cell("tp/assert_loaded/of another sharding", "pass")
def _() -> None:
    saved, folder = fsdp2(plain(3, tied=False)), _shared_folder()
    dcp.save(get_model_state_dict(saved), checkpoint_id=folder)
    model = tensor_parallel(plain(4, tied=False))
    _loaded_through_dcp(model, folder)
    dist.barrier()
    pc.assert_loaded(model, get_model_state_dict(saved))


@cell("tp/assert_same_values/of another sharding", "pass")
def _() -> None:
    pc.assert_same_values(tensor_parallel(plain()), fsdp2(plain()))


@cell("tp/assert_same_values/of another sharding and other values", "finding")
def _() -> None:
    pc.assert_same_values(tensor_parallel(plain()), fsdp2(plain(1)))


@cell("plain/assert_same_values/a checkpoint of shards in a plain model", "pass")
def _() -> None:
    saved, folder = fsdp2(plain(3, tied=False)), _shared_folder()
    dcp.save(get_model_state_dict(saved), checkpoint_id=folder)
    model = plain(4, tied=False)
    state = model.state_dict()
    dcp.load(state, checkpoint_id=folder)
    model.load_state_dict(state)
    dist.barrier()
    pc.assert_same_values(model, saved)


# -- wrong calls --------------------------------------------------------------------------------


@cell("fsdp2/assert_finite/a pattern of one rank", "usage")
def _() -> None:
    pc.assert_finite(fsdp2(plain()), "emb" if rank() == 0 else "nope")


@cell("fsdp2/assert_finite/another assertion on one rank", "usage")
def _() -> None:
    model = fsdp2(plain())
    if rank() == 0:
        pc.assert_finite(model)
    else:
        pc.assert_grads_none(model)


@cell("fsdp2/assert_same_values/a tolerance of one rank", "usage")
def _() -> None:
    model = fsdp2(plain())
    pc.assert_same_values(model, plain(), rtol=0 if rank() == 0 else -1)


@cell("fsdp2/assert_unchanged/a pattern of one rank", "usage")
def _() -> None:
    with pc.assert_unchanged(fsdp2(plain()), "emb" if rank() == 0 else "nope"):
        pass


@cell("fsdp2/assert_init/orthogonal", "usage")
def _() -> None:
    pc.assert_init(fsdp2(plain()), {WEIGHT: init.orthogonal()})


# -- a mesh of some ranks -----------------------------------------------------------------------


@cell("fsdp2/assert_finite/a rank outside the mesh", "pass")
def _() -> None:
    from torch.distributed.device_mesh import DeviceMesh

    # A mesh of one rank is not spread: nobody waits for the other.
    on = DeviceMesh("cpu", [0])
    if rank() == 0:
        pc.assert_finite({"w": distribute_tensor(torch.ones(4), on, [Shard(0)])})


# -- four ranks ---------------------------------------------------------------------------------

FOUR: dict[str, str] = {}


def four(name: str, want: str) -> Callable[[Callable[[], None]], Callable[[], None]]:
    def add(function: Callable[[], None]) -> Callable[[], None]:
        RUN[name] = function
        FOUR[name] = want
        return function

    return add


def _hsdp(model: nn.Module) -> nn.Module:
    on = init_device_mesh("cpu", (2, 2), mesh_dim_names=("replicate", "shard"))
    for module in (*model.blocks, model):
        fully_shard(module, mesh=on)
    return model


def _fsdp_and_tp(model: nn.Module) -> nn.Module:
    on = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    plan = {"emb": RowwiseParallel(input_layouts=Replicate())}
    for number in range(2):
        plan[f"blocks.{number}.fc1"] = ColwiseParallel()
        plan[f"blocks.{number}.fc2"] = RowwiseParallel()
    parallelize_module(model, on["tp"], plan)
    for module in (*model.blocks, model):
        fully_shard(module, mesh=on["dp"])
    return model


@four("hsdp/assert_replicated/after a step", "pass")
def _() -> None:
    model = _hsdp(plain())
    step("fsdp2", model, sgd(model))
    pc.assert_replicated(model)


@four("hsdp/assert_replicated/a shard of one rank", "finding")
def _() -> None:
    model = _hsdp(plain())
    if rank() == 3:
        local(parameter(model)).view(-1)[:1].add_(1)
    pc.assert_replicated(model)


@four("hsdp/assert_finite/NaN on one rank", "finding")
def _() -> None:
    model = _hsdp(plain())
    if rank() == 2:
        local(parameter(model)).view(-1)[:1].fill_(float("nan"))
    pc.assert_finite(model)


@four("hsdp/assert_same_values/against the plain one", "pass")
def _() -> None:
    pc.assert_same_values(_hsdp(plain()), plain())


@four("hsdp/assert_placements/two dimensions", "pass")
def _() -> None:
    pc.assert_placements(_hsdp(plain()), {"*": (Replicate(), Shard(0))})


@four("hsdp/assert_placements/one of two dimensions", "finding")
def _() -> None:
    pc.assert_placements(_hsdp(plain()), {"*": Shard(0)})


@four("hsdp/assert_grad_norm/of the whole", "pass")
def _() -> None:
    model = _hsdp(plain(tied=False))
    loss_of("fsdp2")(model).backward()
    norm = norm_of_gradients(model)
    pc.assert_grad_norm(model, at_most=norm * 1.001, at_least=norm * 0.999)


@four("fsdp and tp/assert_same_values/against the plain one", "pass")
def _() -> None:
    pc.assert_same_values(_fsdp_and_tp(plain(tied=False)), plain(tied=False))


@four("fsdp and tp/assert_same_values/another one", "finding")
def _() -> None:
    pc.assert_same_values(_fsdp_and_tp(plain(tied=False)), plain(1, tied=False))


@four("fsdp and tp/assert_placements/as planned", "pass")
def _() -> None:
    expected = {"*": Shard(0), "*.fc1": (Shard(0), Shard(0)), "emb": (Shard(0), Shard(0))}
    expected |= {"*.fc2.weight": (Shard(0), Shard(1)), "*.fc2.bias": (Shard(0), Replicate())}
    pc.assert_placements(_fsdp_and_tp(plain(tied=False)), expected)


@four("fsdp and tp/assert_finite/NaN on one rank", "finding")
def _() -> None:
    model = _fsdp_and_tp(plain(tied=False))
    if rank() == 1:
        local(parameter(model)).view(-1)[:1].fill_(float("nan"))
    pc.assert_finite(model)


@four("two meshes/assert_finite/each rank on one of them", "usage")
def _() -> None:
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("rows", "columns"))
    tensors = {
        name: distribute_tensor(torch.ones(4), grid[name], [Shard(0)])
        for name in ("rows", "columns")
    }
    pc.assert_finite(tensors)


# -- folders of torch.distributed.checkpoint ----------------------------------------------------


def _saved_folder(model: nn.Module, *, below: str = "") -> str:
    folder, state = _shared_folder(), get_model_state_dict(model)
    dcp.save({below: state} if below else state, checkpoint_id=folder)
    return folder


@cell("fsdp2/assert_loaded/a folder", "pass")
def _() -> None:
    model = fsdp2(plain(3))
    pc.assert_loaded(model, _saved_folder(model))
    dist.barrier()


@cell("fsdp2/assert_loaded/a folder with more than a model", "pass")
def _() -> None:
    model = fsdp2(plain(3))
    pc.assert_loaded(model, _saved_folder(model, below="model"), key="model")
    dist.barrier()


@cell("fsdp2/assert_loaded/a folder that rank 1 did not load", "finding")
def _() -> None:
    model = fsdp2(plain(3))
    folder = _saved_folder(model)
    on_rank_1(lambda: local(parameter(model)).add_(1))
    pc.assert_loaded(model, folder)


@cell("tp/assert_loaded/a folder of another sharding", "pass")
def _() -> None:
    folder = _saved_folder(fsdp2(plain(3)))
    pc.assert_loaded(tensor_parallel(plain(3)), folder)
    dist.barrier()


@cell("plain/assert_loaded/a folder of shards", "pass")
def _() -> None:
    folder = _saved_folder(fsdp2(plain(3)))
    pc.assert_loaded(plain(3), folder)
    dist.barrier()


@cell("fsdp2/assert_loaded/a folder of another model", "finding")
def _() -> None:
    folder = _saved_folder(fsdp2(plain(3)))
    pc.assert_loaded(fsdp2(plain(4)), folder)


@cells.cells("assert_roundtrip", "dcp", "pass", cells.REFUSED)
def _(kind: str) -> None:
    pc.assert_roundtrip(cells.wrapped(kind), through="dcp")


@cell("fsdp2/assert_roundtrip/through a function", "pass")
def _() -> None:
    def through(model: nn.Module) -> nn.Module:
        folder = _saved_folder(model)
        other = fsdp2(plain(4))
        _loaded_through_dcp(other, folder)
        dist.barrier()
        return other

    pc.assert_roundtrip(fsdp2(plain(3)), through=through)


@cell("fsdp2/assert_roundtrip/through a function that forgets a part", "finding")
def _() -> None:
    def through(model: nn.Module) -> nn.Module:
        folder = _saved_folder(model)
        other = fsdp2(plain(4))
        _loaded_through_dcp(other, folder, without="fc1")
        dist.barrier()
        return other

    pc.assert_roundtrip(fsdp2(plain(3)), through=through)


@cell("fsdp2/assert_roundtrip/through a function that returns nothing", "usage")
def _() -> None:
    pc.assert_roundtrip(fsdp2(plain(3)), through=lambda model: None)


class Forgets(LM):
    """Saves nothing of its head."""

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, object]:
        state = super().state_dict(*args, **kwargs)
        return {key: value for key, value in state.items() if not key.startswith("head")}


@cell("fsdp2/assert_roundtrip/dcp of a model that saves a part", "finding")
def _() -> None:
    torch.manual_seed(0)
    pc.assert_roundtrip(fsdp2(Forgets(tied=False)), through="dcp")


# -- averages, conditions, parts, resumed training ----------------------------------------------


def _average(model: nn.Module) -> dict[str, Tensor]:
    """What an average of a sharded model is: torch copies no wrapped model."""
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def _averaged_in(ema: dict[str, Tensor], model: nn.Module, weight: float = 0.1) -> None:
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            local(ema[name]).lerp_(local(parameter), weight)


@cells.cells("assert_averaged", "once", "pass", cells.REFUSED)
def _(kind: str) -> None:
    model = cells.wrapped(kind, tied=False)
    ema = _average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step(kind, model, optimizer)
    with pc.assert_averaged(ema, model, decay=0.9):
        _averaged_in(ema, model)


@cells.cells("assert_averaged", "not on rank 1", "finding", cells.ONE_SIDED, cells.REFUSED)
def _(kind: str) -> None:
    model = cells.wrapped(kind, tied=False)
    ema = _average(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step(kind, model, optimizer)
    with pc.assert_averaged(ema, model, decay=0.9):
        if rank() == 0:
            _averaged_in(ema, model)


@cells.cells("assert_values", "a norm of the whole", "pass", cells.REFUSED)
def _(kind: str) -> None:
    reference = plain().blocks[1].fc1.weight.detach()
    norm = float(reference.norm())
    model = cells.wrapped(kind)
    pc.assert_values(
        model, {WEIGHT: lambda w: torch.tensor(abs(float(w.norm()) - norm) < 1e-4).expand_as(w)}
    )


@cells.cells("assert_values", "out of bounds on rank 1", "finding", cells.ONE_SIDED, cells.REFUSED)
def _(kind: str) -> None:
    model = cells.wrapped(kind)
    on_rank_1(lambda: local(cells.some(kind, model)).fill_(9))
    pc.assert_values(model, {WEIGHT: values.between(-2, 2)})


@cells.cells("assert_unchanged", "a part", "finding", cells.ONE_SIDED, cells.REFUSED)
def _(kind: str) -> None:
    model = cells.wrapped(kind)
    with pc.assert_unchanged(model, pc.part(WEIGHT, slice(12, None)), only="values"):
        on_rank_1(lambda: local(cells.some(kind, model)).view(-1)[-1:].add_(1))


@cells.cells("assert_unchanged", "beside a part", "pass", cells.REFUSED)
def _(kind: str) -> None:
    model = cells.wrapped(kind)
    with pc.assert_unchanged(model, pc.part(WEIGHT, slice(8)), only="values"):
        on_rank_1(lambda: local(cells.some(kind, model)).view(-1)[-1:].add_(1))


# -- nothing is left behind, and one exchange is made -------------------------------------------


def _state(model: nn.Module) -> list[object]:
    """What an assertion has to leave as it is, of this rank's shards too."""
    state: list[object] = []
    for name, own in model.named_parameters(remove_duplicate=False):
        held, grad = local(own), own.grad
        state += [name, id(own), id(held), own._version, held._version]
        state += [own.requires_grad, held.tolist(), id(grad)]
        state += [] if grad is None else [local(grad).tolist(), local(grad)._version]
    state += [module.training for module in model.modules()]
    return [*state, torch.get_rng_state().tolist()]


#: Each assertion that asks a model at rest, on one that has trained.
AT_REST: dict[str, Callable[[nn.Module], object]] = {
    "assert_tied": lambda model: pc.assert_tied(model, "emb.weight", "head.weight"),
    "assert_untied": lambda model: pc.assert_untied(model, "blocks"),
    "assert_distinct": lambda model: pc.assert_distinct(model, "!head.weight"),
    "assert_ties": lambda model: pc.assert_ties(model, [{"emb.weight", "head.weight"}]),
    "assert_same_ties": lambda model: pc.assert_same_ties(plain(), model),
    "assert_grads_none": pc.assert_grads_none,
    "assert_grads_present": pc.assert_grads_present,
    "assert_grads_finite": pc.assert_grads_finite,
    "assert_grad_norm": lambda model: pc.assert_grad_norm(model, at_most=1e-9),
    "assert_grads_reach": lambda model: pc.assert_grads_reach(model, loss_of("fsdp2")),
    "assert_frozen": pc.assert_frozen,
    "assert_trainable": pc.assert_trainable,
    "assert_shapes": lambda model: pc.assert_shapes(model, {"emb": (1, 1)}, partial=True),
    "assert_dtypes": lambda model: pc.assert_dtypes(model, torch.float64),
    "assert_devices": lambda model: pc.assert_devices(model, "cpu"),
    "assert_param_count": lambda model: pc.assert_param_count(model, 1),
    "assert_materialized": pc.assert_materialized,
    "assert_registered": pc.assert_registered,
    "assert_finite": pc.assert_finite,
    "assert_same_values": lambda model: pc.assert_same_values(model, plain()),
    "assert_init": lambda model: pc.assert_init(model, {"*.ln.weight": init.ones()}),
    "assert_roundtrip": lambda model: pc.assert_roundtrip(model, through="dcp"),
    "assert_loaded": lambda model: pc.assert_loaded(model, plain().state_dict()),
    "assert_replicated": pc.assert_replicated,
    "assert_placements": lambda model: pc.assert_placements(model, {"*": Replicate()}),
    "assert_values": lambda model: pc.assert_values(model, {"*": values.between(-9, 9)}),
}


def _leaves_nothing(name: str) -> None:
    model = fsdp2(plain())
    step("fsdp2", model, sgd(model))
    before = _state(model)
    with contextlib.suppress(pc.ParamCheckError, pc.ParamCheckUsageError):
        AT_REST[name](model)
    assert _state(model) == before
    # The model still trains, on every rank.
    step("fsdp2", model, sgd(model))


for _name in AT_REST:
    cell(f"fsdp2/{_name}/leaves the model as it was", "pass")(
        lambda name=_name: _leaves_nothing(name)
    )


def _collectives(call: Callable[[], object]) -> int:
    from torch.distributed.tensor.debug import CommDebugMode

    with CommDebugMode() as counted:
        call()
    return sum(counted.get_comm_counts().values())


@cell("fsdp2/assert_finite/one exchange", "pass")
def _() -> None:
    model = fsdp2(plain())
    loss_of("fsdp2")(model).backward()
    one = _collectives(lambda: pc.assert_finite(model))
    assert one == 2, one  # the sizes, then what is said
    assert _collectives(lambda: pc.assert_shapes(model, {"emb": (16, 8)}, partial=True)) == one
    assert _collectives(lambda: pc.assert_same_values(model, plain())) == one
    # Norms are told before it is known whether they are within bounds.
    assert _collectives(lambda: pc.assert_grad_norm(model, at_most=1e9)) == 2 * one
    assert _collectives(lambda: pc.assert_placements(model, {"*": Shard(0)})) == 0
    assert _collectives(lambda: pc.assert_finite(plain())) == 0


@cell("ddp/assert_finite/no exchange", "pass")
def _() -> None:
    model = DistributedDataParallel(plain())
    assert _collectives(lambda: pc.assert_finite(model)) == 0
    total = sum(p.numel() for p in model.parameters())
    assert _collectives(lambda: pc.assert_param_count(model, total)) == 0


# -- whole-model checks -------------------------------------------------------------------------


def _checked(name: str, loss: Callable[[Tensor], Tensor]) -> None:
    from pytest_paramcheck.model_checks.check import run_check

    case = pc.ModelCase(lambda: LM(tied=False), inputs=torch.arange(16), loss=loss, wrap=fsdp2)
    run_check(pc.CHECKS[name], pc.CaseRun(case))


@cell("fsdp2/check_grads_reach/rows of rank 1 get no gradient", "pass")
def _() -> None:
    _checked("check_grads_reach", lambda out: cross_entropy(out[:8], torch.arange(8)))


@cell("fsdp2/check_grads_reach/a loss that reaches nothing of the head", "finding")
def _() -> None:
    _checked("check_grads_reach", lambda out: out.detach().sum() + out.sum() * 0)


# -- other ways to shard ------------------------------------------------------------------------


def _by_columns(model: nn.Module) -> nn.Module:
    on = mesh()
    for module in (*model.blocks, model):
        fully_shard(module, mesh=on, shard_placement_fn=lambda p: Shard(p.dim() - 1))
    return model


@cell("fsdp2/assert_same_values/sharded by columns", "pass")
def _() -> None:
    model = _by_columns(plain())
    pc.assert_placements(model, {"*": Shard(1), "*.bias": Shard(0), "*.ln": Shard(0)})
    pc.assert_same_values(model, plain())
    pc.assert_same_values(model.state_dict(), plain().state_dict())
    pc.assert_init(model, cells.DRAWN)
    pc.assert_distinct(model, "!head.weight")


@cell("fsdp2/assert_finite/the place in the whole, by columns", "pass")
def _() -> None:
    model = _by_columns(plain())
    if rank() == 1:
        with torch.no_grad():
            local(parameter(model))[3, 1] = float("nan")
    try:
        pc.assert_finite(model)
    except pc.ParamCheckError as error:
        text = str(error)
    assert text == (
        f"not finite: {WEIGHT} (LM)\n\n  {WEIGHT}  1 of 128 values: 1 NaN, first at [3, 5] (rank 1)"
    ), text


@cell("fsdp2/assert_finite/a state_dict", "finding")
def _() -> None:
    model = fsdp2(plain())
    cells.poison(parameter(model))
    pc.assert_finite(model.state_dict())


@cell("fsdp2/assert_same_values/the place in the whole", "pass")
def _() -> None:
    model = fsdp2(plain())
    if rank() == 1:
        with torch.no_grad():
            local(parameter(model))[2, 3] += 1
    try:
        pc.assert_same_values(model, plain())
    except pc.ParamCheckError as error:
        text = str(error)
    assert "1 of 128 values: max abs 1 at [10, 3]" in text, text
    assert text.endswith("(rank 1)"), text


@cell("fsdp2/assert_grads_present/an ignored parameter", "pass")
def _() -> None:
    model = plain()
    on = mesh()
    for block in model.blocks:
        fully_shard(block, mesh=on)
    fully_shard(model, mesh=on, ignored_params={model.emb.weight})
    loss_of("fsdp2")(model).backward()
    pc.assert_grads_present(model)
    pc.assert_placements(model, {"*": Shard(0), "emb": None})


@cell("fsdp2/assert_grad_norm/a plain parameter beside shards counts once", "pass")
def _() -> None:
    model = plain(tied=False)
    on = mesh()
    for block in model.blocks:
        fully_shard(block, mesh=on)
    loss_of("tp")(model).backward()
    norm = norm_of_gradients(model)
    pc.assert_grad_norm(model, at_most=norm * 1.001, at_least=norm * 0.999)


@cell("fsdp2/assert_optimizer_covers/two optimizers", "finding")
def _() -> None:
    model = fsdp2(plain())
    first = torch.optim.SGD(model.blocks.parameters(), lr=0.1)
    second = torch.optim.SGD(model.parameters(), lr=0.1)
    pc.assert_optimizer_covers([first, second], model)


@cell("fsdp2/assert_updated/gradients accumulated without a reduction", "pass")
def _() -> None:
    model = fsdp2(plain())
    optimizer = sgd(model)
    with pc.assert_updated(model):
        model.set_requires_gradient_sync(False)
        loss_of("fsdp2")(model).backward()
        model.set_requires_gradient_sync(True)
        loss_of("fsdp2")(model).backward()
        optimizer.step()


@cell("fsdp2/assert_unchanged/clipping", "pass")
def _() -> None:
    model = fsdp2(plain())
    loss_of("fsdp2")(model).backward()
    with pc.assert_unchanged(model):
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1e-3)
    pc.assert_grad_norm(model, at_most=1.01e-3, at_least=0.99e-3)


@cell("fsdp2/assert_frozen/a frozen half", "pass")
def _() -> None:
    model = plain()
    model.blocks.requires_grad_(False)
    model = fsdp2(model)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=0.1)
    pc.assert_frozen(model, exactly=["blocks"])
    with pc.assert_unchanged(model, "blocks"), pc.assert_updated(model):
        step("fsdp2", model, optimizer)
    pc.assert_grads_none(model, "blocks")
    pc.assert_optimizer_covers(optimizer, model)
