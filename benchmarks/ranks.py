"""What a test on two ranks costs, beside processes spawned for each test and torchrun for each.

python benchmarks/ranks.py [--runs N]
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from timing import Row, median, show

TESTS = 40
SUITE = f"""
import os, pytest, sys, time, torch, torch.distributed as dist
pytestmark = pytest.mark.params(ranks=2)

@pytest.mark.parametrize("x", range({TESTS}))
def test_barrier(x):
    dist.barrier()

@pytest.mark.parametrize("x", range(20))
def test_sharded(x):
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import fully_shard
    start = time.perf_counter()
    model = torch.nn.Sequential(*[torch.nn.Linear(16, 16) for _ in range(4)])
    mesh = init_device_mesh("cpu", (2,))
    for layer in (*model, model):
        fully_shard(layer, mesh=mesh)
    model(torch.ones(2, 16)).sum().backward()
    sys.stdout.write(f"\\nTOOK body {{time.perf_counter() - start}}\\n")

def test_ends_its_rank():
    if dist.get_rank():
        os._exit(1)

def test_on_further_ranks():
    dist.barrier()
"""
#: Prints the seconds of each test, as this process sees them.
CLOCK = """
import sys, time, pytest
took = []
@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item):
    start = time.perf_counter()
    result = yield
    took.append(f"TOOK {item.name.partition('[')[0]} {time.perf_counter() - start}")
    return result
@pytest.hookimpl(trylast=True)
def pytest_unconfigure(config):
    from pytest_paramcheck.plugin.ranks.here import rank_here
    # Of this process, not of its ranks, and at the end: what those write comes between.
    if rank_here(config) is None:
        print("", *took, sep="\\n", flush=True)
"""
SPAWNED = """
import os, tempfile, time, torch, torch.distributed as dist, torch.multiprocessing as mp
def rank(number, file):
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=number, world_size=2)
    dist.barrier()
    dist.destroy_process_group()
if __name__ == "__main__":
    for _ in range(2):
        start = time.perf_counter()
        mp.spawn(rank, (tempfile.mktemp(),), nprocs=2)
        print("TOOK spawned", time.perf_counter() - start)
"""
REPLICATED = """
import os, tempfile, time, statistics, torch, torch.distributed as dist, xxhash
import torch.multiprocessing as mp
import pytest_paramcheck as pc

def raw(tensors):
    for tensor in tensors.values():
        xxhash.xxh3_128_digest(tensor.numpy())

def rank(number, file):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{file}", rank=number, world_size=2)
    tensors = {f"blocks.{i}.weight": torch.full((12_900,), 1.0 * i) for i in range(7_000)}
    times = ([], [])
    for _ in range(8):
        for taken, work in zip(times, (raw, pc.assert_replicated)):
            dist.barrier()
            start = time.perf_counter()
            work(tensors)
            taken.append(time.perf_counter() - start)
    if number == 0:
        read, ours = (statistics.median(taken[1:]) for taken in times)
        print("TOOK read", read)
        print("TOOK replicated", ours)
    dist.destroy_process_group()

if __name__ == "__main__":
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    mp.spawn(rank, (tempfile.mktemp(),), nprocs=2)
"""
LAUNCHED = """
import torch.distributed as dist
def test_barrier():
    dist.init_process_group("gloo")
    dist.barrier()
    dist.destroy_process_group()
"""


def run(folder: Path, *args: str, fails: bool = False) -> str:
    """Run Python in a folder and return what it printed."""
    done = subprocess.run(
        [sys.executable, *args], cwd=folder, capture_output=True, text=True, check=False
    )
    if bool(done.returncode) != fails:
        raise SystemExit(done.stdout + done.stderr)
    return done.stdout


def told(output: str, name: str) -> list[float]:
    """Return the seconds behind a name; of ranks, those of the first."""
    said = (line.removeprefix("[rank 0] ") for line in output.splitlines())
    lines = (line.split() for line in said if line.startswith("TOOK "))
    return [float(seconds) for _, found, seconds in lines if found == name]


def elapsed(work: Callable[[], object]) -> float:
    """Return how many seconds a function takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def main() -> bool:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=3)
    runs = parser.parse_args().runs
    os.environ.setdefault("PYTHONPATH", str(Path(__file__).resolve().parents[1]))
    os.environ["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    pytest = ("-m", "pytest", "-q", "-p", "no:cacheprovider")
    first, further, barrier, sharded, imports, spawned, launched = ([] for _ in range(7))
    read, replicated, bodies = [], [], []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        (folder / "conftest.py").write_text(CLOCK, encoding="utf-8")
        (folder / "test_ranks.py").write_text(SUITE, encoding="utf-8")
        (folder / "spawned.py").write_text(SPAWNED, encoding="utf-8")
        (folder / "replicated.py").write_text(REPLICATED, encoding="utf-8")
        (folder / "launched").mkdir()
        (folder / "launched" / "test_it.py").write_text(LAUNCHED, encoding="utf-8")
        ours = ("-s", "-p", "pytest_paramcheck.plugin", "test_ranks.py")
        torchrun = ("-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2")
        for _ in range(runs):
            imports.append(elapsed(lambda: run(folder, "-c", "import torch")))
            output = run(folder, *pytest, *ours, fails=True)
            start, *warm = told(output, "test_barrier")
            first.append(start)
            barrier += warm
            sharded += told(output, "test_sharded")[1:]  # the first loads parts of torch
            bodies += told(output, "body")[1:]
            further += told(output, "test_on_further_ranks")
            spawned += told(run(folder, "spawned.py"), "spawned")[1:]
            output = run(folder, "replicated.py")
            read += told(output, "read")
            replicated += told(output, "replicated")
            launched.append(elapsed(lambda: run(folder / "launched", *torchrun, *pytest)))
    start, again, warm, body = map(median, (first, further, barrier, sharded))
    ratio = start / median(imports)
    over = body - median(bodies)
    times = median([one / other for one, other in zip(replicated, read, strict=True)])
    rows = [
        Row("the first test: two ranks are started", f"{ratio:.2f} x import torch", "2", ratio < 2),
        Row("a test that needs new ranks", f"{again:.2f} s", "1 s", again < 1),
        Row("a barrier, ranks there", f"{warm * 1e3:.0f} ms", "40 ms", warm < 0.04),
        Row(f"{TESTS} barriers", f"{warm * TESTS:.2f} s", "2 s", warm * TESTS < 2),
        Row("fully_shard and backward, ranks there", f"{body * 1e3:.0f} ms", "-", True),
        Row("... over what the test itself takes", f"{over * 1e3:.0f} ms", "30 ms", over < 0.03),
        Row(
            "assert_replicated, 361 MB in 7,000 tensors on both ranks",
            f"{times:.2f} x a hash of the bytes",
            "4",
            times < 4,
        ),
        Row("a barrier, two processes spawned for it", f"{median(spawned):.2f} s", "-", True),
        Row("a barrier, torchrun -m pytest for it", f"{median(launched):.2f} s", "-", True),
    ]
    return show(rows)


if __name__ == "__main__":
    raise SystemExit(0 if main() else 1)
