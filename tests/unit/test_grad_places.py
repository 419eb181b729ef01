"""``grad=`` and ``backward=``: gradients outside ``.grad``, passes that are not one call."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    CHECKS,
    ModelCase,
    ParamCheckError,
    assert_grad_norm,
    assert_grads_finite,
    assert_grads_none,
    assert_grads_present,
    assert_grads_reach,
    assert_tied_grads_sum,
    assert_updated,
)
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import failure, failure_lines, usage, whole


class _Fused(torch.autograd.Function):
    """A matrix product whose kernel adds the weight's gradient to a tensor of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, adds: bool) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.adds = adds
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        if ctx.adds:
            weight.main_grad += g.T @ x
        return g @ weight, None, None


class Fused(nn.Module):
    def __init__(self, adds: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.weight.main_grad = torch.zeros(4, 4)
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        return _Fused.apply(x, self.weight, self.adds)


def loss(model: nn.Module) -> Tensor:
    return model(torch.ones(3, 4, requires_grad=True)).square().sum()


def net(*adds: bool) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*map(Fused, adds))


def by_name(name: str, parameter: Tensor) -> Tensor:
    return parameter.main_grad  # type: ignore[attr-defined,no-any-return]


@pytest.fixture(params=["attribute", "function"])
def grad(request: pytest.FixtureRequest) -> Any:
    return "main_grad" if request.param == "attribute" else by_name


class TestRunsOfOurs:
    def test_reached(self, grad: Any) -> None:
        assert_grads_reach(net(True, True), loss, grad=grad)

    def test_one_that_is_not(self, grad: Any) -> None:
        assert failure_lines(assert_grads_reach, net(True, False), loss, grad=grad)[0] == (
            "no gradient: 1.weight (Sequential)"
        )

    def test_an_old_gradient_is_none_and_stays(self, grad: Any) -> None:
        model = net(True, False)
        old = [parameter.main_grad.fill_(7.0) for parameter in model.parameters()]
        versions = [one._version for one in old]
        with pytest.raises(ParamCheckError, match=r"no gradient: 1\.weight"):
            assert_grads_reach(model, loss, grad=grad)
        for parameter, one, version in zip(model.parameters(), old, versions, strict=True):
            assert parameter.main_grad is one
            assert bool((one == 7.0).all())
            assert one._version == version
            assert parameter.grad is None

    def test_where_gradients_go_to_grad_after_all(self) -> None:
        model = nn.Linear(4, 2, bias=False)
        model.weight.main_grad = torch.zeros(2, 4)
        assert failure_lines(assert_grads_reach, model, loss, grad="main_grad")[:3] == [
            "no gradient: weight (Linear)",
            "",
            "  weight  its gradient was written to .grad, not to where grad= says",
        ]

    def test_a_tie(self) -> None:
        model = net(True, True)
        model[1].weight = model[0].weight
        assert_tied_grads_sum(model, loss, grad="main_grad")
        assert bool((model[0].weight.main_grad == 0).all())

        class Clears(Fused):
            """The gradient of the last use wins: what was there is taken for an old one."""

            def forward(self, x: Tensor) -> Tensor:
                y = super().forward(x)
                y.register_hook(self.clear)
                return y

            def clear(self, _: Tensor) -> None:
                self.weight.main_grad.zero_()

        broken = nn.Sequential(Clears(), Clears())
        broken[1].weight = broken[0].weight
        assert failure_lines(assert_tied_grads_sum, broken, loss, grad="main_grad")[0] == (
            "gradient is not the sum of its uses: {0,1}.weight (Sequential)"
        )

    def test_a_scaler(self) -> None:
        model = nn.Linear(4, 2)
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0)
        assert_grads_reach(model, loss, backward=lambda found: scaler.scale(found).backward())

    def test_a_second_call_for_weight_gradients(self) -> None:
        """The gradient of the last use wins where it is assigned and has to be added."""
        for adds in (True, False):
            model = nn.Sequential(Delayed(adds), nn.Tanh(), Delayed(adds))
            model[2].weight = model[0].weight
            assert_grads_reach(model, loss, backward=both_calls)
            if adds:
                assert_tied_grads_sum(model, loss, backward=both_calls)
            else:
                lines = failure_lines(assert_tied_grads_sum, model, loss, backward=both_calls)
                assert lines[0] == (
                    "gradient is not the sum of its uses: {0,2}.weight (Sequential)"
                )
            assert model[0].store == []
            assert model[0].weight.grad is None


class _Delay(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, store: list[Any]) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.store = store
        return x @ weight.T

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Any:
        x, weight = ctx.saved_tensors
        ctx.store.append((g, x))
        return g @ weight, None, None


class Delayed(nn.Module):
    """A layer whose weight gradient is computed by a call after the backward pass."""

    def __init__(self, adds: bool) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(4, 4))
        self.store: list[Any] = []
        self.adds = adds

    def forward(self, x: Tensor) -> Tensor:
        return _Delay.apply(x, self.weight, self.store)

    def backward_dw(self) -> None:
        g, x = self.store.pop()
        new = g.T @ x
        if self.adds and self.weight.grad is not None:
            self.weight.grad += new
        else:
            self.weight.grad = new


def both_calls(found: Tensor, model: nn.Module) -> None:
    found.backward()
    for module in model.modules():
        if isinstance(module, Delayed):
            module.backward_dw()


class TestAfterABackwardOfYourOwn:
    def test_present_finite_norm_none(self, grad: Any) -> None:
        model = net(True, False)
        assert_grads_none(model, grad=grad, allow_zero=True)
        loss(model).backward()
        assert_grads_present(model, "0", grad=grad)
        assert_grads_finite(model, "0", grad=grad)
        assert_grad_norm(model, "0", at_least=0.1, grad=grad)
        assert failure(assert_grads_present, model, grad=grad) == whole(r"""
            zero gradient: 1.weight (Sequential)

              1.weight  gradient is all zero

              hint: assert_grads_reach(model, loss_fn) says why; allow_zero=True if zeros are right
            """)
        place = ".main_grad" if grad == "main_grad" else "where grad= says"
        assert failure_lines(assert_grads_none, model, grad=grad, allow_zero=True)[-1] == (
            f"  hint: zero_grad() does not see {place}: set it to zero too, and pass "
            f"allow_zero=True"
        )
        with torch.no_grad():
            model[0].weight.main_grad[0, 1] = torch.inf
        assert failure_lines(assert_grads_finite, model, "0", grad=grad)[2] == (
            "  0.weight  1 of 16 values: 1 inf, first at [0, 1]"
        )

    def test_a_tied_parameter_counts_once(self) -> None:
        model = net(True, True)
        model[1].weight = model[0].weight
        loss(model).backward()
        norm = float(model[0].weight.main_grad.norm())
        assert_grad_norm(model, at_least=norm * 0.999, at_most=norm * 1.001, grad="main_grad")

    def test_frozen_parameters_are_not_asked(self) -> None:
        model = net(False, True)
        model[0].weight.requires_grad_(False)
        model[0].weight.main_grad = None
        loss(model).backward()
        assert_grads_present(model, grad="main_grad")


class TestABlock:
    """``assert_updated``: float32 masters that are stepped with what lies in ``main_grad``."""

    def train(self, model: nn.Module, masters: dict[str, Tensor], steps: int = 1) -> None:
        optimizer = torch.optim.SGD(masters.values(), lr=0.1)
        for _ in range(steps):
            loss(model).backward()
            for name, parameter in model.named_parameters():
                masters[name].grad = parameter.main_grad.clone()
            optimizer.step()
            with torch.no_grad():
                for name, parameter in model.named_parameters():
                    parameter.copy_(masters[name])
                    parameter.main_grad.zero_()  # as a training loop does at its end

    def test_each_weight_moves(self, grad: Any) -> None:
        model = net(True, True)
        masters = {n: p.detach().clone() for n, p in model.named_parameters()}
        with assert_updated(model, grad=grad):
            self.train(model, masters, steps=2)

    def test_one_that_decay_alone_moves(self, grad: Any) -> None:
        model = net(True, False)
        masters = {n: p.detach().clone() for n, p in model.named_parameters()}

        def block() -> None:
            with assert_updated(model, grad=grad):
                self.train(model, masters)
                model[1].weight.data.mul_(0.9)

        assert failure_lines(block)[0] == "changed without a gradient: 1.weight (Sequential)"

    def test_an_old_gradient_is_no_new_one(self, grad: Any) -> None:
        model = net(True, True)
        for parameter in model.parameters():
            parameter.main_grad.fill_(1.0)

        def block() -> None:
            with assert_updated(model, grad=grad):
                for parameter in model.parameters():
                    parameter.data.mul_(0.9)

        assert failure_lines(block)[0] == "changed without a gradient: {0,1}.weight (Sequential)"

    def test_an_optimizer_that_steps_with_it(self, grad: Any) -> None:
        class Stepping(torch.optim.SGD):
            @torch.no_grad()
            def step(self, closure: Any = None) -> None:
                for group in self.param_groups:
                    for parameter in group["params"]:
                        parameter.sub_(parameter.main_grad, alpha=group["lr"])

        model = net(True, True)
        optimizer = Stepping(model.parameters(), lr=0.1)
        with assert_updated(model, grad=grad):
            loss(model).backward()
            optimizer.step()


def test_wrong_calls() -> None:
    model = net(True, True)
    assert usage(assert_grads_reach, model, loss, grad="mian_grad") == (
        "grad='mian_grad': no parameter of Sequential has such an attribute; did you mean "
        "'main_grad' or 'grad'?"
    )
    assert usage(assert_grads_present, model, grad=3) == (
        "grad= is the name of an attribute or a function of name and parameter, not int 3"
    )
    assert usage(assert_grads_present, model, grad=lambda parameter: None) == (
        "grad= is called with name and parameter: lambda name, parameter: ..."
    )
    assert usage(assert_grads_reach, model, loss, backward=3) == (
        "backward= is a function of the loss, or of the loss and the model, not int 3"
    )
    for backward in (lambda: None, lambda loss, model, optimizer: None):
        assert usage(assert_grads_reach, model, loss, backward=backward) == (
            "backward= is called with the loss: lambda loss: ..."
        )
    assert usage(assert_grads_present, model, grad=lambda name, parameter: name) == (
        "the gradient of 0.weight is str '0.weight'"
    )


def test_a_copy_is_no_place() -> None:
    """In it an old gradient looks like a new one, and nothing can be set to zero."""
    model = net(True, False)
    model[1].weight.main_grad += 1  # of an earlier step

    def copied(name: str, parameter: Tensor) -> Tensor:
        return by_name(name, parameter).clone()

    assert usage(assert_grads_reach, model, loss, grad=copied) == (
        "grad= returns a copy of the gradient of 1.weight, in which an old one cannot be told "
        "from a new one: return the tensor itself, or a view of it"
    )
    assert float(model[1].weight.main_grad.sum()) == 16  # type: ignore[operator]
    view = lambda name, parameter: by_name(name, parameter).view(-1)  # noqa: E731
    assert failure_lines(assert_grads_reach, model, loss, grad=view)[0] == (
        "zero gradient: 1.weight (Sequential)"
    )


def test_a_case_is_not_told_to_declare_unreached_what_a_kernel_wrote_elsewhere() -> None:
    def message(factory: Any) -> str:
        case = ModelCase(factory, inputs=torch.ones(3, 4), loss=lambda out: out.square().sum())
        return failure(run_check, CHECKS["check_grads_reach"], CaseRun(case))

    def first(adds: bool) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), Fused(adds))

    assert "unreached" not in message(lambda: first(True))
    assert message(lambda: first(False)).endswith('ModelCase(unreached=["1"])')
