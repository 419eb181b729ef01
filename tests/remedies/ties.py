"""Ties, and memory that is shared."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.nn.utils import parametrizations

from pytest_paramcheck import (
    assert_distinct,
    assert_tied,
    assert_ties,
    assert_ties_survive,
    assert_untied,
)

from ..models import LM
from . import Call, Case, checking, done, remedy


@remedy("tie by assignment: *")
def tie_by_assignment() -> Case:
    model = LM(tied=False)

    def repair(hint: str) -> None:
        done(hint.removeprefix("tie by assignment: "), model=model)

    call = lambda: assert_tied(model, "emb.weight", "head.weight")  # noqa: E731
    return Case(call, repair, model, ("head.weight",))


@remedy("tie by assignment: assign one Parameter to both modules")
def one_parameter() -> Case:
    a, b = nn.Linear(2, 2, bias=False), nn.Linear(2, 2, bias=False)

    def repair(hint: str) -> None:
        b.weight = a.weight

    return Case(lambda: assert_tied(a.weight, b.weight), lambda hint: _tied(a, b))


def _tied(a: nn.Linear, b: nn.Linear) -> Call:
    b.weight = a.weight
    return lambda: assert_tied(a.weight, b.weight)


@remedy("* cannot be one parameter: if one was resized, resize the other, then tie")
def resize_the_other() -> Case:
    model = LM(tied=False)
    model.emb = nn.Embedding(13, 6)

    def repair(hint: str) -> None:
        model.head = nn.Linear(6, 13, bias=False)
        model.head.weight = model.emb.weight

    return Case(lambda: assert_tied(model, "emb.weight", "head.weight"), repair)


@remedy("* cannot be one parameter: build both in one shape, or leave the tie out")
def one_shape() -> Case:
    model = LM(tied=False)
    model.emb = nn.Embedding(13, 8)

    def repair(hint: str) -> None:
        model.emb = nn.Embedding(11, 6)
        model.head.weight = model.emb.weight

    return Case(lambda: assert_tied(model, "emb.weight", "head.weight"), repair)


@remedy("* (one parameter cannot be *)")
def one_dtype() -> Case:
    model = LM(tied=False)
    model.head.double()

    def repair(hint: str) -> None:
        model.head.to(model.emb.weight.dtype)
        model.head.weight = model.emb.weight

    return Case(lambda: assert_tied(model, "emb.weight", "head.weight"), repair)


@remedy("parametrize both sides through one module, or remove * from *")
def remove_the_parametrization() -> Case:
    model = LM()
    parametrizations.weight_norm(model.head)

    def repair(hint: str) -> None:
        nn.utils.parametrize.remove_parametrizations(model.head, "weight")
        model.head.weight = model.emb.weight

    return Case(lambda: assert_tied(model, "emb.weight", "head.weight"), repair)


@remedy(
    "give each its own memory with .clone(), or make it one Parameter by assignment",
)
def not_on_one_memory() -> Case:
    model = LM(tied=False)
    model.head.weight = nn.Parameter(model.emb.weight.data)

    def repair(hint: str) -> None:
        model.head.weight = nn.Parameter(model.emb.weight.detach().clone())

    return Case(lambda: assert_ties(model, []), repair, model)


@remedy("give each its own memory with .clone()")
def clone() -> Case:
    flat = torch.zeros(8)
    subject = {"a": flat[:5], "b": flat[4:]}
    return Case(
        lambda: assert_untied(subject),
        lambda hint: lambda: assert_untied({name: x.clone() for name, x in subject.items()}),
    )


@remedy("give every element its own memory: .contiguous() or .clone()")
def contiguous() -> Case:
    wide = torch.ones(1).expand(4)
    return Case(
        lambda: assert_untied({"scale": wide}),
        lambda hint: (
            lambda: (
                assert_untied({"scale": wide.contiguous()}),
                assert_untied({"scale": wide.clone(memory_format=torch.contiguous_format)}),
            )
        ),
    )


@remedy("give each its own memory: copy.deepcopy(), or load_state_dict() without assign=True")
def own_memory() -> Case:
    model = nn.Linear(2, 2)
    other = nn.Linear(2, 2)
    other.load_state_dict(model.state_dict(), assign=True)

    def repair(hint: str) -> Call:
        loaded = nn.Linear(2, 2)
        loaded.load_state_dict(model.state_dict())
        return lambda: (
            assert_untied(model, loaded),
            assert_untied(model, copy.deepcopy(model)),
            assert_untied(model, copy.deepcopy(model.state_dict())),
        )

    return Case(lambda: assert_untied(model, other), repair, model)


@remedy("make it anew for each: what is made once *")
def make_anew() -> Case:
    def build(act: nn.Module | None) -> nn.Module:
        return nn.Sequential(nn.Linear(2, 2), nn.PReLU() if act is None else act)

    act = nn.PReLU()
    return Case(
        lambda: assert_untied(build(act), build(act)),
        lambda hint: lambda: assert_untied(build(None), build(None)),
    )


@remedy("compare it with a copy: copy.deepcopy(model)")
def compare_a_copy() -> Case:
    model = nn.Linear(2, 2)

    def repair(hint: str) -> Call:
        other = eval(hint.partition(": ")[2], {"copy": copy, "model": model})
        return lambda: assert_untied(model, other)

    return Case(lambda: assert_untied(model, model), repair, model)


@remedy("*; if this is intended, leave out *")
def one_layer_per_place() -> Case:
    model = nn.Sequential(*[nn.Linear(2, 2)] * 3)

    def repair(hint: str) -> Call:
        repaired, _, meant = hint.rpartition("; if this is intended, leave out ")
        assert "[Linear(...) for _ in range(3)]" in repaired
        names = [part.strip(" '") for part in meant.replace(" and ", ", ").split(", ")]
        return lambda: (
            assert_untied(nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)])),
            assert_untied(model, *names),
        )

    return Case(lambda: assert_untied(model), repair, model)


@remedy("*; if this is intended, declare it: {*}")
def declare_the_tie() -> Case:
    model = nn.Sequential(*[nn.Linear(2, 2)] * 2)

    def repair(hint: str) -> Call:
        repaired, _, declared = hint.partition("; if this is intended, declare it: ")
        assert "[Linear(...) for _ in range(2)]" in repaired
        return lambda: (
            assert_ties(nn.Sequential(*[nn.Linear(2, 2) for _ in range(2)]), []),
            assert_ties(model, [eval(declared)]),
        )

    return Case(lambda: assert_ties(model, []), repair, model)


@remedy("create each layer separately, with no manual_seed() between, or re-initialize the copies")
def separately() -> Case:
    model = nn.Sequential(*[copy.deepcopy(nn.Linear(2, 2)) for _ in range(1)])
    model.append(copy.deepcopy(model[0]))

    def repair(hint: str) -> Call:
        model[1].reset_parameters()
        fresh = nn.Sequential(*[nn.Linear(2, 2) for _ in range(2)])
        return lambda: (assert_distinct(model), assert_distinct(fresh))

    return Case(lambda: assert_distinct(model), repair, model, ("1.weight", "1.bias"))


@remedy("if they are meant to be one, tie them: *; if not, create each layer separately, *")
def tie_or_rebuild() -> Case:
    model = LM(tied=False)
    model.head.weight.data.copy_(model.emb.weight)

    def repair(hint: str) -> Call:
        statement, _, rest = hint.partition("tie them: ")[2].partition(", and leave out ")
        done(statement, model=model)
        pattern = eval(rest.partition("; if not")[0])
        return lambda: assert_distinct(model, pattern)

    return Case(lambda: assert_distinct(model), repair, model)


@remedy("*; or, if this is intended: ModelCase(alike=[...])")
def declare_alike() -> Case:
    def stacked() -> nn.Module:
        layer = nn.Linear(4, 4)
        return nn.Sequential(layer, copy.deepcopy(layer))

    return Case(
        checking("check_distinct", stacked),
        lambda hint: (
            lambda: (
                checking(
                    "check_distinct", lambda: nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
                )(),
                checking(
                    "check_distinct",
                    stacked,
                    alike=["*"],
                )(),
            )
        ),
    )


@remedy("take it out of ModelCase(alike=...)")
def take_out_alike() -> Case:
    def two() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))

    return Case(
        checking("check_distinct", two, alike=["*.weight"]),
        lambda hint: checking("check_distinct", two),
    )


@remedy("tie again after the load, or share the module instead of the Parameter")
def share_the_module() -> Case:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2, bias=False)
            self.second = self.first

    operation = "load_state_dict(assign=True)"

    def again(model: Any) -> Any:
        other = copy.deepcopy(model)
        other.load_state_dict(model.state_dict(), assign=True)
        other.head.weight = other.emb.weight
        return other

    return Case(
        lambda: assert_ties_survive(LM(), operation),
        lambda hint: (
            lambda: (
                assert_ties_survive(Shared(), operation),
                assert_ties_survive(LM(), again),
            )
        ),
    )


@remedy(
    "build each anew, [Layer() for _ in range(n)]; if one layer is intended: ModelCase(ties=[...])"
)
def build_each() -> Case:
    def repeated() -> nn.Module:
        return nn.Sequential(*[nn.Linear(2, 2)] * 2)

    return Case(
        checking("check_ties", repeated),
        lambda hint: (
            lambda: (
                checking(
                    "check_ties", lambda: nn.Sequential(*[nn.Linear(2, 2) for _ in range(2)])
                )(),
                checking("check_ties", repeated, ties=[{"0", "1"}])(),
            )
        ),
    )


@remedy("give the head a weight of its own, or set config.tie_word_embeddings = True")
def config_says_tied() -> Case:
    class Config:
        tie_word_embeddings = False

    def build(tied: bool, said: bool) -> Any:
        def factory() -> nn.Module:
            model: Any = LM(tied=tied)
            model.config = Config()
            model.config.tie_word_embeddings = said
            model.get_input_embeddings = lambda: model.emb
            model.get_output_embeddings = lambda: model.head
            return model

        return checking("check_ties", factory)

    return Case(
        build(tied=True, said=False),
        lambda hint: lambda: (build(tied=False, said=False)(), build(tied=True, said=True)()),
    )


@remedy("make it in the factory: a default argument or a global is made once")
def make_in_the_factory() -> Case:
    act = nn.PReLU()
    return Case(
        checking("check_built_anew", lambda: nn.Sequential(nn.Linear(2, 2), act)),
        lambda hint: checking(
            "check_built_anew", lambda: nn.Sequential(nn.Linear(2, 2), nn.PReLU())
        ),
    )


@remedy("__deepcopy__ has to copy what the model holds")
def copy_what_it_holds() -> Case:
    class Keeps(nn.Linear):
        copies = False

        def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
            other = type(self)(3, 2)
            other.load_state_dict(self.state_dict())
            if not self.copies:
                other.weight = self.weight
            return other

    class Copies(Keeps):
        copies = True

    return Case(
        checking("check_deepcopy", lambda: Keeps(3, 2)),
        lambda hint: checking("check_deepcopy", lambda: Copies(3, 2)),
    )


class Reads(nn.Module):
    """Reads itself through a function it holds, or through a method."""

    def __init__(self, function: bool) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3)
        if function:
            self.head = lambda x: x @ self.emb.weight.T
        else:
            self.head = self.method  # type: ignore[assignment]

    def method(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.emb.weight.T


class ReadsByMethod(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3)

    def head(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.emb.weight.T


@remedy("make * a method: self is then the copy's own")
def make_a_method() -> Case:
    return Case(
        checking("check_deepcopy", lambda: Reads(function=True)),
        lambda hint: checking("check_deepcopy", ReadsByMethod),
    )


@remedy(
    "call torch.__future__.set_swap_module_params_on_conversion(True) before the move, or tie "
    "again after it"
)
def swap_on_conversion() -> Case:
    def repair(hint: str) -> Call:
        def swapping() -> None:
            before = torch.__future__.get_swap_module_params_on_conversion()
            torch.__future__.set_swap_module_params_on_conversion(True)
            try:
                assert_ties_survive(LM(), "to(meta)")
            finally:
                torch.__future__.set_swap_module_params_on_conversion(before)

        return swapping

    return Case(lambda: assert_ties_survive(LM(), "to(meta)"), repair)
