"""Each whole-model check: a model that breaks it, models that are right, and nothing to see."""

from __future__ import annotations

import contextlib
import copy
import importlib
import itertools
import pkgutil
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    CHECKS,
    ModelCase,
    NothingToCheck,
    ParamCheckError,
    assert_manifest,
    model_checks,
    values,
)
from pytest_paramcheck.model_checks import wrapped
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from ..planted_bugs import planted_bugs
from .messages import failure_lines, usage

X = torch.linspace(-1, 1, 6).reshape(2, 3)
IDS = torch.tensor([[0, 2, 1]])
NO_ENTRIES = "the model has no parameters and no buffers"
NO_PARAMETERS = "the model has no parameters"
NO_TRAINABLE = "the model has no trainable parameter"
ON_META = "on meta, where tensors have no values"
LAZY = "weight: uninitialized: a lazy parameter gets its values in the first forward"


class LM(nn.Module):
    """A tied language model: right in every respect."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 4)
        self.norm = nn.LayerNorm(4)
        self.drop = nn.Dropout(0.5)
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids: Tensor) -> Tensor:
        output: Tensor = self.head(self.drop(self.norm(self.emb(ids))))
        return output


class Net(nn.Module):
    """Two layers; subclasses plant one bug each."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 4)
        self.two = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Any:
        return self.two(self.one(x).tanh())


def outcome(name: str, case: ModelCase, device: str = "cpu") -> str:
    """Run one check; return ``ok``, ``skip: reason`` or the first line of its message."""
    check = CHECKS[name]
    assert check.applies(case)
    with torch.device(device):
        try:
            run_check(check, CaseRun(case))
        except NothingToCheck as nothing:
            return f"skip: {nothing}"
        except ParamCheckError as error:
            return str(error).partition("\n")[0]
    return "ok"


def case(factory: Callable[[], nn.Module], **given: Any) -> ModelCase:
    return ModelCase(factory, **{"name": "model", "inputs": X, **given})


# -- models that are right ----------------------------------------------------------------------

#: In their order. A new check need not be named here.
NAMES = (
    "check_registered",
    "check_materialized",
    "check_init_complete",
    "check_finite",
    "check_distinct",
    "check_deterministic",
    "check_ties",
    "check_shapes",
    "check_values",
    "check_frozen",
    "check_manifest",
    "check_grads_none",
    "check_grads_reach",
    "check_grads_finite",
    "check_tied_grads_sum",
    "check_eval_unchanged",
    "check_training_step",
    "check_optimizer_covers",
    "check_state_dict_roundtrip",
    "check_torch_save_roundtrip",
    "check_deepcopy",
    "check_dtype_move",
    "check_device_move",
)
COPIES = [name for name in CHECKS if "roundtrip" not in name]


def failures(case: ModelCase, device: str = "cpu") -> dict[str, str]:
    found = {n: outcome(n, case, device) for n in COPIES if CHECKS[n].applies(case)}
    return {n: said for n, said in found.items() if said != "ok" and not said.startswith("skip:")}


class Lora(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(3, 2).requires_grad_(False)
        self.a = nn.Parameter(torch.randn(2, 3))
        self.b = nn.Parameter(torch.zeros(2, 2))

    def forward(self, x: Tensor) -> Tensor:
        output: Tensor = self.base(x) + x @ self.a.T @ self.b.T
        return output


class DeadLora(Lora):
    """Both factors are zero, and stay so."""

    def __init__(self) -> None:
        super().__init__()
        nn.init.zeros_(self.a)


class Outputs(Net):
    def forward(self, x: Tensor) -> dict[str, Any]:
        y = self.two(self.one(x).tanh())
        return {"y": y, "best": y.argmax(-1), "more": [None, (y * 2,)]}


RIGHT = {
    "tied": ModelCase(LM, inputs=IDS, ties=[{"emb.weight", "head.weight"}], frozen=[]),
    "tied, undeclared": ModelCase(LM, inputs=IDS, shapes={"*": (...,)}),
    "lora": ModelCase(
        Lora,
        inputs=X,
        frozen=["base"],
        unreached=["a"],
        steps=2,
        optimizer=lambda m: torch.optim.AdamW(m.parameters(), lr=0.1),
    ),
    "outputs": case(Outputs, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.1)),
    "keywords": case(Net, inputs={"x": X}, ties=[]),
    "loss of the model": case(Net, inputs=None, loss=lambda m: m(X).square().mean()),
    "batch norm": case(
        lambda: nn.Sequential(nn.Linear(3, 4, bias=False), nn.BatchNorm1d(4), nn.Dropout(0.5))
    ),
    "in place": case(lambda: nn.Sequential(nn.ReLU(inplace=True), nn.Linear(3, 2))),
    "sparse gradients": ModelCase(lambda: nn.Embedding(5, 4, sparse=True), inputs=IDS),
    "lbfgs": case(Net, optimizer=lambda m: torch.optim.LBFGS(m.parameters())),
    "all frozen": case(lambda: Net().requires_grad_(False), frozen=["*"]),
    "buffers only": case(lambda: nn.BatchNorm1d(3, affine=False), frozen=[], ties=[]),
    "nothing in it": case(nn.ReLU, frozen=[], ties=[], shapes={}),
    "complex": case(lambda: nn.Linear(3, 2, dtype=torch.complex64), inputs=X.to(torch.complex64)),
    "mixed dtypes": case(
        lambda: nn.Sequential(nn.Linear(3, 4), nn.LayerNorm(4).double()),
        inputs=None,
        loss=lambda m: m[1](m[0](X).double()).square().sum(),
    ),
    "weight norm": case(lambda: nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))),
    "packed": case(lambda: nn.LSTM(3, 4), inputs=nn.utils.rnn.pack_sequence([X, X[:1]])),
    "copied layers": ModelCase(
        lambda: nn.TransformerEncoder(nn.TransformerEncoderLayer(8, 2, 16, batch_first=True), 2),
        inputs=torch.linspace(-1, 1, 48).reshape(2, 3, 8),
        alike=["layers"],
    ),
}


@pytest.mark.parametrize("name", list(RIGHT))
def test_a_model_that_is_right_is_not_accused(name: str) -> None:
    assert failures(RIGHT[name]) == {}


@pytest.mark.parametrize("name", ["tied", "lora", "outputs", "nothing in it", "copied layers"])
def test_nor_is_it_on_meta(name: str) -> None:
    assert failures(RIGHT[name], "meta") == {}


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["tied", "lora", "outputs", "batch norm"])
def test_nor_under_another_default_dtype(name: str, dtype: torch.dtype) -> None:
    torch.set_default_dtype(dtype)
    try:
        assert failures(RIGHT[name]) == {}
    finally:
        torch.set_default_dtype(torch.float32)


# -- models with one bug each -------------------------------------------------------------------


class Hidden(Net):
    def __init__(self) -> None:
        super().__init__()
        self.more = [nn.Linear(2, 2)]


class Uninitialized(Net):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.empty(5))


class NotFinite(Net):
    def __init__(self) -> None:
        super().__init__()
        with torch.no_grad():
            self.two.bias[0] = float("nan")


class Copied(nn.Sequential):
    def __init__(self) -> None:
        layer = nn.Linear(3, 3)
        super().__init__(layer, copy.deepcopy(layer))


class Random(Net):
    counter = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        nn.init.constant_(self.two.bias, next(self.counter))


class SometimesTied(nn.Module):
    counter = itertools.count()

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        if next(self.counter) % 2 == 0:
            self.b.weight = self.a.weight


class WithGrad(Net):
    def __init__(self) -> None:
        super().__init__()
        self.two.bias.grad = torch.zeros(2)


class Policy(Net):
    """Its standard deviation is a parameter that nothing keeps positive."""

    def __init__(self) -> None:
        super().__init__()
        self.std = nn.Parameter(torch.full((2,), 0.05))

    def forward(self, x: Tensor) -> Any:
        return super().forward(x) * self.std


def great_steps(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.1)


class Unused(Net):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Linear(2, 2)


class Detached(Net):
    def forward(self, x: Tensor) -> Any:
        return self.two(self.one(x).tanh().detach())


class InfiniteGradient(Net):
    def forward(self, x: Tensor) -> Any:
        return (self.two(self.one(x)) * 0).sqrt()


class WrongSum(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 3, bias=False)
        self.b = nn.Linear(3, 3, bias=False)
        self.b.weight = self.a.weight

    def forward(self, x: Tensor) -> Any:
        return self.b(x) + x @ self.a.weight.detach().T


class Counts(Net):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def forward(self, x: Tensor) -> Any:
        self.calls += 1
        return super().forward(x)


class Shares(Net):
    def __deepcopy__(self, memo: object) -> Shares:
        return self


class Refuses(Net):
    def __deepcopy__(self, memo: object) -> Refuses:
        raise TypeError("only one of me\nor none")


class ForgetsTheTie(LM):
    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        super()._apply(fn, recurse)
        self.head.weight = nn.Parameter(self.emb.weight.detach().clone())
        return self


class Careless(torch.optim.SGD):
    def step(self, closure: Any = None) -> Any:
        with torch.no_grad():
            for group in self.param_groups:
                for parameter in group["params"]:
                    if not parameter.requires_grad:
                        parameter.mul_(0.9)
        return super().step(closure)


def half_frozen() -> nn.Module:
    model = Net()
    model.one.requires_grad_(False)
    return model


BROKEN: list[tuple[str, ModelCase, str]] = [
    (
        "check_registered",
        case(Hidden),
        "not registered: more[0].weight, more[0].bias (Hidden)",
    ),
    (
        "check_materialized",
        case(lambda: nn.LazyLinear(2)),
        "not materialized: weight, bias (LazyLinear)",
    ),
    ("check_init_complete", case(Uninitialized), "never initialized: scale (Uninitialized)"),
    ("check_finite", case(NotFinite), "not finite: two.bias (NotFinite)"),
    ("check_distinct", case(Copied), "equal values: {0,1}.weight, {0,1}.bias (model)"),
    (
        "check_distinct",
        case(Copied, alike=["*.weight"]),
        "equal values: {0,1}.bias (model)",
    ),
    (
        "check_distinct",
        case(Net, alike=["one.weight"]),
        "declared alike but is not: one.weight (model)",
    ),
    ("check_deterministic", case(Random), "different values: two.bias (Random)"),
    (
        "check_ties",
        case(LM, ties=[]),
        "tied but not declared: emb.weight, head.weight (LM)",
    ),
    (
        "check_ties",
        case(Net, ties=[{"one.weight", "two.weight"}]),
        "not tied: one.weight, two.weight (Net)",
    ),
    ("check_ties", case(SometimesTied), "tie lost: a.weight, b.weight (SometimesTied)"),
    (
        "check_shapes",
        case(Net, shapes={"one": (...,), "two.weight": (2, 3), "two.bias": (2,)}),
        "wrong shape: two.weight (Net)",
    ),
    (
        "check_values",
        case(Net, values={"one.weight": values.positive(), "two": values.between(-9, 9)}),
        "not positive: one.weight (Net)",
    ),
    (
        "check_training_step",
        case(Policy, values={"std": values.positive()}, optimizer=great_steps),
        "not positive after training: std (model)",
    ),
    (
        "check_frozen",
        case(half_frozen, frozen=["two"]),
        "frozen, but not listed: one.weight, one.bias; not frozen: two.weight, two.bias (Net)",
    ),
    ("check_grads_none", case(WithGrad), "gradient is not None: two.bias (WithGrad)"),
    ("check_grads_reach", case(Unused), "no gradient: extra.weight, extra.bias (model)"),
    (
        "check_grads_reach",
        case(Detached),
        "no gradient: one.weight, one.bias (model)",
    ),
    ("check_grads_reach", case(DeadLora), "zero gradient: a, b (model)"),
    (
        "check_grads_reach",
        case(Net, unreached=["two.bias"]),
        "declared unreached but is reached: two.bias (model)",
    ),
    (
        "check_grads_reach",
        case(Net, loss=lambda out: out.detach().sum(), unreached=["*"]),
        "no backward pass: loss_fn (model)",
    ),
    (
        "check_grads_finite",
        case(InfiniteGradient),
        "gradient not finite: one.weight, one.bias, two.weight, two.bias (InfiniteGradient)",
    ),
    ("check_tied_grads_sum", case(WrongSum), "one use gets no gradient: a.weight (WrongSum)"),
    ("check_eval_unchanged", case(Counts), "values changed: calls (Counts)"),
    (
        "check_training_step",
        case(half_frozen, optimizer=lambda m: Careless(m.parameters(), lr=0.1)),
        "values changed: one.weight, one.bias (model)",
    ),
    (
        "check_training_step",
        case(Net, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=0.0)),
        "not updated: one.weight, one.bias, two.weight, two.bias (model)",
    ),
    (
        "check_optimizer_covers",
        case(Net, optimizer=lambda m: torch.optim.SGD(m.one.parameters())),
        "not in the optimizer: two.weight, two.bias (Net)",
    ),
    (
        "check_deepcopy",
        case(Shares),
        "the same object: model, copy (model)",
    ),
    ("check_deepcopy", case(Refuses), "cannot be deep-copied: the model (model)"),
    ("check_dtype_move", ModelCase(ForgetsTheTie, name="model"), "tie lost: head.weight (model)"),
]


def test_a_copy_is_spoken_of_as_a_copy() -> None:
    """Nobody has checkpoints of it: not a rename, no order of optimizers, no strict load."""

    class Another(nn.Linear):
        def __deepcopy__(self, memo: Any) -> nn.Module:
            twin = nn.Module()
            twin.first = nn.Parameter(torch.ones(1))
            twin.bias = nn.Parameter(torch.ones(2))
            twin.kernel = nn.Parameter(torch.ones(2, 3))
            twin.b = nn.Parameter(torch.ones(4))
            twin.a = twin.b
            twin.mask = nn.Parameter(torch.ones(3), requires_grad=False)
            return twin

    def build() -> nn.Module:
        model = Another(3, 2)
        model.a, model.b = nn.Parameter(torch.ones(4)), nn.Parameter(torch.ones(4))
        model.register_buffer("mask", torch.ones(3), persistent=False)
        return model

    with pytest.raises(ParamCheckError) as caught:
        run_check(CHECKS["check_deepcopy"], CaseRun(ModelCase(build, name="model")))
    assert str(caught.value).splitlines() == [
        "lost in the copy: weight; not in the original; role changed; tied only in the copy; "
        "and 1 more (model)",
        "",
        "  lost in the copy:",
        "    weight  expected 2x3 float32 trainable: Another has its own __deepcopy__()",
        "  not in the original:",
        "    first   1 float32 trainable: Another has its own __deepcopy__()",
        "    kernel  2x3 float32 trainable: Another has its own __deepcopy__()",
        "  role changed:",
        "    mask  expected buffer not-persistent, found frozen: Another has its own "
        "__deepcopy__()",
        "  tied only in the copy:",
        "    a  expected not tied, found tied to b: Another has its own __deepcopy__()",
        "  order changed:",
        "    a  after b: Another has its own __deepcopy__()",
    ]


@pytest.mark.parametrize(("name", "case", "line"), BROKEN, ids=[f"{n[6:]}" for n, _, _ in BROKEN])
def test_a_model_with_a_bug_is_named_with_its_parameter(
    name: str, case: ModelCase, line: str
) -> None:
    assert outcome(name, case) == line


def shown_frames(error: BaseException) -> list[str]:
    """The functions of the package that pytest would show between the test and the error."""
    return [
        frame.f_code.co_qualname if sys.version_info >= (3, 11) else frame.f_code.co_name
        for frame, _ in traceback.walk_tb(error.__traceback__)
        if str(frame.f_globals.get("__name__")).startswith("pytest_paramcheck.")
        and not frame.f_locals.get("__tracebackhide__")
    ]


@pytest.mark.parametrize(("name", "case", "line"), BROKEN, ids=[f"{n[6:]}" for n, _, _ in BROKEN])
def test_no_frame_of_ours_is_shown_for_a_finding(name: str, case: ModelCase, line: str) -> None:
    with pytest.raises(ParamCheckError) as caught:
        run_check(CHECKS[name], CaseRun(case))
    assert shown_frames(caught.value) == []


def test_there_is_a_bug_for_every_check() -> None:
    # The manifest has its own below; what is wrapped needs ranks (tests/ranks).
    apart = {
        "check_manifest",
        *(n for n, c in CHECKS.items() if c.run.__module__ == wrapped.__name__),
    }
    planted = {bug.catch.name for bug in planted_bugs()}
    assert {name for name, _, _ in BROKEN} | planted >= set(CHECKS) - apart


def message(name: str, case: ModelCase) -> list[str]:
    return failure_lines(run_check, CHECKS[name], CaseRun(case))


def test_what_is_missing_says_how_to_declare_it() -> None:
    assert message("check_grads_reach", case(Unused)) == [
        "no gradient: extra.weight, extra.bias (model)",
        "",
        "  extra.weight  never used in the forward pass",
        "  extra.bias    never used in the forward pass",
        "",
        '  hint: if this loss is not supposed to reach it: ModelCase(unreached=["extra"])',
    ]
    assert message("check_distinct", case(Copied, alike=["*.weight"])) == [
        "equal values: {0,1}.bias (model)",
        "",
        "  {0,1}.bias  Parameter 3 float32 cpu",
        "  EQUAL: own memory but the same bits: copied from one another, or drawn from the same "
        "seed.",
        "",
        "  hint: create each layer separately, with no manual_seed() between, or re-initialize "
        "the copies; or, "
        "if this is intended: ModelCase(alike=[...])",
    ]


def test_a_declaration_that_is_no_longer_true_says_so() -> None:
    assert message("check_distinct", case(Net, alike=["one.weight"])) == [
        "declared alike but is not: one.weight (model)",
        "",
        "  one.weight  it equals no other parameter",
        "",
        "  hint: take it out of ModelCase(alike=...)",
    ]
    assert message("check_grads_reach", case(Net, unreached=["two"])) == [
        "declared unreached but is reached: two.weight, two.bias (model)",
        "",
        "  two.weight  the loss gives it a gradient",
        "  two.bias    the loss gives it a gradient",
        "",
        "  hint: take it out of ModelCase(unreached=...)",
    ]


def test_a_tied_parameter_is_declared_unreached_by_any_of_its_names() -> None:
    tied = case(LM, inputs=None, loss=lambda m: m.norm.weight.sum() + m.norm.bias.sum())
    declared = case(tied.factory, inputs=None, loss=tied.loss, unreached=["head"])

    assert outcome("check_grads_reach", tied) == "no gradient: emb.weight, head.weight (model)"
    assert outcome("check_grads_reach", declared) == "ok"


def test_frozen_and_not_updated_are_both_said() -> None:
    broken = case(half_frozen, optimizer=lambda m: Careless(m.parameters(), lr=0.0))

    assert message("check_training_step", broken)[0] == (
        "values changed: one.weight, one.bias; not updated: two.weight, two.bias (model)"
    )


def test_a_copy_that_cannot_be_made_shows_the_first_line_of_its_error() -> None:
    assert message("check_deepcopy", case(Refuses)) == [
        "cannot be deep-copied: the model (model)",
        "",
        "  the model  TypeError: only one of me",
    ]


@pytest.mark.parametrize(
    ("name", "given", "text"),
    [
        (
            "check_grads_reach",
            {"unreached": ["tow"]},
            "pattern 'tow' matches nothing in Net; did you mean 'two'?",
        ),
        (
            "check_distinct",
            {"alike": ["tow"]},
            "pattern 'tow' matches nothing in Net; did you mean 'two'?",
        ),
        (
            "check_frozen",
            {"frozen": ["tow"]},
            "pattern 'tow' matches nothing in Net; did you mean 'two'?",
        ),
        (
            "check_training_step",
            {"optimizer": lambda m: None},
            "the optimizer of model returned NoneType, no optimizer or list of them",
        ),
    ],
)
def test_a_wrong_declaration_is_a_usage_error(name: str, given: dict[str, Any], text: str) -> None:
    assert usage(run_check, CHECKS[name], CaseRun(case(Net, **given))) == text


# -- nothing to see: a skip with its reason, never a pass ----------------------------------------

FROZEN = case(lambda: Net().requires_grad_(False), optimizer=torch.optim.SGD)
ANY = {"*": values.between(-1, 1)}
EMPTY = case(nn.ReLU, ties=[], frozen=[], shapes={}, values=ANY, optimizer=torch.optim.SGD)
BUFFERS = case(lambda: nn.BatchNorm1d(3, affine=False), frozen=[])
LAZY_CASE = case(lambda: nn.LazyLinear(2), optimizer=torch.optim.SGD)
NO_GRAPH = case(Net, loss=lambda out: out.detach().sum())
NOTHING: list[tuple[str, ModelCase, str, str]] = [
    *(
        (name, EMPTY, "cpu", NO_ENTRIES)
        for name in NAMES
        if "roundtrip" not in name
        and name
        not in (
            "check_frozen",
            "check_manifest",
            "check_grads_none",
            "check_grads_reach",
            "check_grads_finite",
            "check_optimizer_covers",
            "check_dtype_move",
            "check_device_move",
        )
    ),
    ("check_frozen", EMPTY, "cpu", NO_PARAMETERS),
    ("check_grads_none", EMPTY, "cpu", NO_PARAMETERS),
    ("check_grads_reach", EMPTY, "cpu", NO_TRAINABLE),
    ("check_frozen", BUFFERS, "cpu", NO_PARAMETERS),
    ("check_finite", BUFFERS, "cpu", NO_PARAMETERS),
    ("check_distinct", BUFFERS, "cpu", NO_PARAMETERS),
    ("check_dtype_move", BUFFERS, "cpu", "the model has no floating parameter to move"),
    ("check_grads_reach", FROZEN, "cpu", NO_TRAINABLE),
    ("check_grads_finite", FROZEN, "cpu", NO_TRAINABLE),
    ("check_training_step", FROZEN, "cpu", NO_TRAINABLE),
    ("check_optimizer_covers", FROZEN, "cpu", NO_TRAINABLE),
    ("check_tied_grads_sum", case(Net), "cpu", "the model has no trainable tied parameter"),
    *(
        (name, LAZY_CASE, "cpu", LAZY)
        for name in (
            "check_init_complete",
            "check_finite",
            "check_distinct",
            "check_deterministic",
            "check_grads_reach",
            "check_grads_finite",
            "check_tied_grads_sum",
            "check_eval_unchanged",
            "check_training_step",
            "check_optimizer_covers",
        )
    ),
    ("check_grads_finite", NO_GRAPH, "cpu", "the loss has no graph: check_grads_reach says why"),
    ("check_training_step", NO_GRAPH, "cpu", "the loss has no graph: check_grads_reach says why"),
    (
        "check_grads_finite",
        case(Net, loss=lambda out: torch.ones((), requires_grad=True) * 2),
        "cpu",
        "the loss reaches no parameter: check_grads_reach says why",
    ),
    (
        "check_grads_reach",
        case(lambda: Labels()),
        "cpu",
        "the output has no floating tensor to take a loss of; declare a loss",
    ),
    (
        "check_training_step",
        case(Net, optimizer=lambda m: torch.optim.SGD([torch.ones(1)])),
        "cpu",
        "no optimizer holds a trainable parameter",
    ),
    ("check_materialized", case(Net), "meta", "the case runs on meta"),
    (
        "check_device_move",
        case(Net),
        "meta",
        "the case runs on meta, from where nothing can be moved",
    ),
    *(
        (name, case(Net), "meta", ON_META)
        for name, check in CHECKS.items()
        if check.values and check.applies(case(Net))
    ),
]


class Labels(Net):
    def forward(self, x: Tensor) -> Any:
        return super().forward(x).argmax(-1)


@pytest.mark.parametrize(
    ("name", "case", "device", "reason"),
    NOTHING,
    ids=[f"{n[6:]}-{d}" for n, _, d, _ in NOTHING],
)
def test_a_check_that_sees_nothing_skips_with_the_reason(
    name: str, case: ModelCase, device: str, reason: str
) -> None:
    assert outcome(name, case, device) == f"skip: {reason}"


def test_no_frame_of_ours_is_shown_where_nothing_is_checked() -> None:
    for name, case, device, _ in NOTHING:
        with pytest.raises(NothingToCheck) as caught, torch.device(device):
            run_check(CHECKS[name], CaseRun(case))
        assert shown_frames(caught.value) == [], name


@pytest.mark.parametrize("name", [n for n in COPIES if CHECKS[n].applies(EMPTY)])
def test_no_check_passes_on_an_empty_model(name: str) -> None:
    assert outcome(name, EMPTY).startswith("skip: ")


def test_a_lazy_model_can_be_copied_moved_and_compared() -> None:
    assert [
        outcome(n, LAZY_CASE) for n in ("check_deepcopy", "check_dtype_move", "check_ties")
    ] == ["ok"] * 3


def test_a_model_that_hides_all_it_has_is_no_empty_one() -> None:
    class AllHidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = [nn.Linear(2, 2)]

    assert outcome("check_registered", case(AllHidden)) == (
        "not registered: layers[0].weight, layers[0].bias (AllHidden)"
    )


# -- what there is, and what applies ------------------------------------------------------------


def test_no_name_goes_and_their_order_stays() -> None:
    """Ids and ``expected_failures`` bear them. A new check may come anywhere between them."""
    assert [name for name in CHECKS if name in NAMES] == list(NAMES)


def test_every_function_that_is_called_a_check_is_one() -> None:
    defined = {}
    for found in pkgutil.iter_modules(model_checks.__path__, f"{model_checks.__name__}."):
        module = importlib.import_module(found.name)
        defined |= {n: value for n, value in vars(module).items() if n.startswith("check_")}

    assert defined == CHECKS


def applying(**given: Any) -> set[str]:
    return {name for name in NAMES if CHECKS[name].applies(ModelCase(Net, **given))}


def test_what_applies_follows_from_what_is_declared() -> None:
    bare = applying()

    # What a case does not say may be found: whether the model runs is known once it was built.
    assert applying(inputs=X) == applying(loss=lambda m: m) == bare
    assert "check_grads_reach" in bare
    assert applying(frozen=[]) - bare == {"check_frozen"}
    assert applying(shapes={}) - bare == {"check_shapes"}
    assert applying(values={"*": values.between(-1, 1)}) - bare == {"check_values"}
    assert applying(optimizer=torch.optim.SGD) - bare == {"check_optimizer_covers"}
    assert applying(manifest="m.txt") - bare == {"check_manifest"}
    assert applying(ties=[]) == bare


def test_every_check_is_named_and_says_in_a_line_what_holds() -> None:
    for name, check in CHECKS.items():
        assert name == check.name == check.run.__name__
        assert name.startswith("check_")
        assert check.summary.endswith(".")


# -- what a check leaves behind -----------------------------------------------------------------


def state(model: nn.Module) -> dict[str, Any]:
    tensors = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    return {
        "values": {name: t.detach().clone() for name, t in tensors.items()},
        "grads": {name: t.grad for name, t in tensors.items()},
        "modes": [module.training for module in model.modules()],
    }


@pytest.mark.parametrize("name", [n for n in COPIES if CHECKS[n].applies(RIGHT["batch norm"])])
def test_the_shared_model_and_the_random_states_are_left_alone(name: str) -> None:
    run = CaseRun(RIGHT["batch norm"])
    before, random = state(run.model), torch.get_rng_state()
    with contextlib.suppress(NothingToCheck):
        run_check(CHECKS[name], run)
    after = state(run.model)

    assert torch.equal(torch.get_rng_state(), random)
    assert after["modes"] == before["modes"]
    assert after["grads"] == before["grads"]
    assert all(torch.equal(after["values"][n], v) for n, v in before["values"].items())


def test_dropout_falls_the_same_way_whatever_was_drawn_before() -> None:
    seen: list[Tensor] = []

    def loss(output: Tensor) -> Tensor:
        seen.append(output.detach())
        return output.square().sum()

    dropout = case(lambda: nn.Sequential(nn.Linear(3, 64), nn.Dropout(0.5)), loss=loss)
    for seed in (1, 2):
        torch.manual_seed(seed)
        run_check(CHECKS["check_grads_finite"], CaseRun(dropout))

    assert torch.equal(*seen)


def test_an_error_of_the_model_comes_through_as_it_is() -> None:
    class Broken(Net):
        def forward(self, x: Tensor) -> Any:
            raise ZeroDivisionError("mine")

    for name in ("check_grads_reach", "check_eval_unchanged", "check_training_step"):
        with pytest.raises(ZeroDivisionError, match="mine") as error:
            run_check(CHECKS[name], CaseRun(case(Broken)))
        assert error.value.__cause__ is None


def test_the_manifest_is_the_one_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "net.txt"
    assert_manifest(Net(), path=path, update=True)

    assert outcome("check_manifest", case(Net, manifest=path)) == "ok"
    assert outcome("check_manifest", case(Unused, manifest=str(path))) == (
        "not in the manifest: extra.weight, extra.bias (Unused)"
    )


def test_a_condition_that_training_keeps() -> None:
    """Small steps keep it, and what our own optimizer does is not held against it."""
    std = {"std": values.positive()}
    kept = case(Policy, values=std, optimizer=lambda m: torch.optim.SGD(m.parameters(), lr=1e-6))

    run_check(CHECKS["check_training_step"], CaseRun(kept))
    run_check(CHECKS["check_training_step"], CaseRun(case(Policy, values=std)))
    run_check(CHECKS["check_values"], CaseRun(kept))
