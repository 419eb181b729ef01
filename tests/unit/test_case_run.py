"""A run of a declared model: what it builds and gives to the checks, and what it keeps alive."""

from __future__ import annotations

import gc
import inspect
import random
import re
import subprocess
import sys
import typing
import weakref
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase, NothingToCheck
from pytest_paramcheck.model_checks.builds import another, fresh, in_use
from pytest_paramcheck.model_checks.outputs import projection
from pytest_paramcheck.model_checks.run import CaseRun, LatestRun

from .messages import usage


def make() -> nn.Module:
    return nn.Linear(3, 2)


# -- building -----------------------------------------------------------------------------------


def test_every_build_is_a_new_instance_from_the_same_seed() -> None:
    run = CaseRun(ModelCase(make), seed=3)
    before = torch.get_rng_state(), random.getstate()

    first, second, other = run.model, run.build(), run.build(seed=4)

    assert first is run.model
    assert first is not second
    assert torch.equal(first.weight, second.weight)  # type: ignore[arg-type]
    assert not torch.equal(first.weight, other.weight)  # type: ignore[arg-type]
    assert torch.equal(torch.get_rng_state(), before[0])
    assert random.getstate() == before[1]


def test_what_was_only_looked_at_is_handed_out_once() -> None:
    built: list[nn.Module] = []

    def build() -> nn.Module:
        built.append(nn.Linear(3, 2))
        return built[-1]

    run = CaseRun(ModelCase(build))
    seen = another(run)
    assert another(run) is seen is not run.model
    assert run.build() is not seen  # who asks for a build sees the factory run
    assert fresh(run) is seen
    assert fresh(run) is not seen
    assert len(built) == 4
    assert all(torch.equal(one.weight, seen.weight) for one in built)  # type: ignore[arg-type]


def test_the_random_states_are_put_back_where_the_factory_raises() -> None:
    def factory() -> nn.Module:
        torch.rand(3)
        raise ZeroDivisionError("mine")

    state = torch.get_rng_state()
    with pytest.raises(ZeroDivisionError, match="mine"):
        CaseRun(ModelCase(factory)).build()

    assert torch.equal(torch.get_rng_state(), state)


def test_a_factory_that_builds_no_module() -> None:
    assert (
        usage(CaseRun(ModelCase(dict)).build) == "the factory of dict returned dict, no nn.Module"
    )


def test_a_factory_that_hands_out_one_model() -> None:
    model = make()
    run = CaseRun(ModelCase(lambda: model, name="one"))
    run.build()  # held by the factory, and by nobody here

    assert usage(run.build) == (
        "the factory of one returned the same object twice: it has to build a new model at each "
        "call"
    )


def test_a_factory_whose_models_share_what_trains() -> None:
    backbone = make()
    run = CaseRun(ModelCase(lambda: nn.Sequential(backbone, nn.Linear(2, 2)), name="shared"))
    assert run.model is not None

    with pytest.raises(NothingToCheck) as nothing:
        run.build()
    assert str(nothing.value) == (
        "two models built one after the other share 0.weight, 0.bias: check_built_anew says so"
    )


def test_models_may_share_what_is_frozen() -> None:
    backbone = make().requires_grad_(False)
    run = CaseRun(ModelCase(lambda: nn.Sequential(backbone, nn.Linear(2, 2))))

    assert run.model is not run.build()


# -- inputs -------------------------------------------------------------------------------------


class Echo(nn.Module):
    def forward(self, *args: object, **kwargs: object) -> tuple[object, ...]:
        return (*args, *sorted(kwargs.items()))


class Pair(NamedTuple):
    left: Tensor
    right: int


def given(inputs: Any) -> Any:
    return CaseRun(ModelCase(Echo, inputs=inputs)).forward(Echo())


def test_how_inputs_are_passed() -> None:
    x = torch.tensor([1.0])

    assert given(x) == (x,)
    assert given((x, 2)) == (x, 2)
    assert given([x, None]) == (x, None)
    assert given({"b": 1, "a": x}) == (("a", x), ("b", 1))
    assert given(lambda: (x, 3)) == (x, 3)
    assert given(({"a": [x, (2,)]},)) == ({"a": [x, (2,)]},)


def test_a_named_tuple_is_one_argument() -> None:
    pair = Pair(torch.tensor([1.0]), 2)
    packed = nn.utils.rnn.pack_sequence([torch.ones(2, 1), torch.ones(1, 1)])

    (kept,) = given(pair)
    assert isinstance(kept, Pair)
    assert kept == pair
    (sequence,) = given(packed)
    assert isinstance(sequence, nn.utils.rnn.PackedSequence)
    assert torch.equal(sequence.batch_sizes, packed.batch_sizes)


def test_inputs_move_to_the_device_of_the_run() -> None:
    inputs = {"a": torch.ones(2), "b": [torch.zeros(1, dtype=torch.int64), "text"]}
    with torch.device("meta"):
        moved = CaseRun(ModelCase(Echo, inputs=inputs)).inputs

    assert moved["a"].device.type == "meta"
    assert (moved["b"][0].device.type, moved["b"][0].dtype) == ("meta", torch.int64)
    assert moved["b"][1] == "text"
    assert inputs["a"].device.type == "cpu"


def test_float32_follows_the_default_dtype_and_nothing_else_does() -> None:
    case = ModelCase(Echo, inputs=(torch.ones(1), torch.ones(1, dtype=torch.float16), 1))
    torch.set_default_dtype(torch.float64)
    try:
        first, second, third = CaseRun(case).inputs
    finally:
        torch.set_default_dtype(torch.float32)

    assert (first.dtype, second.dtype, third) == (torch.float64, torch.float16, 1)


def test_a_forward_that_writes_into_its_inputs_meets_fresh_ones() -> None:
    x = torch.tensor([-1.0])
    case = ModelCase(lambda: nn.ReLU(inplace=True), inputs=x)
    run = CaseRun(case)

    assert run.forward(nn.ReLU(inplace=True)).tolist() == [0.0]
    assert run.inputs.tolist() == [-1.0]
    assert x.tolist() == [-1.0]


def test_inputs_that_are_drawn_are_the_same_in_every_run() -> None:
    case = ModelCase(Echo, inputs=lambda: torch.rand(3))
    state = torch.get_rng_state()

    assert torch.equal(CaseRun(case).inputs, CaseRun(case).inputs)
    assert not torch.equal(CaseRun(case).inputs, CaseRun(case, seed=1).inputs)
    assert torch.equal(torch.get_rng_state(), state)


# -- the loss -----------------------------------------------------------------------------------


def reached(model: nn.Module, output: Any) -> bool:
    projection(output).backward()  # type: ignore[no-untyped-call]
    return all(p.grad is not None and bool(p.grad.abs().max() > 1e-6) for p in model.parameters())


@pytest.mark.parametrize("last", [nn.Softmax(-1), nn.LogSoftmax(-1), nn.LayerNorm(4)])
def test_the_projection_sees_through_what_a_sum_does_not(last: nn.Module) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)
    x = torch.randn(2, 3)

    last(model(x)).sum().backward()
    summed = float(model.weight.grad.abs().max())  # type: ignore[union-attr]
    model.zero_grad()

    assert reached(model, last(model(x)))
    if not isinstance(last, nn.LogSoftmax):
        assert summed < 1e-5  # or this test would show nothing


@pytest.mark.parametrize(
    "wrap",
    [
        lambda y: {"logits": y, "n": 3},
        lambda y: [None, (y,)],
        lambda y: Pair(y, 3),
        lambda y: torch.complex(y, y),
        lambda y: (y.argmax(), y.detach(), y),
        lambda y: torch.distributions.Categorical(logits=y),
        lambda y: SimpleNamespace(batch=SimpleNamespace(x=y)),
    ],
)
def test_the_projection_finds_the_tensors_of_an_output(wrap: Callable[[Tensor], Any]) -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 4)

    assert reached(model, wrap(model(torch.randn(2, 3))))


def test_the_projection_takes_no_parameters_of_what_an_output_holds() -> None:
    model = nn.Linear(3, 4)
    output = [model, nn.Linear, torch, SimpleNamespace(owner=model, y=torch.ones(1))]

    assert not projection(output).requires_grad


def test_the_projection_draws_nothing_and_ignores_the_default_device() -> None:
    output = torch.ones(3, requires_grad=True)
    state = torch.get_rng_state()
    first = projection(output)
    with torch.device("meta"):
        second = projection(output)

    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_output_that_contains_itself() -> None:
    loop: list[Any] = [torch.ones(1, requires_grad=True)]
    loop.append(loop)

    assert projection(loop).requires_grad


def test_an_output_without_a_floating_tensor_is_nothing_to_check() -> None:
    with pytest.raises(NothingToCheck) as nothing:
        projection({"labels": torch.tensor([1])})

    assert str(nothing.value) == (
        "the output has no floating tensor to take a loss of; declare a loss"
    )


def test_a_loss_takes_the_output_or_without_inputs_the_model() -> None:
    model = make()
    by_output = CaseRun(ModelCase(make, inputs=torch.ones(1, 3), loss=lambda out: out.sum()))
    by_model = CaseRun(ModelCase(make, loss=lambda model: model.weight.sum()))

    assert torch.equal(by_output.loss(model), model(torch.ones(1, 3)).sum())
    assert torch.equal(by_model.loss(model), model.weight.sum())  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("loss", "text"),
    [
        (lambda out: None, "the loss of lm returned NoneType, no scalar tensor"),
        (lambda out: 0.5, "the loss of lm returned float, no scalar tensor"),
        (
            lambda out: out,
            "the loss of lm returned a tensor of shape (1, 2), no scalar: reduce it with .mean() "
            "or .sum()",
        ),
    ],
)
def test_what_is_no_loss(loss: Callable[[Any], Any], text: str) -> None:
    run = CaseRun(ModelCase(make, inputs=torch.ones(1, 3), loss=loss, name="lm"))

    assert usage(run.loss, make()) == text


# -- optimizers ---------------------------------------------------------------------------------


def optimizers(optimizer: Any, model: nn.Module) -> list[Any]:
    return CaseRun(ModelCase(make, optimizer=optimizer, name="lm")).optimizers(model)


def held(optimizer: torch.optim.Optimizer) -> list[int]:
    return [id(p) for group in optimizer.param_groups for p in group["params"]]


def test_an_optimizer_class_gets_what_trains_and_a_function_the_model() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2).requires_grad_(False))
    (sgd,) = optimizers(torch.optim.SGD, model)
    both = optimizers(
        lambda m: [torch.optim.SGD(m[0].parameters()), torch.optim.Adam(m[1].parameters())], model
    )

    assert held(sgd) == [id(p) for p in model[0].parameters()]
    assert [type(o).__name__ for o in both] == ["SGD", "Adam"]


def test_the_optimizer_that_stands_in_takes_sparse_gradients_apart() -> None:
    model = nn.Sequential(nn.Embedding(4, 2, sparse=True), nn.Linear(2, 2))
    adamax, adagrad = optimizers(None, model)

    assert [type(o).__name__ for o in (adamax, adagrad)] == ["Adamax", "Adagrad"]
    assert held(adagrad) == [id(model[0].weight)]
    assert held(adamax) == [id(model[1].weight), id(model[1].bias)]
    assert optimizers(None, nn.ReLU()) == []


@pytest.mark.parametrize("size", [1.0, 1e-6, 1e-17, 1e-30])
@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.complex64]
)
def test_a_step_of_what_stands_in_has_one_size_and_makes_no_nan(
    dtype: torch.dtype, size: float
) -> None:
    weight = nn.Parameter(torch.zeros(2, dtype=dtype))
    model = nn.ParameterList([weight])
    (adamax,) = optimizers(None, model)
    weight.grad = torch.tensor([size, 0.0], dtype=dtype)
    vanishes = not weight.grad[0]  # below what the type holds
    adamax.step()

    moved = weight.detach().abs().tolist()
    assert moved[0] == pytest.approx(0.0 if vanishes else 0.01, rel=0.6)
    assert moved[1] == 0.0


def test_what_is_no_optimizer() -> None:
    assert (
        usage(optimizers, lambda model: model, make())
        == "the optimizer of lm returned Linear, no optimizer or list of them"
    )


# -- what a check of a user's own sees ----------------------------------------------------------


def test_every_member_is_documented_and_its_type_hints_can_be_read() -> None:
    members = {name for name in dir(CaseRun(ModelCase(make))) if not name.startswith("_")}
    documented = set(re.findall(r"^\* ``(\w+)", inspect.getdoc(CaseRun) or "", re.MULTILINE))

    assert documented == members - {"case"}  # the name that declared had before
    for name in ("build", "forward", "loss", "optimizers"):
        assert "return" in typing.get_type_hints(getattr(CaseRun, name))


# -- what is kept alive -------------------------------------------------------------------------


def test_what_a_case_is_declared_with_loads_no_torch() -> None:
    """What stands for torch's names at run time is not torch: a collection would pay for it."""
    program = """
import sys
from pytest_paramcheck import CaseRun, ModelCase, NothingToCheck
ModelCase(lambda: None)
print([name for name in ("torch", "pytest", "numpy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "[]\n", done.stderr


def test_checks_of_a_case_share_a_model_and_the_next_case_frees_it() -> None:
    latest, one, two = LatestRun(), ModelCase(make, name="one"), ModelCase(make, name="two")
    first = latest.get(one, 0)
    model = weakref.ref(first.model)

    assert latest.get(one, 0) is first
    del first
    other = latest.get(two, 0)
    gc.collect()

    assert other.declared is other.case is two
    assert model() is None


def test_another_device_or_dtype_is_another_run() -> None:
    latest, case = LatestRun(), ModelCase(make)
    on_cpu = latest.get(case, 0)
    with torch.device("meta"):
        on_meta = latest.get(case, 0)

    assert on_meta is not on_cpu
    assert (on_cpu.device.type, on_meta.device.type) == ("cpu", "meta")


def test_an_instance_whose_values_went_in_a_run_is_given_to_no_other_check() -> None:
    run = CaseRun(ModelCase(lambda: nn.Linear(3, 2)))
    first = run.model
    with in_use(run) as model:
        assert model is first
    assert run.model is first
    with in_use(run) as model:
        model.weight.untyped_storage().resize_(0)
    assert run.model is not first
