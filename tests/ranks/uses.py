"""Cells of what users do beside the table: sizes that do not divide, odd wraps, halves of a job."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import (
    StateDictOptions,
    get_model_state_dict,
    set_model_state_dict,
)
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor
from torch.distributed.tensor.parallel import ColwiseParallel, parallelize_module
from torch.nn.parallel import DistributedDataParallel

import pytest_paramcheck as pc

from . import hints, special  # noqa: F401 - the hints add their cells
from .cells import cell
from .special import four
from .wrapped import local, mesh, rank

RUN = special.RUN


class Net(nn.Module):
    """Sizes that no number of ranks divides: seven rows, five, two, one."""

    def __init__(self, tied: bool = False) -> None:
        super().__init__()
        self.up = nn.Linear(5, 7)
        self.norm = nn.LayerNorm(7)
        self.down = nn.Linear(7, 5)
        self.scale = nn.Parameter(torch.ones(1))
        self.shift = nn.Parameter(torch.randn(2, 3))
        if tied:
            self.again = nn.Linear(7, 5)
            self.again.weight = self.down.weight

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.norm(self.up(x).relu())
        out = self.down(hidden) * self.scale + self.shift.sum()
        return out + self.again(hidden) if hasattr(self, "again") else out


def net(seed: int = 0, tied: bool = False) -> Net:
    torch.manual_seed(seed)
    return Net(tied)


def data() -> Tensor:
    return torch.linspace(-1, 1, 10).reshape(2, 5) + rank() / 10


def sharded(model: nn.Module, **given: object) -> nn.Module:
    fully_shard(model.up, **given)  # type: ignore[call-overload]
    return fully_shard(model, **given)  # type: ignore[call-overload]


def trained(model: nn.Module) -> nn.Module:
    model(data()).square().sum().backward()
    return model


def finds(text: str, call: Callable[[], object]) -> None:
    with pytest.raises(pc.ParamCheckError) as raised:
        call()
    assert text in str(raised.value), str(raised.value)


# -- sizes that do not divide -------------------------------------------------------------------


def _every_assertion(tied: bool) -> None:
    plain, model = net(tied=tied), sharded(net(tied=tied))
    ties = [{"down.weight", "again.weight"}] if tied else []
    pc.assert_same_values(model, plain)
    pc.assert_same_values(plain, model)
    pc.assert_same_ties(model, plain)
    pc.assert_ties(model, ties)
    pc.assert_distinct(model, *(["!again.weight"] if tied else []))
    pc.assert_finite(model)
    pc.assert_grads_none(model)
    pc.assert_shapes(model, {"up.weight": (7, 5), "scale": (1,), "shift": (2, 3)}, partial=True)
    pc.assert_param_count(model, sum(p.numel() for p in plain.parameters()))
    pc.assert_placements(model, {"*": Shard(0)})
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with pc.assert_updated(model):
        trained(model)
        optimizer.step()
    pc.assert_grads_present(model)
    pc.assert_grads_finite(model)
    pc.assert_optimizer_covers(optimizer, model)
    pc.assert_optimizer_state(optimizer, model)
    pc.assert_optimizer_state(optimizer, model, saved=copy.deepcopy(optimizer.state_dict()))
    pc.assert_replicated(model)
    pc.assert_roundtrip(model, through="dcp")


for _tied in (False, True):
    _name = "every assertion, tied" if _tied else "every assertion"
    for _of, _add in ((2, cell), (4, four)):
        _add(f"uneven/{_name}/{_of} ranks", "pass")(lambda tied=_tied: _every_assertion(tied))


def _one_value() -> None:
    model = sharded(net())
    held = local(model.scale)
    if held.numel():  # one rank has the only value, all the others have none
        held.fill_(float("nan"))
    finds(
        "not finite: scale (Net)\n\n  scale  1 of 1 value: 1 NaN, first at [0] (rank 0)",
        lambda: pc.assert_finite(model),
    )
    finds("different values: scale", lambda: pc.assert_same_values(model, net()))


cell("uneven/assert_finite/the one value there is", "pass")(_one_value)
four("uneven/assert_finite/the one value there is, of four ranks", "pass")(_one_value)


# -- DistributedDataParallel --------------------------------------------------------------------


@cell("ddp/assert_grads_present/frozen and unused parameters", "pass")
def _() -> None:
    model = net()
    model.unused = nn.Linear(2, 2)
    model.up.weight.requires_grad_(False)
    wrapped = trained(DistributedDataParallel(model, find_unused_parameters=True))
    pc.assert_grads_present(wrapped, "!unused")
    finds("unused", lambda: pc.assert_grads_present(wrapped))
    pc.assert_replicated(wrapped)
    pc.assert_frozen(wrapped, exactly=["up.weight"])


@cell("ddp/assert_updated/gradients that are views of buckets", "pass")
def _() -> None:
    model = DistributedDataParallel(net(), gradient_as_bucket_view=True)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(2):
        with pc.assert_updated(model):
            optimizer.zero_grad()
            trained(model)
            optimizer.step()
        pc.assert_replicated(model)
        pc.assert_grads_finite(model)


@cell("ddp/assert_replicated/accumulated without a reduction, then with one", "pass")
def _() -> None:
    model = DistributedDataParallel(net())
    with model.no_sync():
        trained(model)
    finds("gradient differs between ranks", lambda: pc.assert_replicated(model))
    pc.assert_replicated(trained(model))


@cell("ddp/assert_replicated/gradients cleared on one rank", "pass")
def _() -> None:
    model = trained(DistributedDataParallel(net()))
    if rank() == 1:
        model.zero_grad()
    finds("gradient on some ranks only", lambda: pc.assert_replicated(model))


@cell("ddp/assert_averaged/an average of the module", "pass")
def _() -> None:
    from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

    model = DistributedDataParallel(net())
    average = AveragedModel(model.module, multi_avg_fn=get_ema_multi_avg_fn(0.9))
    average.update_parameters(model.module)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    trained(model)
    optimizer.step()
    with pc.assert_averaged(average, model, decay=0.9):
        average.update_parameters(model.module)
    pc.assert_replicated(average)


# -- other seeds --------------------------------------------------------------------------------


@cell("plain/assert_replicated/each rank has another seed", "pass")
def _() -> None:
    finds("differs between ranks", lambda: pc.assert_replicated(net(rank())))


@cell("fsdp2/assert_same_values/each rank has another seed", "pass")
def _() -> None:
    finds("(rank 1)", lambda: pc.assert_same_values(sharded(net(rank())), net()))


@cell("plain/assert_distinct/group=", "pass")
def _() -> None:
    group = dist.group.WORLD
    torch.manual_seed(0)
    alike = {"w": torch.randn(4, 4)}
    finds("w", lambda: pc.assert_distinct(alike, group=group))
    torch.manual_seed(rank())
    pc.assert_distinct({"w": torch.randn(4, 4)}, group=group)


# -- state_dicts --------------------------------------------------------------------------------


def _state_dict(full: bool, cpu: bool) -> None:
    model = sharded(net(3))
    options = StateDictOptions(full_state_dict=full, cpu_offload=cpu)
    state = get_model_state_dict(model, options=options)
    if full and cpu:
        with pytest.raises(pc.ParamCheckUsageError) as raised:
            pc.assert_loaded(model, state)
        assert str(raised.value) == (
            "rank 1: the checkpoint holds no tensors: get_model_state_dict(full_state_dict=True, "
            "cpu_offload=True) fills rank 0 only; leave cpu_offload out"
        )
    else:
        pc.assert_loaded(model, state)
        pc.assert_finite(state)
        pc.assert_same_values(state, net(3).state_dict())
    other = sharded(net(4))
    options = StateDictOptions(full_state_dict=full, broadcast_from_rank0=full and cpu)
    set_model_state_dict(other, state, options=options)
    pc.assert_same_values(other, net(3))
    pc.assert_same_values(other, model)


for _full in (False, True):
    for _cpu in (False, True):
        cell(f"fsdp2/assert_loaded/full_state_dict={_full}, cpu_offload={_cpu}", "pass")(
            lambda full=_full, cpu=_cpu: _state_dict(full, cpu)
        )


@cell("fsdp2/assert_loaded/what one rank did not load", "pass")
def _() -> None:
    saved = {name: whole.full_tensor() for name, whole in sharded(net(3)).state_dict().items()}
    model = sharded(net(4))
    for name, own in model.state_dict().items():
        loaded = distribute_tensor(saved[name].clone(), own.device_mesh, own.placements)
        if rank() == 0:
            local(own).copy_(local(loaded))
    finds("(rank 1)", lambda: pc.assert_loaded(model, saved))


# -- other wraps --------------------------------------------------------------------------------


@cell("fsdp2/assert_same_values/below a checkpoint wrapper", "pass")
def _() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = net()
    model.up = checkpoint_wrapper(model.up)
    pc.assert_same_values(sharded(model), net())


@cell("fsdp2/assert_same_ties/never resharded after a forward", "pass")
def _() -> None:
    model = trained(sharded(net(tied=True), reshard_after_forward=False))
    model(data())
    pc.assert_same_values(model, net(tied=True))
    pc.assert_same_ties(model, net(tied=True))
    pc.assert_grads_present(model)


@cell("fsdp2/assert_grads_finite/mixed precision", "pass")
def _() -> None:
    policy = MixedPrecisionPolicy(param_dtype=torch.bfloat16, reduce_dtype=torch.float32)
    model = trained(sharded(net(), mp_policy=policy))
    pc.assert_dtypes(model, torch.float32)
    pc.assert_grads_finite(model)
    pc.assert_same_values(model, net())


@cell("fsdp2/assert_same_values/a plain half that one rank wrote", "pass")
def _() -> None:
    model = net()
    fully_shard(model.up, mesh=mesh())
    pc.assert_same_values(model, net())
    pc.assert_placements(model, {"*": None, "up": Shard(0)})
    if rank() == 1:
        with torch.no_grad():
            model.down.weight[0, 0] += 1
    finds("rank 1", lambda: pc.assert_same_values(model, net()))
    finds("rank 1", lambda: pc.assert_replicated(model))


@cell("dtensor/assert_finite/partial sums", "pass")
def _() -> None:
    partial = {"w": DTensor.from_local(torch.ones(3), mesh(), [Partial()])}
    whole = {"w": torch.ones(3) * 2}
    calls = (pc.assert_replicated, lambda sums: pc.assert_same_values(sums, whole))
    for call in calls:
        with pytest.raises(pc.ParamCheckUsageError, match="partial sums"):
            call(partial)


@four("dtensor/assert_finite/two meshes of two ranks, each asked by its own", "pass")
def _() -> None:
    meshes = [DeviceMesh("cpu", [0, 1]), DeviceMesh("cpu", [2, 3])]
    mine = {"w": distribute_tensor(torch.arange(6.0), meshes[rank() // 2], [Shard(0)])}
    pc.assert_finite(mine)
    pc.assert_same_values(mine, {"w": torch.arange(6.0)})
    if rank() < 2:
        pc.assert_shapes(mine, {"w": (6,)})


@four("hsdp/assert_same_values/against one sharded over all ranks", "pass")
def _() -> None:
    model = net()
    fully_shard(model, mesh=init_device_mesh("cpu", (2, 2), mesh_dim_names=("copy", "shard")))
    pc.assert_same_values(sharded(net()), model)


@four("fsdp and tp/every assertion/sizes that do not divide", "pass")
def _() -> None:
    grid = init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    model = net()
    parallelize_module(model, grid["tp"], {"up": ColwiseParallel(output_layouts=Replicate())})
    sharded(model, mesh=grid["dp"])
    pc.assert_same_values(model, net())
    pc.assert_finite(model)
    pc.assert_replicated(model)
    model(torch.ones(2, 5)).sum().backward()
    pc.assert_grads_present(model)
    pc.assert_grads_finite(model)
    pc.assert_roundtrip(model, through="dcp")
    if rank() == 3:
        local(model.down.weight).view(-1)[:1].add_(1)
    finds("(rank 3)", lambda: pc.assert_same_values(model, net()))
