"""What each rank found -> one list, the same on all of them; real ranks: ``tests/ranks``."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.distributed.tensor import Replicate, distribute_tensor

from pytest_paramcheck import (
    Finding,
    ParamCheckUsageError,
    assert_finite,
    assert_frozen,
    assert_grads_reach,
    assert_registered,
)
from pytest_paramcheck.checks.ranks import of_all_ranks
from pytest_paramcheck.messages.rendering import render
from pytest_paramcheck.parameters.tensors.call import ranks_text

from ..threads_as_ranks import on_ranks
from .messages import whole


def nan(found: str = "1 of 8 values: 1 NaN, first at [0]") -> Finding:
    return Finding(("w",), "not finite", found=found)


def still(found: str = "values are bit-identical", names: tuple[str, ...] = ("w",)) -> Finding:
    return Finding(names, "not changed", found=found, everywhere=True)


def test_what_all_ranks_say_is_said_once() -> None:
    assert of_all_ranks({0: [nan()], 1: [nan()]}) == [nan()]


def test_what_one_rank_says_names_it() -> None:
    (found,) = of_all_ranks({0: [], 1: [nan()]})

    assert found.found == "1 of 8 values: 1 NaN, first at [0] (rank 1)"


def test_texts_that_differ_are_told_apart() -> None:
    three = {rank: [nan("1 NaN" if rank else "2 NaN")] for rank in range(3)}
    (found,) = of_all_ranks(three)

    assert found.found == "2 NaN (rank 0); 1 NaN (ranks 1 and 2)"


def test_many_texts_are_cut() -> None:
    (found,) = of_all_ranks({rank: [nan(f"{rank} NaN")] for rank in range(6)})

    assert found.found == (
        "0 NaN (rank 0); 1 NaN (rank 1); 2 NaN (rank 2); 3 NaN (rank 3); "
        "and other texts of 2 more ranks"
    )


def test_a_reason_names_the_rank_where_there_is_no_observation() -> None:
    missing = Finding(("w",), "no gradient", why="None: not reached")
    (found,) = of_all_ranks({0: [], 1: [missing]})

    assert render([found], "LM") == whole("""
        no gradient: w (LM)

          w  None: not reached (rank 1)
    """)


def test_a_finding_without_a_text_names_the_rank() -> None:
    (found,) = of_all_ranks({0: [], 1: [Finding(("w",), "tied")]})

    assert found.found == "on rank 1"


def test_a_shard_that_did_not_change_is_no_tensor_that_did_not() -> None:
    assert of_all_ranks({0: [still()], 1: []}) == []
    assert of_all_ranks({0: [still()], 1: [still()]}) == [still()]


def test_another_reason_on_each_shard_counts_for_both() -> None:
    other = Finding(("w",), "changed without a gradient", why="weight decay", everywhere=True)
    found = of_all_ranks({0: [still()], 1: [other]})

    assert [finding.problem for finding in found] == ["not changed", "changed without a gradient"]


KINDS = st.sampled_from(["", "any", "all"])


@given(st.lists(st.dictionaries(st.sampled_from("abc"), KINDS), min_size=1, max_size=4))
def test_it_holds_of_the_whole_where_some_rank_or_all_of_them_say_so(
    ranks: list[dict[str, str]],
) -> None:
    found = {
        rank: [
            Finding((name,), "p", found=kind, everywhere=kind == "all")
            for name, kind in said.items()
            if kind
        ]
        for rank, said in enumerate(ranks)
    }

    merged = {name for finding in of_all_ranks(found) for name in finding.names}

    expected = {
        name
        for name in "abc"
        if any(said.get(name) == "any" for said in ranks)
        or all(said.get(name) == "all" for said in ranks)
    }
    assert merged == expected


@pytest.mark.parametrize(
    ("ranks", "text"),
    [
        ([1], "rank 1"),
        ([0, 2], "ranks 0 and 2"),
        ([0, 1, 3], "ranks 0, 1 and 3"),
        (list(range(12)), "ranks 0, 1, 2, 3, 4, 5, 6 and 5 more"),
    ],
)
def test_ranks_in_words(ranks: list[int], text: str) -> None:
    assert ranks_text(ranks) == text


def test_an_error_of_a_plain_subject_has_its_own_traceback() -> None:
    """Where nothing is spread over ranks, what is raised is raised where it was found."""
    with pytest.raises(ParamCheckUsageError) as caught:
        assert_finite(nn.Linear(2, 2), "nope")

    assert caught.traceback[-1].name == "matched_entries"


WITHOUT_RANKS = """
import sys
import torch
import torch
from torch import nn
import pytest_paramcheck as pc

model = nn.Linear(3, 2)
before = set(sys.modules)
pc.assert_finite(model)
pc.assert_same_values(model, model.state_dict())
pc.assert_grads_reach(model, lambda model: model(torch.ones(1, 3)).sum())
pc.assert_placements(model, {"*": None})
with pc.assert_unchanged(model):
    pass
print([name for name in set(sys.modules) - before if name.startswith("torch.distributed")])
"""


@pytest.mark.slow
def test_who_has_no_ranks_loads_nothing_of_theirs() -> None:
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_RANKS], capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_an_unsharded_model_holds_its_sharded_parameters() -> None:
    """As FSDP2 leaves it after a forward pass: gathered copies in the modules."""
    from pytest_paramcheck.parameters.subject import fsdp

    class Module(nn.Linear):
        def _get_fsdp_state(self) -> Any:
            raise AttributeError("private, and gone")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fsdp, "_fsdp_module", lambda: Module)
        with pytest.raises(ParamCheckUsageError) as caught:
            assert_finite(Module(2, 2))

    assert str(caught.value) == "the model is unsharded: call model.reshard() first"


def test_slices_of_parameters_are_for_assertions_that_are_right_of_them(two_ranks: object) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(
        nn.Sequential(nn.Linear(2, 2)), use_orig_params=True, device_id=torch.device("cpu")
    )

    assert_frozen(model.requires_grad_(False))
    with pytest.raises(ParamCheckUsageError) as caught:
        assert_registered(model)
    assert str(caught.value) == (
        "FullyShardedDataParallel keeps a slice of each parameter on each rank, which is no "
        "parameter by itself: use fully_shard, or ask before the wrap"
    )


@pytest.mark.parametrize("call", [assert_registered, assert_grads_reach])
def test_what_a_loss_raises_on_one_rank_is_its_own(two_ranks: Any, call: Any) -> None:
    """The others may be inside a collective of the loss, and nobody would hear of it."""
    model = nn.Linear(2, 2, bias=False)
    model.weight = nn.Parameter(distribute_tensor(torch.ones(2, 2), two_ranks, [Replicate()]))

    def raises(model: Any) -> torch.Tensor:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        on_ranks([lambda: call(model, raises)] * 2)
