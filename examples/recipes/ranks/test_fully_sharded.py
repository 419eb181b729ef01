"""A tied language model that FSDP2 shards: built on meta, saved by two ranks, loaded by others.

Each test runs on two processes that form a torch.distributed group; an assertion says the same on
both of them. ``fully_shard`` replaces the parameters, and what was tied, initialized or held by an
optimizer before may be so no more.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn
from torch.distributed.checkpoint.state_dict import get_model_state_dict, set_model_state_dict
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Shard

from pytest_paramcheck import init

pytestmark = [
    pytest.mark.params(ranks=2, devices=["cpu"]),
    # What torch says where one rank reads or writes a checkpoint by itself.
    pytest.mark.filterwarnings("ignore:torch.distributed is :UserWarning"),
    # And where a DTensor is drawn on the cpu: every rank draws by itself there.
    pytest.mark.filterwarnings("ignore:DTensor random operators may not:UserWarning"),
]


class Block(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.fc = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.tanh(self.fc(self.norm(x)))


class LM(nn.Module):
    def __init__(self, vocab: int = 32, width: int = 16) -> None:
        super().__init__()
        self.emb = nn.Embedding(vocab, width)
        self.blocks = nn.ModuleList([Block(width), Block(width)])
        self.head = nn.Linear(width, vocab, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.emb(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def shard(model: LM) -> LM:
    """Embedding and head stay in one group: wrapped apart, each gets a parameter of its own."""
    for block in model.blocks:
        fully_shard(block)
    fully_shard(model)
    return model


def from_meta(seed: int = 0) -> LM:
    with torch.device("meta"):
        model = LM()
    shard(model)
    model.to_empty(device="cpu")
    # On the cpu each rank draws its own shard: from one seed all of them would be the same.
    torch.manual_seed(seed + dist.get_rank())
    for module in model.modules():
        if hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def loss_of(model: nn.Module) -> Tensor:
    # Other data on each rank: equal data would hide a reduction that is missing.
    tokens = torch.arange(8) + 8 * dist.get_rank()
    return nn.functional.cross_entropy(model(tokens), (tokens + 1) % 32)


def shared_folder(own: Path) -> Path:
    """The folder of rank 0, on every rank: each has a ``tmp_path`` of its own."""
    told = [str(own)]
    dist.broadcast_object_list(told, src=0)
    return Path(told[0])


def test_what_was_tied_is_tied_and_everything_is_sharded(
    assert_same_ties, assert_ties, assert_placements
) -> None:
    model = shard(LM())
    assert_same_ties(LM(), model)
    assert_ties(model, [{"emb.weight", "head.weight"}])
    assert_placements(model, {"*": Shard(0)})


def test_a_model_from_meta_is_initialized(
    assert_materialized, assert_init, assert_init_complete, assert_ties, assert_distinct
) -> None:
    model = from_meta()
    assert_materialized(model)
    assert_ties(model, [{"emb.weight", "head.weight"}])
    bound = 16**-0.5
    assert_init(model, {"*.norm.weight": init.ones(), "*.fc.weight": init.uniform(-bound, bound)})
    assert_init_complete(from_meta)
    assert_distinct(model, "!head.weight")  # no two layers, and no two shards, start the same


def test_a_step_moves_every_parameter(
    assert_optimizer_covers, assert_updated, assert_grads_present, assert_optimizer_state
) -> None:
    model = from_meta()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)  # built after the wrap
    assert_optimizer_covers(optimizer, model)
    with assert_updated(model):
        loss_of(model).backward()
        assert_grads_present(model)
        optimizer.step()
    assert_optimizer_state(optimizer, model)


def test_a_checkpoint_of_two_ranks_in_two_and_in_one(
    assert_roundtrip, assert_loaded, assert_same_values, tmp_path
) -> None:
    model = shard(LM())
    assert_roundtrip(model, through="dcp")
    folder = shared_folder(tmp_path) / "step100"
    dcp.save(get_model_state_dict(model), checkpoint_id=folder)

    other = from_meta(seed=1)
    state = get_model_state_dict(other)
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(other, state)
    assert_loaded(other, folder)
    assert_same_values(other, model)

    alone = LM()  # on one rank, as on a laptop
    state = alone.state_dict()
    dcp.load(state, checkpoint_id=folder, no_dist=True)
    alone.load_state_dict(state)
    assert_loaded(alone, folder)
    dist.barrier()  # rank 0's folder is removed when its test ends


@pytest.mark.params(ranks=[2, 3])
def test_a_checkpoint_of_one_process_on_several_ranks(assert_loaded, tmp_path) -> None:
    torch.manual_seed(7)
    pretrained = LM()
    folder = shared_folder(tmp_path) / "pretrained"
    if dist.get_rank() == 0:
        dcp.save(pretrained.state_dict(), checkpoint_id=folder, no_dist=True)
    dist.barrier()

    model = from_meta(seed=1)
    state = get_model_state_dict(model)
    dcp.load(state, checkpoint_id=folder)
    set_model_state_dict(model, state)
    assert_loaded(model, folder)
    dist.barrier()
