"""Deliberate parameter bugs, each beside the clean twin, and what catches it.

``python -m tests.planted_bugs > docs/planted_bugs.md`` writes the table of the documentation;
``test_planted_bugs.py`` holds the committed table to it.

Each function below builds its model with the bug (``planted=True``) or without: the twins
differ in the planted line and in nothing else, and the very same check passes the clean one.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812 - what everybody calls it
import torch.nn.utils.parametrizations as parametrizations
from torch import Tensor, nn

from pytest_paramcheck import (
    CHECKS,
    ModelCase,
    ParamCheckError,
    assert_changed,
    assert_devices,
    assert_dtypes,
    assert_grad_norm,
    assert_grads_present,
    assert_init,
    assert_loaded,
    assert_manifest,
    assert_optimizer_covers,
    assert_optimizer_state,
    assert_param_count,
    assert_param_groups,
    assert_registered,
    assert_same_ties,
    assert_same_values,
    assert_shapes,
    assert_tied,
    assert_trainable,
    assert_unchanged,
    assert_untied,
    assert_updated,
    init,
)
from pytest_paramcheck.model_checks.registry import run_check
from pytest_paramcheck.model_checks.run import CaseRun

Build = Callable[[bool], Any]
Run = Callable[[Callable[[], Any]], None]


@dataclass(frozen=True)
class Catch:
    """What has to catch a bug: its name, and how it is run on what a factory builds."""

    name: str
    run: Run


@dataclass(frozen=True)
class PlantedBug:
    """One kind of bug: its family, what it is, what catches it and what has to be named."""

    family: str
    title: str
    catch: Catch
    names: tuple[str, ...]
    build: Build

    @property
    def id(self) -> str:
        return self.build.__name__

    def run(self, *, planted: bool) -> None:
        """Run what catches it on the model with the bug, or on the clean twin."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.catch.run(lambda: self.build(planted))

    def message(self) -> str:
        """Return what is said about the planted bug."""
        try:
            self.run(planted=True)
        except ParamCheckError as error:
            return str(error)
        raise LookupError(f"{self.title}: {self.catch.name} does not catch it")


PLANTED: list[PlantedBug] = []


def bug(family: str, title: str, catch: Catch, *names: str) -> Callable[[Build], Build]:
    """Register a bug; the first line of the message has to name all of ``names``, as folded."""

    def register(build: Build) -> Build:
        PLANTED.append(PlantedBug(family, title, catch, names, build))
        return build

    return register


def checked(check: str, **declared: Any) -> Catch:
    """Caught by a whole-model check, the model declared like this."""
    found = CHECKS[check]

    def run(factory: Callable[[], Any]) -> None:
        run_check(found, CaseRun(ModelCase(factory, name="model", **declared)))

    return Catch(found.name, run)


def asserted(assertion: Callable[..., Any], *args: Any, **options: Any) -> Catch:
    """Caught by an assertion; a tuple of subjects goes in front of its arguments."""

    def run(factory: Callable[[], Any]) -> None:
        subject = factory()
        subjects = subject if isinstance(subject, tuple) else (subject,)
        assertion(*subjects, *args, **options)

    return Catch(assertion.__name__, run)


def during(assertion: Callable[..., Any], *patterns: str, **options: Any) -> Catch:
    """Caught by an assertion around a block: the factory returns the model and the block."""

    def run(factory: Callable[[], Any]) -> None:
        model, block = factory()
        with assertion(model, *patterns, **options):
            block()

    return Catch(assertion.__name__, run)


def tokens() -> Tensor:
    return torch.randint(11, (2, 5))


def rows() -> Tensor:
    return torch.randn(6, 4)


# -- the models ---------------------------------------------------------------------------------


class LM(nn.Module):
    """An embedding tied to the head."""

    def __init__(self, words: int = 11) -> None:
        super().__init__()
        self.emb = nn.Embedding(words, 6)
        self.head = nn.Linear(6, words, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(torch.tanh(self.emb(ids)))


class MLP(nn.Module):
    """A backbone and a head."""

    def __init__(self, *, norm: bool = False) -> None:
        super().__init__()
        self.backbone = nn.Sequential(
            nn.Linear(4, 4), nn.BatchNorm1d(4) if norm else nn.Identity(), nn.Tanh()
        )
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.backbone(x))


class Flow(MLP):
    """An MLP whose features go through a function on their way to the head."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.between = between

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.backbone(x)))


class Scale(nn.Module):
    """One tensor that scales; ``holder`` says how it is kept."""

    def __init__(self, scale: Any = None) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        if scale is not None:
            self.scale = scale

    def forward(self, x: Tensor) -> Tensor:
        return self.lin(x) * self.scale


def step(model: nn.Module, optimizer: torch.optim.Optimizer, x: Tensor | None = None) -> None:
    optimizer.zero_grad()
    model(rows() if x is None else x).pow(2).mean().backward()
    optimizer.step()


# -- ties ---------------------------------------------------------------------------------------

LM_TIE = {"ties": [{"emb.weight", "head.weight"}]}


@bug(
    "ties",
    "tie replaced by an equal copy",
    checked("check_ties", **LM_TIE),
    "emb.weight",
    "head.weight",
)
def equal_copy(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        model.head.weight = nn.Parameter(model.emb.weight.detach().clone())
    return model


@bug(
    "ties",
    "tie by .data: two Parameters on one memory",
    checked("check_ties", **LM_TIE),
    "head.weight",
)
def aliased(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        model.head.weight = nn.Parameter(torch.empty(0))
        model.head.weight.data = model.emb.weight.data
    return model


@bug(
    "ties",
    "tie lost by load_state_dict(assign=True)",
    checked("check_ties", **LM_TIE),
    "head.weight",
)
def assign_load(planted: bool) -> nn.Module:
    model = LM()
    saved = {name: tensor.clone() for name, tensor in LM().state_dict().items()}
    model.load_state_dict(saved, assign=planted)
    return model


@bug("ties", "tie lost by a __deepcopy__ of its own", checked("check_deepcopy"), "head.weight")
def deepcopy_override(planted: bool) -> nn.Module:
    class Copied(LM):
        def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
            made = Copied()
            made.load_state_dict(self.state_dict())
            if planted:
                made.head.weight = nn.Parameter(made.head.weight.detach().clone())
            return made

    return Copied()


@bug(
    "ties",
    "weight_norm on one side of a tie",
    asserted(assert_tied, "emb.weight", "head.weight"),
    "emb.weight",
    "head.weight",
)
def weight_norm_one_side(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        parametrizations.weight_norm(model.head)
    return model


@bug("ties", "tie lost by to_empty() from meta", checked("check_ties", **LM_TIE), "head.weight")
def to_empty(planted: bool) -> nn.Module:
    with torch.device("meta"):
        model = LM()
    model.to_empty(device="cpu")
    if not planted:
        model.head.weight = model.emb.weight
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    return model


@bug(
    "ties",
    "tie lost when the embedding was resized",
    checked("check_ties", **LM_TIE),
    "head.weight",
)
def resized(planted: bool) -> nn.Module:
    model = LM()
    model.emb = nn.Embedding(13, 6)
    if not planted:
        model.head.weight = model.emb.weight
    return model


@bug(
    "ties",
    "one layer repeated where several were meant",
    checked("check_ties", ties=[]),
    "{0,2}.weight",
)
def repeated(planted: bool) -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer if planted else nn.Linear(4, 4))


@bug("ties", "tie lost by a wrapper", asserted(assert_same_ties), "head.weight")
def wrapped(planted: bool) -> tuple[nn.Module, nn.Module]:
    before, after = LM(), LM()
    if planted:
        after.emb.weight = nn.Parameter(after.emb.weight.detach().clone())
    return before, after


@bug(
    "ties",
    "one use of a tied parameter detached",
    checked("check_tied_grads_sum", inputs=tokens),
    "head.weight",
)
def tied_use_detached(planted: bool) -> nn.Module:
    class Half(LM):
        def forward(self, ids: Tensor) -> Tensor:
            weight = self.head.weight.detach() if planted else self.head.weight
            return F.linear(torch.tanh(self.emb(ids)), weight)

    return Half()


@bug(
    "ties",
    "a hook that halves the gradient of a tied parameter",
    checked("check_tied_grads_sum", inputs=tokens),
    "head.weight",
)
def tied_hook(planted: bool) -> nn.Module:
    model = LM()
    if planted:
        model.emb.weight.register_hook(lambda grad: grad / 2)
    return model


@bug(
    "sharing",
    "EMA that shares memory with its student",
    asserted(assert_untied),
    "#1.backbone.0.weight",
)
def ema_shares(planted: bool) -> tuple[nn.Module, nn.Module]:
    student = MLP()
    ema = copy.copy(student) if planted else copy.deepcopy(student)
    return student, ema


@bug(
    "sharing",
    "target network that shares one layer",
    asserted(assert_untied),
    "#1.head.bias",
    "#2.head.bias",
)
def target_shares(planted: bool) -> tuple[nn.Module, nn.Module]:
    online = MLP()
    target = copy.deepcopy(online)
    if planted:
        target.head = online.head
    return online, target


@bug(
    "sharing",
    "checkpoint in memory that aliases the live model",
    asserted(assert_untied),
    "#1.backbone.0.weight",
)
def live_checkpoint(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    model = MLP()
    saved = model.state_dict()
    return model, saved if planted else copy.deepcopy(saved)


@bug("sharing", "slices of a flat buffer that overlap by one", checked("check_distinct"), "a", "b")
def overlapping_slices(planted: bool) -> nn.Module:
    flat, model = torch.randn(8), nn.Module()
    model.a = nn.Parameter(flat[:4])
    model.b = nn.Parameter(flat[3:7] if planted else flat[4:])
    return model


@bug("sharing", "expanded parameter that overlaps itself", asserted(assert_untied), "scale")
def expanded(planted: bool) -> nn.Module:
    value = torch.ones(1).expand(4)
    return Scale(nn.Parameter(value if planted else value.clone()))


# -- registered ---------------------------------------------------------------------------------


@bug("registered", "layers in a Python list", checked("check_registered"), "layers[{0,1}].weight")
def in_list(planted: bool) -> nn.Module:
    model, layers = MLP(), [nn.Linear(4, 4), nn.Linear(4, 4)]
    model.layers = layers if planted else nn.ModuleList(layers)
    return model


@bug("registered", "heads in a dict", checked("check_registered"), "heads['a'].weight")
def in_dict(planted: bool) -> nn.Module:
    model, heads = MLP(), {"a": nn.Linear(4, 2)}
    model.heads = heads if planted else nn.ModuleDict(heads)
    return model


@bug(
    "registered",
    "parameter in an object that is no module",
    checked("check_registered"),
    "adapter.scale",
)
def in_object(planted: bool) -> nn.Module:
    class Adapter:
        pass

    model, adapter = MLP(), Adapter()
    adapter.scale = nn.Parameter(torch.ones(4))  # type: ignore[attr-defined]
    if not planted:
        model.register_parameter("scale", adapter.scale)  # type: ignore[attr-defined]
    model.adapter = adapter
    return model


@bug(
    "registered",
    "parameter that only a closure holds",
    checked("check_registered"),
    "between.scale",
)
def in_closure(planted: bool) -> nn.Module:
    scale = nn.Parameter(torch.ones(4))
    model = Flow(lambda x: x * scale)
    if not planted:
        model.scale = scale
    return model


@bug(
    "registered",
    "plain tensor that should be a buffer",
    asserted(assert_registered, tensors=True),
    "scale",
)
def plain_tensor(planted: bool) -> nn.Module:
    model = Scale()
    if planted:
        model.scale = torch.arange(4.0)
    else:
        model.register_buffer("scale", torch.arange(4.0))
    return model


@bug(
    "registered", "tensor that .to() leaves behind", asserted(assert_dtypes, torch.float64), "scale"
)
def left_behind(planted: bool) -> nn.Module:
    return plain_tensor(planted).double()


@bug("registered", "tensor that stays on its device", asserted(assert_devices, "meta"), "scale")
def left_on_device(planted: bool) -> nn.Module:
    return plain_tensor(planted).to("meta")


# -- flags --------------------------------------------------------------------------------------


@bug(
    "frozen",
    "layer frozen by mistake",
    checked("check_frozen", frozen=[]),
    "head.weight",
    "head.bias",
)
def frozen_by_mistake(planted: bool) -> nn.Module:
    model = MLP()
    model.head.requires_grad_(not planted)
    return model


@bug("frozen", "backbone thawed", checked("check_frozen", frozen=["backbone"]), "backbone.0.weight")
def thawed(planted: bool) -> nn.Module:
    model = MLP()
    model.backbone.requires_grad_(planted)
    return model


@bug("frozen", "head frozen through its tie", asserted(assert_trainable, "head"), "head.weight")
def frozen_by_tie(planted: bool) -> nn.Module:
    model = LM()
    if not planted:
        model.head.weight = nn.Parameter(model.emb.weight.detach().clone())
    model.emb.requires_grad_(False)
    return model


@bug(
    "frozen", "parameter of integers, which nothing can train", asserted(assert_trainable), "scale"
)
def integer_parameter(planted: bool) -> nn.Module:
    value = torch.ones(4)
    return Scale(
        nn.Parameter(value.long(), requires_grad=False) if planted else nn.Parameter(value)
    )


@bug(
    "frozen",
    "BatchNorm of a frozen backbone left in train mode",
    during(assert_unchanged, "backbone"),
    "backbone.1.running_mean",
)
def batchnorm_drift(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP(norm=True)
    model.backbone.requires_grad_(False).train(planted)
    optimizer = torch.optim.SGD(model.head.parameters(), lr=0.1)
    return model, lambda: step(model, optimizer)


@bug(
    "frozen",
    "weight decay moves what is frozen",
    during(assert_unchanged, "backbone"),
    "backbone.0.weight",
)
def decay_of_frozen(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    step(model, optimizer)
    # None is skipped by the optimizer, zeros are not.
    optimizer.zero_grad(set_to_none=not planted)
    model.backbone.requires_grad_(False)

    def train() -> None:
        model(rows()).sum().backward()
        optimizer.step()

    return model, train


@bug(
    "frozen",
    "soft update that writes to the wrong network",
    during(assert_unchanged),
    "head.weight",
)
def wrong_network(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    online, target = MLP(), MLP()
    source, goal = (target, online) if planted else (online, target)

    @torch.no_grad()
    def update() -> None:
        for mine, theirs in zip(goal.parameters(), source.parameters(), strict=True):
            mine.lerp_(theirs, 0.1)

    return online, update


@bug(
    "frozen",
    "reset that makes new Parameters",
    during(assert_unchanged, only="objects"),
    "head.weight",
)
def rebound(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()

    def reset() -> None:
        if planted:
            model.head.weight = nn.Parameter(torch.zeros(2, 4))
        else:
            nn.init.zeros_(model.head.weight)

    return model, reset


@bug(
    "frozen",
    "flags changed by a validation pass",
    during(assert_unchanged, only="flags"),
    "backbone.0.bias",
)
def flags_flipped(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()

    def validate() -> None:
        model.requires_grad_(False)
        model(rows())
        if not planted:
            model.requires_grad_(True)

    return model, validate


# -- optimizers ---------------------------------------------------------------------------------


@bug(
    "optimizer",
    "optimizer built before the head was replaced",
    asserted(assert_optimizer_covers),
    "head.weight",
)
def stale_optimizer(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module]:
    model = MLP()
    before = torch.optim.SGD(model.parameters(), lr=0.1)
    model.head = nn.Linear(4, 3)
    return before if planted else torch.optim.SGD(model.parameters(), lr=0.1), model


def two_optimizers(model: nn.Module) -> list[torch.optim.Optimizer]:
    return [
        torch.optim.SGD(part.parameters(), lr=0.1)
        for part in model.split  # type: ignore[union-attr]
    ]


@bug(
    "optimizer",
    "parameter in two optimizers",
    checked("check_optimizer_covers", optimizer=two_optimizers),
    "head.weight",
)
def doubled(planted: bool) -> nn.Module:
    model = MLP()
    # A tuple of what is registered hides nothing.
    model.split = (model if planted else model.backbone, model.head)
    return model


@bug(
    "optimizer",
    "layer that no optimizer holds",
    checked("check_optimizer_covers", optimizer=two_optimizers),
    "backbone.0.weight",
)
def uncovered(planted: bool) -> nn.Module:
    model = MLP()
    model.split = (model.head,) if planted else (model.backbone, model.head)
    return model


@bug(
    "optimizer",
    "memory stepped twice through two Parameters",
    checked("check_optimizer_covers", optimizer=torch.optim.SGD),
    "head.weight",
)
def stepped_twice(planted: bool) -> nn.Module:
    return aliased(planted)


@bug(
    "optimizer",
    "weight decay on biases",
    asserted(assert_param_groups, {"*.bias": {"weight_decay": 0.0}}),
    "head.bias",
)
def decayed_bias(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module]:
    model = MLP()
    biases = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": [p for p in model.parameters() if p.ndim > 1]},
        {"params": biases, **({} if planted else {"weight_decay": 0.0})},
    ]
    return torch.optim.AdamW(groups, weight_decay=0.1), model


@bug(
    "optimizer",
    "optimizer state of a neighbour after a reorder",
    asserted(assert_optimizer_state),
    "b.weight",
)
def neighbours_state(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module, dict[str, Any]]:
    model = nn.ModuleDict({"a": nn.Linear(4, 4, bias=False), "b": nn.Linear(4, 4, bias=False)})
    first = torch.optim.Adam(model.named_parameters())
    (model["a"](rows()) + model["b"](rows())).pow(2).sum().backward()
    first.step()
    saved = copy.deepcopy(first.state_dict())
    named = list(model.named_parameters())
    again = torch.optim.Adam(named[::-1] if planted else named)
    again.load_state_dict(saved)
    return again, model, saved


@bug(
    "optimizer",
    "optimizer state left in another dtype",
    asserted(assert_optimizer_state),
    "head.weight",
)
def state_dtype(planted: bool) -> tuple[torch.optim.Optimizer, nn.Module]:
    model = MLP()
    if not planted:
        model.double()
    optimizer = torch.optim.Adam(model.parameters())
    step(model, optimizer, rows().to(model.head.weight.dtype))
    return optimizer, model.double()


@bug("training", "moved by weight decay alone", during(assert_updated), "head.bias")
def decay_alone(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    factor = 0.0 if planted else 1.0

    def train() -> None:
        (model(rows()) * factor).pow(2).sum().backward()
        optimizer.step()

    return model, train


@bug("training", "gradients cleared before the step", during(assert_updated), "head.weight")
def cleared_too_soon(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def train() -> None:
        model(rows()).pow(2).sum().backward()
        if planted:
            optimizer.zero_grad()
        optimizer.step()

    return model, train


@bug("training", "bfloat16 step that rounds away", during(assert_updated), "scale")
def rounds_away(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    model = nn.Module()
    model.scale = nn.Parameter(torch.ones(4, dtype=torch.bfloat16 if planted else torch.float32))
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)

    def train() -> None:
        model.scale.sum().backward()
        optimizer.step()

    return model, train


@bug("training", "EMA that is never updated", during(assert_changed), "head.weight")
def dead_ema(planted: bool) -> tuple[nn.Module, Callable[[], None]]:
    student = MLP()
    ema = copy.deepcopy(student)
    optimizer = torch.optim.SGD(student.parameters(), lr=0.1)

    def train() -> None:
        step(student, optimizer)
        with torch.no_grad():
            for mine, theirs in zip(ema.parameters(), student.parameters(), strict=True):
                mine.lerp(theirs, 0.1) if planted else mine.lerp_(theirs, 0.1)

    return ema, train


@bug(
    "training",
    "NaN after a step",
    checked(
        "check_training_step",
        inputs=rows,
        optimizer=lambda model: torch.optim.SGD(model.parameters(), lr=model.rate),
    ),
    "head.weight",
)
def nan_step(planted: bool) -> nn.Module:
    model = MLP()
    model.rate = float("inf") if planted else 0.1
    return model


# -- gradients ----------------------------------------------------------------------------------

REACH = checked("check_grads_reach", inputs=rows)


@bug("gradients", "detach in forward", REACH, "backbone.0.weight", "backbone.0.bias")
def detached(planted: bool) -> nn.Module:
    return Flow(torch.detach if planted else torch.relu)


@bug("gradients", "no_grad in forward", REACH, "backbone.0.weight")
def under_no_grad(planted: bool) -> nn.Module:
    class Features(MLP):
        def forward(self, x: Tensor) -> Tensor:
            with torch.set_grad_enabled(not planted):
                features = self.backbone(x)
            return self.head(features)

    return Features()


@bug("gradients", "layer that forward never uses", REACH, "spare.weight", "spare.bias")
def unused(planted: bool) -> nn.Module:
    model = MLP()
    model.spare = nn.Linear(4, 2)
    if not planted:
        model.head, model.spare = nn.Sequential(model.head, nn.Linear(2, 4), model.spare), None
    return model


@bug("gradients", "weight read through .data", REACH, "lin.weight")
def through_data(planted: bool) -> nn.Module:
    class Raw(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lin = nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.lin.weight.data if planted else self.lin.weight, self.lin.bias)

    return Raw()


@bug("gradients", "dead ReLU: a gradient of zeros", REACH, "{0,2}.weight", "0.bias")
def dead_relu(planted: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    if planted:
        nn.init.constant_(model[0].bias, -100.0)
    return model


@bug("gradients", "expert that the router never picks", REACH, "experts.1.weight")
def unrouted(planted: bool) -> nn.Module:
    class Experts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(4, 2) for _ in range(2))

        def forward(self, x: Tensor) -> Tensor:
            picked = torch.zeros(len(x)) if planted else torch.arange(len(x)) % 2
            masks = [(picked == i).float().unsqueeze(1) for i in range(2)]
            return sum(m * e(x) for m, e in zip(masks, self.experts, strict=True))  # type: ignore[return-value]

    return Experts()


@bug(
    "gradients",
    "LoRA with both factors zero",
    # Of a fresh LoRA, one factor has no signal until the other has moved.
    checked("check_grads_reach", inputs=rows, unreached=["lora_a"]),
    "lora_b",
)
def lora_zero(planted: bool) -> nn.Module:
    class LoRA(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = nn.Linear(4, 2).requires_grad_(False)
            self.lora_a = nn.Parameter(torch.zeros(2, 4) if planted else torch.randn(2, 4))
            self.lora_b = nn.Parameter(torch.zeros(2, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + x @ self.lora_a.T @ self.lora_b.T

    return LoRA()


@bug(
    "gradients",
    "gradient NaN: a square root at zero",
    checked("check_grads_finite", inputs=rows),
    "backbone.0.weight",
)
def nan_gradient(planted: bool) -> nn.Module:
    return Flow(lambda x: ((x - x) + (0.0 if planted else 1.0) + x * x * 0).sqrt())


@bug(
    "gradients",
    "gradient infinite: a scale that overflows",
    checked("check_grads_finite", inputs=rows),
    "head.weight",
)
def inf_gradient(planted: bool) -> nn.Module:
    return Flow(lambda x: x * (1e39 if planted else 1.0))


@bug("gradients", "gradient left over from building", checked("check_grads_none"), "head.weight")
def left_over(planted: bool) -> nn.Module:
    model = MLP()
    model(rows()).sum().backward()
    if not planted:
        model.zero_grad()
    return model


@bug(
    "gradients",
    "gradients never computed for one branch",
    asserted(assert_grads_present),
    "spare.weight",
)
def branch_without(planted: bool) -> nn.Module:
    model = MLP()
    model.spare = nn.Linear(4, 2)
    x = rows()
    loss = model(x).sum()
    (loss if planted else loss + model.spare(x).sum()).backward()
    return model


@bug("gradients", "exploding gradient", asserted(assert_grad_norm, at_most=1e3), "head.weight")
def exploding(planted: bool) -> nn.Module:
    model = MLP()
    (model(rows()) * (1e6 if planted else 1.0)).sum().backward()
    return model


# -- values -------------------------------------------------------------------------------------


@bug("values", "torch.empty that nobody fills", checked("check_init_complete"), "scale")
def uninitialised(planted: bool) -> nn.Module:
    return Scale(nn.Parameter(torch.empty(64) if planted else torch.ones(64)))


@bug("values", "embedding initialised by half", checked("check_init_complete"), "emb.weight")
def half_initialised(planted: bool) -> nn.Module:
    model = nn.Module()
    table = torch.empty(16, 8)
    nn.init.normal_(table[:8] if planted else table)
    model.emb = nn.Embedding(16, 8, _weight=table)
    return model


@bug("values", "buffer forgotten after to_empty()", checked("check_init_complete"), "running_mean")
def forgotten_buffer(planted: bool) -> nn.Module:
    model = nn.BatchNorm1d(32, device="meta").to_empty(device="cpu")
    nn.init.ones_(model.weight)
    nn.init.zeros_(model.bias)
    if not planted:
        model.reset_running_stats()
    return model


@bug(
    "values", "layers stacked as copies of one another", checked("check_distinct"), "{0..2}.weight"
)
def stacked_copies(planted: bool) -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(*(copy.deepcopy(layer) if planted else nn.Linear(4, 4) for _ in range(3)))


@bug("values", "layers drawn from the same seed", checked("check_distinct"), "blocks.{0,1}")
def same_seed(planted: bool) -> nn.Module:
    model = nn.Module()
    model.blocks = nn.ParameterList()
    for number in range(2):
        generator = torch.Generator("cpu").manual_seed(0 if planted else number)
        model.blocks.append(nn.Parameter(torch.randn(4, 4, generator=generator)))
    return model


@bug("values", "NaN at the start", checked("check_finite"), "scale")
def nan_at_start(planted: bool) -> nn.Module:
    return Scale(nn.Parameter(torch.tensor([0.0, 1.0]) / (0.0 if planted else 1.0)))


DRAWN = {"*.weight": init.normal(0, 0.02), "*.bias": init.zeros()}


def drawn(weight_std: float = 0.02, bias: float = 0.0) -> nn.Module:
    model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
    for layer in model:
        nn.init.normal_(layer.weight, 0, weight_std)
        nn.init.constant_(layer.bias, bias)
    return model


@bug("values", "wrong standard deviation", asserted(assert_init, DRAWN), "{0,1}.weight")
def wrong_std(planted: bool) -> nn.Module:
    return drawn(weight_std=0.2 if planted else 0.02)


@bug("values", "bias not zero", asserted(assert_init, DRAWN), "{0,1}.bias")
def wrong_bias(planted: bool) -> nn.Module:
    return drawn(bias=0.1 if planted else 0.0)


@bug(
    "values",
    "padding row overwritten by the init",
    asserted(assert_init, {"weight": init.normal()}),
    "weight",
)
def padding_row(planted: bool) -> nn.Module:
    model = nn.Embedding(64, 8, padding_idx=0)
    nn.init.normal_(model.weight)
    if not planted:
        nn.init.zeros_(model.weight.data[0])
    return model


@bug(
    "values", "construction that the seed does not decide", checked("check_deterministic"), "scale"
)
def unseeded(planted: bool) -> nn.Module:
    generator = torch.Generator("cpu")
    if planted:
        generator.seed()
    return Scale(nn.Parameter(torch.randn(8, generator=generator)))


@bug(
    "values",
    "forward in eval that changes state",
    checked("check_eval_unchanged", inputs=rows),
    "seen",
)
def changes_in_eval(planted: bool) -> nn.Module:
    class Counting(MLP):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("seen", torch.zeros(()))

        def forward(self, x: Tensor) -> Tensor:
            if planted or self.training:
                self.seen += len(x)
            return super().forward(x)

    return Counting()


# -- structure ----------------------------------------------------------------------------------


@bug(
    "structure", "parameter left on meta", checked("check_materialized"), "head.weight", "head.bias"
)
def left_on_meta(planted: bool) -> nn.Module:
    model = MLP()
    model.head = nn.Linear(4, 2, device="meta" if planted else "cpu")
    return model


@bug("structure", "lazy layer that saw no forward pass", checked("check_materialized"), "0.weight")
def left_lazy(planted: bool) -> nn.Module:
    model = nn.Sequential(nn.LazyLinear(2))
    if not planted:
        model(rows())
    return model


@bug("structure", "buffer in numpy's float64", asserted(assert_dtypes, torch.float32), "table")
def wrong_dtype(planted: bool) -> nn.Module:
    model = MLP()
    dtype = torch.float64 if planted else torch.float32
    model.register_buffer("table", torch.arange(4, dtype=dtype))
    return model


@bug(
    "structure",
    "weight stored transposed",
    checked("check_shapes", shapes={"w": (4, 3), "b": (3,)}),
    "w",
)
def transposed(planted: bool) -> nn.Module:
    model = nn.Module()
    model.w = nn.Parameter(torch.randn(4, 3).T if planted else torch.randn(4, 3))
    model.b = nn.Parameter(torch.zeros(3))
    return model


@bug(
    "structure",
    "scalar turned into one element",
    asserted(assert_shapes, {"scale": ()}, partial=True),
    "scale",
)
def one_element(planted: bool) -> nn.Module:
    return Scale(nn.Parameter(torch.ones(1) if planted else torch.ones(())))


# A total is of no parameter in particular: the model is what can be named.
@bug("structure", "number of parameters changed", asserted(assert_param_count, 30), "MLP")
def count_changed(planted: bool) -> nn.Module:
    model = MLP()
    if planted:
        model.head = nn.Linear(4, 3)
    return model


def manifest_of(reference: Callable[[], nn.Module]) -> Catch:
    """Caught by the manifest of the model as it was."""

    def run(factory: Callable[[], Any]) -> None:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "model.txt"
            assert_manifest(reference(), path=path, update=True)
            assert_manifest(factory(), path=path)

    return Catch("assert_manifest", run)


def two(first: str, second: str, *, persistent: bool = True) -> nn.Module:
    model = nn.ModuleDict({first: nn.Linear(4, 4), second: nn.Linear(4, 4)})
    model.register_buffer("table", torch.ones(3), persistent=persistent)
    return model


@bug(
    "structure",
    "modules reordered: optimizer checkpoints go by position",
    manifest_of(lambda: two("a", "b")),
    "a.weight",
)
def reordered(planted: bool) -> nn.Module:
    return two("b", "a") if planted else two("a", "b")


@bug(
    "structure",
    "module renamed: checkpoints do not load",
    manifest_of(lambda: two("a", "b")),
    "b.weight",
)
def renamed(planted: bool) -> nn.Module:
    return two("a", "c" if planted else "b")


@bug("structure", "buffer no longer saved", manifest_of(lambda: two("a", "b")), "table")
def no_longer_saved(planted: bool) -> nn.Module:
    return two("a", "b", persistent=not planted)


# -- checkpoints --------------------------------------------------------------------------------


def saved_mlp() -> dict[str, Tensor]:
    return copy.deepcopy(MLP().state_dict())


@bug(
    "checkpoints",
    "checkpoint loaded by half (strict=False)",
    asserted(assert_loaded),
    "head.weight",
    "head.bias",
)
def half_loaded(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    loaded = {k: v for k, v in saved.items() if not (planted and k.startswith("head"))}
    model.load_state_dict(loaded, strict=False)
    return model, saved


@bug(
    "checkpoints",
    "checkpoint with the prefix of a wrapper",
    asserted(assert_loaded),
    "module.head.weight",
)
def prefixed(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    if planted:
        saved = {f"module.{name}": tensor for name, tensor in saved.items()}
    model.load_state_dict(saved, strict=False)
    return model, saved


@bug("checkpoints", "key renamed since it was saved", asserted(assert_loaded), "fc.weight")
def renamed_key(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    if planted:
        saved["fc.weight"] = saved.pop("head.weight")
    model.load_state_dict(saved, strict=False)
    return model, saved


@bug("checkpoints", "load that broadcasts another shape", asserted(assert_loaded), "head.bias")
def broadcast_load(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    if planted:
        saved["head.bias"] = saved["head.bias"][:1]
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            tensor.copy_(saved[name])
    return model, saved


@bug(
    "checkpoints",
    "checkpoint rounded to bfloat16 on the way",
    asserted(assert_same_values),
    "head.weight",
)
def rounded(planted: bool) -> tuple[nn.Module, dict[str, Tensor]]:
    saved, model = saved_mlp(), MLP()
    way = torch.bfloat16 if planted else torch.float32
    model.load_state_dict({name: tensor.to(way) for name, tensor in saved.items()})
    return model, saved


@bug(
    "checkpoints",
    "module that leaves a parameter out of its state_dict",
    checked("check_state_dict_roundtrip"),
    "head.bias",
)
def not_saved(planted: bool) -> nn.Module:
    class Lean(nn.Linear):
        def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
            super()._save_to_state_dict(destination, prefix, keep_vars)
            if planted:
                del destination[f"{prefix}bias"]

    model = MLP()
    model.head = Lean(4, 2)
    return model


@bug(
    "checkpoints",
    "layer initialised again after the load",
    checked("check_torch_save_roundtrip"),
    "head.weight",
)
def initialised_again(planted: bool) -> nn.Module:
    model = MLP()
    # A hook that a deep copy takes along refers to the module it is given, not to the model.
    model.head.register_load_state_dict_post_hook(
        lambda module, keys: module.reset_parameters() if planted else None
    )
    return model


# -- the table ----------------------------------------------------------------------------------


def markdown() -> str:
    """Return the table: class of bug, what catches it, the first line of what it says."""
    lines = [
        "# Deliberate bugs, and what catches them",
        "",
        "Each row is a bug planted in a small model by `tests/planted_bugs/`. What stands beside",
        "it catches it and passes the same model without the bug; `check_...` are whole-model",
        "checks. This file is written by",
        "`python -m tests.planted_bugs > docs/planted_bugs.md`.",
        "",
        "| class | bug | caught by | first line of the message |",
        "|---|---|---|---|",
    ]
    for one in PLANTED:
        first = one.message().splitlines()[0].replace("|", "\\|")
        lines.append(f"| {one.family} | {one.title} | `{one.catch.name}` | `{first}` |")
    return "\n".join(lines) + "\n"
