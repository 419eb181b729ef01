"""Parts: some elements of a parameter, in every assertion about values and gradients."""

# ruff: noqa: SIM117 - which block a failure ends is the subject here

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_paramcheck import (
    ParamCheckError,
    assert_changed,
    assert_devices,
    assert_distinct,
    assert_finite,
    assert_frozen,
    assert_grad_norm,
    assert_grads_finite,
    assert_grads_none,
    assert_grads_present,
    assert_grads_reach,
    assert_same_values,
    assert_shapes,
    assert_tied,
    assert_ties,
    assert_unchanged,
    assert_updated,
    assert_values,
    part,
    values,
)
from pytest_paramcheck.parameters.subject.elements import elements, rest_of, with_part
from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.subject.select import select

from ..models import LM
from .messages import failure, failure_lines, usage, whole

MASK = torch.tril(torch.ones(4, 4, dtype=torch.bool))


def table(rows: int = 6, width: int = 4) -> nn.Embedding:
    """An embedding with the numbers 0, 1, ... as values."""
    model = nn.Embedding(rows, width)
    with torch.no_grad():
        model.weight.copy_(torch.arange(rows * width).view(rows, width))
    return model


def first_rows(model: nn.Module) -> Tensor:
    return model(torch.arange(3)).sum()


# --- what an index selects -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("index", "shown", "expected"),
    [
        (slice(4, None), "[4:]", [16, 17, 18, 19, 20, 21, 22, 23]),
        (slice(None, None, 3), "[::3]", [0, 1, 2, 3, 12, 13, 14, 15]),
        (5, "[5]", [20, 21, 22, 23]),
        ((slice(None), 0), "[:, 0]", [0, 4, 8, 12, 16, 20]),
        ((..., 0), "[..., 0]", [0, 4, 8, 12, 16, 20]),
        ((1, 2), "[1, 2]", [6]),
        ([0, 5], "[[0, 5]]", [0, 1, 2, 3, 20, 21, 22, 23]),
        ([False] * 5 + [True], "[mask of 1]", [20, 21, 22, 23]),
        ([[True] + [False] * 3] * 2 + [[False] * 4] * 4, "[mask of 2]", [0, 4]),
        ([0, 1, 2, 3, 5], "[5 places]", [*range(16), 20, 21, 22, 23]),
        (range(2), "[2 places]", [0, 1, 2, 3, 4, 5, 6, 7]),
        (torch.tensor([5, 5]), "[[5, 5]]", [20, 21, 22, 23, 20, 21, 22, 23]),
        (np.array([5]), "[[5]]", [20, 21, 22, 23]),
        (np.int64(5), "[5]", [20, 21, 22, 23]),
        ((np.int32(-1), np.array(2)), "[-1, 2]", [22]),
        (torch.arange(6) > 4, "[mask of 1]", [20, 21, 22, 23]),
        (torch.arange(24).view(6, 4) > 21, "[mask of 2]", [22, 23]),
        ((slice(None), torch.tensor([True, False, False, False])), "[:, mask of 1]",
         [0, 4, 8, 12, 16, 20]),
    ],
)  # fmt: skip
def test_an_index_is_that_of_the_tensor(index: Any, shown: str, expected: list[int]) -> None:
    [entry] = select(take_inventory(table()), [part("weight", index)], parts=True)

    assert entry.names == [f"weight{shown}"]
    found = elements(entry)
    assert found is not None
    assert found.reshape(-1).tolist() == expected
    assert not found.requires_grad


@pytest.mark.parametrize(
    ("index", "message"),
    [
        (MASK, "part: weight[mask of 10] does not fit 6x4: The shape of the mask [4, 4] at index "
               "0 does not match the shape of the indexed tensor [6, 4] at index 0"),
        (6, "part: weight[6] does not fit 6x4: index 6 is out of bounds for dimension 0 with size "
            "6"),
        ((0, 0, 0), "part: weight[0, 0, 0] does not fit 6x4: too many indices for tensor of "
                    "dimension 2"),
        (slice(6, None), "part: weight[6:] of 6x4 selects nothing"),
        ([], "part: weight[[]] of 6x4 selects nothing"),
        (torch.zeros(6, dtype=torch.bool), "part: weight[mask of 0] of 6x4 selects nothing"),
    ],
)  # fmt: skip
def test_an_index_that_does_not_fit_is_a_wrong_call(index: Any, message: str) -> None:
    for call in (
        lambda: assert_finite(table(), part("weight", index)),
        lambda: assert_unchanged(table(), part("weight", index)).__enter__(),
        lambda: assert_grads_none(table(), part("weight", index)),
        lambda: assert_values(table(), {part("weight", index): values.nonnegative()}),
    ):
        assert usage(call) == message


def test_a_name_may_be_any_pattern_and_any_of_the_names() -> None:
    model = LM()

    for named in ("emb.weight", "head", "*.weight", nn.Linear):
        [entry] = select(take_inventory(model), [part(named, slice(2))], parts=True)
        assert entry.names == ["emb.weight[:2]", "head.weight[:2]"]
    assert usage(assert_finite, model, part("embed.weight", 0)) == (
        "pattern 'embed.weight' matches nothing in LM; did you mean 'emb.weight' or 'head.weight'?"
    )
    assert usage(part, part("emb", 0), 0) == "part: a part of a part is none: give one index"


@pytest.mark.parametrize(
    "call",
    [
        lambda model, some: assert_shapes(model, {some: (4,)}),
        lambda model, some: assert_frozen(model, some),
        lambda model, some: assert_frozen(model, exactly=[some]),
        lambda model, some: assert_devices(model, {some: "cpu"}),
        lambda model, some: assert_distinct(model, some),
        lambda model, some: assert_tied(model, some, "weight"),
        lambda model, some: assert_ties(model, [[some, "weight"]]),
    ],
)
def test_whole_parameters_are_no_parts(call: Callable[[Any, Any], object]) -> None:
    assert usage(call, table(), part("weight", 0)) == (
        "part('weight', [0]) is some elements of an entry, and this asks about whole ones"
    )


def test_a_part_is_hashable_whatever_its_index() -> None:
    one, other = part("weight", slice(0, 2)), part("weight", slice(0, 2))

    assert len({one: 1, other: 2}) == 2


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_a_part_and_the_rest_are_the_whole(data: st.DataObject) -> None:
    """Against a set of flat places: nothing is in two of them, nothing in none."""
    shape = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3).map(tuple))
    count = int(np.prod(shape))
    tensor = torch.arange(float(count)).view(shape)
    marks = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    mask = torch.tensor(marks).view(shape)
    if not mask.any():
        mask.view(-1)[0] = True
    [entry] = take_inventory({"a": tensor}).entries
    one = part("a", mask)

    chosen = set(elements(with_part(entry, one)).reshape(-1).tolist())  # type: ignore[union-attr]
    rest = rest_of(entry, [one])
    others = set() if rest is None else set(rest.of(tensor, "a").reshape(-1).tolist())

    assert chosen == set(tensor[mask].tolist())
    assert chosen | others == set(range(count))
    assert not chosen & others


# --- values ----------------------------------------------------------------------------------


def test_finite_elements() -> None:
    model = table()
    with torch.no_grad():
        model.weight[5, 1] = float("nan")

    assert_finite(model, part("weight", slice(5)))
    assert failure_lines(assert_finite, model, part("weight", slice(4, None))) == [
        "not finite: weight[4:] (Embedding)",
        "",
        "  weight[4:]  1 of 8 values: 1 NaN, first at [1, 1]",
    ]


def test_same_elements() -> None:
    model, other = table(), table()
    with torch.no_grad():
        other.weight[0] += 1

    assert_same_values(model, other, part("weight", slice(1, None)))
    assert failure(assert_same_values, model, other, part("weight", [0, 1])) == whole("""
        different values: weight[[0, 1]] (Embedding)

          weight[[0, 1]]  4 of 8 values: max abs 1 at [0, 0], max rel 1""")


def test_a_later_part_takes_its_elements_away() -> None:
    model = table()  # row 0 is 0..3, the others are above 3
    assert_values(model, {"*": values.between(4, 23), part("weight", 0): values.between(0, 3)})
    assert_values(
        model,
        {
            "*": values.positive(),
            part("weight", slice(0, 2)): values.between(4, 7),
            part("weight", 0): values.between(0, 3),
        },
    )

    message = failure(
        assert_values, model, {"*": values.between(5, 23), part("weight", 0): values.positive()}
    )

    assert message == whole("""
        outside [5, 23]: weight[the rest]; not positive: weight[0] (Embedding)

          outside [5, 23]:
            weight[the rest]  expected between(5, 23), found 1 of 20 values, worst 4 at [0, 0]
          not positive:
            weight[0]  expected positive(), found 1 of 4 values, worst 0 at [0]""")


def test_who_decides_nothing_is_a_wrong_call() -> None:
    low = values.between(0, 30)

    assert usage(assert_values, table(), {part("weight", 0): low, "*": low}) == (
        "pattern part('weight', [0]) has no effect: the later pattern '*' overrides it; "
        "put the general pattern first"
    )
    assert usage(assert_values, table(), {"*": low, part("weight", slice(None)): low}) == (
        "pattern '*' has no effect: the later pattern part('weight', [:]) overrides it; "
        "put the general pattern first"
    )


# --- gradients -------------------------------------------------------------------------------


def test_gradients_of_elements() -> None:
    model = table()
    assert_grads_none(model, part("weight", 0))
    first_rows(model).backward()
    used, unused = part("weight", slice(3)), part("weight", slice(3, None))

    assert_grads_present(model, used)
    assert_grads_present(model, unused, allow_zero=True)
    assert_grads_none(model, unused, allow_zero=True)
    assert_grads_finite(model, used)
    assert_grad_norm(model, unused, at_most=0)
    assert_grad_norm(model, used, at_least=3.46, at_most=3.47)
    assert failure_lines(assert_grads_present, model, used, unused)[0] == (
        "zero gradient: weight[3:] (Embedding)"
    )


def test_reached_elements() -> None:
    model = table()
    used, unused = part("weight", slice(3)), part("weight", slice(3, None))

    assert_grads_reach(model, first_rows, used)
    assert_grads_reach(model, first_rows, exactly=[used])
    assert failure(assert_grads_reach, model, first_rows, unused) == whole("""
        zero gradient: weight[3:] (Embedding)

          weight[3:]  gradient is all zero here; other elements of it got one

          hint: allow_zero=True asks only whether a gradient arrives""")
    assert failure(
        assert_grads_reach, model, first_rows, exactly=[part("weight", [0, 1])]
    ) == whole("""
        reached, but not listed: weight[the rest] (Embedding)

          weight[the rest]

          hint: if this is intended, list it in exactly=""")


def test_a_sparse_gradient_is_read_by_the_rows_of_the_whole() -> None:
    model = nn.Embedding(6, 4, sparse=True)

    assert_grads_reach(model, first_rows, exactly=[part("weight", slice(3))])


# --- blocks ----------------------------------------------------------------------------------


def train(model: nn.Module, *, decay: float = 0.0, rows: int = 3) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=decay)
    model(torch.arange(rows)).square().sum().backward()
    optimizer.step()
    optimizer.zero_grad()


def test_a_part_stays_while_the_rest_moves() -> None:
    model = table()

    with (
        assert_unchanged(model, part("weight", slice(3, None))),
        assert_changed(model, part("weight", (0, 1))),
        assert_updated(model, part("weight", [1, 2])),
    ):
        train(model)


@pytest.mark.parametrize("index", [slice(3, None), [3, 4, 5], torch.arange(6) > 2])
def test_weight_decay_moves_rows_without_a_gradient(index: Any) -> None:
    """What a look at the whole gradient would take for an update."""
    model = table()
    unused = part("weight", index)
    shown = f"weight{unused.text}"

    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, unused):
        train(model, decay=0.1)
    [finding] = caught.value.findings
    assert (finding.names, finding.problem) == ((shown,), "values changed")
    assert finding.found.endswith(
        "AdamW moved it by weight decay 0.1 only, its gradient was all zero"
    )
    assert finding.hint == (
        "write them back after AdamW stepped: their zero gradient does not stop it"
    )
    with pytest.raises(ParamCheckError) as caught, assert_updated(model, unused):
        train(model, decay=0.1)
    assert str(caught.value).startswith(f"changed without a gradient: {shown} (Embedding)\n")
    with pytest.raises(ParamCheckError) as caught, assert_updated(model, unused):
        train(model)
    assert str(caught.value) == (
        f"not updated: {shown} (Embedding)\n\n  {shown}  its gradient was all zero"
    )


def test_a_mask_has_to_stay_zero() -> None:
    """Pruning: a masked gradient keeps the masked weights, but for the sign of zero."""
    torch.manual_seed(0)
    model = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        model.weight.mul_(MASK)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(*, masked: bool) -> None:
        model(torch.randn(3, 4)).square().sum().backward()
        if masked:
            model.weight.grad.mul_(MASK)
        optimizer.step()
        optimizer.zero_grad()

    with (
        assert_unchanged(model, part("weight", ~MASK), atol=1e-12),
        assert_updated(model, part("weight", MASK)),
    ):
        step(masked=True)
    with torch.no_grad():
        model.weight.copy_(torch.where(MASK, model.weight, -0.0))
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, part("weight", ~MASK)):
        step(masked=True)
    assert "values changed, only the sign of zero; SGD stepped it with a gradient of all zero" in (
        " ".join(str(caught.value).split())
    )
    assert "hint: bits differ where 0.0 became -0.0: with atol=1e-12 numbers are compared" in (
        str(caught.value)
    )
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, part("weight", ~MASK)):
        step(masked=False)
    assert "hint: set their gradient to zero before SGD steps" in str(caught.value)


def test_a_part_of_another_shape_afterwards() -> None:
    model = table()

    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model, part("weight", 5)):
        model.weight = nn.Parameter(torch.zeros(2, 4))
    assert [finding.problem for finding in caught.value.findings] == ["values changed", "replaced"]


def test_buffers_have_parts() -> None:
    model = nn.BatchNorm1d(4)

    with assert_unchanged(model, part("running_mean", slice(2))):
        model.running_mean[2:] += 1
    with pytest.raises(ParamCheckError) as caught:
        with assert_unchanged(model, part("running_mean", slice(2)), only="values"):
            model(torch.randn(3, 4))
    assert "BatchNorm1d in train mode updates it in every forward" in str(caught.value)


def test_a_tied_parameter_is_named_by_both_names() -> None:
    model = LM()

    with pytest.raises(ParamCheckError) as caught:
        with assert_unchanged(model, part("head.weight", 0)), torch.no_grad():
            model.emb.weight[0] += 1
    assert caught.value.findings[0].names == ("emb.weight[0]", "head.weight[0]")


def test_an_index_without_values() -> None:
    """On meta a mask is made as it is on any device, and says nothing."""
    mask = torch.ones(2, 3, dtype=torch.bool, device="meta")
    assert usage(part, "weight", mask) == (
        "part: the index is on meta, where tensors have no values: nothing says what it selects"
    )
    assert usage(part, "weight", (0, mask[0]))


def test_a_part_of_what_has_no_values_yet_is_not_read_to_be_selected() -> None:
    subject = take_inventory({"w": nn.UninitializedParameter()})
    [one] = select(subject, [part("w", torch.tensor([True, False]))], parts=True)
    assert one.part is not None
