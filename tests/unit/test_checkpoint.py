"""``assert_checkpoint``: what is wrong with files on disk, and what only looks wrong."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from pytest_paramcheck import assert_checkpoint

from .messages import failure, failure_lines, usage, whole

INDEX = "model.safetensors.index.json"


def shards(folder: Path, files: dict[str, dict[str, torch.Tensor]], index: dict[str, str]) -> Path:
    for name, tensors in files.items():
        save_file(tensors, folder / name)
    path = folder / INDEX
    path.write_text(json.dumps({"metadata": {}, "weight_map": index}), encoding="utf-8")
    return path


def saved(folder: Path, held: object, name: str = "model.pt") -> Path:
    torch.save(held, folder / name)
    return folder / name


class Config:
    """What is no plain value."""


class TestRight:
    def test_a_state_dict_in_each_format(self, tmp_path: Path) -> None:
        state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).state_dict()
        assert_checkpoint(saved(tmp_path, state))
        save_file(state, tmp_path / "model.safetensors")
        assert_checkpoint(str(tmp_path / "model.safetensors"))

    def test_tied_names_are_one_storage(self, tmp_path: Path) -> None:
        weight = torch.ones(4, 3)
        assert_checkpoint(saved(tmp_path, {"emb.weight": weight, "head.weight": weight}))

    def test_views_that_share_out_a_flat_buffer(self, tmp_path: Path) -> None:
        flat = torch.ones(100)
        parts = {f"{n}": flat[n * 10 : n * 10 + 10].view(2, 5) for n in range(10)}
        assert_checkpoint(saved(tmp_path, parts))
        columns = torch.ones(4, 6)
        assert_checkpoint(saved(tmp_path, {"left": columns[:, :2], "right": columns[:, 2:]}))

    def test_a_transposed_weight(self, tmp_path: Path) -> None:
        assert_checkpoint(saved(tmp_path, {"weight": torch.ones(4, 6).t()}))

    def test_a_causal_mask(self, tmp_path: Path) -> None:
        mask = torch.full((4, 4), -torch.inf).triu(1)
        assert_checkpoint(saved(tmp_path, {"mask": mask, "weight": torch.ones(2)}))

    def test_a_layer_without_inputs(self, tmp_path: Path) -> None:
        with pytest.warns(UserWarning, match="zero-element"):
            layer = nn.Linear(0, 3)
        assert_checkpoint(saved(tmp_path, layer.state_dict()))

    def test_what_trainers_write_beside_the_model(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        state = {0: {"step": torch.tensor(3.0), "exp_avg": torch.ones(2, 3)}}
        optimizer = {"state": state, "param_groups": [{"lr": 0.1, "params": [0, 1]}]}
        everything = {"model": model.state_dict(), "optimizer": optimizer, "epoch": 3}
        path = saved(tmp_path, everything)
        assert_checkpoint(path)
        assert_checkpoint(path, key="model")

    def test_shards(self, tmp_path: Path) -> None:
        files = {"a.safetensors": {"x": torch.ones(2)}, "b.safetensors": {"y": torch.ones(2)}}
        index = shards(tmp_path, files, {"x": "a.safetensors", "y": "b.safetensors"})
        assert_checkpoint(index)
        assert_checkpoint(tmp_path)


class TestWrong:
    def test_values(self, tmp_path: Path) -> None:
        state = {
            "nan": torch.tensor([0.0, torch.nan]),
            "scores": torch.tensor([0.5, -torch.inf]),  # not what a mask holds
            "gone": torch.empty(0),
            "meta": torch.empty(2, device="meta"),
        }
        assert failure(assert_checkpoint, saved(tmp_path, state)) == whole(r"""
            empty: gone; no values: meta; not finite: nan, scores (model.pt)

              empty:
                gone  no elements, where a parameter has some
              no values:
                meta  on meta, where tensors have no values
              not finite:
                nan     1 of 2 values: 1 NaN, first at [1]
                scores  1 of 2 values: 1 -inf, first at [1]

              hint: if the model was sharded, gather its parameters before saving them
            """)

    def test_a_view_drags_its_memory_along(self, tmp_path: Path) -> None:
        everything = torch.ones(1000, 2)
        state = {"rows": everything[:3], "columns": torch.ones(4, 6)[:, :2]}
        assert failure(assert_checkpoint, saved(tmp_path, state)) == whole(r"""
            larger than its tensors: rows, columns (model.pt)

              rows     8,000 bytes in the file, of which 24 are its: a view is saved with all \
            of the memory that it looks into
              columns  96 bytes in the file, of which 32 are its: a view is saved with all of \
            the memory that it looks into

              hint: copy before saving: torch.save({k: v.clone() for k, v in \
            model.state_dict().items()}, path)
            """)
        cloned = {name: tensor.clone() for name, tensor in state.items()}
        assert_checkpoint(saved(tmp_path, cloned))  # the hint repairs

    def test_one_part_of_a_file(self, tmp_path: Path) -> None:
        path = saved(tmp_path, {"model": {"w": torch.ones(2)}, "ema": {"w": torch.ones(9)[:2]}})
        assert_checkpoint(path, key="model")
        assert failure_lines(assert_checkpoint, path)[0] == (
            "larger than its tensors: ema.w (model.pt)"
        )
        assert failure_lines(assert_checkpoint, path, key="ema")[0] == (
            "larger than its tensors: w (model.pt)"
        )
        assert usage(assert_checkpoint, path, key="modle") == (
            f"key='modle' is not in {path}; did you mean 'model'?"
        )

    @pytest.mark.parametrize(
        ("given", "shown"),
        [(nn.Linear(3, 2), "Linear"), (nn.Linear(3, 2).state_dict(), "OrderedDict"), (3, "int 3")],
        ids=["model", "state-dict", "number"],
    )
    def test_what_is_no_path(self, given: Any, shown: str) -> None:
        assert usage(assert_checkpoint, given) == (
            f"expected the path of a checkpoint, got {shown}; what is in memory is for "
            "assert_materialized and assert_finite"
        )

    def test_code(self, tmp_path: Path) -> None:
        path = saved(tmp_path, {"weight": torch.ones(2), "config": Config()})
        assert failure_lines(assert_checkpoint, path) == [
            "code in the file: model.pt",
            "",
            f"  model.pt  reading it runs {__name__}.Config",
            "",
            "  hint: save tensors and plain values only: torch.save(model.state_dict(), path)",
        ]

    def test_nothing_of_it_is_run(self, tmp_path: Path) -> None:
        class Trap:
            def __reduce__(self) -> tuple[object, ...]:
                return (Path.touch, (tmp_path / "ran",))

        path = tmp_path / "model.bin"
        path.write_bytes(pickle.dumps({"weight": Trap()}))
        failure(assert_checkpoint, path)
        assert not (tmp_path / "ran").exists()

    @pytest.mark.parametrize("cut", [1, 100])
    def test_a_truncated_file(self, tmp_path: Path, cut: int) -> None:
        path = tmp_path / "model.safetensors"
        save_file({"a": torch.ones(40), "b": torch.ones(2)}, path)
        size = path.stat().st_size
        path.write_bytes(path.read_bytes()[:-cut])
        missing = f"{cut} byte{'s' if cut > 1 else ''} of {size} are missing"
        assert failure_lines(assert_checkpoint, path) == [
            "file damaged: model.safetensors",
            "",
            "  model.safetensors  it is damaged or another kind of file (it is truncated: "
            f"{missing})",
            "",
            "  hint: write it again, and check that the copy or download was complete",
        ]

    def test_a_pointer_in_the_place_of_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
        assert failure_lines(assert_checkpoint, path)[2] == (
            "  model.safetensors  it is a Git LFS pointer, not the file; run git lfs pull"
        )

    def test_no_tensors(self, tmp_path: Path) -> None:
        assert failure_lines(assert_checkpoint, saved(tmp_path, {"epoch": 3}))[0] == (
            "no tensors in it: model.pt"
        )

    def test_index_and_shards_part(self, tmp_path: Path) -> None:
        first, second, third = (f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3))
        files = {first: {"a": torch.ones(2), "extra": torch.ones(2)}, second: {"b": torch.ones(2)}}
        shards(tmp_path, files, {"a": first, "lost": first, "c": third})
        lines = failure(assert_checkpoint, tmp_path).splitlines()
        assert lines[2:11] == [
            "  missing in its shard:",
            f"    lost  the index says it is in {first}, which does not have it",
            "  shard missing:",
            f"    {third}  {INDEX} names it, and it is not there",
            "  not in the index:",
            f"    extra  it is in {first}",
            "  file not in the index:",
            f"    {second}  it is numbered as the shards are, and no name of the index is in it",
            "",
        ]

    @pytest.mark.parametrize(
        "text",
        ["", "[]", "{}", '{"weight_map": {"a": 3}}', '{"weight_map": {"a": "../b.safetensors"}}'],
    )
    def test_what_is_no_index(self, tmp_path: Path, text: str) -> None:
        (tmp_path / INDEX).write_text(text, encoding="utf-8")
        assert failure_lines(assert_checkpoint, tmp_path)[2] == (
            f"  {INDEX}  it is not an index: no 'weight_map' of names to files beside it"
        )

    def test_paths_that_mean_no_checkpoint(self, tmp_path: Path) -> None:
        assert usage(assert_checkpoint, tmp_path / "model.pt") == (
            f"{tmp_path / 'model.pt'} does not exist"
        )
        assert usage(assert_checkpoint, tmp_path) == (
            f"{tmp_path} is a folder without a checkpoint file in it"
        )
        assert usage(assert_checkpoint, "~/no such folder/model.pt") == (
            "~/no such folder/model.pt does not exist; nothing expands the ~: "
            "Path('~/no such folder/model.pt').expanduser()"
        )
        link = tmp_path / "last.pt"
        link.symlink_to(tmp_path / "step_10.pt")
        assert usage(assert_checkpoint, link) == (
            f"{link} does not exist; it is a link to {tmp_path / 'step_10.pt'}"
        )
