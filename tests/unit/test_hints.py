"""What a hint says to do is done: the assertion passes then, and nothing else has changed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    ParamCheckError,
    assert_grads_none,
    assert_init,
    assert_loaded,
    assert_materialized,
    assert_optimizer_covers,
    assert_optimizer_state,
    assert_registered,
    assert_tied,
    assert_unchanged,
    assert_untied,
    init,
)

from ..models import LM, MLP


def hint_of(call: Callable[[], object]) -> str:
    """Return the one hint of a call that fails."""
    with pytest.raises(ParamCheckError) as caught:
        call()
    (hint,) = {finding.hint for finding in caught.value.findings}
    return hint


def values(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


def same(model: nn.Module, before: dict[str, Tensor], *names: str) -> bool:
    """Whether the values of all names but these are as they were."""
    now = model.state_dict()
    return all(torch.equal(now[name], before[name]) for name in before if name not in names)


def test_tie_by_assignment() -> None:
    model = LM(tied=False)
    before = values(model)

    def call() -> None:
        assert_tied(model, "emb.weight", "head.weight")

    exec(hint_of(call).removeprefix("tie by assignment: "), {"model": model})
    call()
    assert same(model, before, "head.weight")


def test_keep_layers_in_a_module_list() -> None:
    model = MLP()
    model.layers = [nn.Linear(2, 2), nn.Linear(2, 2)]  # type: ignore[assignment]
    before = values(model)
    hint = hint_of(lambda: assert_registered(model))

    assert hint == "self.layers = nn.ModuleList(...)"
    exec(hint.replace("...", "self.layers"), {"self": model, "nn": nn})
    assert_registered(model)
    assert same(model, before)


def test_register_a_buffer() -> None:
    model = MLP()
    model.scale = torch.ones(2)
    hint = hint_of(lambda: assert_registered(model, tensors=True))

    assert hint == "self.register_buffer('scale', ...)"
    scale = model.__dict__.pop("scale")
    exec(hint.replace("...", "scale"), {"self": model, "scale": scale})
    assert_registered(model, tensors=True)
    assert model.scale is scale


def test_strip_the_prefix_of_a_checkpoint() -> None:
    model = MLP()
    state = {f"module.{name}": value for name, value in values(MLP()).items()}
    remedy = hint_of(lambda: assert_loaded(model, state)).removeprefix("strip it: ")

    stripped = {eval(remedy, {"key": key}): value for key, value in state.items()}
    model.load_state_dict(stripped)
    assert_loaded(model, stripped)


def test_empty_only_what_is_on_meta() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    model[1].to("meta")
    before = values(model)
    hint = hint_of(lambda: assert_materialized(model)).partition(", then")[0]

    exec(hint.replace("device=...", "device='cpu'"), {"model": model})
    assert_materialized(model)
    assert same(model, before, "1.weight", "1.bias")


def test_keep_the_statistics_of_the_very_norm() -> None:
    model = nn.Sequential(nn.BatchNorm1d(3), nn.Dropout(), nn.Linear(3, 2))

    def call() -> None:
        with assert_unchanged(model, "0", only="values"):
            model(torch.rand(4, 3))

    statement = hint_of(call).partition(" after every")[0]
    exec(statement, {"model": model})
    call()
    assert [module.training for module in model] == [False, True, True]


def test_build_the_optimizer_of_the_complete_model() -> None:
    model = MLP()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model.head = nn.Linear(4, 2)
    hint = hint_of(lambda: assert_optimizer_covers(optimizer, model))

    assert hint == "build the optimizer from the parameters of the complete model"
    assert_optimizer_covers(torch.optim.SGD(model.parameters(), lr=0.1), model)


def test_cast_the_state_by_a_load() -> None:
    model = MLP()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 4)).sum().backward()
    optimizer.step()
    model.double()
    before = values(model)
    statement = hint_of(lambda: assert_optimizer_state(optimizer, model)).partition(" casts")[0]

    exec(statement, {"optimizer": optimizer})
    assert_optimizer_state(optimizer, model)
    assert same(model, before)


def test_clear_what_a_backward_pass_left() -> None:
    model = MLP()
    model(torch.ones(1, 4)).sum().backward()
    before = values(model)
    hint = hint_of(lambda: assert_grads_none(model))

    assert hint.startswith("zero_grad(set_to_none=True) clears")
    model.zero_grad(set_to_none=True)
    assert_grads_none(model)
    assert same(model, before)


def test_zero_the_padding_row() -> None:
    model = nn.Embedding(6, 64, padding_idx=2)
    nn.init.normal_(model.weight, std=0.02)
    before = values(model)["weight"]

    def call() -> None:
        assert_init(model, {"weight": init.normal(0, 0.02)})

    statement = hint_of(call).removeprefix("after the initialization: ").partition(" under")[0]
    with torch.no_grad():
        exec(statement, {"weight": model.weight})
    call()
    before[2] = 0
    assert torch.equal(model.weight, before)


def test_build_one_layer_per_place() -> None:
    model = nn.Sequential(*[nn.Linear(2, 2)] * 3)
    hint = hint_of(lambda: assert_untied(model))

    assert "[Linear(...) for _ in range(3)]" in hint
    # What only excludes comes last, and says so.
    assert hint.rpartition("; ")[2].startswith("if it is meant, leave out")
    assert_untied(nn.Sequential(*[nn.Linear(2, 2) for _ in range(3)]))


def test_clone_what_shares_memory() -> None:
    flat = torch.zeros(8)
    subject: dict[str, Any] = {"a": flat[:5], "b": flat[4:]}
    hint = hint_of(lambda: assert_untied(subject))

    assert hint == "give each its own memory with .clone()"
    assert_untied({name: value.clone() for name, value in subject.items()})
