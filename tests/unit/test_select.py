"""Patterns: what each form selects, over all names, and every way to get one wrong."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import ParamCheckUsageError
from pytest_paramcheck.messages.wording import cut
from pytest_paramcheck.parameters.subject.inventory import Inventory
from pytest_paramcheck.parameters.subject.patterns import pattern_text
from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.subject.select import (
    listed,
    matching,
    parameters_only,
    select,
    select_again,
    with_elements,
)

from .messages import usage


class LM(nn.Module):
    """Eleven blocks, so that ``blocks.1`` and ``blocks.10`` both exist, and a tied head."""

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(6), nn.Linear(6, 6, bias=False)) for _ in range(11)
        )
        self.act = nn.ReLU()
        self.head = nn.Linear(6, 11)
        self.head.weight = self.emb.weight
        self.register_buffer("mask", torch.ones(6))


#: Five of its names are enough to see what they look like.
HAVE = "it has mask, emb.weight, blocks.0.0.weight, blocks.0.0.bias, blocks.0.1.weight and 32 more"


@pytest.fixture
def lm() -> Inventory:
    return take_inventory(LM())


def chosen(inventory: Inventory, *patterns: Any, **options: Any) -> list[str]:
    return [entry.name for entry in select(inventory, patterns, **options)]


# --- what selects what -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        # a name, over all names: the head's weight was found as emb.weight first
        (["head.bias"], ["head.bias"]),
        (["head.weight"], ["emb.weight"]),
        (["mask"], ["mask"]),
        # a module: everything below it, tied entries included
        (["head"], ["emb.weight", "head.bias"]),
        (["blocks.1"], ["blocks.1.0.weight", "blocks.1.0.bias", "blocks.1.1.weight"]),
        (["blocks.10.1"], ["blocks.10.1.weight"]),
        # a glob: * may cross dots, and a module it matches counts with everything below
        (["blocks.1*.1.weight"], ["blocks.1.1.weight", "blocks.10.1.weight"]),
        (["blocks.?.1"], [f"blocks.{i}.1.weight" for i in range(10)]),
        (["*.bias"], [*(f"blocks.{i}.0.bias" for i in range(11)), "head.bias"]),
        (["blocks.[12].0.bias"], ["blocks.1.0.bias", "blocks.2.0.bias"]),
        (["h*"], ["emb.weight", "head.bias"]),
        # classes, and one entry of them
        ([nn.Embedding], ["emb.weight"]),
        ([(nn.Embedding, "weight")], ["emb.weight"]),
        ([(nn.LayerNorm, "bias")], [f"blocks.{i}.0.bias" for i in range(11)]),
        ([(nn.LayerNorm, "b*"), "!blocks.[0-8]"], ["blocks.9.0.bias", "blocks.10.0.bias"]),
        # several: the union, in registration order, each once
        (["head.bias", "emb", "head"], ["emb.weight", "head.bias"]),
        # taking away, wherever it stands
        (["head", "!emb"], ["head.bias"]),
        (["!emb", "head"], ["head.bias"]),
        (["head", "!*.bias"], ["emb.weight"]),
        ([nn.Linear, (nn.Linear, "!weight")], ["head.bias"]),
        (["!blocks", "!mask"], ["emb.weight", "head.bias"]),
    ],
)
def test_selection(lm: Inventory, patterns: list[Any], expected: list[str]) -> None:
    assert chosen(lm, *patterns) == expected


def test_a_glob_that_matches_everything_selects_every_entry_once(lm: Inventory) -> None:
    assert chosen(lm, "*") == chosen(lm) == [entry.name for entry in lm.entries]


def test_names_match_by_component_and_case(lm: Inventory) -> None:
    for part in ("emb.weigh", "locks", "Head", "weight"):
        assert matching(lm, part) == []


def test_without_patterns_the_default_applies(lm: Inventory) -> None:
    assert "mask" not in chosen(lm, default=parameters_only)
    assert "mask" in chosen(lm, "mask", "head", default=parameters_only)
    assert "mask" not in chosen(lm, "!head", default=parameters_only)


def test_what_is_not_eligible_is_left_out_of_a_wider_match(lm: Inventory) -> None:
    assert "mask" not in chosen(lm, "*", eligible=parameters_only)


def test_a_class_selects_subclasses_too_and_what_is_below_them() -> None:
    model = nn.Sequential(nn.Sequential(nn.Linear(2, 2, bias=False)), nn.Bilinear(1, 1, 1))

    assert chosen(take_inventory(model), nn.Sequential) == ["0.0.weight", "1.weight", "1.bias"]
    assert chosen(take_inventory(model[0]), nn.Module) == ["0.weight"]


def test_below_a_class_means_below_the_instance() -> None:
    model = nn.TransformerEncoderLayer(4, 1, 4)

    assert chosen(take_inventory(model), (nn.TransformerEncoderLayer, "linear1")) == [
        "linear1.weight",
        "linear1.bias",
    ]


def test_a_name_that_is_there_literally_wins_over_its_reading_as_a_glob() -> None:
    state = {"w[0]": torch.ones(1), "w0": torch.ones(1), "v[0].x": torch.ones(1)}
    inventory = take_inventory(state)

    assert chosen(inventory, "w[0]") == ["w[0]"]
    assert chosen(inventory, "v[0]") == ["v[0].x"]
    assert chosen(inventory, "w[01]") == ["w0"]


def test_an_asterisk_means_all_and_an_exact_name_always_names() -> None:
    inventory = take_inventory({name: torch.ones(1) for name in ("*", "w", "!x", "a?", "ab", "x")})

    assert chosen(inventory, "*") == ["*", "w", "!x", "a?", "ab", "x"]
    assert chosen(inventory, "a?") == ["a?", "ab"]
    assert chosen(inventory, "!x") == ["!x"]
    assert chosen(inventory, "*", "!!x", "!a?") == ["*", "w", "x"]


def test_brackets_that_match_nothing_as_a_glob_are_an_index() -> None:
    inventory = take_inventory({"layers[2].w": torch.ones(1), "layers[3].w": torch.ones(1)})

    assert chosen(inventory, "layers[2].*") == ["layers[2].w"]
    assert chosen(inventory, "layers[*") == ["layers[2].w", "layers[3].w"]


def test_names_of_a_wrapped_model_are_the_users() -> None:
    model = nn.DataParallel(LM())

    assert chosen(take_inventory(model), "head.bias") == ["head.bias"]
    assert chosen(take_inventory(model), (nn.Linear, "bias")) == ["head.bias"]


@pytest.mark.parametrize(
    ("wrap", "prefix"),
    [
        (nn.DataParallel, "module."),
        (torch.optim.swa_utils.AveragedModel, "module."),
        (lambda model: nn.DataParallel(nn.DataParallel(model)), "module.module."),
    ],
)
def test_the_names_that_a_wrapped_model_prints_are_its_names_too(wrap: Any, prefix: str) -> None:
    model = wrap(LM())
    inventory = take_inventory(model)

    for name, parameter in model.named_parameters(remove_duplicate=False):
        assert matching(inventory, name)[0].tensor is parameter
    assert chosen(inventory, f"{prefix}head") == ["emb.weight", "head.bias"]
    assert chosen(inventory, f"!{prefix}blocks", "!mask") == chosen(
        inventory, "!blocks", f"!{prefix}mask"
    )


def test_a_real_child_called_module_wins_over_the_wrappers() -> None:
    inner = nn.ModuleDict({"module": nn.Linear(2, 2), "head": nn.Linear(2, 2)})
    inventory = take_inventory(nn.DataParallel(inner))

    assert chosen(inventory, "module") == ["module.weight", "module.bias"]
    assert chosen(inventory, "module.head.bias") == ["head.bias"]
    assert chosen(inventory, "module.module.bias") == ["module.bias"]


def test_the_keys_of_a_mapping_are_never_touched() -> None:
    inventory = take_inventory({"module.w": torch.ones(1)})

    assert matching(inventory, "w") == []
    assert chosen(inventory, "module.w") == ["module.w"]


def test_two_tensors_under_one_name_are_an_error() -> None:
    """Written past ``register_parameter``, which refuses a dot."""
    model = nn.Module()
    model._parameters["a.weight"] = nn.Parameter(torch.tensor([float("nan")]))
    model.a = nn.Linear(1, 1, bias=False)
    said = "two tensors of Module are called 'a.weight': a key with a dot in it hides a child's"

    assert usage(take_inventory, model) == said
    del model._parameters["a.weight"]
    model._buffers["a.weight"] = torch.ones(1)
    assert usage(take_inventory, model) == said
    del model._buffers["a.weight"]
    assert chosen(take_inventory(model)) == ["a.weight"]


@pytest.mark.parametrize("pattern", [(nn.Linear, "a", "b"), (nn.Linear, 3), (int, "a"), ("a", "b")])
def test_a_malformed_class_pattern(lm: Inventory, pattern: Any) -> None:
    assert usage(select, lm, [pattern]) == (
        "a pattern is a name, a glob, a class, (class, name), "
        "a state, a part or a function, "
        f"not tuple {cut(repr(pattern), 40)}; pass patterns one by one: *patterns"
    )


# --- wrong calls -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("patterns", "message"),
    [
        (
            ["head.bais"],
            (
                "pattern 'head.bais' matches nothing in LM; "
                "did you mean 'head.bias', 'head' or 'head.weight'?"
            ),
        ),
        (["zzz"], f"pattern 'zzz' matches nothing in LM; {HAVE}"),
        (
            ["act"],
            "pattern 'act' matches nothing: the module ReLU has no parameters",
        ),
        (
            [nn.Conv2d],
            "pattern Conv2d matches nothing in LM; it has modules of LM, Embedding, LayerNorm, "
            "Linear",
        ),
        ([(nn.Linear, "scale")], "pattern (Linear, 'scale') matches nothing in LM"),
        ([""], "'' is not a pattern: leave it out to select everything"),
        (["!"], "'' is not a pattern: leave it out to select everything"),
        (["head", "!zzz"], f"pattern '!zzz' matches nothing in LM; {HAVE}"),
        (
            ["head.bias", "!head"],
            (
                "the patterns 'head.bias', '!head' leave nothing to check: "
                "the exclusions remove all 1 entry selected"
            ),
        ),
        (
            ["head", "!head"],
            (
                "the patterns 'head', '!head' leave nothing to check: "
                "the exclusions remove all 2 entries selected"
            ),
        ),
        (
            [["emb", "head"]],
            (
                "a pattern is a name, a glob, a class, (class, name), "
                "a state, a part or a function, "
                "not list ['emb', 'head']; pass patterns one by one: *patterns"
            ),
        ),
        (
            [("emb", "head")],
            (
                "a pattern is a name, a glob, a class, (class, name), "
                "a state, a part or a function, "
                "not tuple ('emb', 'head'); pass patterns one by one: *patterns"
            ),
        ),
        (
            [nn.ReLU()],
            (
                "a pattern is a name, a glob, a class, (class, name), "
                "a state, a part or a function, "
                "not ReLU ReLU(); name it, or pass its class ReLU"
            ),
        ),
        (
            [int],
            (
                "a pattern is a name, a glob, a class, (class, name), "
                "a state, a part or a function, "
                "not type <class 'int'>"
            ),
        ),
        (
            [3],
            (
                "a pattern is a name, a glob, a class, (class, name), "
                "a state, a part or a function, "
                "not int 3"
            ),
        ),
    ],
)
def test_a_pattern_that_cannot_be_meant(lm: Inventory, patterns: list[Any], message: str) -> None:
    assert usage(select, lm, patterns) == message


def test_every_pattern_has_to_match_for_itself(lm: Inventory) -> None:
    with pytest.raises(ParamCheckUsageError, match="'heda' matches nothing"):
        select(lm, ["emb", "heda"])


def test_a_short_list_of_names_is_shown_whole() -> None:
    assert (
        usage(select, take_inventory(nn.Linear(2, 2)), ["qqq"])
        == "pattern 'qqq' matches nothing in Linear; it has weight, bias"
    )


def test_classes_select_in_modules_only() -> None:
    assert usage(select, take_inventory({"w": torch.ones(1)}), [nn.Linear]) == (
        "pattern Linear matches nothing in a dict of tensors: classes select in an nn.Module only"
    )


def test_what_is_there_but_cannot_be_looked_at_is_said_so(lm: Inventory) -> None:
    assert (
        usage(select, lm, ["mask"], eligible=parameters_only, what="parameter")
        == "pattern 'mask' matches no parameter: 'mask' is a buffer"
    )


def test_nothing_to_start_from_is_an_error() -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.ones(1))

    assert usage(
        select, take_inventory(module), [], eligible=parameters_only, what="parameter"
    ) == ("Module has no parameter that this applies to: there is nothing to check")


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("blocks.*", "'blocks.*'"),
        (nn.Linear, "Linear"),
        ((nn.Linear, "bias"), "(Linear, 'bias')"),
    ],
)
def test_a_pattern_is_shown_as_it_was_written(pattern: Any, text: str) -> None:
    assert pattern_text(pattern) == text


@pytest.mark.parametrize(
    ("patterns", "expected"),
    [
        (["emb"], ["emb.weight"]),
        (["!emb"], None),
        (["gone"], []),
        (["head", "!emb"], ["head.bias"]),
    ],
)
def test_selecting_again_takes_what_is_there_now(
    lm: Inventory, patterns: list[Any], expected: list[str] | None
) -> None:
    if expected is None:
        expected = [entry.name for entry in lm.entries if entry.name != "emb.weight"]
    assert [entry.name for entry in select_again(lm, patterns)] == expected


def test_a_class_selects_nothing_from_instances_that_hold_nothing(lm: Inventory) -> None:
    assert chosen(lm, nn.Module) == [entry.name for entry in lm.entries]
    assert usage(chosen, lm, nn.ReLU).startswith("pattern ReLU matches nothing in LM; ")


def test_what_has_no_elements_cannot_change() -> None:
    subject = take_inventory({"a": torch.zeros(0, 3), "b": torch.zeros(()), "c": None})
    assert chosen(subject, eligible=with_elements) == ["b"]
    assert usage(chosen, subject, "a", eligible=with_elements) == (
        "pattern 'a' matches no parameter or buffer: 'a' is empty"
    )


@pytest.mark.parametrize("exactly", ["bias", nn.Linear, 3])
def test_what_is_listed_is_a_list(exactly: Any) -> None:
    with pytest.raises(ParamCheckUsageError, match="pass a list of patterns"):
        listed(exactly, [])


@pytest.mark.parametrize("pattern", [(3, "bias"), (int, "!bias"), (nn.Linear, 3)])
def test_a_pair_is_a_class_of_modules_and_a_name(lm: Inventory, pattern: Any) -> None:
    assert usage(chosen, lm, pattern).startswith("a pattern is a name, a glob, a class, ")
