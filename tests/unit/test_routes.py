"""What a run leaves out by chance is no finding; what none can use is."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.routes import Routes
from pytest_paramcheck.model_checks.run import CaseRun

from .test_conventions import outcome

ROWS = {"inputs": lambda: torch.randn(3, 4)}


class Experts(nn.Module):
    """Sends each row to two of eight experts; the last of them may be out of reach."""

    def __init__(self, *, reachable: int = 8, rows: int = 1) -> None:
        super().__init__()
        self.gate = nn.Linear(4, reachable)
        self.experts = nn.ModuleList(nn.Linear(4, 4) for _ in range(8))
        self.rows = rows

    def forward(self, x: Tensor) -> Tensor:
        x = x.repeat(self.rows, 1)
        x = x + 0.5 * torch.randn_like(x)
        weights, chosen = self.gate(x).softmax(-1).topk(2)
        out = x
        for number in chosen.unique().tolist():
            rows, place = torch.where(chosen == number)
            found = weights[rows, place, None] * self.experts[number](x[rows])
            out = out.index_add(0, rows, found)
        return out


class Dropped(nn.Module):
    """Drops whole layers in training, each now and then, and one always."""

    def __init__(self, *, dead: bool = False) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(4, 4) for _ in range(3))
        self.head = nn.Linear(4, 4)
        self.dead = dead

    def forward(self, x: Tensor) -> Tensor:
        x = self.head(x)
        for number, layer in enumerate(self.layers):
            never = self.dead and number == 1
            if not never and (not self.training or bool(torch.rand(()) > 0.3)):
                x = x + layer(x)
        return x


@pytest.mark.parametrize("seed", range(6))
def test_layers_that_are_dropped_and_experts_without_a_token_are_right(seed: int) -> None:
    for factory in (Dropped, Experts):
        run = CaseRun(ModelCase(factory, inputs=ROWS["inputs"], name="model"), seed)
        run_check(CHECKS["check_grads_reach"], run)


def test_a_layer_that_is_always_left_out_is_named() -> None:
    assert outcome("check_grads_reach", lambda: Dropped(dead=True), **ROWS) == (
        "no gradient: layers.1.weight, layers.1.bias (model)"
    )
    assert outcome("check_grads_reach", lambda: Experts(reachable=7, rows=20), **ROWS) == (
        "no gradient: experts.7.weight, experts.7.bias (model)"
    )


@pytest.mark.parametrize(
    ("runs", "taken"),
    [
        ([["0.w", "2.w"]] * 3, []),  # the same in each run: nothing of chance
        ([["0.w", "1.w", "2.w"]] * 9, ["1.w"]),
        ([["0.w"], ["2.w"], []], ["1.w", "3.w"]),  # siblings come and go, and as seldom as it
        ([["0.w"], ["2.w"]] * 6, []),  # as long as that it is not by chance
    ],
)
def test_who_may_be_left_out_by_chance(runs: list[list[str]], taken: list[str]) -> None:
    asked = ["0.w", "1.w", "2.w", "3.w"]
    routes = Routes(asked, ["1.w", "3.w"])
    for run in runs:
        if routes.open:
            routes.add(run)
    assert routes.taken == taken
    assert routes.open == (len(taken) == 2)


def test_a_seed_that_leaves_nothing_of_the_graph_is_one_run_of_several() -> None:
    class Often(nn.Module):
        """Leaves both of its layers out now and then."""

        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            for layer in (self.one, self.two):
                if bool(torch.rand(()) > 0.4):
                    x = layer(x)
            return x

    said = set()
    for seed in range(8):
        try:
            case = ModelCase(Often, name="model", **ROWS)
            run_check(CHECKS["check_grads_reach"], CaseRun(case, seed))
        except ParamCheckError as error:
            said.add(str(error).partition("\n")[0])
    assert said == {"no backward pass: loss_fn (model)"}  # where the first seed leaves out both


# -- forwards that write parameters ---------------------------------------------------------------


class Momentum(nn.Module):
    """Keeps a slow copy of its encoder, in the forward itself; or writes something else."""

    def __init__(self, *, copies: bool = True) -> None:
        super().__init__()
        self.fast = nn.Linear(4, 4)
        self.slow = copy.deepcopy(self.fast) if copies else nn.Linear(4, 4)
        self.slow.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            with torch.no_grad():
                for fast, slow in zip(self.fast.parameters(), self.slow.parameters(), strict=True):
                    slow.data.mul_(0.5).add_(fast.data + 0.1, alpha=0.5)
        return self.fast(x) * self.slow(x).detach()


class FromData(nn.Module):
    """Sets its shift from the first batch of training."""

    def __init__(self) -> None:
        super().__init__()
        self.shift, self.scale = nn.Parameter(torch.zeros(4)), nn.Parameter(torch.ones(4))
        self.register_buffer("started", torch.tensor(False))

    def forward(self, x: Tensor) -> Tensor:
        if self.training and not self.started:
            self.shift.data.copy_(-x.mean(0))
            self.started.fill_(True)
        return (x + self.shift) * self.scale


def test_a_slow_copy_may_follow_in_the_forward() -> None:
    assert outcome("check_training_step", Momentum, **ROWS) == "ok"
    assert outcome("check_training_step", lambda: Momentum(copies=False), **ROWS) == (
        "values changed: slow.weight, slow.bias (model)"
    )


class Drifts(nn.Module):
    """A frozen norm that starts as every norm does, and drifts in the forward."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.other = nn.LayerNorm(4).requires_grad_(False), nn.LayerNorm(4)

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.norm.bias.data.add_(0.1)
        return self.other(self.norm(x))


def test_zeros_that_equal_other_zeros_are_no_copy_of_them() -> None:
    assert outcome("check_training_step", Drifts, **ROWS) == "values changed: norm.bias (model)"


@pytest.mark.parametrize("factory", [Momentum, FromData])
def test_what_a_forward_writes_is_not_seen_by_the_next_check(
    factory: type[nn.Module],
) -> None:
    said = []
    for names in (list(CHECKS), list(reversed(CHECKS))):
        run = CaseRun(ModelCase(factory, name="model", **ROWS))
        for name in names:
            if not CHECKS[name].applies(run.declared):
                continue
            try:
                run_check(CHECKS[name], run)
            except NothingToCheck:
                continue
            except ParamCheckError as error:
                said.append(f"{name}: {error}")
    assert said == []


class RunOnNothing(Experts):
    """Runs each expert, on no row where none was sent to it; the last ones may be out of reach."""

    def __init__(self, *, reachable: int) -> None:
        super().__init__(reachable=reachable)
        self.experts.extend(nn.Linear(4, 4) for _ in range(16))

    def forward(self, x: Tensor) -> Tensor:
        weight, chosen = self.gate(x).softmax(-1).max(-1)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.experts):
            rows = chosen == number
            out[rows] = expert(x[rows]) * weight[rows, None]
        return x + out


@pytest.mark.parametrize("seed", range(3))
def test_an_expert_that_is_run_on_no_row_by_chance_is_no_finding(seed: int) -> None:
    case = ModelCase(lambda: RunOnNothing(reachable=24), inputs=lambda: torch.randn(12, 4))
    run_check(CHECKS["check_grads_reach"], CaseRun(case, seed))


def test_experts_that_are_never_sent_a_row_are_one() -> None:
    case = ModelCase(lambda: RunOnNothing(reachable=1), inputs=lambda: torch.randn(12, 4))
    with pytest.raises(ParamCheckError) as caught:
        run_check(CHECKS["check_grads_reach"], CaseRun(case))
    named = {name for finding in caught.value.findings for name in finding.names}
    assert {f"experts.{number}.weight" for number in range(1, 24)} <= named
