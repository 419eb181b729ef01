"""What keeps a tie and what breaks it: the facts that assert_ties_survive stands on."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator

import pytest
import torch
from torch import nn

from pytest_paramcheck import ParamCheckError, ParamCheckUsageError, assert_ties_survive

from ..models import LM
from ..recipes.ties import Untying
from .messages import failure, usage

TOKENS = torch.tensor([1, 2])


class SharedModule(nn.Module):
    """One layer under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.first = self.second = nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.second(self.first(x))


KEEPERS = (
    "deepcopy",
    "pickle",
    "torch.save",
    "load_state_dict",
    "to(float64)",
    "to(torch.bfloat16)",
    "to(cpu)",
    "safetensors",
    "compile",
    "ema",
    "fully_shard",
)
BREAKERS = ("load_state_dict(assign=True)", "to(meta)")


@pytest.mark.parametrize("operation", KEEPERS)
def test_keeps_a_shared_parameter(operation: str) -> None:
    assert_ties_survive(LM(tied=True), operation)


@pytest.mark.parametrize("operation", BREAKERS)
def test_breaks_a_shared_parameter_and_keeps_a_shared_module(operation: str) -> None:
    assert_ties_survive(SharedModule(), operation)
    assert failure(assert_ties_survive, LM(tied=True), operation).splitlines()[0] == (
        f"tie broken by {operation}: emb.weight, head.weight (LM)"
    )


SWAP = "torch.__future__.set_swap_module_params_on_conversion(True)"


@pytest.mark.parametrize(
    ("operation", "built_on", "now"),
    [("to(meta)", "cpu", "meta"), ("to_empty(cpu)", "meta", "cpu")],
)
def test_a_move_that_makes_new_parameters_says_so(operation: str, built_on: str, now: str) -> None:
    with torch.device(built_on):
        model = LM(tied=True)
    with pytest.raises(ParamCheckError) as caught:
        assert_ties_survive(model, operation)
    lines = str(caught.value).splitlines()
    # Two memories that to_empty left as they were may hold the same zeros, or not.
    relation, cause = lines.pop(4).rsplit("; ", 1)
    assert relation.lstrip().startswith(("DISTINCT: ", "EQUAL: "))
    assert cause == f"a move from {built_on} to {now} makes a new Parameter for every name."
    assert lines == [
        f"tie broken by {operation}: emb.weight, head.weight (LM)",
        "",
        f"  emb.weight   Parameter 11x6 float32 {now}",
        f"  head.weight  Parameter 11x6 float32 {now}",
        "",
        f"  hint: call {SWAP} before the move, or tie again after it",
    ]


@pytest.fixture
def moves_swap() -> Iterator[None]:
    """What the hint says."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("moves_swap")
def test_what_the_hint_says_keeps_the_tie() -> None:
    assert_ties_survive(LM(tied=True), "to(meta)")
    with torch.device("meta"):
        model = LM(tied=True)
    assert_ties_survive(model, "to_empty(cpu)")


def test_export_keeps_a_shared_module() -> None:
    assert_ties_survive(SharedModule(), "export", inputs=(torch.ones(1, 4),))


def test_the_usual_operations_are_the_default() -> None:
    assert_ties_survive(LM(tied=True))
    with pytest.raises(ParamCheckError, match="tie broken by deepcopy: emb"):
        assert_ties_survive(Untying(tied=True))


def test_the_first_breaker_of_each_group_is_named() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lm = LM(tied=True)
            self.a = self.b = nn.Linear(2, 2, bias=False)

    def unshare(model: nn.Module) -> None:
        model.b = nn.Linear(2, 2, bias=False)

    assert failure(
        assert_ties_survive, Two(), "load_state_dict(assign=True)", unshare, "to(meta)"
    ).splitlines() == [
        "tie broken by load_state_dict(assign=True): lm.emb.weight and 1 more; "
        "tie broken by unshare (Two)",
        "",
        "  tie broken by load_state_dict(assign=True):",
        "    lm.emb.weight   Parameter 11x6 float32 cpu",
        "    lm.head.weight  Parameter 11x6 float32 cpu",
        "    ALIASED: two tensors on the same memory: each gets part of the gradient, an "
        "optimizer updates the memory twice, and deepcopy() or .to(dtype) separates them; "
        "assign=True puts a tensor of its own under every name.",
        "  tie broken by unshare:",
        "    a.weight  Parameter 2x2 float32 cpu",
        "    b.weight  Parameter 2x2 float32 cpu",
        "    DISTINCT: neither the memory nor the values are shared.",
        "",
        "  hint: tie again after the load, or share the module instead of the Parameter",
        "  hint: tie by assignment: model.b.weight = model.a.weight",
    ]


def test_a_callable_that_loses_the_name() -> None:
    def cut(model: nn.Module) -> None:
        del model.head

    assert failure(assert_ties_survive, LM(tied=True), cut).splitlines() == [
        "tie broken by cut: emb.weight, head.weight (LM)",
        "",
        "  emb.weight, head.weight  head.weight is gone",
    ]


def test_an_operation_s_own_error_comes_through() -> None:
    def fails(model: nn.Module) -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        assert_ties_survive(LM(tied=True), fails)


@pytest.mark.parametrize(
    ("operations", "message"),
    [
        (("export",), "the operation 'export' traces the model: pass example inputs, inputs=(x,)"),
        (("deep_copy",), "no operation 'deep_copy'; did you mean 'deepcopy'?"),
        (
            ("onnx",),
            "no operation 'onnx'; there are 'deepcopy', 'pickle', 'torch.save', "
            "'load_state_dict', 'load_state_dict(assign=True)', 'safetensors', 'compile', 'ema', "
            "'fully_shard', 'export', 'to(float64)', 'to(cuda)' and 'to_empty(cpu)'",
        ),
        ((3,), "an operation is a name or a callable, not int 3"),
        (
            (lambda model: 3,),
            "operation 'a lambda' returned int: an operation returns a module, or None where it "
            "works in place",
        ),
    ],
)
def test_usage(operations: tuple[object, ...], message: str) -> None:
    assert usage(assert_ties_survive, LM(tied=True), *operations) == message


def test_a_model_without_ties() -> None:
    assert (
        usage(assert_ties_survive, LM(tied=False), "deepcopy")
        == "LM has no ties: there is nothing that could survive"
    )


def test_a_state_dict_is_no_model() -> None:
    assert (
        usage(assert_ties_survive, LM(tied=True).state_dict(), "deepcopy")
        == "operations are done to a model, not to an OrderedDict"
    )


def test_a_model_that_cannot_be_copied() -> None:
    model = LM(tied=True)
    model.cache = model.emb.weight * 2  # not a leaf: deepcopy refuses
    with pytest.raises(ParamCheckUsageError, match="LM cannot be copied, so nothing can be done"):
        assert_ties_survive(model, "deepcopy")


def test_a_model_that_only_deepcopy_cannot_copy_is_copied_for_the_rest() -> None:
    model = LM(tied=True)
    model.cache = [model.emb.weight * 2]
    graph = model.cache[0].grad_fn

    assert_ties_survive(model, "load_state_dict", "ema", "to(float64)")

    assert model.cache[0].grad_fn is graph


def test_a_copy_that_shares_memory_is_left_alone() -> None:
    class Shares(LM):
        def __deepcopy__(self, memo: object) -> LM:
            return self

    model = Shares(tied=True)
    assert usage(assert_ties_survive, model, "to(float64)") == (
        "a deep copy of Shares shares memory with it (emb.weight): what is done to the copy would "
        "be done to the model; let its __deepcopy__ copy them"
    )
    assert model.emb.weight.dtype == torch.float32


def test_safetensors_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "safetensors.torch", None)
    assert usage(assert_ties_survive, LM(tied=True), "safetensors") == (
        "this needs safetensors, which is not installed: "
        "pip install 'pytest-paramcheck[safetensors]'"
    )


@pytest.mark.parametrize("how", [torch.jit.script, lambda m: torch.jit.trace(m, TOKENS)])
def test_what_torch_can_do_to_a_scripted_module(how: Callable[[nn.Module], nn.Module]) -> None:
    """It is not pickled: pickle and torch.save are left out of what is usual."""
    assert_ties_survive(how(LM(tied=True)))
    assert_ties_survive(nn.Sequential(how(LM(tied=True))))
    with pytest.raises(RuntimeError, match="serialize"):
        assert_ties_survive(how(LM(tied=True)), "pickle")
