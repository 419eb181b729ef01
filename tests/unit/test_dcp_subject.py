"""A folder of torch.distributed.checkpoint as a subject, and as what ``assert_checkpoint`` asks."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed.checkpoint as dcp
from torch import nn

from pytest_paramcheck import (
    assert_checkpoint,
    assert_devices,
    assert_distinct,
    assert_dtypes,
    assert_finite,
    assert_init,
    assert_loaded,
    assert_manifest,
    assert_param_count,
    assert_same_values,
    assert_shapes,
    assert_trainable,
    assert_unchanged,
    assert_values,
    init,
    param_table,
    part,
    values,
)

from .dcp_folders import QUIET, saved
from .messages import failure, usage, whole

pytestmark = QUIET


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))


@pytest.fixture(scope="module")
def flat(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(model.state_dict(), tmp_path_factory.mktemp("saved") / "flat")


@pytest.fixture(scope="module")
def everything(model: nn.Module, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model beside its optimizer and a step."""
    optimizer = torch.optim.AdamW(model.parameters())
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    state = {"model": model.state_dict(), "optim": optimizer.state_dict(), "step": 3}
    return saved(state, tmp_path_factory.mktemp("saved") / "step3")


@pytest.fixture
def changed(everything: Path, tmp_path: Path) -> Path:
    """The same folder, to be damaged."""
    return Path(shutil.copytree(everything, tmp_path / "step3"))


def unread(folder: Path, tmp_path: Path) -> Path:
    """The folder without the files that hold values."""
    bare = tmp_path / "bare"
    bare.mkdir()
    shutil.copy(folder / ".metadata", bare)
    return bare


class TestSubject:
    def test_names_and_shapes_need_the_metadata_alone(self, flat: Path, tmp_path: Path) -> None:
        bare = unread(flat, tmp_path)

        assert_shapes(bare, {"0.weight": (2, 3), "*.bias": (2,)}, partial=True)
        assert_dtypes(bare, {"*": torch.float32, "*tracked": torch.int64})
        assert_devices(bare, "cpu")
        assert_param_count(bare, 17)
        assert_manifest(bare, path=tmp_path / "bare.txt", update=True)
        assert "1.running_mean" in param_table(bare)
        assert failure(assert_shapes, bare, {"0.weight": (2, 4)}, partial=True) == whole("""
            wrong shape: 0.weight (bare)

              0.weight  expected (2, 4), found (2, 3): dimension 1 is 3, not 4
        """)

    @pytest.mark.parametrize(
        "ask",
        [
            assert_finite,
            assert_distinct,
            lambda path: assert_values(path, {"0.weight": values.between(-1, 1)}),
            lambda path: assert_init(path, {"0.weight": init.uniform(-1, 1)}),
            lambda path: assert_finite(path, lambda name, tensor: bool(tensor.sum() > 0)),
            lambda path: assert_finite(path, part("0.weight", slice(0, 1))),
            lambda path: assert_unchanged(path).__enter__(),
        ],
    )
    def test_values_are_never_made_up(
        self, ask: Callable[[Path], Any], flat: Path, tmp_path: Path
    ) -> None:
        bare = unread(flat, tmp_path)

        said = usage(ask, bare)

        why = "__0_0.distcp: .metadata names it, and it is not there"
        assert said == f"{bare} cannot be read: {why}"

    def test_values(self, model: nn.Module, flat: Path) -> None:
        assert_finite(flat)
        assert_same_values(flat, model.state_dict())
        assert_same_values(model, flat, "0")
        assert_init(flat, {"1.weight": init.ones()})
        assert_finite(flat, lambda name, tensor: tensor.dim() == 1 and bool((tensor == 1).all()))
        with assert_unchanged(flat):
            pass
        assert failure(assert_values, flat, {"1.bias": values.between(1, 2)}) == whole("""
            outside [1, 2]: 1.bias (flat)

              1.bias  expected between(1, 2), found 2 of 2 values, worst 0 at [0]
        """)

    def test_only_what_is_asked_for_is_read(self, everything: Path, tmp_path: Path) -> None:
        """What lies behind it in the file may be gone."""
        short = Path(shutil.copytree(everything, tmp_path / "short"))
        file = short / "__0_0.distcp"
        file.write_bytes(file.read_bytes()[:-2000])
        size = file.stat().st_size + 2000

        assert_finite(short, "0.weight", key="model")
        said = usage(assert_finite, short, key="optim.state.3")
        assert said == (
            f"{short} cannot be read: __0_0.distcp: it is truncated: 2,000 of {size:,} bytes "
            f"are missing"
        )

    def test_a_part_of_a_folder(self, everything: Path) -> None:
        assert_shapes(everything, {"0.weight": (2, 3)}, partial=True, key="model")
        assert_finite(everything, key="optim.state.0")
        assert usage(assert_finite, everything) == (
            "'model' in step3 is not a tensor but dict; did you mean key='model', "
            "key='optim.state.0' or key='optim.state.1'?"
        )
        assert usage(assert_finite, everything, key="modell") == (
            f"key='modell' is not in {everything}; did you mean 'model'?"
        )

    def test_no_tensors(self, tmp_path: Path) -> None:
        folder = saved({"step": 3}, tmp_path / "step3")

        assert usage(assert_finite, folder) == "'step' in step3 is not a tensor but bytes"

    def test_it_has_no_flags(self, flat: Path) -> None:
        assert "values, detached from the model" in usage(assert_trainable, flat)


class TestCheckpoint:
    def test_right(self, flat: Path, everything: Path) -> None:
        for folder in (flat, str(flat), everything):
            assert_checkpoint(folder)
        assert_checkpoint(everything, key="model")

    def test_values(self, tmp_path: Path) -> None:
        state = {"weight": torch.tensor([1.0, float("nan")]), "bias": torch.empty(0)}

        assert failure(assert_checkpoint, saved(state, tmp_path / "step3")) == whole("""
            empty: bias; not finite: weight (step3)

              empty:
                bias  no elements, where a parameter has some
              not finite:
                weight  1 of 2 values: 1 NaN, first at [1]

              hint: if the model was sharded, gather its parameters before saving them
        """)

    def test_a_shard_is_missing(self, changed: Path, model: nn.Module) -> None:
        (changed / "__0_0.distcp").unlink()

        assert failure(assert_checkpoint, changed) == whole("""
            shard missing: __0_0.distcp (step3)

              __0_0.distcp  .metadata names it, and it is not there

              hint: publish every file that the index names
        """)
        assert usage(assert_loaded, model, changed, key="model") == (
            f"{changed} cannot be read: __0_0.distcp: .metadata names it, and it is not there"
        )

    def test_a_shard_is_cut(self, changed: Path) -> None:
        file = changed / "__0_0.distcp"
        size = file.stat().st_size
        file.write_bytes(file.read_bytes()[:20_000])

        assert failure(assert_checkpoint, changed) == whole(f"""
            file damaged: __0_0.distcp (step3)

              __0_0.distcp  it is truncated: {size - 20_000:,} of {size:,} bytes are missing

              hint: write it again, and check that the copy or download was complete
        """)

    def test_other_bytes(self, changed: Path) -> None:
        file = changed / "__0_0.distcp"
        file.write_bytes(bytes(file.stat().st_size))

        assert failure(assert_checkpoint, changed) == whole("""
            file damaged: step3

              step3  what lies there is no tensor that torch saved

              hint: write it again, and check that the copy or download was complete
        """)

    def test_the_save_did_not_finish(self, changed: Path) -> None:
        (changed / ".metadata").unlink()
        why = "it has shards and no .metadata, which is written last: the save did not finish"

        assert failure(assert_checkpoint, changed) == whole(f"""
            file damaged: step3

              step3  {why}

              hint: write it again, and check that the copy or download was complete
        """)
        assert usage(assert_finite, changed) == f"{changed}: {why}"

    @pytest.mark.parametrize("data", [b"", b"metadata", b"\x80\x04N."])
    def test_the_metadata_is_damaged(self, changed: Path, data: bytes) -> None:
        (changed / ".metadata").write_bytes(data)

        assert failure(assert_checkpoint, changed).startswith("file damaged: .metadata (step3)\n")
        assert "is not a readable folder of torch.distributed" in usage(assert_finite, changed)

    def test_a_shard_of_an_earlier_save(self, changed: Path) -> None:
        shutil.copy(changed / "__0_0.distcp", changed / "__7_0.distcp")

        assert failure(assert_checkpoint, changed) == whole("""
            file not in the index: __7_0.distcp (step3)

              __7_0.distcp  it is numbered as the shards are, and no name of the index is in it

              hint: delete it, or write index and shards together, in one save
        """)

    def test_parts_that_no_rank_saved(self, changed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        metadata: Any = dcp.FileSystemReader(changed).read_metadata()
        one = next(at for at in metadata.storage_data if at.fqn == "model.0.weight")
        del metadata.storage_data[one]
        monkeypatch.setattr(
            "pytest_paramcheck.parameters.files.dcp.read_metadata", lambda folder: metadata
        )

        assert failure(assert_checkpoint, changed) == whole("""
            missing in its shard: model.0.weight (step3)

              model.0.weight  some of its parts were not saved: not all ranks took part

              hint: write index and shards together, in one save: readers load what the index names
        """)

    def test_code(self, model: nn.Module, tmp_path: Path) -> None:
        class Evil:
            def __reduce__(self) -> tuple[object, ...]:
                return (tmp_path / "written").touch, ()

        folder = saved({"model": model.state_dict(), "args": Evil()}, tmp_path / "step3")

        assert failure(assert_checkpoint, folder).startswith("code in the file: args (step3)\n")
        assert not (tmp_path / "written").exists()
        assert_finite(folder, key="model")

    def test_a_folder_that_holds_neither(self, tmp_path: Path) -> None:
        assert usage(assert_checkpoint, tmp_path) == (
            f"{tmp_path} is a folder without a checkpoint file in it"
        )
