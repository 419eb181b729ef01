"""What inputs that nobody declared do not come to: said as such, and never in place of a bug."""

from __future__ import annotations

import sys
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import CaseRun, ModelCase, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.registry import CHECKS
from pytest_paramcheck.model_checks.run import take_left_out


class Base(nn.Module):
    """A model with an example of its inputs."""

    example_input_array: Any = torch.linspace(-1, 1, 8).reshape(2, 4)

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.extra = nn.Linear(4, 4)


class Plain(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.first(x)
        if mask is not None:
            x = x + self.extra(mask)
        return x


class Early(Base):
    def forward(self, x: Tensor, target: Tensor | None = None) -> Any:
        x = self.first(x)
        if target is None:
            return x
        return self.extra(x), target


class Derived(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None, scale: float = 2.0) -> Any:
        masked = mask is not None
        x = self.first(x) * scale
        return self.extra(x) if masked and scale > 1 else x


class Mode(Base):
    def forward(self, x: Tensor, task: str = "plain") -> Any:
        x = self.first(x)
        return {"plain": x} if task == "plain" else {"other": self.extra(x)}


class Keyword(Base):
    def forward(self, x: Tensor, **more: Tensor) -> Any:
        x = self.first(x)
        context = more.get("context")
        if context is not None:
            x = x + self.extra(context)
        return x


class InADict(Base):
    example_input_array = ({"x": torch.linspace(-1, 1, 8).reshape(2, 4)}, torch.ones(4))

    def forward(self, batch: dict[str, Tensor], scale: Tensor) -> Any:
        x = self.first(batch["x"]) * scale
        if "context" in batch:
            x = x + self.extra(batch["context"])
        return x


class Listed(Base):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])  # type: ignore[assignment]

    def forward(self, x: Tensor, more: tuple[Tensor, ...] = ()) -> Any:
        x = self.first(x)
        for layer, one in zip(self.extra, more, strict=False):
            x = x + layer(one)
        return x


class ByKey(Base):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 4), "extra": nn.Linear(4, 4)})
        del self.extra

    def forward(self, x: Tensor, task: str = "a") -> Any:
        return self.heads[task](self.first(x))


class Helper(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        return self._head(self.first(x), mask is not None)

    def _head(self, x: Tensor, masked: bool) -> Any:
        return self._more(x) if masked else x

    def _more(self, x: Tensor) -> Any:
        return self.extra(x)


class Own(nn.Module):
    """A parameter of its own, in a module that gets what the model leaves out."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.Parameter(torch.ones(4))
        self.kept = nn.Parameter(torch.ones(4))

    def forward(self, x: Tensor, mask: Tensor | None) -> Any:
        if self.extra is not None and mask is not None:
            x = torch.where(mask, self.extra.to(x.dtype), x)
        return x.to(self.extra.dtype) * self.kept


class Nested(Base):
    def __init__(self) -> None:
        super().__init__()
        self.inner = Own()
        del self.extra

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        return self.inner(self.first(x), mask)


class Alias(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        extra = self.extra
        x = self.first(x)
        return x if mask is None else extra(x)


class OtherMethod(Base):
    def forward(self, x: Tensor) -> Any:
        return self.first(x)

    def predict(self, x: Tensor) -> Any:
        return self.extra(self.first(x))


class OtherResult(Base):
    def forward(self, x: Tensor, return_more: bool = False) -> Any:
        x = self.first(x)
        more = self.extra(x).square()
        if return_more:
            return x, more
        return x


class ByName(Base):
    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"extra": nn.Linear(4, 4)})
        del self.extra

    def forward(self, x: Tensor, targets: dict[str, Tensor] | None = None) -> Any:
        x = self.first(x)
        out = [x]
        for name, head in self.heads.items():
            if targets is not None and name in targets:
                out.append(head(x) - targets[name])
        return out


class Numbered(Base):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])  # type: ignore[assignment]

    def forward(self, x: Tensor, depth: int = 0) -> Any:
        x = self.first(x)
        for number, layer in enumerate(self.extra):  # type: ignore[arg-type]
            if number < depth:
                x = layer(x)
        return x


class Matched(Base):
    def forward(self, x: Tensor, task: str = "plain") -> Any:
        x = self.first(x)
        match task:
            case "plain":
                return x
            case _:
                return self.extra(x)


class Encoder(Base):
    def forward(self, x: Tensor) -> Any:
        return self.first(x)


class Trained(nn.Module):
    """Lightning's: what ``forward`` does not need is used by ``training_step``."""

    example_input_array = Base.example_input_array

    def __init__(self) -> None:
        super().__init__()
        self.model = Encoder()

    def forward(self, x: Tensor) -> Any:
        return self.model(x)

    def training_step(self, batch: Tensor, batch_idx: int) -> Any:
        return self._loss(batch)

    def validation_step(self, batch: Tensor, batch_idx: int) -> Any:
        return self._loss(batch)

    def _loss(self, batch: Tensor) -> Any:
        return (self.model.extra(self.model(batch)) - batch).square().mean()


class Nothing(Base):
    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        x[x > 50] += self.head(x[x > 50])
        return x

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Sequential(nn.Unflatten(0, (-1, 1)), nn.Linear(1, 1), nn.Flatten(0))
        del self.extra


LEFT_OUT = {
    Plain: "mask is None",
    Early: "target is None",
    Derived: "mask is None",
    Mode: "task is 'plain'",
    Keyword: "context is not given",
    InADict: "context is not given",
    Listed: "more is empty",
    ByKey: "task is 'a'",
    Helper: "masked is False",
    Nested: "mask is None",
    Alias: "mask is None",
    OtherMethod: "only predict() uses it",
    OtherResult: "return_more is False",
    ByName: "targets is None",
    Numbered: "depth is 0",
    Matched: "task is 'plain'",
    Trained: "only training_step() uses it",
    Nothing: "its input is empty",
}


def ask(factory: Any, **declared: Any) -> str:
    """Return what a run says that its inputs do not come to; raise what the check finds."""
    run = CaseRun(ModelCase(factory, name="model", **declared))
    try:
        run_check(CHECKS["check_grads_reach"], run)
    finally:
        said = take_left_out(run)
    return said


@pytest.mark.parametrize("model", LEFT_OUT, ids=lambda model: model.__name__)
def test_what_is_behind_an_argument_that_a_guess_leaves_out_is_no_finding(
    model: Any,
) -> None:
    said = ask(model)
    assert said.endswith(f"({LEFT_OUT[model]})")
    assert "first" not in said


@pytest.mark.parametrize("model", LEFT_OUT, ids=lambda model: model.__name__)
def test_of_declared_inputs_it_is_one(model: Any) -> None:
    given = model.example_input_array
    with pytest.raises(ParamCheckError, match=r"^(no|zero) gradient: "):
        ask(model, inputs=given)


class Forgotten(Base):
    """Named where layers are set up and reset, by a setting, and by no code that uses it."""

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.extra.weight)
        self.extra.reset_parameters()

    def get_extra(self) -> nn.Module:
        return self.extra

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.first(x.to(self.extra.weight.dtype))
        return x if mask is None else x * mask


class SwitchedOff(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.first(x)
        if mask is not None:
            x = x * mask
        elif self.first.out_features > 8:
            x = self.extra(x)
        return x


class SwitchedOffBesideAnArgument(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.first(x)
        if self.first.out_features > 8 and mask is None:
            x = self.extra(x)
        return x


class ArgumentReplaced(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        if mask is None:
            mask = x > 50
        x = self.first(x)
        if mask.all():
            x = self.extra(x)
        return x


class Dropped(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.first(x)
        self.extra(x)
        if mask is not None:
            x = x * mask
        return x


class Detached(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.first(x)
        return x + self.extra(x).detach()


class BehindAnError(Base):
    """What it asks of its arguments first is no way to the layer."""

    def forward(self, x: Tensor, mask: Tensor | None = None, scale: Tensor | None = None) -> Any:
        if mask is not None and scale is not None:
            return x
        if mask is not None:
            raise ValueError("no mask")
        x = self.first(x)
        if self.first.out_features > 8:
            x = self.extra(x)
        return x


class DroppedBehindAnError(Base):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        if x.dim() > 2 and mask is not None:
            raise ValueError("no mask")
        if x.dim() > 2 and mask is not None:
            return x
        x = self.first(x)
        pooled = self.extra(x)
        return {"x": x, "pooled": pooled.tolist()}


class OnlyTheBaseClass(Plain):
    """Its own forward has forgotten what that of its base class used."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        return self.first(x)


class OneLayerShort(Base):
    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])  # type: ignore[assignment]

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
        x = self.first(x)
        for layer in self.extra[:-1]:  # type: ignore[index]
            x = layer(x)
        return x


class OneExpert(Base):
    """All tokens go to the first expert; the others run on nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.extra = nn.ModuleList([nn.Linear(4, 4) for _ in range(3)])  # type: ignore[assignment]

    def forward(self, x: Tensor) -> Any:
        x = self.first(x)
        chosen = torch.zeros(len(x), dtype=torch.long)
        out = torch.zeros_like(x)
        for number, expert in enumerate(self.extra):  # type: ignore[arg-type]
            out[chosen == number] += expert(x[chosen == number])
        return out


BUGS = [
    Forgotten,
    SwitchedOff,
    SwitchedOffBesideAnArgument,
    ArgumentReplaced,
    Dropped,
    Detached,
    BehindAnError,
    DroppedBehindAnError,
    OnlyTheBaseClass,
    OneLayerShort,
    OneExpert,
]


@pytest.mark.parametrize("model", BUGS, ids=lambda model: model.__name__)
def test_what_no_argument_decides_stays_a_finding(model: type[Base]) -> None:
    with pytest.raises(ParamCheckError, match=r"^(no|zero) gradient: extra\."):
        ask(model)


def test_what_is_left_out_hides_no_bug_beside_it() -> None:
    class Both(Plain):
        def __init__(self) -> None:
            super().__init__()
            self.forgotten = nn.Linear(4, 4)

    with pytest.raises(ParamCheckError) as caught:
        ask(Both)
    assert [finding.names for finding in caught.value.findings] == [
        ("forgotten.weight",),
        ("forgotten.bias",),
    ]


def test_without_a_source_nothing_is_said_to_be_left_out() -> None:
    made: dict[str, Any] = {"Base": Base}
    exec(
        "class Unread(Base):\n"
        "    def forward(self, x, mask=None):\n"
        "        return self.first(x) if mask is None else self.extra(x)\n",
        made,
    )
    with pytest.raises(ParamCheckError):
        ask(made["Unread"])


class Nested(nn.Module):
    """Holds one module twice at each level: a million names at twenty."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.one = self.two = Nested(levels - 1) if levels else nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Any:
        return self.one(x)


class WithManyNames(Plain):
    def __init__(self) -> None:
        super().__init__()
        self.first = Nested(8)  # type: ignore[assignment]


class HoldsItself(Plain):
    def __init__(self) -> None:
        super().__init__()
        self._modules["itself"] = self


@pytest.mark.parametrize("model", [WithManyNames, HoldsItself])
def test_modules_with_many_names_or_without_an_end_are_walked_once(model: type[Base]) -> None:
    assert ask(model) == "2 parameters, extra (mask is None)"


def test_a_profiler_goes_on_and_the_model_is_as_it_was() -> None:
    seen: list[str] = []

    def profiler(frame: Any, event: str, _: Any) -> None:
        if event == "call" and frame.f_code.co_name == "profiled":
            seen.append(event)

    def profiled() -> None: ...

    sys.setprofile(profiler)
    try:
        run = CaseRun(ModelCase(Plain))
        before = {name: p.detach().clone() for name, p in run.model.named_parameters()}
        run_check(CHECKS["check_grads_reach"], run)
        profiled()
    finally:
        sys.setprofile(None)
    assert seen == ["call"]
    assert all(bool((before[n] == p).all()) for n, p in run.model.named_parameters())
    assert all(p.grad is None for p in run.model.parameters())


def test_the_line_names_patterns_and_each_reason() -> None:
    class Layers(nn.Module):
        example_input_array = torch.linspace(-1, 1, 8).reshape(2, 4)

        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.ModuleList([Plain(), Plain()])
            self.more = Early()

        def forward(self, x: Tensor, mask: Tensor | None = None) -> Any:
            for layer in self.layers:
                x = layer(x, mask)
            return self.more(x, mask)

    assert ask(Layers) == (
        "6 parameters, layers.*.extra (mask is None), more.extra (target is None)"
    )
