"""What the checks that run a model say of models that are right at the second look, or dead."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    CHECKS,
    ModelCase,
    NothingToCheck,
    ParamCheckError,
    assert_grads_reach,
)
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import failure_lines

ROWS = torch.linspace(-1, 1, 32).reshape(8, 4)


def outcome(name: str, case: ModelCase, seed: int = 0) -> str:
    try:
        run_check(CHECKS[name], CaseRun(case, seed=seed))
    except NothingToCheck as nothing:
        return f"skip: {nothing}"
    except ParamCheckError as error:
        return str(error).partition("\n")[0]
    return "ok"


def case(factory: Callable[[], nn.Module], **given: Any) -> ModelCase:
    return ModelCase(factory, **{"name": "model", "inputs": ROWS, **given})


def message(name: str, declared: ModelCase) -> list[str]:
    return failure_lines(run_check, CHECKS[name], CaseRun(declared))


# -- zeros that are right: behind a scale that starts at zero -------------------------------------


class Block(nn.Module):
    """A residual branch that ends in a norm whose scale is zero, as in ResNets."""

    def __init__(self, *, frozen: bool = False) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.bn = nn.BatchNorm1d(4)
        nn.init.zeros_(self.bn.weight)
        self.bn.weight.requires_grad_(not frozen)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = x + self.bn(self.a(x))
        return output


class Lora(nn.Module):
    def __init__(self, *, dead: bool = False) -> None:
        super().__init__()
        self.base = nn.Linear(4, 4).requires_grad_(False)
        self.a = nn.Parameter(torch.zeros(2, 4) if dead else torch.randn(2, 4))
        self.b = nn.Parameter(torch.zeros(4, 2))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x) + x @ self.a.T @ self.b.T
        return output


class Modulated(nn.Module):
    """Zero modulation behind a zero head (adaLN-zero): the gate gets its gradient third."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.gate = nn.Parameter(torch.zeros(4))
        self.head = nn.Linear(4, 2)
        nn.init.zeros_(self.head.weight)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(x + self.gate * self.body(x))
        return output


@pytest.mark.parametrize(
    "declared",
    [
        case(Block),
        case(Lora),
        case(Modulated),
        case(Lora, unreached=["a"], steps=2),  # as it had to be declared before
        # The step is ours: what is declared need not move anything.
        case(Lora, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.0)),
    ],
    ids=["norm", "lora", "two steps", "declared", "optimizer at rest"],
)
@pytest.mark.parametrize("seed", range(3))
def test_what_gets_a_gradient_after_a_step_is_reached(declared: ModelCase, seed: int) -> None:
    assert outcome("check_grads_reach", declared, seed) == "ok"


class Nested(nn.Module):
    """As many gates that start at zero, one behind the other, as it is asked for."""

    def __init__(self, gates: int) -> None:
        super().__init__()
        self.body = nn.Linear(4, 4)
        self.gates = nn.ParameterList(torch.zeros(4) for _ in range(gates))
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.body(x)
        for gate in self.gates:
            y = x + gate * y
        z: Tensor = self.head(y)
        return z


@pytest.mark.parametrize("seed", range(3))
def test_zeros_behind_zeros_are_asked_after_three_steps_and_more_where_they_are_declared(
    seed: int,
) -> None:
    assert outcome("check_grads_reach", case(lambda: Nested(3)), seed) == "ok"
    assert outcome("check_grads_reach", case(lambda: Nested(5), steps=5), seed) == "ok"
    assert outcome("check_grads_reach", case(lambda: Nested(5)), seed) == (
        "zero gradient: body.weight, body.bias, gates.0 (model)"
    )


def test_what_stays_zero_is_named_with_the_parameter_that_is_zero() -> None:
    assert message("check_grads_reach", case(lambda: Block(frozen=True))) == [
        "zero gradient: a.weight, a.bias (model)",
        "",
        "  a.weight  its gradient is zero because bn.weight is all zeros: batch_norm in bn "
        "(BatchNorm1d)",
        "  a.bias    its gradient is zero because bn.weight is all zeros: batch_norm in bn "
        "(BatchNorm1d)",
        "",
        '  hint: if this loss is not supposed to reach it: ModelCase(unreached=["a"])',
    ]
    assert message("check_grads_reach", case(lambda: Lora(dead=True))) == [
        "zero gradient: a, b (model)",
        "",
        "  a  its gradient is zero because b is all zeros: matmul in Lora",
        "  b  its gradient is zero because a is all zeros: matmul in Lora",
        "",
        '  hint: if this loss is not supposed to reach it: ModelCase(unreached=["*"])',
    ]


def test_the_steps_leave_the_shared_model_alone() -> None:
    run = CaseRun(case(Lora))
    before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
    run_check(CHECKS["check_grads_reach"], run)

    assert all(torch.equal(before[name], p) for name, p in run.model.named_parameters())
    assert all(p.grad is None for p in run.model.parameters())


# -- what rounding or chance decides --------------------------------------------------------------


def cancelled(**given: Any) -> ModelCase:
    """A bias that the softmax cancels: its gradient is 0 or 1e-9, by seed and machine."""

    def loss(output: Tensor) -> Tensor:
        return -output.squeeze(1).log_softmax(0)[0]

    return case(lambda: nn.Linear(3, 1), inputs=lambda: torch.rand(2, 3), loss=loss, **given)


@pytest.mark.parametrize("seed", range(8))
def test_what_rounding_decides_is_neither_a_finding_nor_a_stale_declaration(seed: int) -> None:
    assert outcome("check_grads_reach", cancelled(), seed) == "ok"
    assert outcome("check_grads_reach", cancelled(unreached=["bias"]), seed) == "ok"
    assert outcome("check_training_step", cancelled(), seed) == "ok"
    sgd = cancelled(optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.1))
    assert outcome("check_training_step", sgd, seed) == "ok"


class Sometimes(nn.Module):
    """Stochastic depth: the branch counts in half of all passes."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)
        self.b = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.a(x) + self.b(x) * (torch.rand(()) < 0.5)
        return output


@pytest.mark.parametrize("seed", range(8))
def test_what_chance_leaves_out_is_asked_from_other_seeds(seed: int) -> None:
    assert outcome("check_grads_reach", case(Sometimes), seed) == "ok"


@pytest.mark.parametrize("seed", range(8))
def test_a_declaration_is_stale_where_every_seed_says_so(seed: int) -> None:
    assert outcome("check_grads_reach", case(Sometimes, unreached=["a"]), seed) == (
        "declared unreached but is reached: a.weight, a.bias (model)"
    )


# -- how it is declared ---------------------------------------------------------------------------


class Ways(nn.Module):
    """A part for each way of not reaching a loss."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (nn.Linear(4, 4) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        self.b(x)
        with torch.no_grad():
            y = self.d(x)
        output: Tensor = self.a(x) + self.c(x).detach() + y
        return output


class OnlyNoGrad(Ways):
    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            y = self.d(self.c(self.b(x)))
        output: Tensor = self.a(x) + y
        return output


class Layers(nn.Module):
    """Half of each layer is not used, and one layer not at all."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.ModuleDict({"on": nn.Linear(4, 4), "off": nn.Linear(4, 4)}) for _ in range(3)
        )
        self.layers.append(nn.Linear(4, 4))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:3]:  # type: ignore[union-attr]
            x = layer["on"](x)  # type: ignore[index]
        return x


def test_the_line_to_write_names_every_pattern_and_comes_after_what_repairs() -> None:
    assert message("check_grads_reach", case(Ways))[-4:] == [
        "",
        "  hint: let the result reach the loss",
        "  hint: use it without .detach() where it has to train",
        "  hint: run it with gradients enabled; or, if this loss is not supposed to reach it: "
        'ModelCase(unreached=["b", "c", "d"])',
    ]


@pytest.mark.parametrize(
    ("factory", "patterns"),
    [
        (Ways, ["b", "c", "d"]),
        (OnlyNoGrad, ["b", "c", "d"]),
        (Layers, ["layers.*.off", "layers.3"]),
        (lambda: Lora(dead=True), ["*"]),
    ],
    ids=["ways", "no_grad", "layers", "all"],
)
def test_the_line_to_write_is_one_that_works(
    factory: Callable[[], nn.Module], patterns: list[str]
) -> None:
    *_, hint = message("check_grads_reach", case(factory))
    (said,) = re.findall(r"ModelCase\(unreached=\[(.*)\]\)", hint)

    assert re.findall(r'"(.*?)"', said) == patterns
    assert outcome("check_grads_reach", case(factory, unreached=patterns)) == "ok"


# -- a step in which nothing moves ----------------------------------------------------------------


def test_a_step_in_which_nothing_moves_is_a_finding() -> None:
    assert message("check_training_step", case(lambda: Lora(dead=True), steps=2)) == [
        "no trainable parameter moved in 2 steps: a, b (model)",
        "",
        "  a  its gradient was all zero",
        "  b  its gradient was all zero",
        "",
        "  hint: check_grads_reach says why",
    ]


class Bypassed(nn.Module):
    """The loss depends on the input only."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x.requires_grad_()


def test_nor_is_it_a_pass_where_no_gradient_arrives() -> None:
    assert message("check_training_step", case(Bypassed)) == [
        "no trainable parameter moved in 1 step: a.weight, a.bias (model)",
        "",
        "  a.weight  no gradient reached it",
        "  a.bias    no gradient reached it",
        "",
        "  hint: check_grads_reach says why",
    ]
    assert outcome("check_training_step", case(Bypassed, unreached=["a"])) == (
        "skip: all that an optimizer holds is declared unreached"
    )


@pytest.mark.parametrize("factory", [Block, Lora, Modulated, Sometimes], ids=lambda f: f.__name__)
def test_a_model_that_learns_passes_at_the_first_step(factory: Callable[[], nn.Module]) -> None:
    assert outcome("check_training_step", case(factory)) == "ok"


@pytest.mark.parametrize("size", [1.0, 1e-17, 1e-30])
def test_a_step_moves_what_has_a_gradient_however_small(size: float) -> None:
    small = case(lambda: nn.Linear(4, 2), loss=lambda output: output.sum() * size)

    assert outcome("check_training_step", small) == "ok"


# -- a forward in eval mode -----------------------------------------------------------------------


class Cached(nn.Linear):
    """Makes a table in the first forward, or renews it where the inputs are of another length."""

    persistent = False

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.register_buffer("table", torch.ones(1, 1), persistent=self.persistent)

    def forward(self, x: Tensor) -> Tensor:
        if len(self.table) != len(x):
            self.table = torch.ones(len(x), 1)
        if not hasattr(self, "made"):
            self.register_buffer("made", torch.ones(len(x), 1), persistent=self.persistent)
        return super().forward(x) * self.table * self.made


class Saved(Cached):
    persistent = True


class Forces(nn.Linear):
    """Takes a gradient in its forward, as energy models and gradient penalties do."""

    def forward(self, x: Tensor) -> Tensor:
        x = x.requires_grad_()
        energy = super().forward(x).square().sum()
        (force,) = torch.autograd.grad(energy, x, create_graph=True)
        return force


class Counting(nn.Linear):
    """Counts its calls in a buffer that nobody saves: no cache, for it goes on."""

    def __init__(self) -> None:
        super().__init__(4, 2)
        self.register_buffer("calls", torch.zeros(()), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x)


@pytest.mark.parametrize("factory", [Cached, lambda: Forces(4, 1)], ids=["cache", "forces"])
def test_a_cache_is_no_change_and_a_forward_may_ask_for_gradients(
    factory: Callable[[], nn.Module],
) -> None:
    assert outcome("check_eval_unchanged", case(factory)) == "ok"


def test_a_loss_of_the_model_may_ask_for_gradients_too() -> None:
    def penalty(model: nn.Module) -> Tensor:
        x = ROWS.clone().requires_grad_()
        (slope,) = torch.autograd.grad(model(x).sum(), x, create_graph=True)
        return slope.square().sum()

    declared = case(lambda: nn.Linear(4, 2), inputs=None, loss=penalty)
    assert outcome("check_eval_unchanged", declared) == "ok"


def test_a_cache_that_is_saved_is_a_change_and_so_is_what_goes_on() -> None:
    assert outcome("check_eval_unchanged", case(Saved)) == (
        "values changed: table; replaced: table; added: made (Saved)"
    )
    assert outcome("check_eval_unchanged", case(Counting)) == "values changed: calls (Counting)"


class Constrained(nn.Linear):
    """Keeps its weight where it wants it, in each forward; as masked convolutions do."""

    def __init__(self, how: Callable[[Tensor], Tensor]) -> None:
        super().__init__(4, 2)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data = self.how(self.weight.data)
        return super().forward(x)


class InPlace(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 2)
        self.register_buffer("mask", torch.ones(2, 4).tril())

    def forward(self, x: Tensor) -> Tensor:
        self.weight.data *= self.mask
        return super().forward(x)


class Drawn(nn.Linear):
    """Draws its weight in its first forward, whatever was loaded into it."""

    def __init__(self, always: bool) -> None:
        super().__init__(4, 2)
        self.always, self.done = always, False

    def forward(self, x: Tensor) -> Tensor:
        if self.always or not self.done:
            self.weight.data = torch.ones(2, 4) * x.sum().sign()
            self.done = True
        return super().forward(x)


@pytest.mark.parametrize(
    "factory",
    [
        InPlace,
        lambda: Constrained(lambda w: torch.renorm(w, 2, 0, 0.25)),
        lambda: Constrained(lambda w: w.clamp(min=0)),
    ],
    ids=["mask", "largest norm", "not negative"],
)
def test_a_forward_may_bring_weights_back_to_where_it_keeps_them(
    factory: Callable[[], nn.Module],
) -> None:
    assert outcome("check_eval_unchanged", case(factory)) == "ok"


@pytest.mark.parametrize(
    "factory",
    [
        lambda: Drawn(always=False),
        lambda: Drawn(always=True),
        lambda: Constrained(lambda w: w * 0.5),
        lambda: Constrained(torch.zeros_like),
    ],
    ids=["once", "anew", "ever smaller", "zeros"],
)
def test_a_forward_that_writes_other_weights_is_a_change(
    factory: Callable[[], nn.Module],
) -> None:
    said = outcome("check_eval_unchanged", case(factory))
    assert said.startswith("values changed: weight")


# -- statistics of what is declared frozen, ties that are declared unreached -----------------------


class SeesToItself(nn.Sequential):
    """Keeps its frozen norm in eval mode, as backbones that fine-tune do."""

    def train(self, mode: bool = True) -> nn.Module:
        super().train(mode)
        self[0].eval()
        return self


def norm_and_head(kind: type[nn.Sequential] = nn.Sequential) -> nn.Module:
    return kind(nn.BatchNorm1d(4).requires_grad_(False), nn.Linear(4, 2))


def test_statistics_of_a_norm_that_is_declared_frozen_move() -> None:
    lines = message("check_training_step", case(norm_and_head, frozen=["0"]))

    assert lines[0] == "statistics moved, declared frozen: 0.running_mean, 0.running_var (model)"
    assert outcome("check_training_step", case(norm_and_head, frozen=[nn.BatchNorm1d])) == lines[0]


@pytest.mark.parametrize(
    "declared",
    [
        case(norm_and_head),  # not declared: it may be meant
        case(norm_and_head, frozen=["0.weight", "0.bias"]),  # the parameters, and no more
        case(lambda: norm_and_head(SeesToItself), frozen=["0"]),
        case(lambda: norm_and_head().eval(), frozen=["0"]),
        case(lambda: nn.Sequential(nn.BatchNorm1d(4), nn.Linear(4, 2)), frozen=[]),
    ],
    ids=["undeclared", "parameters", "train()", "eval", "none"],
)
def test_nor_are_statistics_asked_about_that_nobody_declares(declared: ModelCase) -> None:
    assert outcome("check_training_step", declared) == "ok"


class TiedApart(nn.Module):
    """A tie that the loss does not use, beside one that it does."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.c.weight = self.b.weight

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.a(x)
        return output


def test_a_tie_that_is_declared_unreached_has_no_sum() -> None:
    for declared in (["b"], ["c"], ["b", "c"]):
        assert outcome("check_tied_grads_sum", case(TiedApart, unreached=declared)) == (
            "skip: every trainable tied parameter is declared unreached"
        )


def test_where_no_tie_has_a_gradient_yet_there_is_no_sum() -> None:
    class Behind(TiedApart):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.zeros(4))

        def forward(self, x: Tensor) -> Tensor:
            output: Tensor = self.a(x) + self.scale * self.b(self.c(x))
            return output

    assert outcome("check_grads_reach", case(Behind)) == "ok"
    assert outcome("check_tied_grads_sum", case(Behind)) == (
        "skip: no tied parameter has a nonzero gradient in the first backward pass"
    )


class Squeezed(nn.Module):
    """A bias before what compares the rows of a batch, as the batch norm of a
    squeeze-and-excitation does: there is one value for each image."""

    def __init__(self, how: str = "conv", *, dead: bool = False) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 8, bias=False)
        self.dead = dead
        if how == "conv":
            self.layer: nn.Module = nn.Conv2d(8, 4, 1)
        elif how == "linear":
            self.layer = nn.Linear(8, 4)
        else:
            self.layer = nn.LayerNorm(8)
        width = 8 if how == "norm" else 4
        self.head = nn.Linear(width, 3)
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.layer(x[..., None, None])[..., 0, 0] if self.how == "conv" else self.layer(x)
        if self.dead:
            y = torch.relu(-y.abs())
        # Of two rows the gradients are g - h and h - g, which add up to zero to the last bit.
        z: Tensor = self.head((y - y.roll(1, 0)).tanh())
        return z


TWO = torch.tensor([[1.0, -2.0, 0.5, 3.0], [0.5, 1.0, -1.0, 2.0]])


@pytest.mark.parametrize("how", ["conv", "linear", "norm"])
@pytest.mark.parametrize("rows", [2, 3, 8])
def test_a_bias_before_a_batch_norm_is_right_however_many_rows_there_are(
    how: str, rows: int
) -> None:
    """Of two rows its gradient is zero exactly, of more to what rounding leaves."""
    declared = case(lambda: Squeezed(how), inputs=TWO.repeat(4, 1)[:rows] + torch.eye(8, 4)[:rows])

    assert outcome("check_grads_reach", declared) == "ok"
    meant = case(lambda: Squeezed(how), inputs=TWO[:rows], unreached=["layer.bias"])
    assert outcome("check_grads_reach", meant) == "ok"


def test_a_bias_that_is_behind_something_dead_is_found_with_two_rows() -> None:
    said = outcome("check_grads_reach", case(lambda: Squeezed(dead=True), inputs=TWO))

    assert said == "zero gradient: stem.weight, layer.weight, layer.bias, head.weight (model)"


def test_the_assertion_says_what_adds_up_to_zero() -> None:
    with pytest.raises(ParamCheckError) as failed:
        assert_grads_reach(Squeezed(), lambda model: model(TWO).square().sum(), "layer.bias")

    assert failed.value.findings[0].text() == (
        "added to every row by conv2d in layer (Conv2d), and the gradients of the rows add up "
        "to zero"
    )
