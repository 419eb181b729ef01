"""One small language model, and the ways in which it is spread over ranks."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.distributed.fsdp.wrap import ModuleWrapPolicy
from torch.distributed.tensor import DTensor, Replicate, distribute_module
from torch.distributed.tensor.parallel import (
    ColwiseParallel,
    RowwiseParallel,
    parallelize_module,
)
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

#: A parameter that is sharded by fully_shard and by tensor parallelism alike.
WEIGHT = "blocks.1.fc1.weight"


class Block(nn.Module):
    def __init__(self, d: int) -> None:
        super().__init__()
        self.ln = nn.LayerNorm(d)
        self.fc1 = nn.Linear(d, 2 * d)
        self.fc2 = nn.Linear(2 * d, d)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.fc2(torch.tanh(self.fc1(self.ln(x))))


class LM(nn.Module):
    def __init__(self, tied: bool = True, d: int = 8, vocab: int = 16) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab, d)
        self.blocks = nn.ModuleList([Block(d), Block(d)])
        self.head = nn.Linear(d, vocab, bias=False)
        if tied:
            self.head.weight = self.emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def plain(seed: int = 0, tied: bool = True) -> LM:
    torch.manual_seed(seed)
    return LM(tied)


def rank() -> int:
    return dist.get_rank()


def mesh() -> DeviceMesh:
    return init_device_mesh("cpu", (dist.get_world_size(),))


def fsdp2(model: nn.Module, **kwargs: object) -> nn.Module:
    on = mesh()
    for block in getattr(model, "blocks", ()):
        fully_shard(block, mesh=on, **kwargs)  # type: ignore[call-overload]
    fully_shard(model, mesh=on, **kwargs)  # type: ignore[call-overload]
    return model


def tensor_parallel(model: nn.Module) -> nn.Module:
    plan = {}
    for number in range(2):
        plan[f"blocks.{number}.fc1"] = ColwiseParallel()
        plan[f"blocks.{number}.fc2"] = RowwiseParallel()
    return parallelize_module(model, mesh(), plan)


def replicated(model: nn.Module) -> nn.Module:
    """Every parameter a DTensor with a copy on each rank; a tie is lost on the way."""
    return distribute_module(model, mesh())


def fsdp1(model: nn.Module, *, names: bool = True) -> nn.Module:
    return FullyShardedDataParallel(
        model,
        use_orig_params=names,
        auto_wrap_policy=ModuleWrapPolicy({Block}),
        device_id=torch.device("cpu"),
    )


def fsdp1_flat(model: nn.Module) -> nn.Module:
    return fsdp1(model, names=False)


WRAPS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "plain": lambda model: model,
    "ddp": DistributedDataParallel,
    "fsdp2": fsdp2,
    "tp": tensor_parallel,
    "replicated": replicated,
    "fsdp1": fsdp1,
    "flat": fsdp1_flat,
}
#: Those whose parameters are DTensors.
DTENSORS = ("fsdp2", "tp", "replicated")


def tokens(kind: str, every: Tensor | None = None) -> Tensor:
    """What a rank is fed: its own half under data parallelism, everything under tp."""
    whole = torch.arange(16) if every is None else every
    if kind == "replicated":
        return DTensor.from_local(whole, mesh(), [Replicate()], run_check=False)
    return whole if kind == "tp" else whole.roll(rank())[:8]


def loss_of(kind: str) -> Callable[[nn.Module], Tensor]:
    def loss(model: nn.Module) -> Tensor:
        given = tokens(kind)
        out = model(given)
        if isinstance(out, DTensor):
            out = out.full_tensor()
        plain_tokens = given.to_local() if isinstance(given, DTensor) else given
        return cross_entropy(out, (plain_tokens + 1) % 16)

    return loss


def local(tensor: Tensor) -> Tensor:
    """What this rank holds, to be written."""
    return tensor._local_tensor if isinstance(tensor, DTensor) else tensor.data


def parameter(model: nn.Module, name: str = WEIGHT) -> nn.Parameter:
    for wrapped in (model, getattr(model, "module", None)):
        if wrapped is not None:
            for own, found in wrapped.named_parameters(remove_duplicate=False):
                if own.replace("_fsdp_wrapped_module.", "") == name:
                    return found
    raise KeyError(name)


def with_unused_block() -> LM:
    model = plain()
    model.extra = model.blocks[1]
    model.blocks = nn.ModuleList([model.blocks[0]])
    return model


def norm_of_gradients(model: nn.Module) -> float:
    """The norm of the whole gradients as torch gathers them.

    Not a plain model's: on gloo torch 2.8 adds up what fully_shard averages elsewhere.
    """
    grads = [p.grad for p in model.parameters() if p.grad is not None]
    whole = [grad.full_tensor() if isinstance(grad, DTensor) else grad for grad in grads]
    return float(torch.nn.utils.get_total_norm(whole))
