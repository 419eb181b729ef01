"""``assert_replicated``: what it says, on ranks that are threads (real ones: ``tests/ranks``)."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from pytest_paramcheck import ParamCheckError, ParamCheckUsageError, assert_distinct
from pytest_paramcheck import assert_replicated as replicated

from ..threads_as_ranks import on_ranks
from .messages import usage, whole


class LM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 4)
        self.norm = nn.BatchNorm1d(4)
        self.head = nn.Linear(4, 5, bias=False)


def copies(count: int = 2) -> list[LM]:
    torch.manual_seed(0)
    model = LM()
    return [copy.deepcopy(model) for _ in range(count)]


def said(*subjects: Any, **options: Any) -> str:
    """The text that all ranks raise, which has to be one."""
    raised = _raised([lambda s=s: replicated(s, **options) for s in subjects])
    texts = {str(error) for error in raised}
    assert len(texts) == 1
    assert all(isinstance(error, ParamCheckError) for error in raised)
    return texts.pop()


def _raised(calls: list[Callable[[], object]]) -> list[BaseException | None]:
    raised: list[BaseException | None] = [None] * len(calls)

    def kept(number: int) -> None:
        try:
            calls[number]()
        except (ParamCheckError, ParamCheckUsageError) as error:
            raised[number] = error

    on_ranks([lambda n=n: kept(n) for n in range(len(calls))])
    return raised


def grads(model: nn.Module, value: float = 1.0) -> None:
    for parameter in model.parameters():
        parameter.grad = torch.full_like(parameter, value)


def test_equal_copies_pass() -> None:
    models = copies(3)
    for model in models:
        grads(model)
        with torch.no_grad():
            model.head.weight[0, 0] = float("nan")

    assert _raised([lambda m=m: replicated(m) for m in models]) == [None] * 3


def test_one_value_of_one_rank() -> None:
    models = copies(3)
    with torch.no_grad():
        models[1].head.weight[3, 2] += 0.5

    assert said(*models) == whole("""
        differs between ranks: head.weight (LM)

          head.weight  1 of 20 values: max abs 0.5 at [3, 2], max rel 1.56: \\
                       rank 1 from ranks 0 and 2
    """)


def test_each_rank_by_itself_is_held_against_the_first() -> None:
    models = copies(3)
    for number, model in enumerate(models):
        with torch.no_grad():
            model.norm.weight.fill_(float(number))

    assert said(*models) == whole("""
        differs between ranks: norm.weight (LM)

          norm.weight  4 of 4 values: max abs 1 at [0], max rel inf: rank 1 from rank 0; \\
                       4 of 4 values: max abs 2 at [0], max rel inf: rank 2 from rank 0
    """)


def test_a_buffer() -> None:
    models = copies()
    models[1].norm.running_mean.add_(1)

    assert said(*models).splitlines()[0] == "differs between ranks: norm.running_mean (LM)"


def test_a_gradient_that_was_not_synchronized() -> None:
    models = copies()
    for number, model in enumerate(models):
        grads(model, float(number))

    assert said(*models, only="grads") == whole("""
        gradient differs between ranks: emb.weight, norm.weight, norm.bias, head.weight (LM)

          emb.weight   20 of 20 values: max abs 1 at [0, 0], max rel inf: rank 1 from rank 0
          norm.weight  4 of 4 values: max abs 1 at [0], max rel inf: rank 1 from rank 0
          norm.bias    4 of 4 values: max abs 1 at [0], max rel inf: rank 1 from rank 0
          head.weight  20 of 20 values: max abs 1 at [0, 0], max rel inf: rank 1 from rank 0
    """)
    assert _raised([lambda m=m: replicated(m, only=("values", "flags")) for m in models]) == [
        None,
        None,
    ]


def test_a_gradient_on_one_rank_only() -> None:
    models = copies()
    models[0].head.weight.grad = torch.ones(5, 4)

    assert said(*models) == whole("""
        gradient on some ranks only: head.weight (LM)

          head.weight  none on rank 1
    """)


def test_a_flag() -> None:
    models = copies()
    models[1].emb.requires_grad_(False)

    assert said(*models) == whole("""
        requires_grad differs: emb.weight (LM)

          emb.weight  True on rank 0, False on rank 1
    """)


def test_a_name_a_shape_and_a_dtype_of_one_rank() -> None:
    models = copies()
    models[1].extra = nn.Linear(2, 2, bias=False)
    models[1].head = nn.Linear(4, 6, bias=False)
    models[1].emb.double()
    assert said(*models) == whole("""
        only on rank 1: extra.weight; other dtype: emb.weight; other shape: head.weight (LM)

          only on rank 1:
            extra.weight
          other dtype:
            emb.weight  float32 on rank 0, float64 on rank 1
          other shape:
            head.weight  5x4 on rank 0, 6x4 on rank 1
    """)


def test_another_order() -> None:
    first, second = ({"a": torch.ones(2), "b": torch.zeros(2)}, {"b": torch.zeros(2)})
    second["a"] = torch.ones(2)

    assert said(first, second) == whole("""
        other order: a, b (a dict of tensors)

          a, b  a on rank 0 where rank 1 has b
    """)


def test_a_tie_across_two_stages() -> None:
    emb, head = nn.Embedding(5, 4), nn.Linear(4, 5, bias=False)

    assert said([("tied", emb.weight)], [("tied", head.weight)]).startswith(
        "differs between ranks: tied (pairs)\n"
    )
    head.weight.data.copy_(emb.weight.data)
    assert _raised(
        [
            lambda: replicated([("tied", emb.weight)]),
            lambda: replicated([("tied", head.weight)]),
        ]
    ) == [None, None]


def test_a_large_tensor_says_that_it_differs() -> None:
    first = {"w": torch.zeros(1 << 17)}
    second = {"w": torch.zeros(1 << 17)}
    second["w"][-1] = 1

    assert said(first, second) == whole("""
        differs between ranks: w (a dict of tensors)

          w  differs: rank 1 from rank 0
    """)


def test_patterns_select() -> None:
    models = copies()
    with torch.no_grad():
        models[1].head.weight.add_(1)

    calls = [lambda m=m: replicated(m, "emb", "norm") for m in models]
    assert _raised(calls) == [None, None]


def test_a_wrong_call_of_one_rank_is_raised_by_all() -> None:
    models = copies()
    raised = _raised([lambda: replicated(models[0]), lambda: replicated(models[1], "nope")])

    assert {str(error) for error in raised} == {
        "rank 1: pattern 'nope' matches nothing in LM; it has emb.weight, norm.weight, "
        "norm.bias, norm.running_mean, norm.running_var and 2 more"
    }
    assert {type(error) for error in raised} == {ParamCheckUsageError}


def test_two_different_assertions() -> None:
    models = copies()
    from torch.distributed import HashStore  # any group will do: the threads talk

    assert HashStore
    raised = _raised(
        [lambda: replicated(models[0]), lambda: assert_distinct(models[1], group=_world())]
    )
    assert {str(error) for error in raised} == {
        "the ranks called different assertions: assert_replicated on rank 0, assert_distinct on "
        "rank 1; each belongs on every rank"
    }


def _world() -> Any:
    from pytest_paramcheck.parameters.tensors import call

    return call.distributed().group.WORLD


def test_without_values() -> None:
    models = [nn.Linear(2, 2, device="meta") for _ in range(2)]

    raised = _raised([lambda m=m: replicated(m) for m in models])
    assert {str(error) for error in raised} == {
        "weight: on meta, where tensors have no values; its copies cannot be compared "
        '(only="flags" asks for names, shapes, dtypes and requires_grad)'
    }
    assert _raised([lambda m=m: replicated(m, only="flags") for m in models]) == [None, None]


def test_without_ranks() -> None:
    assert usage(replicated, nn.Linear(2, 2)) == (
        "there is no process group, so there are no ranks to compare: run it in a test with "
        "@pytest.mark.params(ranks=2), or under torchrun"
    )


@pytest.mark.parametrize("only", ["bits", (), 3, ["values", "names"]])
def test_another_only(only: object) -> None:
    assert usage(replicated, nn.Linear(2, 2), only=only).startswith(f"only={only!r}: ")


def test_no_group() -> None:
    model = nn.Linear(2, 2)
    raised = _raised([lambda: replicated(model, group=3)])

    assert str(raised[0]) == (
        "group=3 is not a group of ranks: pass a ProcessGroup or a DeviceMesh"
    )


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 2), min_size=3, max_size=3), min_size=2, max_size=4))
def test_it_fails_exactly_where_some_rank_holds_other_values(held: list[list[int]]) -> None:
    subjects = [
        {f"w{n}": torch.full((3,), float(value)) for n, value in enumerate(one)} for one in held
    ]
    wrong = {f"w{n}" for n in range(3) if len({one[n] for one in held}) > 1}

    raised = _raised([lambda s=s: replicated(s) for s in subjects])

    found = [
        {name for finding in error.findings for name in finding.names}
        for error in raised
        if isinstance(error, ParamCheckError)
    ]
    assert found == [wrong] * len(subjects) if wrong else raised == [None] * len(subjects)


def test_equal_values_on_two_ranks_of_a_group() -> None:
    models = copies()

    raised = _raised(
        [
            lambda: assert_distinct(models[0], "head", group=_world()),
            lambda: assert_distinct(models[1], "head", group=_world()),
        ]
    )
    assert {str(error) for error in raised} == {
        whole("""
            equal shards: head.weight (LM)

              head.weight  ranks 0 and 1 hold the same values bit for bit: each rank drew its \\
                           shard from the same seed

              hint: seed each rank by itself: torch.manual_seed(seed + dist.get_rank())
        """)
    }


def test_small_values_that_are_no_plain_numbers_are_told_apart_without_being_sent() -> None:
    def quantized(value: float) -> dict[str, torch.Tensor]:
        with warnings.catch_warnings():
            # torch announces that its quantized tensors move to another package
            warnings.simplefilter("ignore")
            values = torch.tensor([1.0, value])
            return {"w": torch.quantize_per_tensor(values, 0.1, 0, torch.qint8)}

    assert said(quantized(2.0), quantized(3.0)) == whole("""
        differs between ranks: w (a dict of tensors)

          w  differs: rank 1 from rank 0
        """)
