"""Why a parameter was not reached: place and cause, each where it was seen and only there."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F  # noqa: N812

from pytest_paramcheck import (
    ModelCase,
    assert_grads_present,
    assert_grads_reach,
    assert_tied_grads_sum,
)
from pytest_paramcheck.model_checks.case import NothingToCheck
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.registry import CHECKS
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import failure, usage, whole

NONFINITE = (
    "NaN and infinity do not say who was reached, because 0 x NaN is NaN: "
    "make the gradients finite first"
)
FIRST_STEP = (
    "expected at the first step of LoRA or zero-initialized branches: "
    "pass the losses of two steps, or allow_zero=True"
)


def batch() -> Tensor:
    return torch.linspace(-1, 1, 12).reshape(4, 3).sin()


def total(model: nn.Module) -> Tensor:
    return model(batch()).sum()


# -- not finite ----------------------------------------------------------------------------


def branches() -> nn.ModuleDict:
    return nn.ModuleDict({"a": nn.Linear(3, 1), "dead": nn.Linear(3, 1)})


def sum_of(model: Any, dead: float = 0.0) -> Tensor:
    return (model["a"](batch()) + dead * model["dead"](batch())).sum()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("options", [{}, {"allow_zero": True}])
def test_a_broken_loss_reaches_nobody(value: float, options: dict[str, Any]) -> None:
    assert failure(assert_grads_reach, branches(), lambda m: sum_of(m) * value, **options) == whole(
        f"""
        gradient not finite: a.weight, a.bias, dead.weight, dead.bias (ModuleDict)

          a.weight     NaN or infinity from the gradient of mul in loss_fn
          a.bias       NaN or infinity from the gradient of mul in loss_fn
          dead.weight  NaN or infinity from the gradient of mul in loss_fn
          dead.bias    NaN or infinity from the gradient of mul in loss_fn

          hint: {NONFINITE}
        """
    )


def test_where_the_gradient_is_no_longer_finite() -> None:
    """The value of the loss is finite: the slope of the square root at zero is not."""

    class Root(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(3, 3, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return x + (self.fc(x) * 0).sqrt()

    model = nn.Sequential(*(Root() for _ in range(3)))
    assert failure(assert_grads_reach, model, total) == whole(
        f"""
        gradient not finite: {{0..2}}.fc.weight (Sequential)

          {{0,1}}.fc.weight  NaN or infinity from the gradient of sqrt in 2 (Root)
          2.fc.weight      NaN or infinity from the gradient of sqrt in its own Root

          hint: {NONFINITE}
        """
    )


def test_of_several_losses_one_that_reaches_is_enough() -> None:
    broken, fine, zero = (
        lambda m: sum_of(m) * float("nan"),
        lambda m: sum_of(m, 1.0),
        lambda m: sum_of(m),
    )
    assert_grads_reach(branches(), [broken, fine])
    assert_grads_reach(branches(), [zero, broken], allow_zero=True)  # zero: reached
    assert failure(assert_grads_reach, branches(), [zero, broken]).splitlines()[0] == (
        "gradient not finite: dead.weight, dead.bias (ModuleDict)"
    )


def test_what_is_not_finite_counts_in_no_share() -> None:
    lines = failure(
        assert_grads_reach, branches(), lambda m: sum_of(m) * float("nan"), at_least={"*": 0.1}
    ).splitlines()
    assert lines[0].startswith("too few with a gradient: a.weight")
    assert lines[-1] == "  expected at least 10% of the 4 parameters of '*', found 0 (0%)"


# -- all-zero factors ------------------------------------------------------------------------


class Scaled(nn.Module):
    """A residual branch that ends in ``last``, whose weight is all zero."""

    def __init__(self, last: nn.Module) -> None:
        super().__init__()
        self.fc = nn.Linear(3, 3, bias=False)
        self.last = last
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.last(self.fc(x) * torch.tensor([1.0, 2.0, -1.0]))


class Functional(nn.Module):
    """torch's own, built-in function in the place of torch.nn.functional's."""

    def __init__(self, call: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(3))
        self.call = call

    def forward(self, x: Tensor) -> Tensor:
        return self.call(x, self.weight)


class Prelu(nn.PReLU):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(-x.abs() - 1)


class PerChannel(nn.InstanceNorm1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.t()[None])[0].t()


class Transposed(nn.ConvTranspose1d):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x[:, None])[:, 0]


SCALES: dict[str, tuple[Callable[[], nn.Module], str]] = {
    "batch": (lambda: nn.BatchNorm1d(3), "batch_norm"),
    "layer": (lambda: nn.LayerNorm(3), "layer_norm"),
    "group": (lambda: nn.GroupNorm(1, 3), "group_norm"),
    "instance": (lambda: PerChannel(3, affine=True), "instance_norm"),
    "rms": (lambda: nn.RMSNorm(3), "rms_norm"),
    "prelu": (Prelu, "prelu"),
    "linear": (lambda: nn.Linear(3, 3), "linear"),
    "conv_transpose": (lambda: Transposed(1, 1, 1), "conv_transpose1d"),
    "gate": (lambda: Functional(lambda x, w: x * w), "mul"),
    "tanh gate": (lambda: Functional(lambda x, w: w.tanh() * x), "mul"),
    "torch.layer_norm": (
        lambda: Functional(lambda x, w: torch.layer_norm(x, (3,), w)),
        "layer_norm",
    ),
    "torch.group_norm": (lambda: Functional(lambda x, w: torch.group_norm(x, 1, w)), "group_norm"),
    "torch.batch_norm": (
        lambda: Functional(
            lambda x, w: torch.batch_norm(x, w, None, None, None, True, 0.1, 1e-5, False)
        ),
        "batch_norm",
    ),
}


@pytest.mark.parametrize("kind", SCALES)
def test_a_zero_scale_is_named_and_rows_of_many_layers_fold(kind: str) -> None:
    make, operation = SCALES[kind]
    model = nn.Sequential(*(Scaled(make()) for _ in range(3)))
    cls = type(model[0].last).__name__
    assert failure(assert_grads_reach, model, total, "*fc*") == whole(
        rf"""
        zero gradient: {{0..2}}.fc.weight (Sequential)

          {{0..2}}.fc.weight  its gradient is zero because its sibling last.weight is all zeros: \
        {operation} in the sibling module last ({cls})

          hint: {FIRST_STEP}
        """
    )
    assert_grads_reach(model, total, "*fc*", allow_zero=True)

    def later(model: nn.Module) -> Tensor:
        scales = {f"{n}.last.weight": torch.full_like(model[n].last.weight, 0.7) for n in range(3)}
        return (torch.func.functional_call(model, scales, batch()) ** 2).sum()

    assert_grads_reach(model, [total, later], "*fc*")  # what the hint says


def test_attention_whose_output_projection_is_zero() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attn = nn.MultiheadAttention(4, 2)
            nn.init.zeros_(self.attn.out_proj.weight)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.attn(x, x, x)[0]

    model = nn.Sequential(Block(), Block())
    lines = failure(
        assert_grads_reach, model, lambda m: m(torch.randn(5, 1, 4)).sum(), "*in_proj_weight"
    ).splitlines()
    assert lines[2] == (
        "  {0,1}.attn.in_proj_weight  its gradient is zero because its out_proj.weight is all "
        "zeros: multi_head_attention_forward in its attn (MultiheadAttention)"
    )


AT_RELU = "its gradient becomes zero at relu"


@pytest.mark.parametrize(
    ("path", "said"),
    [
        # 1 + weight, as some norms scale: the parameter is zero and the factor is not
        (lambda x, w: F.relu(x * (1 + w) - 100), f"{AT_RELU} in the sibling module last"),
        (lambda x, w: F.relu(x * torch.sigmoid(w) - 100), f"{AT_RELU} in the sibling module last"),
        # the weight is added, or is where it decides nothing
        (lambda x, w: F.relu(x + w - 100), f"{AT_RELU} in the sibling module last"),
        (lambda x, w: F.layer_norm(x, (3,), None, w) * 0, "reached, but the other operand"),
    ],
)
def test_a_zero_parameter_that_is_not_the_cause_is_not_blamed(
    path: Callable[[Tensor, Tensor], Tensor], said: str
) -> None:
    model = nn.Sequential(Scaled(Functional(path)))
    text = failure(assert_grads_reach, model, total, "*fc*")
    assert "is all zeros" not in text
    if "operand" not in said:
        assert text.splitlines()[2].startswith(f"  0.fc.weight  {said}")


def test_a_zero_parameter_is_not_the_reason_for_its_own_gradient() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.zeros(3, 3))

        def forward(self, x: Tensor) -> Tensor:
            return x @ self.w

    model = Product()
    assert failure(assert_grads_reach, model, lambda m: m(batch() * 0).sum()).splitlines()[2] == (
        "  w  reached, but the other operand is all zero: matmul in Product"
    )
    lines = failure(assert_grads_reach, model, lambda m: (m.w * m.w).sum()).splitlines()
    assert lines[2] == "  w  its gradient becomes zero at mul in loss_fn"


# -- custom functions ------------------------------------------------------------------------


class Cut(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        return None


class CutBesideSetup(Function):
    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x * 1

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> None:
        return None


class Through(Cut):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return grad


@pytest.mark.parametrize("function", [Cut, CutBesideSetup])
def test_each_call_of_a_custom_function_has_its_own_place(function: Any) -> None:
    class First(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return function.apply(x * self.w) + x

    class Second(First):
        pass

    model = nn.ModuleDict({"one": First(), "two": Second()})
    name = f"{function.__name__}Backward"
    assert failure(assert_grads_reach, model, lambda m: m["two"](m["one"](batch())).sum()) == whole(
        f"""
        no gradient: one.w, two.w (ModuleDict)

          one.w  {name} in one (First) returned no gradient for it
          two.w  {name} in two (Second) returned no gradient for it

          hint: return one from its backward()
        """
    )
    # The last operation of all: nothing takes its result.
    model = nn.Sequential(First())
    assert (
        failure(
            assert_grads_reach, model, lambda m: function.apply((batch() * m[0].w).sum())
        ).splitlines()[2]
        == f"  0.w  {name} in loss_fn returned no gradient for it"
    )


def test_a_custom_function_that_hands_on_is_passed() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.ones(3))

        def forward(self, x: Tensor) -> Tensor:
            return Through.apply(x * self.w) + x

    assert_grads_reach(nn.Sequential(Block(), Block()), lambda m: m(batch() + 2).sum())


# -- gradients that are kept elsewhere -------------------------------------------------------


class Fused(Function):
    """A linear layer that adds the gradient of its weight to ``main_grad`` itself."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        return x @ weight.t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, weight = ctx.saved_tensors
        weight.main_grad += grad.t() @ x
        return grad @ weight, None


class FusedUnseen(Fused):
    """As a kernel writes that torch knows nothing of."""

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, weight = ctx.saved_tensors
        weight.main_grad.data.add_(grad.t() @ x)
        return grad @ weight, None


class FusedAnew(Fused):
    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, weight = ctx.saved_tensors
        weight.main_grad = weight.main_grad + grad.t() @ x
        return grad @ weight, None


class Wide(nn.Module):
    def __init__(self, function: Any) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.eye(3) + 0.5)
        self.a.main_grad = torch.zeros(3, 3)  # type: ignore[attr-defined]
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function.apply(x.requires_grad_(), self.a)


ELSEWHERE = "pass grad='main_grad'"


@pytest.mark.parametrize("function", [Fused, FusedUnseen, FusedAnew])
def test_a_gradient_written_elsewhere_is_said_and_how_to_ask_it(function: Any) -> None:
    model = Wide(function)
    before = model.a.main_grad
    assert failure(assert_grads_reach, model, total) == whole(
        f"""
        no gradient: a (Wide)

          a  its gradient was written to .main_grad, not to .grad

          hint: {ELSEWHERE}
        """
    )
    assert model.a.main_grad is before
    assert not before.any()
    total(model).backward()
    assert_grads_present(
        {n: p.main_grad for n, p in model.named_parameters() if hasattr(p, "main_grad")}
    )


def test_an_attribute_that_nobody_writes_is_not_blamed() -> None:
    model = Wide(Cut)
    model.function = type("Lost", (), {"apply": staticmethod(lambda x, w: x @ w.detach())})
    lines = failure(assert_grads_reach, model, total).splitlines()
    assert lines[2] == "  a  detached by .detach() in Wide"


def test_a_tie_whose_gradient_is_written_elsewhere() -> None:
    model = Wide(Fused)
    model.b = model.a
    assert failure(assert_tied_grads_sum, model, total) == whole(
        f"""
        no gradient: a, b (Wide)

          a, b  its gradient was written to .main_grad, not to .grad

          hint: {ELSEWHERE}
        """
    )
    assert not model.a.main_grad.any()


# -- made in inference mode ------------------------------------------------------------------


def in_inference_mode(layers: int = 1) -> nn.Module:
    with torch.inference_mode():
        return nn.Sequential(*(nn.Linear(3, 3) for _ in range(layers)))


@pytest.mark.parametrize("layers", [1, 2])
def test_a_parameter_made_in_inference_mode(layers: int) -> None:
    """Of two layers autograd refuses to save one; of a single one only the bias gets a gradient."""
    numbers = "0" if layers == 1 else "{0,1}"
    text = failure(assert_grads_reach, in_inference_mode(layers), total)
    names = f"{numbers}.weight, {numbers}.bias"
    rows = [f"{numbers}.weight", f"{numbers}.bias  "]
    assert text == whole(
        f"""
        no gradient: {names} (Sequential)

          {rows[0]}  made under torch.inference_mode(): it cannot be trained
          {rows[1]}  made under torch.inference_mode(): it cannot be trained

          hint: build the model outside torch.inference_mode()
        """
    )
    with torch.inference_mode(False):
        assert_grads_reach(nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), total)


def test_an_error_that_has_another_cause_comes_through() -> None:
    model = nn.Linear(3, 3)
    with pytest.raises(ZeroDivisionError):
        assert_grads_reach(model, lambda m: 1 / 0)


def checked(name: str, case: ModelCase) -> str:
    return failure(run_check, CHECKS[name], CaseRun(case))


def test_a_training_step_of_what_was_made_in_inference_mode() -> None:
    case = ModelCase(in_inference_mode, inputs=batch(), name="made")
    assert checked("check_training_step", case) == whole(
        """
        not trainable: 0.weight, 0.bias (made)

          0.weight  made under torch.inference_mode(): it cannot be trained
          0.bias    made under torch.inference_mode(): it cannot be trained

          hint: build the model outside torch.inference_mode()
        """
    )
    declared = ModelCase(lambda: in_inference_mode(2), inputs=batch(), unreached=["*"])
    run_check(CHECKS["check_grads_reach"], CaseRun(declared))


def test_the_sum_of_a_tie_at_its_first_step_is_for_another_check_to_say() -> None:
    """A zero-initialized branch is right: a whole-model check has nothing to check there."""

    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = self.b = nn.Linear(3, 3)
            self.out = nn.Linear(3, 3)
            nn.init.zeros_(self.out.weight)

        def forward(self, x: Tensor) -> Tensor:
            return x + self.out(self.b(self.a(x)))

    with pytest.raises(
        NothingToCheck,
        match=r"^no tied parameter has a nonzero gradient in the first backward pass$",
    ):
        run_check(CHECKS["check_tied_grads_sum"], CaseRun(ModelCase(Tied, inputs=batch())))


# -- gradients that cannot be read -----------------------------------------------------------


class Unread(Tensor):
    """A wrapper that does not say what it wraps."""

    @staticmethod
    def __new__(cls, inner: Tensor) -> Unread:
        return Tensor._make_wrapper_subclass(  # type: ignore[attr-defined,no-any-return]
            cls, inner.shape, dtype=inner.dtype, device=inner.device
        )

    @classmethod
    def __torch_dispatch__(
        cls, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> object:
        if func is torch.ops.aten.detach.default:
            return cls(args[0])
        raise NotImplementedError(f"no {func}")


def test_a_gradient_whose_values_cannot_be_read_is_no_pass() -> None:
    model = nn.Linear(3, 1, bias=False)

    def swapped(model: Any) -> Tensor:
        # As wrappers of gradients do it: another object in the place of .grad.
        model.weight.register_post_accumulate_grad_hook(
            lambda p: setattr(p, "grad", Unread(torch.ones(1, 3)))
        )
        return model(batch()).sum()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        text = usage(assert_grads_reach, model, swapped)
    assert text == (
        "the gradient of weight cannot be distinguished from zero: Unread does not say which "
        "tensors hold its values; pass allow_zero=True"
    )


# -- sharded ---------------------------------------------------------------------------------


@pytest.fixture
def one_rank() -> Iterator[None]:
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@pytest.mark.usefixtures("one_rank")
def test_a_sharded_model_runs_on_other_tensors_than_its_parameters() -> None:
    """Nobody sees what is done to a parameter there: that it is unused is not known."""
    from torch.distributed.fsdp import fully_shard

    def sharded() -> nn.Module:
        model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
        return fully_shard(model)

    hidden = "cause unknown: it is used in C++ or compiled code"
    assert_grads_reach(sharded(), total)
    for loss_fn, problem, why in (
        (lambda m: total(m) * 0, "zero gradient", "gradient is all zero"),
        (lambda m: total(m) * float("nan"), "gradient not finite", "NaN or infinity in it"),
    ):
        lines = failure(assert_grads_reach, sharded(), loss_fn).splitlines()
        assert lines[0].startswith(f"{problem}: {{0,1}}.weight (")
        assert lines[2] == f"  {{0,1}}.weight  {why}"
    model = sharded()
    model[1].forward = lambda x: x + F.linear(x, model[1].weight.detach())
    lines = failure(assert_grads_reach, model, total).splitlines()
    assert lines[2] == f"  1.weight  {hidden}"
