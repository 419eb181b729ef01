"""Checkpoints: what a file holds, and what a load takes."""

from __future__ import annotations

import copy
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint as dcp
from torch import Tensor, nn

from pytest_paramcheck import assert_checkpoint, assert_loaded, assert_roundtrip

from ..models import LM, MLP
from . import Call, Case, done, remedy


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@remedy("load it first, from the level of the file that has these names: *")
def load_it() -> Case:
    model, state = nn.Linear(8, 8), state_of(nn.Linear(8, 8))

    def repair(hint: str) -> None:
        done(hint.rpartition(": ")[2], model=model, state=state)

    return Case(lambda: assert_loaded(model, state), repair)


def prefixed(before: str, after: str) -> Case:
    """A checkpoint whose keys carry a prefix too much, or lack one."""
    model: nn.Module = MLP() if before else nn.ModuleDict({"net": MLP()})
    saved = state_of(copy.deepcopy(model))
    state = {before + name[len(after) :]: value + 1 for name, value in saved.items()}

    def repair(hint: str) -> Call:
        code = hint.partition(": ")[2]
        mended = {eval(code, {"key": key}): value for key, value in state.items()}
        model.load_state_dict(mended)
        return lambda: assert_loaded(model, mended)

    return Case(lambda: assert_loaded(model, state), repair)


@remedy("strip it: key.removeprefix(*)")
def strip_the_prefix() -> Case:
    return prefixed("module.", "")


@remedy("add it: * + key")
def add_the_prefix() -> Case:
    return prefixed("", "net.")


@remedy("rename the key before loading, or load what was saved from this model")
def rename_the_key() -> Case:
    model, state = MLP(), {name: value + 1 for name, value in state_of(MLP()).items()}
    state["fc.weight"] = state.pop("head.weight")
    model.load_state_dict(state, strict=False)

    def repair(hint: str) -> None:
        state["head.weight"] = state.pop("fc.weight")
        model.load_state_dict(state)

    return Case(lambda: assert_loaded(model, state), repair)


@remedy("load what was saved from this model, or the level of the file that has its names")
def the_right_level() -> Case:
    model = MLP()
    inner = state_of(model)
    state = {"mean": torch.ones(1), "std": torch.ones(3)}
    return Case(
        lambda: assert_loaded(model, state), lambda hint: lambda: assert_loaded(model, inner), model
    )


@remedy("if it belongs to the model, register it before the load; if it is meant to be left out: *")
def leave_the_key_out() -> Case:
    model = MLP()
    state = {**state_of(model), "scale": torch.ones(2)}

    def repair(hint: str) -> Call:
        options = eval(f"dict({hint.rpartition(': ')[2]})")
        assert_loaded(model, state, **options)
        model.register_buffer("scale", torch.zeros(2))
        model.load_state_dict(state)
        return lambda: assert_loaded(model, state)

    return Case(lambda: assert_loaded(model, state), repair)


@remedy("if it is meant to be new: missing=*")
def declare_what_is_new() -> Case:
    model = MLP()
    state = {name: value for name, value in state_of(model).items() if name != "head.weight"}

    def repair(hint: str) -> Call:
        options = eval(f"dict({hint.rpartition(': ')[2]})")
        return lambda: assert_loaded(model, state, **options)

    return Case(lambda: assert_loaded(model, state), repair, model)


@remedy("if it can be computed: register_buffer(..., persistent=False); *")
def not_saved() -> Case:
    def build(persistent: bool) -> nn.Module:
        model = MLP()
        model.register_buffer("table", torch.arange(3.0), persistent=persistent)
        return model

    old = state_of(MLP())

    def load(model: nn.Module) -> Call:
        model.load_state_dict(old, strict=False)
        return lambda: assert_loaded(model, old)

    return Case(load(build(persistent=True)), lambda hint: load(build(persistent=False)))


@remedy("if it is tied to *, tie before the load: *")
def tie_before_the_load() -> Case:
    old = {"emb.weight": state_of(LM())["emb.weight"]}

    def load(statement: str) -> Call:
        model = LM(tied=False)
        done(statement, model=model)
        model.load_state_dict(old, strict=False)
        return lambda: assert_loaded(model, old)

    def repair(hint: str) -> Call:
        return load(hint.partition("before the load: ")[2].partition("; ")[0])

    return Case(load("pass"), repair)


@remedy("tie them in the model before loading")
def tie_before_loading() -> Case:
    state = LM().state_dict()
    detached = {name: value.detach() for name, value in state.items()}

    def load(model: nn.Module) -> Call:
        model.load_state_dict(state)
        return lambda: assert_loaded(model, detached)

    return Case(load(LM(tied=False)), lambda hint: load(LM(tied=True)))


@remedy("keep in * what * cannot hold")
def keep_it_wide() -> Case:
    state = {"weight": torch.tensor([[1.0, 7e4]])}

    def load(dtype: torch.dtype) -> Call:
        model = nn.Linear(2, 1, bias=False).to(dtype)
        model.load_state_dict(state)
        return lambda: assert_loaded(model, state)

    def repair(hint: str) -> Call:
        return load(getattr(torch, hint.removeprefix("keep in ").partition(" ")[0]))

    return Case(load(torch.float16), repair)


@remedy("build or move the model in the checkpoint's dtype before the load, or load with *")
def in_the_dtype_of_the_checkpoint() -> Case:
    model = nn.Linear(2, 1)
    state = state_of(model)
    model.half()

    def repair(hint: str) -> Call:
        assert_loaded(model, state)  # without dtypes=True the cast is right
        model.load_state_dict(state, assign=True)
        assert_loaded(model, state, dtypes=True)
        model.half().float().load_state_dict(state)
        return lambda: assert_loaded(model, state, dtypes=True)

    return Case(lambda: assert_loaded(model, state, dtypes=True), repair)


@remedy("if it is meant to be new: missing=[...], unexpected=[...]")
def another_shape() -> Case:
    state = state_of(nn.Linear(3, 5))
    model = nn.Linear(3, 2)
    names = ["weight", "bias"]
    return Case(
        lambda: assert_loaded(model, state),
        lambda hint: lambda: assert_loaded(model, state, missing=names, unexpected=names),
        model,
    )


# --- files --------------------------------------------------------------------------------------


def files(folder: Path, write: Callable[[Path], Path], repair: Callable[[Path], Any]) -> Case:
    """Write a folder that is wrong, then do what the hint says in it."""
    path = write(folder)
    return Case(lambda: assert_checkpoint(path), lambda hint: repair(path) and None)


def one(content: Any) -> Callable[[Path], Path]:
    def write(folder: Path) -> Path:
        torch.save(content, folder / "model.pt")
        return folder / "model.pt"

    return write


class Views(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.row = nn.Parameter(torch.zeros(1000, 100)[0])


@remedy("copy before saving: torch.save({k: v.clone() for *}, path)")
def copy_before_saving(folder: Path) -> Case:
    def repair(path: Path) -> None:
        done(
            "torch.save({k: v.clone() for k, v in model.state_dict().items()}, path)",
            model=Views(),
            path=path,
        )

    return files(folder, one(Views().state_dict()), repair)


@remedy("save tensors and plain values only: torch.save(model.state_dict(), path)")
def save_tensors(folder: Path) -> Case:
    model = nn.Linear(2, 2)
    return files(folder, one(model), lambda path: torch.save(model.state_dict(), path))


@remedy("save tensors and plain values only: torch.distributed.checkpoint unpickles all else")
def save_only_tensors(folder: Path) -> Case:
    def write(folder: Path, **more: Any) -> Path:
        state = {**nn.Linear(2, 2).state_dict(), **more}
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch says that there is one process
            dcp.save(state, checkpoint_id=folder, no_dist=True)
        return folder

    return files(folder, lambda folder: write(folder / "a", odd=Odd()), lambda path: write(path))


@remedy("write it again, and check that the copy or download was complete")
def write_it_again(folder: Path) -> Case:
    state = nn.Linear(2, 2).state_dict()

    def write(folder: Path) -> Path:
        path = one(state)(folder)
        path.write_bytes(path.read_bytes()[:200])
        return path

    return files(folder, write, lambda path: torch.save(state, path))


def shards(folder: Path, *, lost: str = "", unlisted: bool = False, lacking: bool = False) -> Path:
    """Write a model in two shards and their index."""
    names = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}
    for name, file in names.items():
        held = {} if lacking and name == "b" else {name: torch.ones(2)}
        held.update({"extra": torch.ones(2)} if unlisted and name == "a" else {})
        torch.save(held or {"other": torch.ones(1)}, folder / file)
        if name == lost:
            (folder / file).unlink()
    index = {"metadata": {}, "weight_map": names}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    return folder


@remedy("publish every file that the index names")
def publish_every_file(folder: Path) -> Case:
    return files(folder, lambda folder: shards(folder, lost="b"), shards)


@remedy("write index and shards together, in one save: readers load what the index names")
def write_together(folder: Path) -> Case:
    return files(folder, lambda folder: shards(folder, lacking=True), shards)


@remedy("write index and shards together, in one save: readers load what the index names")
def write_the_index_too(folder: Path) -> Case:
    return files(folder, lambda folder: shards(folder, unlisted=True), shards)


@remedy("delete it, or write index and shards together, in one save")
def delete_the_file(folder: Path) -> Case:
    spare = "pytorch_model-00003-of-00002.bin"

    def write(folder: Path) -> Path:
        torch.save({"c": torch.ones(2)}, shards(folder) / spare)
        return folder

    return files(folder, write, lambda folder: (folder / spare).unlink())


class Odd:
    """What torch.load allows only where it is told to."""


class Holds(nn.Linear):
    def get_extra_state(self) -> Any:
        return Odd()

    def set_extra_state(self, state: Any) -> None:
        """Take nothing from it."""


@remedy("torch.serialization.add_safe_globals([...]) allows * by name")
def allow_by_name() -> Case:
    def repair(hint: str) -> Call:
        def call() -> None:
            with torch.serialization.safe_globals([Odd]):
                assert_roundtrip(Holds(3, 2), through="torch.save")

        return call

    return Case(lambda: assert_roundtrip(Holds(3, 2), through="torch.save"), repair)
