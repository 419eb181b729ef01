"""What optimizers hold, and the state they keep."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.optim import SGD, Adam, Optimizer

from pytest_paramcheck import assert_optimizer_covers, assert_optimizer_state, assert_param_groups

from ..models import LM, MLP
from . import Call, Case, asking, done, remedy

MOMENTUM: dict[str, Any] = {"lr": 0.1, "momentum": 0.9}


def stepped(model: nn.Module, named: bool = False, held: Any = None) -> SGD:
    held = held or list(model.named_parameters() if named else model.parameters())
    optimizer = SGD(held, **MOMENTUM)
    for parameter in model.parameters():
        parameter.grad = torch.rand_like(parameter)
    optimizer.step()
    return optimizer


def two() -> nn.Sequential:
    return nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))


@remedy("build the optimizer from the parameters of the complete model")
def of_the_complete_model() -> Case:
    model = MLP()
    optimizer = SGD(model.parameters(), lr=0.1)
    model.head = nn.Linear(4, 2)
    return Case(
        lambda: assert_optimizer_covers(optimizer, model),
        lambda hint: lambda: assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model),
        model,
    )


@remedy("build the optimizer after the model is complete, or add what is missing: *")
def add_what_is_missing() -> Case:
    model = MLP()
    optimizer = SGD(model.head.parameters(), lr=0.1)

    def repair(hint: str) -> None:
        optimizer.add_param_group({"params": list(model.backbone.parameters())})

    return Case(lambda: assert_optimizer_covers(optimizer, model), repair, model)


@remedy("give each parameter to one group of one optimizer")
def one_group() -> Case:
    model = MLP()
    optimizers = [SGD(model.parameters(), lr=0.1), SGD(model.head.parameters(), lr=0.1)]
    return Case(
        lambda: assert_optimizer_covers(optimizers, model),
        lambda hint: (
            lambda: assert_optimizer_covers(
                [SGD(model.backbone.parameters(), lr=0.1), optimizers[1]], model
            )
        ),
        model,
    )


@remedy("tie by assigning the Parameter itself, not its data")
def tie_the_parameter() -> Case:
    model = LM(tied=False)
    model.head.weight = nn.Parameter(model.emb.weight.data)

    def repair(hint: str) -> None:
        model.head.weight = model.emb.weight

    return Case(
        lambda: assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model), repair, model
    )


@remedy("tie by assigning the Parameter itself")
def tie_the_held_one() -> Case:
    model = LM(tied=False)
    model.head.weight = nn.Parameter(model.emb.weight.data)
    optimizer = SGD([model.emb.weight], lr=0.1)

    def repair(hint: str) -> None:
        model.head.weight = model.emb.weight

    return Case(lambda: assert_optimizer_covers(optimizer, model), repair, model)


@remedy("give the optimizer the parameters themselves, or set .grad of what it holds from theirs")
def the_parameters_themselves() -> Case:
    model = nn.Linear(2, 2)
    flat = torch.zeros(6)
    with torch.no_grad():
        flat[:4] = model.weight.reshape(-1)
        flat[4:] = model.bias
        model.weight.data = flat[:4].view(2, 2)
        model.bias.data = flat[4:]
    optimizer = SGD([nn.Parameter(flat)], lr=0.1)
    return Case(
        lambda: assert_optimizer_covers(optimizer, model),
        lambda hint: lambda: assert_optimizer_covers(SGD(model.parameters(), lr=0.1), model),
        model,
    )


@remedy("where one optimizer trains several models, pass nn.ModuleDict of them")
def several_models() -> Case:
    a, b = nn.Linear(2, 2), nn.Linear(3, 1)
    optimizer = SGD([*a.parameters(), *b.parameters()], lr=0.1)
    return Case(
        lambda: assert_optimizer_covers(optimizer, a),
        lambda hint: lambda: assert_optimizer_covers(optimizer, nn.ModuleDict({"a": a, "b": b})),
    )


@remedy("clear it with zero_grad(set_to_none=True), or take it out of the groups")
def clear_it() -> Case:
    model = two()
    optimizer = SGD(model.parameters(), lr=0.1, weight_decay=0.1)
    model(torch.ones(1, 2)).sum().backward()
    model[0].requires_grad_(False)

    def repair(hint: str) -> None:
        done(f"model.{hint.removeprefix('clear it with ').partition(', or')[0]}", model=model)

    return Case(lambda: assert_optimizer_covers(optimizer, model), repair, model)


@remedy("give it memory of its own: parameter.data = parameter.data.clone()")
def memory_of_its_own() -> Case:
    model = nn.Module()
    flat = torch.zeros(4)
    model.a, model.b = nn.Parameter(flat[:3]), nn.Parameter(flat[2:], requires_grad=False)
    optimizer = SGD([model.a], lr=0.1)

    def repair(hint: str) -> None:
        done(hint.partition(": ")[2], parameter=model.b)

    return Case(lambda: assert_optimizer_covers(optimizer, model), repair, model)


@remedy("if code does (mixed precision with masters): masters=True")
def declare_masters() -> Case:
    model = nn.Linear(2, 2).bfloat16()
    optimizer = SGD([nn.Parameter(p.detach().float()) for p in model.parameters()], lr=0.1)
    return Case(
        lambda: assert_optimizer_covers(optimizer, model),
        lambda hint: lambda: assert_optimizer_covers(optimizer, model, masters=True),
        model,
    )


@remedy("where these are masters (mixed precision): masters=True")
def declare_masters_of_groups() -> Case:
    model = nn.Linear(2, 2).bfloat16()
    optimizer = SGD([nn.Parameter(p.detach().float()) for p in model.parameters()], lr=0.1)
    groups = {"*": {"lr": 0.1}}
    return Case(
        lambda: assert_param_groups(optimizer, model, groups),
        lambda hint: lambda: assert_param_groups(optimizer, model, groups, masters=True),
        model,
    )


@remedy("make each parameter a master of its own: parameter.detach().clone().float()")
def masters_of_their_own() -> Case:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 3, bias=False)).bfloat16()
    wrong = {"0.weight": torch.zeros(3), "1.weight": torch.zeros(3)}
    wrong["1.weight"] = wrong["0.weight"]

    def repair(hint: str) -> Call:
        code = hint.partition(": ")[2]
        masters = {
            name: eval(code, {"parameter": parameter})
            for name, parameter in model.named_parameters()
        }
        held = SGD(list(masters.values()), lr=0.1)
        return lambda: assert_optimizer_covers(held, model, masters=masters)

    held = SGD([wrong["0.weight"]], lr=0.1)
    return Case(lambda: assert_optimizer_covers(held, model, masters=wrong), repair, model)


@remedy("assert_optimizer_covers(optimizer, model) says more")
def covers_says_more() -> Case:
    model = MLP()
    optimizer = SGD(model.backbone.parameters(), lr=0.1)
    said = asking(lambda: assert_optimizer_covers(optimizer, model), "not in the optimizer: head")
    return Case(lambda: assert_param_groups(optimizer, model, {"*": {"lr": 0.1}}), said)


# --- state --------------------------------------------------------------------------------------


@remedy("* casts and moves it to its parameter")
def cast_by_a_load() -> Case:
    model = MLP()
    optimizer = Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    model.double()

    def repair(hint: str) -> None:
        done(hint.partition(" casts")[0], optimizer=optimizer)

    return Case(lambda: assert_optimizer_state(optimizer, model), repair, model)


@remedy("give each a tensor of its own: optimizer.state[parameter][key] = value.clone()")
def state_of_its_own() -> Case:
    model = two()
    optimizer = stepped(model)
    state = optimizer.state
    state[model[0].weight]["momentum_buffer"] = state[model[1].weight]["momentum_buffer"]

    def repair(hint: str) -> None:
        parameter = model[0].weight
        names = {"parameter": parameter, "key": "momentum_buffer", "optimizer": optimizer}
        done(hint.partition(": ")[2], value=state[parameter]["momentum_buffer"], **names)

    return Case(lambda: assert_optimizer_state(optimizer, model), repair, model)


@remedy("a replaced parameter takes its state along: *")
def take_the_state_along() -> Case:
    model = two()
    optimizer = stepped(model)
    old, new = model[0].weight, nn.Parameter(model[0].weight.detach().clone())
    optimizer.param_groups[0]["params"][0] = model[0].weight = new

    def repair(hint: str) -> None:
        done(hint.partition(": ")[2], optimizer=optimizer, old=old, new=new)

    return Case(lambda: assert_optimizer_state(optimizer, model), repair, model)


def saved_of(optimizer: Optimizer) -> dict[str, Any]:
    return copy.deepcopy(optimizer.state_dict())


@remedy("load it again, and keep it from then on: optimizer.load_state_dict(saved)")
def load_it_again() -> Case:
    model = two()
    optimizer = stepped(model, named=True)
    saved = saved_of(optimizer)
    optimizer.state[model[0].weight]["momentum_buffer"].zero_()
    del optimizer.state[model[1].weight]

    def repair(hint: str) -> None:
        done(hint.rpartition(": ")[2], optimizer=optimizer, saved=saved)

    return Case(lambda: assert_optimizer_state(optimizer, model, saved), repair, model)


@remedy("a load casts it: load it into a model of *")
def load_in_its_dtype() -> Case:
    model = two()
    optimizer = stepped(model, named=True)
    saved = saved_of(optimizer)
    model.bfloat16()
    optimizer.load_state_dict(saved)

    def repair(hint: str) -> None:
        model.to(getattr(torch, hint.rpartition(" ")[2]))
        optimizer.load_state_dict(saved)

    return Case(lambda: assert_optimizer_state(optimizer, model, saved), repair, model)


@remedy("if it was renamed, rename it in the saved state too: its param_names in param_groups")
def rename_in_the_saved() -> Case:
    model = two()
    optimizer = stepped(model, named=True)
    saved = saved_of(optimizer)
    names = saved["param_groups"][0]["param_names"]
    names[3] = "1.bais"

    def repair(hint: str) -> None:
        names[3] = "1.bias"

    return Case(lambda: assert_optimizer_state(optimizer, model, saved), repair, model)


@remedy("build the optimizer over the parameters that it was saved with")
def over_the_same_parameters() -> Case:
    model = two()
    saved = saved_of(stepped(model))
    held = SGD(model[0].parameters(), **MOMENTUM)

    def repair(hint: str) -> Call:
        optimizer = SGD(model.parameters(), **MOMENTUM)
        optimizer.load_state_dict(saved)
        return lambda: assert_optimizer_state(optimizer, model, saved)

    return Case(lambda: assert_optimizer_state(held, model, saved), repair, model)


def reordered(named: bool) -> Case:
    """A model whose layers changed places between save and load."""
    model = nn.ModuleDict({"a": nn.Linear(2, 2, bias=False), "b": nn.Linear(2, 2, bias=False)})
    saved = saved_of(stepped(model, named=named))
    order = [("b.weight", model.b.weight), ("a.weight", model.a.weight)]

    def load(held: Any) -> Call:
        optimizer = SGD(held if named else [p for _, p in held], **MOMENTUM)
        optimizer.load_state_dict(saved)
        if not named:  # what a step reads is that of the parameter in this place
            state = [optimizer.state[p] for _, p in held]
            assert torch.equal(state[0]["momentum_buffer"], saved["state"][0]["momentum_buffer"])
        return lambda: assert_optimizer_state(optimizer, model, saved)

    return Case(load(order), lambda hint: load(list(model.named_parameters())), model)


@remedy("state is loaded by position: keep the order, or reorder the saved one by names")
def keep_the_order() -> Case:
    return reordered(named=True)


@remedy("state is loaded by position: build the optimizer in the order of the saved one")
def in_the_saved_order() -> Case:
    model = two()
    optimizer = stepped(model)
    saved = saved_of(optimizer)

    def swap(hint: str = "") -> None:
        state = optimizer.state
        one, other = model[0].weight, model[1].weight
        state[one], state[other] = state[other], state[one]

    swap()
    return Case(lambda: assert_optimizer_state(optimizer, model, saved), swap, model)
