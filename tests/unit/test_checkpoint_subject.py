"""The path of a checkpoint as a subject: what is read of it, and how little."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import nn

from pytest_paramcheck import (
    assert_dtypes,
    assert_finite,
    assert_grads_none,
    assert_loaded,
    assert_manifest,
    assert_param_count,
    assert_same_values,
    assert_shapes,
    assert_tied,
    assert_unchanged,
    param_table,
)
from pytest_paramcheck.parameters.files.safetensors_file import (
    _DTYPES,
    FormatError,
    read_safetensors,
)

from .messages import failure_lines, usage


def saved(path: Path, held: object) -> Path:
    torch.save(held, path)
    return path


def sparse_safetensors(path: Path, gigabytes: int) -> Path:
    """A file of that size that takes no room on the disk."""
    rows, layers = 1 << 14, gigabytes * 32
    header = {
        f"layers.{n}.weight": {
            "dtype": "BF16",
            "shape": [rows, 1 << 10],
            "data_offsets": [n << 25, (n + 1) << 25],
        }
        for n in range(layers)
    }
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + (layers << 25))
    return path


class TestSubjects:
    def test_each_format_is_what_it_was_saved_from(self, tmp_path: Path) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        pt = saved(tmp_path / "model.pt", model.state_dict())
        save_file(model.state_dict(), tmp_path / "model.safetensors")
        torch.save(model.state_dict(), tmp_path / "old.pt", _use_new_zipfile_serialization=False)
        for path in (pt, tmp_path / "model.safetensors", tmp_path / "old.pt"):
            assert_same_values(model, path)
            assert_shapes(path, {"0.weight": (2, 3), "*bias": (2,), "1.num*": ()}, partial=True)
            assert_dtypes(path, torch.float32)
            assert_param_count(path, total=17)
            assert_finite(path)
            assert_manifest(path, path=tmp_path / "manifest.txt", update=True)
            assert_manifest(path, path=tmp_path / "manifest.txt")

    def test_a_folder_and_an_index(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        for name, tensor in model.state_dict().items():
            save_file({name: tensor}, tmp_path / f"{name}.safetensors")
        weight_map = {name: f"{name}.safetensors" for name in ("weight", "bias")}
        index = tmp_path / "model.safetensors.index.json"
        index.write_text(json.dumps({"weight_map": weight_map}), encoding="utf-8")
        assert_same_values(model, index)
        assert_same_values(model, tmp_path)
        assert_loaded(model, str(tmp_path))
        (tmp_path / "bias.safetensors").unlink()
        assert usage(assert_finite, tmp_path) == (
            f"{index} names bias.safetensors, which is not there"
        )

    def test_a_folder_with_one_file_of_any_name(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        saved(tmp_path / "last.ckpt", model.state_dict())
        (tmp_path / "config.json").write_text("{}", encoding="utf-8")
        assert_same_values(model, tmp_path)
        saved(tmp_path / "best.pt", model.state_dict())
        assert usage(assert_finite, tmp_path) == (
            f"{tmp_path} is a folder; name the checkpoint file in it: best.pt, last.ckpt"
        )

    def test_ties_of_a_file(self, tmp_path: Path) -> None:
        weight = torch.ones(2)
        path = saved(tmp_path / "model.pt", {"emb": weight, "head": weight, "own": torch.ones(2)})
        assert failure_lines(assert_tied, path, "emb", "own")[0].startswith("not tied: emb, own")

    def test_a_finding_bears_the_file_s_name(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "model.pt", {"weight": torch.tensor([0.0, torch.inf])})
        assert failure_lines(assert_finite, path) == [
            "not finite: weight (model.pt)",
            "",
            "  weight  1 of 2 values: 1 inf, first at [1]",
        ]

    def test_a_file_written_in_a_block(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "model.pt", {"weight": torch.zeros(2)})
        with assert_unchanged(path):
            saved(tmp_path / "other.pt", {"weight": torch.ones(2)})
        for write in (
            lambda: (tmp_path / "other.pt").replace(path),
            lambda: saved(path, {"weight": torch.full((2,), 2.0)}),
        ):
            with pytest.raises(AssertionError, match=r"changed: weight"), assert_unchanged(path):
                write()

    def test_a_checkpoint_has_no_gradients(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "model.pt", {"weight": torch.zeros(2)})
        assert usage(assert_grads_none, path).startswith("model.pt holds values")

    def test_a_part_of_a_file(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        nested = {"state": {"model": model.state_dict()}, "epoch": 3}
        path = saved(tmp_path / "last.pt", nested)
        assert_same_values(model, path, key="state.model")
        assert_finite(path, key="state.model")
        assert_shapes(path, {"weight": (2, 3), "bias": (2,)}, key="state.model")
        assert_dtypes(path, torch.float32, key="state.model")
        assert_param_count(path, total=8, key="state.model")
        assert "8 elements in 2 tensors" in param_table(path, key="state.model")
        assert_loaded(model, path, key="state.model")

    def test_where_the_tensors_are_is_said(self, tmp_path: Path) -> None:
        path = saved(tmp_path / "last.pt", {"state": {"model": {"w": torch.ones(2)}}, "epoch": 3})
        assert usage(assert_finite, path) == (
            "'state' in last.pt is not a tensor but dict; did you mean key='state.model'?"
        )
        assert usage(assert_loaded, nn.Linear(3, 2), path) == (
            "checkpoint['state'] is not a tensor but dict; pass the tensors only: "
            "{k: v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}"
        )
        named = saved(tmp_path / "named.pt", {"state": {"model": {"weight": torch.ones(2)}}})
        assert usage(assert_loaded, nn.Linear(3, 2), named) == (
            "checkpoint['state'] is not a tensor but dict; did you mean key='state.model'?"
        )
        assert usage(assert_finite, path, key="epoch") == (
            "'epoch' of last.pt is not a mapping of names to tensors but int 3"
        )
        assert usage(assert_finite, path, key="ema") == (
            f"key='ema' is not in {path}; it has state.model"
        )

    def test_key_is_for_files(self) -> None:
        assert usage(assert_finite, {"model": torch.ones(2)}, key="model") == (
            "key='model' says where in the file of a Path to look, and the subject is dict"
        )
        assert usage(assert_loaded, nn.Linear(3, 2), {"model": {}}, key="model") == (
            "key='model' says where in a file to look; of a mapping pass checkpoint['model']"
        )

    def test_a_str_is_no_subject(self) -> None:
        assert usage(assert_finite, "model.pt").endswith(
            "got str 'model.pt'; a checkpoint's is Path('model.pt')"
        )


class TestSafetensors:
    """The reader of the format, beside the library that wrote the files."""

    @settings(max_examples=25, deadline=None)
    @given(
        st.lists(
            st.tuples(st.sampled_from(sorted(_DTYPES)), st.lists(st.integers(0, 4))), max_size=6
        )
    )
    def test_what_the_library_writes(self, tmp_path_factory, kinds: list) -> None:
        path = tmp_path_factory.mktemp("st") / "model.safetensors"
        state = {}
        for number, (kind, shape) in enumerate(kinds):
            dtype = getattr(torch, _DTYPES[kind])
            raw = torch.randint(0, 2, (math.prod(shape) * dtype.itemsize,), dtype=torch.uint8)
            state[f"t{number}"] = raw.view(dtype).view(shape) if raw.numel() else raw.view(shape)
        save_file(state, path, metadata={"format": "pt"})
        read = read_safetensors(path)
        assert list(read) == sorted(state, key=list(read).index)
        for name, tensor in state.items():
            assert (read[name].dtype, read[name].shape) == (tensor.dtype, tensor.shape)
            if tensor.numel():
                assert torch.equal(
                    read[name].contiguous().view(-1).view(torch.uint8),
                    tensor.contiguous().view(-1).view(torch.uint8),
                )

    @pytest.mark.parametrize(
        ("header", "size", "said"),
        [
            ({"a": ["F32", [2], [0, 8]]}, 7, "it is truncated: 1 byte of 77 are missing"),
            ({"a": ["F32", [2], [0, 8]]}, 9, "1 byte more than its tensors have"),
            ({"a": ["F32", [3], [0, 8]]}, 8, "'a' of shape [3] has 8 bytes, not 12"),
            ({"a": ["F6", [2], [0, 8]]}, 8, "'a' has the dtype F6, which torch does not have"),
            ({"a": ["F32", [-2], [0, 8]]}, 8, "its header does not say where 'a' is"),
            ({"a": ["F32", [1], [4, 8]]}, 8, "'a' begins at byte 4, what is before it ends at 0"),
            ({"a": 3}, 0, "its header is not one of safetensors"),
        ],
    )
    def test_damage(self, tmp_path: Path, header: dict, size: int, said: str) -> None:
        keys = ("dtype", "shape", "data_offsets")
        text = json.dumps(
            {
                n: dict(zip(keys, v, strict=True)) if isinstance(v, list) else v
                for n, v in header.items()
            }
        ).encode()
        path = tmp_path / "model.safetensors"
        path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(size))
        with pytest.raises(FormatError) as caught:
            read_safetensors(path)
        assert str(caught.value) == said

    def test_a_header_that_was_not_padded(self, tmp_path: Path) -> None:
        text = b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}'
        path = tmp_path / "model.safetensors"
        values = torch.tensor([1.0, -2.0])
        path.write_bytes(len(text).to_bytes(8, "little") + text + values.numpy().tobytes())
        assert len(text) % 4
        assert torch.equal(read_safetensors(path)["a"], values)

    def test_writing_to_what_was_read_leaves_the_file(self, tmp_path: Path) -> None:
        path = tmp_path / "model.safetensors"
        save_file({"a": torch.ones(2)}, path)
        read_safetensors(path)["a"].zero_()
        assert torch.equal(read_safetensors(path)["a"], torch.ones(2))

    def test_names_and_shapes_of_a_large_file_read_its_header_alone(self, tmp_path: Path) -> None:
        path = sparse_safetensors(tmp_path / "model.safetensors", gigabytes=10)
        before = path.stat().st_blocks
        assert_shapes(path, {"*.weight": (1 << 14, 1 << 10)})
        assert_dtypes(path, torch.bfloat16)
        assert path.stat().st_size > 10 << 30
        assert path.stat().st_blocks == before
