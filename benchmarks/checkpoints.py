"""Manifest, assert_loaded and names of a checkpoint, against what a user would otherwise run.

python benchmarks/checkpoints.py
"""

from __future__ import annotations

import functools
import json
import pickle
import sys
import tempfile
import time
from pathlib import Path

import torch
from ties import layers, seventy_billion
from timing import Row, alternate, median, paired_ratio, show
from torch import Tensor, nn
from torch.distributed.checkpoint import metadata as dcp

from pytest_paramcheck import assert_dtypes, assert_loaded, assert_manifest, assert_shapes


def read_both(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Read every byte of both sides once."""
    for tensor in (*model.state_dict().values(), *state.values()):
        tensor.sum()


def sparse_safetensors(folder: Path, gigabytes: int) -> Path:
    """A file of that size in tensors of 32 MiB that takes no room on the disk."""
    count = gigabytes * 32
    header = {
        f"layers.{n}.weight": {
            "dtype": "BF16",
            "shape": [1 << 14, 1 << 10],
            "data_offsets": [n << 25, (n + 1) << 25],
        }
        for n in range(count)
    }
    text = json.dumps(header).encode()
    path = folder / "model.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        file.truncate(8 + len(text) + (count << 25))
    return path


def sparse_dcp(folder: Path, gigabytes: int) -> Path:
    """The metadata of a folder of that size, without the files that hold values."""
    path = folder / "step1"
    path.mkdir()
    whole = torch.Size([1 << 14, 1 << 10])
    properties = dcp.TensorProperties(dtype=torch.bfloat16)
    chunks = [dcp.ChunkStorageMetadata(torch.Size([0, 0]), whole)]
    said = dcp.TensorStorageMetadata(properties, whole, chunks)
    names = [f"layers.{n}.weight" for n in range(gigabytes * 32)]
    metadata = dcp.Metadata(dict.fromkeys(names, said), {name: (name,) for name in names}, {})
    (path / ".metadata").write_bytes(pickle.dumps(metadata))
    return path


def names_and_shapes(path: Path) -> None:
    """Ask what needs no value."""
    assert_shapes(path, {"*.weight": (1 << 14, 1 << 10)})
    assert_dtypes(path, torch.bfloat16)


def main() -> int:
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        model = layers(20_000)
        path = Path(folder) / "layers.txt"
        assert_manifest(model, path=path, update=True)
        ours, plain = alternate(
            7, functools.partial(assert_manifest, model, path=path), model.state_dict
        )
        ratio = paired_ratio(ours, plain)
        what = f"manifest of 20,000 parameters against {median(plain) * 1e3:.0f} ms of state_dict()"
        rows.append(Row(what, f"{ratio:.2f}x", "-", True))

        large = seventy_billion()
        path = Path(folder) / "large.txt"
        assert_manifest(large, path=path, update=True)
        start = time.perf_counter()
        assert_manifest(large, path=path)
        seconds = time.perf_counter() - start
        rows.append(
            Row(
                "manifest of 69 billion on meta", f"{seconds * 1e3:.0f} ms", "200 ms", seconds < 0.2
            )
        )

        for title, make in (("safetensors file", sparse_safetensors), ("DCP folder", sparse_dcp)):
            path = make(Path(folder), 10)
            ours, _ = alternate(7, functools.partial(names_and_shapes, path), int)
            seconds = median(ours)
            what = f"names, shapes and dtypes of a {title} of 10 GiB"
            rows.append(Row(what, f"{seconds * 1e3:.0f} ms", "200 ms", seconds < 0.2))

    small = nn.Sequential(*[nn.Linear(4, 4) for _ in range(10_000)])
    state = {key: value.clone() for key, value in small.state_dict().items()}
    ours, plain = alternate(7, functools.partial(assert_loaded, small, state), small.state_dict)
    seconds = median(ours)
    what = f"assert_loaded of 20,000 small against {median(plain) * 1e3:.0f} ms of state_dict()"
    rows.append(Row(what, f"{seconds * 1e3:.0f} ms", "300 ms", seconds < 0.3))

    # One thread: with fewer free cores than threads, a parallel sum waits for its own workers
    # and takes five times as long, which would flatter the ratio.
    torch.set_num_threads(1)
    wide = nn.Sequential(*[nn.Linear(2048, 2048) for _ in range(16)])
    state = {key: value.clone() for key, value in wide.state_dict().items()}
    ours, plain = alternate(
        7, functools.partial(assert_loaded, wide, state), functools.partial(read_both, wide, state)
    )
    ratio = paired_ratio(ours, plain)
    what = f"assert_loaded of 256 MiB against {median(plain) * 1e3:.0f} ms: one read of both sides"
    rows.append(Row(what, f"{ratio:.2f}x", "1.2x", ratio < 1.2))
    return 0 if show(rows) else 1


if __name__ == "__main__":
    torch.manual_seed(0)
    sys.exit(main())
