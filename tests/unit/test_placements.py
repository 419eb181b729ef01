"""``assert_placements``, on a mesh of a fake group: nothing is communicated."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.tensor import DTensor, Partial, Replicate, Shard, distribute_tensor

from pytest_paramcheck import (
    assert_finite,
    assert_placements,
    assert_replicated,
    assert_shapes,
    assert_tied,
)
from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.subject.sharded_alike import sharded_alike
from pytest_paramcheck.showing.rows import bytes_of

from .messages import failure, usage, whole


@pytest.fixture
def grid() -> Iterator[DeviceMesh]:
    from torch.testing._internal.distributed.fake_pg import FakeStore

    dist.init_process_group("fake", rank=0, world_size=4, store=FakeStore())
    yield init_device_mesh("cpu", (2, 2), mesh_dim_names=("dp", "tp"))
    dist.destroy_process_group()


def spread(mesh: DeviceMesh, *placements: Any, size: tuple[int, ...] = (4, 4)) -> nn.Parameter:
    return nn.Parameter(distribute_tensor(torch.ones(size), mesh, placements))


def test_right_placements(grid: DeviceMesh) -> None:
    subject = {
        "emb": spread(grid["tp"], Shard(0)),
        "fc": spread(grid, Replicate(), Shard(1)),
        "norm": nn.Parameter(torch.ones(4)),
    }
    assert_placements(subject, {"*": Shard(0), "fc": (Replicate(), Shard(-1)), "norm": None})
    assert_placements(subject, {"emb": (Shard(0),)})


def test_each_kind_of_wrong_placement(grid: DeviceMesh) -> None:
    subject = {
        "right": spread(grid["tp"], Shard(0)),
        "plain": nn.Parameter(torch.ones(4)),
        "other": spread(grid["tp"], Shard(1)),
        "copied": spread(grid["tp"], Replicate()),
        "sums": nn.Parameter(
            DTensor.from_local(torch.ones(4), grid["tp"], [Partial()], run_check=False)
        ),
        "two": spread(grid, Replicate(), Shard(0)),
    }
    assert failure(assert_placements, subject, {"*": Shard(0)}) == whole("""
        other placement: plain, other, copied, sums and 1 more (a dict of tensors)

          plain   expected Shard(0), found plain: nothing sharded it
          other   expected Shard(0), found Shard(1)
          copied  expected Shard(0), found Replicate()
          sums    expected Shard(0), found Partial(sum)
          two     expected Shard(0), found (Replicate(), Shard(0)) on a mesh of 2x2
    """)


def test_the_bytes_of_a_sharded_tensor_are_those_of_the_whole(grid: DeviceMesh) -> None:
    assert bytes_of(spread(grid["tp"], Shard(0))) == 64


def test_plain_was_meant(grid: DeviceMesh) -> None:
    assert failure(assert_placements, {"w": spread(grid["tp"], Shard(0))}, {"w": None}) == whole("""
        other placement: w (a dict of tensors)

          w  expected plain, found Shard(0)
    """)


@pytest.mark.parametrize("value", ["Shard(0)", 0, (), (0,), Shard])
def test_what_is_not_a_placement(value: object) -> None:
    assert usage(assert_placements, nn.Linear(2, 2), {"weight": value}) == (
        f"'weight': {value!r} is not a placement: pass Shard(dim), Replicate() or Partial(), a "
        f"tuple of one per mesh dimension, or None for a plain tensor"
    )


@pytest.mark.parametrize("expected", [{}, Shard(0), None])
def test_what_is_not_a_mapping(expected: object) -> None:
    assert usage(assert_placements, nn.Linear(2, 2), expected) == (
        'assert_placements takes {pattern: placement}, with one pattern at least: {"*": Shard(0)}'
    )


def test_structure_can_be_asked_in_a_fake_group_and_values_cannot(grid: DeviceMesh) -> None:
    weight = spread(grid["tp"], Shard(0))
    subject = {"w": weight}

    assert_shapes(subject, {"w": (4, 4)})
    assert_tied(weight, weight)
    said = "a fake group has no other ranks: only structure can be checked"
    assert usage(assert_finite, subject) == said
    assert usage(assert_replicated, subject) == said


def test_shards_that_cannot_be_compared(grid: DeviceMesh) -> None:
    ours = DeviceMesh("cpu", [0, 1])
    others = DeviceMesh("cpu", [2, 3])
    sums = {"w": DTensor.from_local(torch.ones(4), ours, [Partial()])}
    sharded, elsewhere = ({"w": spread(mesh, Shard(0), size=(4,))} for mesh in (ours, others))
    whole_one = {"w": torch.ones(4)}

    def alike(a: Any, b: Any) -> None:
        sharded_alike(take_inventory(a), take_inventory(b), [("w", "w")])

    partial = "w holds partial sums, which nobody has added up: redistribute it first"
    assert usage(alike, sums, whole_one) == partial
    assert usage(alike, whole_one, sums) == partial
    assert usage(alike, sharded, elsewhere).startswith("two meshes: w is ")
    alike(sharded, whole_one)


def test_what_is_none_hides_no_wrong_placement_behind_it(grid: DeviceMesh) -> None:
    subject = {"none": None, "w": nn.Parameter(torch.ones(4))}

    assert (
        failure(assert_placements, subject, {"*": Shard(0)})
        .splitlines()[0]
        .startswith("other placement: w")
    )
