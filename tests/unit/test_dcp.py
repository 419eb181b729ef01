"""Folders of torch.distributed.checkpoint, in one process; ``tests/ranks`` has several."""

from __future__ import annotations

import pickle
import traceback
from enum import Enum
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.metadata import (
    _MEM_FORMAT_ENCODING as MEMORY_FORMAT,  # what the metadata has of enums
)

from pytest_paramcheck import ParamCheckError, assert_loaded, assert_roundtrip
from pytest_paramcheck.parameters.files.dcp import cause_of

from .dcp_folders import QUIET, saved
from .messages import failure, usage, whole

pytestmark = QUIET


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


def test_a_folder_is_a_checkpoint(model: nn.Module, tmp_path: Path) -> None:
    folder = saved(model.state_dict(), tmp_path / "step1")
    assert_loaded(model, folder)
    with torch.no_grad():
        model[0].bias.add_(1)

    assert failure(assert_loaded, model, str(folder)) == whole("""
        not the checkpoint's values: 0.bias (Sequential)

          0.bias  2 of 2 values: max abs 1 at [0], max rel 87.4
    """)


def test_a_folder_with_more_than_a_model(model: nn.Module, tmp_path: Path) -> None:
    folder = saved({"model": model.state_dict(), "step": 3}, tmp_path / "step1")

    assert_loaded(model, folder, key="model")
    assert_loaded(model, folder)  # the one prefix of all keys is a renaming


def test_a_round_trip(model: nn.Module) -> None:
    before = {name: value.clone() for name, value in model.state_dict().items()}

    assert_roundtrip(model, through="dcp")

    after = model.state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


class Forgetful(nn.Linear):
    def state_dict(self, *args: object, **kwargs: object) -> dict[str, object]:
        return {"weight": self.weight.detach()}


def test_a_round_trip_that_loses_a_key() -> None:
    assert failure(assert_roundtrip, Forgetful(3, 2), through="dcp") == whole("""
        not saved: bias (Forgetful)

          bias  the state_dict has no such key
    """)


def test_nothing_in_the_metadata_is_run(model: nn.Module, tmp_path: Path) -> None:
    folder = saved(model.state_dict(), tmp_path / "step1")
    written = tmp_path / "written"

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return written.touch, ()

    (folder / ".metadata").write_bytes(pickle.dumps(Evil()))

    said = usage(assert_loaded, model, folder)
    assert said == (
        f"{folder} is not a readable folder of torch.distributed.checkpoint: it names "
        f"builtins.getattr, which metadata never does"
    )
    assert not written.exists()


class EarlyEnums(pickle.Pickler):
    """Writes members of an enum as the first releases of Python 3.11 do."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, Enum):
            return getattr, (type(value), value.name)
        return NotImplemented


def test_metadata_that_an_early_release_of_python_3_11_wrote(
    model: nn.Module, tmp_path: Path
) -> None:
    folder = saved(model.state_dict(), tmp_path / "step1")
    metadata = pickle.loads((folder / ".metadata").read_bytes())
    with (folder / ".metadata").open("wb") as opened:
        EarlyEnums(opened).dump(metadata)
    assert b"getattr" in (folder / ".metadata").read_bytes()

    assert_loaded(model, folder)


@pytest.mark.parametrize(
    ("owner", "name"), [(Path, "touch"), (MEMORY_FORMAT, "mro"), (MEMORY_FORMAT, "__new__")]
)
def test_no_attribute_but_a_member_of_an_enum_is_read(
    owner: type, name: str, model: nn.Module, tmp_path: Path
) -> None:
    folder = saved(model.state_dict(), tmp_path / "step1")

    class Attribute:
        def __reduce__(self) -> tuple[object, ...]:
            return getattr, (owner, name)

    (folder / ".metadata").write_bytes(pickle.dumps(Attribute()))

    assert usage(assert_loaded, model, folder).endswith(
        "it names builtins.getattr, which metadata never does"
    )


def test_a_damaged_folder(model: nn.Module, tmp_path: Path) -> None:
    folder = saved(model.state_dict(), tmp_path / "step1")
    size = (folder / "__0_0.distcp").stat().st_size
    (folder / "__0_0.distcp").write_bytes(b"")

    assert usage(assert_loaded, model, folder) == (
        f"{folder} cannot be read: __0_0.distcp: it is truncated: {size:,} of {size:,} bytes are "
        f"missing"
    )


def test_another_key(model: nn.Module, tmp_path: Path) -> None:
    folder = saved({"model": model.state_dict()}, tmp_path / "step1")

    assert usage(assert_loaded, model, folder, key="ema") == (
        f"{folder} holds no tensors below 'ema': nothing to check"
    )


def test_a_shape_that_does_not_fit(tmp_path: Path) -> None:
    folder = saved(nn.Linear(3, 4).state_dict(), tmp_path / "step1")

    with pytest.raises(ParamCheckError, match="wrong shape: weight, bias"):
        assert_loaded(nn.Linear(3, 2), folder)


def test_the_cause_is_what_the_first_rank_says_or_the_error_itself() -> None:
    several = CheckpointException("load", {1: (KeyError("weight"), traceback.StackSummary())})

    assert cause_of(several) == "KeyError: 'weight'"
    assert cause_of(ValueError("no such file")) == "ValueError: no such file"
    assert cause_of(ValueError()) == "ValueError"
    assert cause_of(pickle.UnpicklingError("weights_only is True now")) == (
        "what lies there is no tensor that torch saved"
    )
