"""Adapters saved under other keys than the model has: what arrived, and what was thrown away.

What goes wrong: a loader's keys do not match, `strict=False` drops them all without a word, B stays
zero and the base model is what runs; two adapters are swapped; the file holds the whole base model
because a view was saved.

What the tests hold: every tensor of the file is in the model under the name that the loader gives
it, and nothing else is; what is published is whole and no larger than it has to be.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ParamCheckError

pytestmark = pytest.mark.params(devices=["cpu"])  # files are read on the cpu


class Adapted(nn.Module):
    """A frozen layer with a low-rank update beside it, one for each adapter."""

    def __init__(self) -> None:
        super().__init__()
        self.base = nn.Linear(6, 6).requires_grad_(False)
        self.lora_A = nn.ModuleDict({"default": nn.Linear(6, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 6, bias=False)})
        nn.init.zeros_(self.lora_B["default"].weight)


@pytest.fixture
def model() -> nn.Module:
    return nn.ModuleDict({"attention": Adapted(), "mlp": Adapted()})


@pytest.fixture
def adapter(tmp_path: Path) -> Path:
    """A file as it is published: without the adapter's name, below the model's own prefix."""
    tensors: dict[str, Tensor] = {}
    for layer in ("attention", "mlp"):
        tensors[f"base_model.model.{layer}.lora_A.weight"] = torch.randn(2, 6)
        tensors[f"base_model.model.{layer}.lora_B.weight"] = torch.randn(6, 2)
    torch.save(tensors, tmp_path / "adapter.pt")
    return tmp_path / "adapter.pt"


def key_in_model(key: str) -> str:
    key = key.removeprefix("base_model.model.")
    for part in ("lora_A", "lora_B"):
        key = key.replace(f"{part}.", f"{part}.default.")
    return key


def load(model: nn.Module, path: Path) -> None:
    tensors = torch.load(path, weights_only=True)
    model.load_state_dict({key_in_model(k): v for k, v in tensors.items()}, strict=False)


def test_the_adapter_arrived(assert_loaded, model, adapter) -> None:
    load(model, adapter)
    assert_loaded(model, adapter, rename=key_in_model, missing=["*.base"], dtypes=True)


def test_keys_that_strict_false_dropped_are_seen(assert_loaded, model, adapter) -> None:
    model.load_state_dict(torch.load(adapter, weights_only=True), strict=False)  # nothing matches
    with pytest.raises(ParamCheckError, match=r"nothing loaded|not the checkpoint's values"):
        assert_loaded(model, adapter, rename=key_in_model, missing=["*.base"])


def test_adapters_that_were_swapped_are_seen(assert_loaded, model, adapter) -> None:
    load(model, adapter)
    model["attention"], model["mlp"] = model["mlp"], model["attention"]
    with pytest.raises(ParamCheckError, match="not the checkpoint's values"):
        assert_loaded(model, adapter, rename=key_in_model, missing=["*.base"])


def test_what_is_published_is_whole(assert_checkpoint, assert_shapes, adapter) -> None:
    assert_checkpoint(adapter)
    assert_shapes(adapter, {"*.lora_A": ("rank", None), "*.lora_B": (None, "rank")})


def test_a_view_of_the_base_model_is_seen(assert_checkpoint, tmp_path) -> None:
    everything = torch.randn(1000, 6)
    torch.save({"lora_A.weight": everything[:2]}, tmp_path / "adapter.pt")
    with pytest.raises(ParamCheckError, match="larger than its tensors: lora_A"):
        assert_checkpoint(tmp_path / "adapter.pt")
