"""One walk of a subject: every entry, each with all of its names."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from pytest_paramcheck import (
    assert_devices,
    assert_dtypes,
    assert_finite,
    assert_grads_none,
    assert_materialized,
    assert_param_count,
    assert_registered,
    assert_shapes,
    assert_ties,
    assert_untied,
)
from pytest_paramcheck.parameters.subject import inventory as inventory_module
from pytest_paramcheck.parameters.subject import reading as reading_module
from pytest_paramcheck.parameters.subject.inventory import Inventory
from pytest_paramcheck.parameters.subject.reading import subject_readers, take_inventory
from pytest_paramcheck.parameters.subject.records import records
from pytest_paramcheck.parameters.subject.walk import first_places, walk_modules

from .messages import failure, usage


class LM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.body = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6))
        self.head = nn.Linear(6, 11, bias=False)
        self.head.weight = self.emb.weight


def names_of(subject: Any) -> list[tuple[str, ...]]:
    return [tuple(entry.names) for entry in take_inventory(subject).entries]


def two_layers() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))


TWO_LAYERS = ["0.weight", "0.bias", "1.weight", "1.bias"]


# --- modules ---------------------------------------------------------------------------------


def test_an_entry_has_all_names_of_its_tensor() -> None:
    inventory = take_inventory(LM())

    assert inventory.title == "LM"
    assert names_of(inventory) == [
        ("emb.weight", "head.weight"),
        ("body.0.weight",),
        ("body.0.bias",),
        ("body.1.weight",),
        ("body.1.bias",),
        ("body.1.running_mean",),
        ("body.1.running_var",),
        ("body.1.num_batches_tracked",),
    ]
    assert inventory.tie_groups == [("emb.weight", "head.weight")]
    assert inventory.by_name["head.weight"] is inventory.by_name["emb.weight"]


def test_the_names_are_those_of_torch_in_torch_order() -> None:
    model = LM()
    inventory = take_inventory(model)

    parameters = [n for n in inventory.named if n not in inventory.buffer_names]
    assert parameters == [n for n, _ in model.named_parameters(remove_duplicate=False)]
    assert list(inventory.buffer_names) == [n for n, _ in model.named_buffers()]
    assert [n for n, _ in inventory.modules] == [
        n for n, _ in model.named_modules(remove_duplicate=False)
    ]


def test_a_shared_module_gives_each_entry_a_name_per_path() -> None:
    shared = nn.Linear(8, 8)
    net = nn.Sequential(shared, nn.ReLU(), shared)

    assert names_of(net) == [("0.weight", "2.weight"), ("0.bias", "2.bias")]
    assert [name for name, _ in take_inventory(net).modules] == ["", "0", "1", "2"]


def test_a_shared_container_gives_names_to_everything_below_it() -> None:
    inner = nn.Sequential(nn.Linear(2, 2, bias=False))

    assert names_of(nn.ModuleDict({"a": inner, "b": nn.Sequential(inner)})) == [
        ("a.0.weight", "b.0.0.weight")
    ]


def test_the_same_parameter_twice_in_one_module() -> None:
    module = nn.Module()
    module.a = module.b = nn.Parameter(torch.ones(2))

    assert names_of(module) == [("a", "b")]


def test_a_module_that_contains_itself_is_walked_once_per_path() -> None:
    module = nn.Module()
    module.inner = nn.Module()
    module.inner.weight = nn.Parameter(torch.ones(1))
    module.inner.back = module
    module.me = module

    assert names_of(module) == [("inner.weight",)]


def test_missing_entries_are_no_entries() -> None:
    module = nn.Linear(2, 2, bias=False)
    module.register_buffer("mask", None)
    module.register_module("child", None)

    assert names_of(module) == [("weight",)]


def test_buffers_persistent_and_not() -> None:
    module = nn.Linear(2, 2, bias=False)
    module.register_buffer("kept", torch.ones(1))
    module.register_buffer("scratch", torch.ones(1), persistent=False)
    inventory = take_inventory(module)

    assert [(e.name, e.kind, e.persistent) for e in inventory.entries] == [
        ("weight", "parameter", True),
        ("kept", "buffer", True),
        ("scratch", "buffer", False),
    ]
    assert [e.name for e in inventory.parameters] == ["weight"]
    assert [e.name for e in inventory.buffers] == ["kept", "scratch"]


def test_what_is_saved_under_one_of_its_names_is_persistent() -> None:
    module = nn.Module()
    mask = torch.ones(1)
    module.register_buffer("scratch", mask, persistent=False)
    module.register_buffer("kept", mask)

    (entry,) = take_inventory(module).entries
    assert (entry.names, entry.persistent) == (["scratch", "kept"], True)


@pytest.mark.parametrize("buffer_first", [True, False])
def test_what_is_registered_both_ways_is_a_parameter(buffer_first: bool) -> None:
    weight = nn.Parameter(torch.ones(2))
    module = nn.Module()
    module.a, module.b = nn.Module(), nn.Module()
    buffer, parameter = (module.a, module.b) if buffer_first else (module.b, module.a)
    buffer.register_buffer("w", weight)
    parameter.register_parameter("w", weight)

    (entry,) = take_inventory(module).entries
    assert (entry.names, entry.kind, entry.is_parameter) == (["a.w", "b.w"], "parameter", True)


def test_a_subject_with_buffers_only_is_a_subject() -> None:
    module = nn.Module()
    module.register_buffer("mask", torch.ones(1))

    assert names_of(module) == [("mask",)]
    assert take_inventory(module).parameters == []


def test_trainable_is_what_requires_grad() -> None:
    module = nn.Linear(2, 2)
    module.bias.requires_grad_(False)

    assert {e.name: e.trainable for e in take_inventory(module).entries} == {
        "weight": True,
        "bias": False,
    }


def test_lazy_parameters_are_entries() -> None:
    assert names_of(nn.Sequential(nn.LazyLinear(8))) == [("0.weight",), ("0.bias",)]


def test_a_copy_of_an_entry_is_not_the_entry() -> None:
    model = LM()
    inventory = take_inventory(model)
    entry = inventory.entry_of(model.head.weight)

    assert entry is not None
    assert entry.name == "emb.weight"
    assert inventory.entry_of(model.head.weight.clone()) is None
    assert inventory.entry_of(None) is None


def test_an_inventory_is_its_own_inventory() -> None:
    inventory = take_inventory(LM())

    assert take_inventory(inventory) is inventory


def test_walking_runs_no_code_of_the_model() -> None:
    class Touchy(nn.Linear):
        def __getattr__(self, name: str) -> Any:
            if name.startswith("_") or name in ("weight", "bias"):
                return super().__getattr__(name)
            raise RuntimeError(f"asked for {name}")

        @property
        def broken(self) -> Tensor:
            raise RuntimeError("asked for broken")

    assert names_of(Touchy(2, 2)) == [("weight",), ("bias",)]


# --- wrappers --------------------------------------------------------------------------------


def test_a_real_child_called_module_keeps_its_name() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.module = nn.Linear(2, 2, bias=False)
            self._orig_mod = nn.Linear(2, 2, bias=False)

    assert names_of(Holder()) == [("module.weight",), ("_orig_mod.weight",)]


def test_a_compiled_module_has_the_names_of_its_model() -> None:
    inventory = take_inventory(torch.compile(two_layers()))

    assert inventory.title == "Sequential"
    assert list(inventory.named) == TWO_LAYERS


def test_data_parallel() -> None:
    inventory = take_inventory(nn.DataParallel(two_layers()))

    assert inventory.title == "Sequential"
    assert list(inventory.named) == TWO_LAYERS


def test_wrappers_in_wrappers_and_inside_a_model() -> None:
    model = nn.Sequential(nn.DataParallel(nn.DataParallel(nn.Linear(2, 2))), nn.Linear(2, 2))

    assert list(take_inventory(model).named) == TWO_LAYERS


def test_an_averaged_model_keeps_its_own_buffer() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(two_layers())

    assert list(take_inventory(averaged).named) == ["n_averaged", *TWO_LAYERS]


def test_where_wrapper_and_model_own_one_name_both_are_entries() -> None:
    model = nn.Linear(2, 2, bias=False)
    model.register_buffer("n_averaged", torch.tensor(7))
    averaged = torch.optim.swa_utils.AveragedModel(model)
    named = take_inventory(averaged).named

    assert list(named) == ["n_averaged", "weight", "module.n_averaged"]
    assert named["module.n_averaged"] is averaged.module.n_averaged


def test_checkpointing_wrapper() -> None:
    from torch.distributed.algorithms._checkpoint.checkpoint_wrapper import checkpoint_wrapper

    model = nn.Sequential(checkpoint_wrapper(nn.Linear(4, 4)), nn.Linear(4, 4))

    assert list(take_inventory(model).named) == TWO_LAYERS


def test_distributed_data_parallel(two_ranks: object) -> None:
    inventory = take_inventory(nn.parallel.DistributedDataParallel(two_layers()))

    assert inventory.title == "Sequential"
    assert list(inventory.named) == TWO_LAYERS


def test_fully_sharded_data_parallel(two_ranks: object) -> None:
    from torch.distributed.fsdp import FullyShardedDataParallel

    model = FullyShardedDataParallel(
        two_layers(), use_orig_params=True, device_id=torch.device("cpu")
    )

    assert list(take_inventory(model).named) == TWO_LAYERS


def test_fully_shard(two_ranks: Any) -> None:
    from torch.distributed.fsdp import fully_shard

    model = two_layers()
    fully_shard(model, mesh=two_ranks)

    assert list(take_inventory(model).named) == TWO_LAYERS


def test_the_walk_knows_both_spellings_of_a_prefix() -> None:
    model = nn.DataParallel(nn.Sequential(nn.Linear(2, 2)))

    assert [(prefix, raw) for prefix, raw, _ in walk_modules(model)] == [
        ("", ""),
        ("", "module."),
        ("0.", "module.0."),
    ]


# --- mappings and pairs ----------------------------------------------------------------------


def test_the_keys_of_a_mapping_are_never_touched() -> None:
    state = collections.OrderedDict([("_orig_mod.w", torch.ones(1)), ("module.w", torch.ones(1))])
    inventory = take_inventory(state)

    assert inventory.title == "an OrderedDict of tensors"
    assert [(e.name, e.kind) for e in inventory.entries] == [
        ("_orig_mod.w", "tensor"),
        ("module.w", "tensor"),
    ]
    assert inventory.modules == []


def test_none_means_no_gradient_and_each_is_an_entry_of_its_own() -> None:
    inventory = take_inventory({"a": None, "b": None, "c": torch.ones(1)})

    assert [(e.name, e.tensor is None) for e in inventory.entries] == [
        ("a", True),
        ("b", True),
        ("c", False),
    ]
    assert inventory.tie_groups == []
    assert not inventory.by_name["a"].trainable


def test_one_tensor_under_two_keys_is_one_entry() -> None:
    weight = torch.ones(1)

    assert names_of({"a": weight, "b": weight}) == [("a", "b")]


def test_parameters_in_a_mapping_stay_parameters() -> None:
    model = nn.Linear(2, 2)

    assert [e.kind for e in take_inventory(dict(model.named_parameters())).entries] == [
        "parameter",
        "parameter",
    ]


def test_pairs() -> None:
    inventory = take_inventory(LM().named_parameters(remove_duplicate=False))

    assert inventory.title == "pairs"
    assert inventory.tie_groups == [("emb.weight", "head.weight")]


def test_torch_own_place_for_extra_state_is_left_out() -> None:
    assert names_of({"w": torch.ones(1), "block._extra_state": {"step": 3}}) == [("w",)]


@pytest.mark.parametrize(
    ("subject", "message"),
    [
        (nn.ReLU(), "ReLU has no parameters and no buffers: there is nothing to check"),
        ({}, "a dict of tensors has no parameters and no buffers: there is nothing to check"),
        ([], "pairs has no parameters and no buffers: there is nothing to check"),
        (
            torch.ones(2),
            (
                "expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the "
                "Path of a checkpoint, got a tensor"
            ),
        ),
        (
            "model.pt",
            (
                "expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the "
                "Path of a checkpoint, got str 'model.pt'; a checkpoint's is Path('model.pt')"
            ),
        ),
        (
            None,
            (
                "expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the "
                "Path of a checkpoint, got NoneType None"
            ),
        ),
        (
            nn.Linear,
            (
                "expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the "
                "Path of a checkpoint, got the class Linear; build one: Linear(...)"
            ),
        ),
        (
            [torch.ones(1)],
            "expected (name, tensor) pairs, got a tensor; did you mean named_parameters()?",
        ),
        (
            [(1, torch.ones(1))],
            "expected (name, tensor) pairs, got tuple; names must be strings",
        ),
        (
            [("a", torch.ones(1)), ("a", torch.ones(1))],
            "the name 'a' occurs twice",
        ),
        ({1: torch.ones(1)}, "expected (name, tensor) pairs, got tuple; names must be strings"),
        ({"lr": 0.1}, "'lr' is not a tensor but float 0.1"),
        (
            {"model": {"w": torch.ones(1)}, "epoch": 3},
            "'model' is not a tensor but dict; the tensors are one level down: pass ['model']",
        ),
        ({"note": "x" * 60}, f"'note' is not a tensor but str '{'x' * 36}..."),
    ],
)
def test_what_is_no_subject_is_refused_with_the_reason(subject: object, message: str) -> None:
    assert usage(take_inventory, subject) == message


def test_an_empty_subject_can_be_allowed() -> None:
    assert take_inventory(nn.ReLU(), allow_empty=True).entries == []


# --- readers ---------------------------------------------------------------------------------


class Bank:
    def __init__(self) -> None:
        self.slots = {"left": torch.ones(1), "right": torch.ones(1)}


def _read_bank(subject: Any) -> list[tuple[str, Tensor]] | None:
    return list(subject.slots.items()) if isinstance(subject, Bank) else None


def test_a_reader_says_what_a_foreign_subject_holds() -> None:
    with subject_readers(_read_bank):
        inventory = take_inventory(Bank())
        model = take_inventory(two_layers())

    assert inventory.title == "Bank"
    assert names_of(inventory) == [("left",), ("right",)]
    assert list(model.named) == TWO_LAYERS  # None: it is for somebody else to read


def test_a_reader_is_asked_inside_its_block_only() -> None:
    with subject_readers(_read_bank):
        pass

    assert usage(take_inventory, Bank()) == (
        "expected an nn.Module, a mapping of names to tensors, (name, tensor) pairs or the "
        "Path of a checkpoint, got Bank"
    )


def test_the_first_reader_that_knows_decides() -> None:
    def other(subject: Any) -> list[tuple[str, Tensor]]:
        return [("other", torch.ones(1))]

    with subject_readers(_read_bank, other):
        assert names_of(Bank()) == [("left",), ("right",)]


def test_an_empty_inventory_knows_its_title() -> None:
    assert Inventory("Net").entries == []


# --- modules in several places at several levels ---------------------------------------------


def diamond(levels: int) -> nn.Module:
    """A module held twice at each level: torch visits each once, it has 2 ** levels names."""
    inner: nn.Module = nn.Linear(1, 1)
    for _ in range(levels):
        outer = nn.Module()
        outer._modules.update(a=inner, b=inner)
        inner = outer
    return inner


def clique(count: int) -> nn.Module:
    """Modules that hold one another."""
    modules = [nn.Linear(1, 1, bias=False) for _ in range(count)]
    for module in modules:
        for number, other in enumerate(modules):
            if other is not module:
                module._modules[f"m{number}"] = other
    return modules[0]


def at_most(monkeypatch: pytest.MonkeyPatch, many: int) -> None:
    for module in (inventory_module, reading_module):
        monkeypatch.setattr(module, "MANY", many)


@pytest.mark.parametrize("build", [lambda: diamond(60), lambda: clique(12)])
def test_who_needs_no_names_walks_each_module_once(
    build: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_most(monkeypatch, 300)
    model = build()
    count = len(list(model.parameters()))

    assert_finite(model)
    assert_dtypes(model, torch.float32)
    assert_devices(model, torch.empty(0).device)
    assert_materialized(model)
    assert_registered(model)
    assert_param_count(model, count)
    assert_grads_none(model)
    next(model.parameters()).data.fill_(float("nan"))
    assert failure(assert_finite, model).startswith("not finite: ")


def test_who_needs_all_names_says_that_they_are_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    at_most(monkeypatch, 300)
    for call in (
        lambda m: assert_ties(m, []),
        assert_untied,
        lambda m: assert_finite(m, "a"),
        lambda m: assert_shapes(m, {"*": (1,)}),
        records_of,
    ):
        assert usage(call, diamond(60)) == (
            "the modules of Module have more than 300 names: modules held in several places "
            "at several levels multiply their paths, and this needs all of them; check the shared "
            "module by itself"
        )


def records_of(model: nn.Module) -> object:
    return records(take_inventory(model))


@pytest.mark.parametrize("levels", [0, 1, 5, 9])
def test_below_the_limit_all_names_are_there(levels: int) -> None:
    model = diamond(levels)

    named = dict(model.named_parameters(remove_duplicate=False))
    assert list(take_inventory(model).named) == list(named)
    assert len(named) == 2 * 2**levels


def test_a_large_model_that_shares_nothing_has_all_its_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    at_most(monkeypatch, 10)
    model = nn.Sequential(*(nn.Linear(1, 1) for _ in range(30)))

    assert list(take_inventory(model).named) == [name for name, _ in model.named_parameters()]
    assert usage(lambda: take_inventory(diamond(8)).named).startswith("the modules of Module have")


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=14))
def test_first_places_are_the_first_of_all_places(edges: list[tuple[int, int]]) -> None:
    modules = [nn.Module() for _ in range(6)]
    for number, (above, below) in enumerate(edges):
        modules[above]._modules[f"m{number}"] = modules[below]
    first: dict[int, str] = {}
    for prefix, _, module in walk_modules(modules[0]):
        first.setdefault(id(module), prefix)

    assert {id(m): prefix for prefix, _, m in first_places(modules[0])} == first
    assert [id(m) for _, _, m in first_places(modules[0])] == list(first)


def test_a_key_is_of_a_file(tmp_path: Path) -> None:
    torch.save({"model": {"w": torch.ones(2)}}, tmp_path / "a.pt")
    assert list(take_inventory(tmp_path / "a.pt", key="model").named) == ["w"]
    assert usage(take_inventory, nn.Linear(1, 1), key="model") == (
        "key='model' says where in the file of a Path to look, and the subject is Linear"
    )
