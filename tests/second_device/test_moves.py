"""Models that are moved, spread over devices, or read on several of them at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    CHECKS,
    ModelCase,
    ParamCheckError,
    assert_changed,
    assert_devices,
    assert_finite,
    assert_grad_norm,
    assert_grads_finite,
    assert_grads_none,
    assert_grads_present,
    assert_grads_reach,
    assert_materialized,
    assert_optimizer_covers,
    assert_optimizer_state,
    assert_roundtrip,
    assert_same_values,
    assert_tied,
    assert_ties_survive,
    assert_unchanged,
    assert_untied,
    assert_updated,
    param_table,
)
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from ..models import LM
from .here import HERE

TWIN: Any = torch.twin  # type: ignore[attr-defined]


class Spread(nn.Module):
    """One layer on the cpu and one on each index, and activations that travel."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 4, device="cpu")
        self.second = nn.Linear(4, 4, device="twin:0")
        self.third = nn.Linear(4, 2, device=HERE)
        self.third.register_buffer("scale", torch.ones(2, device=HERE))

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(x.to("cpu")).to("twin:0"))
        return self.third(x.to(HERE)) * self.third.scale


def loss(model: nn.Module) -> Tensor:
    return model(torch.ones(2, 3, device="cpu")).square().mean()


# -- moves -----------------------------------------------------------------------------------

SWAP = "torch.__future__.set_swap_module_params_on_conversion(True)"
#: Operations that move between kinds of device, for a model on the cpu and one on this device.
FROM_CPU = ("to(twin:1)", "to_empty(twin:1)")
FROM_HERE = ("to(cpu)", "to_empty(cpu)")


@pytest.fixture
def moves_swap() -> Iterator[None]:
    """What the hint says."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


def on(device: torch.device | str, factory: Callable[[], nn.Module]) -> nn.Module:
    with torch.device(device):
        return factory()


@pytest.mark.parametrize(
    ("built_on", "operation"),
    [*(("cpu", name) for name in FROM_CPU), *(("twin:1", name) for name in FROM_HERE)],
)
def test_a_tie_breaks_between_the_cpu_and_this_kind_of_device(
    built_on: str, operation: str
) -> None:
    model = on(built_on, lambda: LM(tied=True))
    here, there = built_on.partition(":")[0], operation.partition("(")[2].strip("):10")
    with pytest.raises(ParamCheckError) as caught:
        assert_ties_survive(model, operation)
    lines = str(caught.value).splitlines()
    assert lines[0] == f"tie broken by {operation}: emb.weight, head.weight (LM)"
    assert lines[4].endswith(
        f"; a move from {here} to {there} makes a new Parameter for every name."
    )
    assert lines[5:] == ["", f"  hint: call {SWAP} before the move, or tie again after it"]


@pytest.mark.usefixtures("moves_swap")
def test_what_the_hint_says_keeps_the_tie() -> None:
    assert_ties_survive(on("cpu", lambda: LM(tied=True)), *FROM_CPU)
    assert_ties_survive(on(HERE, lambda: LM(tied=True)), *FROM_HERE)


def test_what_keeps_ties_here() -> None:
    model = on(HERE, lambda: LM(tied=True))
    assert_ties_survive(model)
    assert_ties_survive(model, "to(twin:0)", "to_empty(twin:0)", "to(bfloat16)", "to(twin:1)")
    shared = on("cpu", lambda: nn.Sequential(*[nn.Linear(2, 2)] * 2))
    assert_ties_survive(shared, *FROM_CPU)


@pytest.mark.parametrize("built_on", ["cpu", "twin:1"])
def test_the_whole_model_check_of_moves_names_the_cause(built_on: str) -> None:
    def message(factory: Callable[[], nn.Module]) -> list[str]:
        with pytest.raises(ParamCheckError) as caught, torch.device(built_on):
            run_check(CHECKS["check_device_move"], CaseRun(ModelCase(factory, name="model")))
        return str(caught.value).splitlines()

    here, there = ("cpu", "twin") if built_on == "cpu" else ("twin", "cpu")
    shown = "twin:0" if there == "twin" else "cpu"
    assert message(lambda: LM(tied=True)) == [
        "tie lost: emb.weight, head.weight (model)",
        "",
        f"  emb.weight   Parameter 11x6 float32 {shown}",
        f"  head.weight  Parameter 11x6 float32 {shown}",
        "  EQUAL: the values are equal but the memory is not shared: they will diverge at the "
        f"first optimizer step; a move from {here} to {there} makes a new Parameter for every "
        "name.",
        "",
        f"  hint: call {SWAP} before the move, or tie again after it",
    ]
    lazy = (
        f"a move from {here} to {there} makes a Parameter without elements of an uninitialized one"
    )
    assert message(lambda: nn.LazyLinear(3)) == [
        "no longer lazy: weight, bias (model)",
        "",
        f"  weight  {lazy}",
        f"  bias    {lazy}",
        "",
        "  hint: move the model after its first forward, or build it on the device",
    ]


@pytest.mark.usefixtures("moves_swap")
def test_the_whole_model_check_passes_with_what_its_hint_says() -> None:
    for device in ("cpu", HERE):
        with torch.device(device):
            run_check(
                CHECKS["check_device_move"], CaseRun(ModelCase(lambda: LM(tied=True), name="model"))
            )


# -- where things are ------------------------------------------------------------------------


def test_devices_of_a_model_on_one_and_on_several() -> None:
    assert_devices(nn.Linear(2, 2, device=HERE), HERE)
    assert_devices(nn.Linear(2, 2, device=HERE), "twin:1")
    with pytest.raises(ParamCheckError) as caught:
        assert_devices(Spread(), HERE)
    assert str(caught.value).splitlines() == [
        "wrong device: first.weight, first.bias, second.weight, second.bias (Spread)",
        "",
        "  first.weight   expected twin:1, found cpu",
        "  first.bias     expected twin:1, found cpu",
        "  second.weight  expected twin:1, found twin:0",
        "  second.bias    expected twin:1, found twin:0",
    ]


def test_a_device_without_an_index_is_any_of_them() -> None:
    assert_devices(nn.Linear(2, 2, device="twin:0"), "twin")
    assert_devices(nn.Linear(2, 2, device=HERE), "twin")
    with pytest.raises(ParamCheckError, match=r"wrong device: first\.weight, first\.bias \("):
        assert_devices(Spread(), "twin")


# -- one transfer per device -----------------------------------------------------------------


def transfers(work: Callable[[], object]) -> list[int]:
    """How often the host waited for each index."""
    before = [TWIN.transfers(index) for index in range(2)]
    work()
    return [TWIN.transfers(index) - before[index] for index in range(2)]


@pytest.mark.parametrize(
    "dtypes", [[torch.float32], [torch.float32, torch.float64, torch.bfloat16]]
)
def test_all_finite_waits_once_for_each_device(dtypes: list[torch.dtype]) -> None:
    model = nn.ParameterList(
        nn.Parameter(torch.ones(3, dtype=dtype, device=device))
        for _ in range(20)
        for dtype in dtypes
        for device in ("cpu", "twin:0", HERE)
    )
    assert transfers(lambda: assert_finite(model)) == [1, 1]
    for parameter in model:
        parameter.grad = torch.ones_like(parameter)
    assert transfers(lambda: assert_grads_finite(model)) == [1, 1]


def test_structure_is_read_without_waiting() -> None:
    model = nn.ModuleDict({"a": LM(tied=True), "b": LM(tied=False)}).to("twin:0")
    spread = Spread()

    def structure() -> None:
        assert_materialized(spread)
        assert_untied(spread)
        assert_grads_none(model)
        assert_devices(model, "twin:0")

    assert transfers(structure) == [0, 0]


# -- spread models ---------------------------------------------------------------------------


def test_a_spread_model_is_held_to_what_any_model_is() -> None:
    model = Spread()
    assert_finite(model)
    assert_untied(model)
    assert_grads_none(model)
    assert_grads_reach(model, loss)
    loss(model).backward()
    assert_grads_present(model)
    assert_grads_finite(model)
    assert_grad_norm(model, at_most=100, at_least=1e-9)
    assert_same_values(model, copy.deepcopy(model))
    assert_roundtrip(model)
    assert "twin:1" in param_table(model)


def test_training_a_spread_model() -> None:
    model = Spread()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    assert_optimizer_covers(optimizer, model)
    with assert_updated(model):
        loss(model).backward()
        optimizer.step()
    assert_optimizer_state(optimizer, model)
    with assert_unchanged(model):
        loss(model)
    with pytest.raises(ParamCheckError) as caught, assert_unchanged(model), torch.no_grad():
        model.third.bias[0] += 1
    assert str(caught.value).splitlines()[0] == "values changed: third.bias (Spread)"
    with assert_changed(model, "third.bias"), torch.no_grad():
        model.third.bias[0] += 1


def test_what_is_not_finite_on_each_device_is_found() -> None:
    model = Spread()
    with torch.no_grad():
        for layer in (model.first, model.second, model.third):
            layer.weight[1, 2] = float("nan")
    with pytest.raises(ParamCheckError) as caught:
        assert_finite(model)
    assert [finding.names for finding in caught.value.findings] == [
        ("first.weight",),
        ("second.weight",),
        ("third.weight",),
    ]
    assert {finding.found.partition(":")[0] for finding in caught.value.findings} == {
        "1 of 8 values",
        "1 of 12 values",
        "1 of 16 values",
    }


def test_equal_values_on_two_devices_are_the_same_values_and_not_tied() -> None:
    model = LM(tied=False)
    moved = copy.deepcopy(model).to(HERE)
    assert_same_values(model, moved)
    assert_untied(model, moved)
    with pytest.raises(ParamCheckError):
        assert_tied(emb=model.emb.weight, head=moved.emb.weight)
    with torch.no_grad():
        moved.head.weight[2, 3] += 1
    with pytest.raises(ParamCheckError, match=r"head\.weight"):
        assert_same_values(model, moved)
