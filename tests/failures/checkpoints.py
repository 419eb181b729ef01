"""Checkpoints: what a file holds, what a load takes, what comes back."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import assert_checkpoint, assert_loaded, assert_roundtrip
from pytest_paramcheck.checks.resume import alike_within, not_resumed
from pytest_paramcheck.messages.errors import raise_if
from pytest_paramcheck.parameters.running.resume import train_and_resume

from ..models import LM
from . import fails


def _saved(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in model.state_dict().items()}


@fails("assert_loaded", "a load that was never called")
def nothing_loaded() -> None:
    assert_loaded(nn.Linear(3, 2), _saved(nn.Linear(3, 2)))


@fails("assert_loaded", "a key that the model does not have, and a name without a key")
def unknown_keys() -> None:
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
    state = _saved(model)
    state["decoder.weight"] = state.pop("head.weight").t().clone().repeat(2, 2)
    assert_loaded(model, state)


@fails("assert_loaded", "a tie of the checkpoint that the model does not have")
def tie_lost() -> None:
    tied, untied = LM(tied=True), LM(tied=False)
    state = tied.state_dict()
    untied.load_state_dict(state)
    assert_loaded(untied, {name: value.detach() for name, value in state.items()})


@fails("assert_loaded", "values that float16 cannot hold")
def lost_in_the_cast() -> None:
    model = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[1.0, 7e4]]))
    state = _saved(model)
    assert_loaded(model.half(), state)


@fails("assert_loaded", "another dtype than the checkpoint's, where dtypes are asked")
def other_dtype() -> None:
    model = nn.Linear(2, 1)
    state = _saved(model)
    assert_loaded(model.half(), state, dtypes=True)


def _folder(fill: Callable[[Path], None]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "model"
        folder.mkdir()
        fill(folder)
        assert_checkpoint(folder)


def _of_file(content: Any) -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.pt"
        torch.save(content, path)
        assert_checkpoint(path)


@fails("assert_checkpoint", "a view that is saved with all of its storage")
def too_large() -> None:
    _of_file({"row": torch.zeros(1000, 100)[0]})


@fails("assert_checkpoint", "a file without tensors")
def no_tensors() -> None:
    _of_file({"step": 3})


@fails("assert_checkpoint", "parameters that were saved on meta")
def no_values() -> None:
    _of_file({"weight": torch.empty(2, 3, device="meta")})


@fails("assert_checkpoint", "a whole model, pickled with its class")
def with_code() -> None:
    _of_file(nn.Linear(3, 2))


@fails("assert_checkpoint", "a file that was copied in part")
def damaged() -> None:
    with tempfile.TemporaryDirectory() as name:
        path = Path(name) / "model.safetensors"
        path.write_bytes(b"\x08\x00\x00")
        assert_checkpoint(path)


class Resizing(nn.Linear):
    """A model that refuses what it saved itself."""

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        raise RuntimeError("size mismatch for weight")


@fails("assert_roundtrip", "a model that refuses what it saved")
def refused() -> None:
    assert_roundtrip(Resizing(3, 2))


class Unpicklable:
    """What a lock, a file or a lambda is, in words that no Python changes."""

    def __reduce__(self) -> Any:
        raise TypeError("cannot pickle a connection")


class Unsaved(nn.Linear):
    """A model whose state cannot be pickled."""

    def get_extra_state(self) -> Any:
        return Unpicklable()

    def set_extra_state(self, state: Any) -> None:
        pass


@fails("assert_roundtrip", "a model that cannot be saved")
def cannot_be_saved() -> None:
    assert_roundtrip(Unsaved(3, 2), through="torch.save")


def _returning(change: Callable[[nn.Module], nn.Module]) -> None:
    assert_roundtrip(LM(tied=False), through=change)


@fails("assert_roundtrip", "a way of saving that loses a layer")
def comes_back_smaller() -> None:
    def through(model: nn.Module) -> nn.Module:
        del model
        smaller = LM(tied=False)
        del smaller.head
        return smaller

    _returning(through)


@fails("assert_roundtrip", "a way of saving that adds a layer, and a tie")
def comes_back_larger() -> None:
    def through(model: nn.Module) -> nn.Module:
        del model
        larger = LM(tied=True)
        larger.extra = nn.Linear(2, 2)
        return larger

    _returning(through)


@fails("assert_roundtrip", "a way of saving that brings back meta tensors")
def comes_back_empty() -> None:
    _returning(lambda model: LM(tied=False).to("meta"))


class Forgetful(nn.Linear):
    """A model that saves a key that it does not take."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[prefix + "scale"] = torch.ones(1)


@fails("assert_roundtrip", "a key that is saved, and that no load takes")
def saved_but_not_loaded() -> None:
    assert_roundtrip(Forgetful(3, 2))


def _sharded(folder: Path, index: dict[str, str], shards: dict[str, dict[str, Tensor]]) -> None:
    for name, tensors in shards.items():
        torch.save(tensors, folder / name)
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": index}))


_SHARDS = {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}


@fails("assert_checkpoint", "an index whose second shard was not uploaded")
def shard_missing() -> None:
    _folder(lambda folder: _sharded(folder, _SHARDS, {_SHARDS["a"]: {"a": torch.ones(2)}}))


@fails("assert_checkpoint", "a shard without a tensor that the index names")
def missing_in_its_shard() -> None:
    held = {_SHARDS["a"]: {"a": torch.ones(2)}, _SHARDS["b"]: {"c": torch.ones(2)}}
    _folder(lambda folder: _sharded(folder, _SHARDS, held))


@fails("assert_checkpoint", "a shard with a tensor that the index does not name")
def not_in_the_index() -> None:
    first, second = "pytorch_model-00001-of-00002.bin", "pytorch_model-00002-of-00002.bin"

    def fill(folder: Path) -> None:
        tensors = {"a": torch.ones(2), "b": torch.ones(2)}
        _sharded(folder, {"a": first}, {first: tensors, second: {"c": torch.ones(2)}})

    _folder(fill)


def _resumes(build: Callable[[], Any], step: Callable[[Any], object], **options: Any) -> None:
    resumed = train_and_resume(
        build, step, options.get("save"), options.get("load"), steps=2, same=alike_within(0, 0)
    )
    raise_if(not_resumed(resumed, 2), resumed.title)


def _descend(model: nn.Module) -> None:
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    model(torch.ones(2, 3)).pow(2).sum().backward()
    optimizer.step()
    optimizer.zero_grad()


class Meter:
    """A count in an object that nobody looks into."""

    def __init__(self) -> None:
        self.count = 0


@fails("check_resume", "a count in an object of one's own, which no state_dict has")
def count_not_restored() -> None:
    class Counting(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.meter = Meter()

        def forward(self, x: Tensor) -> Tensor:
            self.meter.count += 1
            return super().forward(x) * self.meter.count

    _resumes(Counting, _descend)


@fails("check_resume", "a save that changes what goes on training")
def changed_by_saving() -> None:
    def save(model: nn.Module) -> Any:
        saved = _saved(model)
        model.half().float()  # made small for the disk, and never put back
        return saved

    def load(model: nn.Module, saved: Any) -> None:
        model.load_state_dict(saved)

    _resumes(lambda: nn.Linear(3, 2), _descend, save=save, load=load)


@fails("check_resume", "a step that depends on an iterator")
def not_deterministic() -> None:
    batches = iter(range(1, 100))

    def step(model: nn.Module) -> None:
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        (model(torch.ones(2, 3)).sum() * next(batches)).backward()
        optimizer.step()
        optimizer.zero_grad()

    _resumes(lambda: nn.Linear(3, 2), step)


@fails("check_resume", "steps that change nothing")
def no_step() -> None:
    _resumes(lambda: nn.Linear(3, 2), lambda model: None)
