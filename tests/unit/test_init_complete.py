"""``assert_init_complete``: memory that nobody wrote, and what only looks like it."""

# ruff: noqa: E501  (whole messages, as they are printed)

from __future__ import annotations

import random
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import assert_init_complete

from .messages import failure, usage


class Forgets(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(3, 3))
        self.old = nn.Parameter(torch.Tensor(4))
        self.part = nn.Parameter(torch.empty(4))
        with torch.no_grad():
            self.part[:2] = 1
        self.scaled = nn.Parameter(torch.empty(3) * 2)
        self.cast = nn.Parameter(torch.empty(3).bfloat16())
        self.register_buffer("mask", torch.empty(3, dtype=torch.bool))
        self.register_buffer("codes", torch.zeros(1).new_empty(3, dtype=torch.uint8))
        self.register_buffer("grown", torch.zeros(2).resize_(5), persistent=False)
        self.register_buffer("window", torch.empty_strided((2, 2), (1, 2)))


def test_everything_that_was_forgotten() -> None:
    assert failure(assert_init_complete, Forgets) == dedent("""\
        never initialized: weight, old, part, mask and 3 more; computed from uninitialized memory (Forgets)

          never initialized:
            weight  Parameter 3x3 float32 cpu: it still holds uninitialized memory
            old     Parameter 4 float32 cpu: it still holds uninitialized memory
            part    2 of 4 values, first at flat index 2: it still holds uninitialized memory
            mask    Tensor 3 bool cpu: it still holds uninitialized memory
            codes   Tensor 3 uint8 cpu: it still holds uninitialized memory
            grown   3 of 5 values, first at flat index 2: it still holds uninitialized memory
            window  Tensor 2x2 float32 cpu: it still holds uninitialized memory
          computed from uninitialized memory:
            scaled  Parameter 3 float32 cpu: its values follow what the memory held before
            cast    Parameter 3 bfloat16 cpu: its values follow what the memory held before

          hint: write it where it is made: nn.init.*, reset_parameters(), or torch.zeros
          hint: torch.empty() is not zeros: write every element before reading one""")


class Right(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.nan = nn.Parameter(torch.empty(3).fill_(float("nan")))
        self.drawn = nn.Parameter(torch.empty(30).normal_())
        self.python = nn.Parameter(torch.tensor([random.random() for _ in range(3)]))
        self.unseeded = nn.Parameter(torch.rand(8, generator=_fresh_generator()))
        self.register_buffer("codes", torch.arange(256, dtype=torch.uint8))
        self.register_buffer("patterns", torch.tensor([0xA5A5, 0x5B5B]))
        self.register_buffer("nothing", torch.empty(0))


def _fresh_generator() -> torch.Generator:
    generator = torch.Generator("cpu")
    generator.seed()
    return generator


def _materialized(reset: bool) -> nn.Module:
    model = nn.Sequential(nn.Linear(2, 2, device="meta"), nn.BatchNorm1d(2, device="meta"))
    model.to_empty(device="cpu")
    if reset:
        for module in model:
            module.reset_parameters()  # type: ignore[operator]
    return model


def test_what_is_right() -> None:
    assert_init_complete(Right)
    for made in (nn.LSTM, nn.MultiheadAttention, nn.Bilinear):
        arguments = (4, 2, 2) if made is nn.Bilinear else (4, 2)
        assert_init_complete(lambda made=made, arguments=arguments: made(*arguments))
    assert_init_complete(lambda: _materialized(reset=True))
    assert_init_complete(lambda: {"a": torch.zeros(3)})


def test_materialized_and_not_initialized() -> None:
    assert failure(assert_init_complete, lambda: _materialized(reset=False)) == dedent("""\
        never initialized: {0,1}.weight, {0,1}.bias, 1.running_mean, 1.running_var and 1 more (Sequential)

          0.weight               Parameter 2x2 float32 cpu: it still holds uninitialized memory
          {0,1}.bias             Parameter 2 float32 cpu: it still holds uninitialized memory
          1.weight               Parameter 2 float32 cpu: it still holds uninitialized memory
          1.running_mean         Tensor 2 float32 cpu: it still holds uninitialized memory
          1.running_var          Tensor 2 float32 cpu: it still holds uninitialized memory
          1.num_batches_tracked  Tensor scalar int64 cpu: it still holds uninitialized memory

          hint: write it where it is made: nn.init.*, reset_parameters(), or torch.zeros""")


def test_tied_names() -> None:
    def make() -> nn.Module:
        model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
        model["b"].weight = model["a"].weight = nn.Parameter(torch.empty(2, 2))
        return model

    assert (
        failure(assert_init_complete, make).splitlines()[0]
        == "never initialized: a.weight, b.weight (ModuleDict)"
    )


def test_random_states_and_the_error_of_the_factory() -> None:
    def broken() -> nn.Module:
        torch.rand(3)
        random.random()
        raise KeyError("mine")

    torch.manual_seed(3)
    before, of_python = torch.get_rng_state(), random.getstate()
    assert_init_complete(Right)
    with pytest.raises(KeyError, match="mine"):
        assert_init_complete(broken)
    assert torch.equal(torch.get_rng_state(), before)
    assert random.getstate() == of_python
    assert not torch.are_deterministic_algorithms_enabled()


def _forgotten() -> nn.Module:
    return nn.ParameterList([nn.Parameter(torch.empty(3))])


def _in_a_pool(build: Callable[[], nn.Module]) -> nn.Module:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(build).result()


def _in_a_thread_of_its_own_class(build: Callable[[], nn.Module]) -> nn.Module:
    built = []

    class Builder(threading.Thread):
        def run(self) -> None:
            built.append(build())

    builder = Builder()
    builder.start()
    builder.join()
    return built[0]


@pytest.mark.parametrize("elsewhere", [_in_a_pool, _in_a_thread_of_its_own_class])
def test_what_a_thread_of_the_factory_builds(
    elsewhere: Callable[[Callable[[], nn.Module]], nn.Module],
) -> None:
    assert_init_complete(lambda: elsewhere(lambda: nn.Linear(3, 2)))
    assert failure(assert_init_complete, lambda: elsewhere(_forgotten)) == dedent("""\
        never initialized: 0 (ParameterList)

          0  Parameter 3 float32 cpu: it still holds uninitialized memory

          hint: write it where it is made: nn.init.*, reset_parameters(), or torch.zeros""")


def test_threads_started_afterwards_are_left_alone() -> None:
    pool = ThreadPoolExecutor(1)
    before = threading.getprofile()
    assert_init_complete(lambda: pool.submit(nn.Linear, 3, 2).result())
    # The pool's thread outlives the call: what it makes from now on is not filled.
    made = pool.submit(lambda: torch.zeros(4).resize_(64).tolist()[:4]).result()
    assert made == [0.0] * 4
    filled = pool.submit(lambda: torch.empty(1 << 20, dtype=torch.uint8).unique().tolist()).result()
    assert filled not in ([0xA5], [0x5B])
    assert threading.getprofile() is before
    pool.shutdown()


SHARDED = """
import torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from pytest_paramcheck import ParamCheckError, assert_init_complete

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
mesh = init_device_mesh("cpu", (1,))

def build(kinds):
    model = nn.Sequential(nn.Linear(4, 4, device="meta"), nn.LayerNorm(4, device="meta"))
    fully_shard(model, mesh=mesh)
    model.to_empty(device="cpu")
    for module in model:
        if isinstance(module, kinds):
            module.reset_parameters()
    return model

assert_init_complete(lambda: build(nn.Module))
try:
    assert_init_complete(lambda: build(nn.Linear))
except ParamCheckError as error:
    print(str(error).splitlines()[0])
"""


@pytest.mark.slow  # loads torch in a process of its own
def test_a_model_that_was_sharded_on_meta() -> None:
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", SHARDED], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    # gloo of torch 2.8 says on stdout whom it is connected to.
    said = [line for line in done.stdout.splitlines() if not line.startswith("[Gloo]")]
    assert said == ["never initialized: 1.weight, 1.bias (Sequential)"], done.stderr


@pytest.mark.slow  # loads torch in a process of its own
def test_the_compiler_is_not_loaded() -> None:
    code = (
        "import sys; from torch import nn; from pytest_paramcheck import assert_init_complete; "
        "assert_init_complete(lambda: nn.Linear(3, 2)); print('torch._dynamo' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr


MODEL = nn.Linear(2, 2)


@pytest.mark.parametrize(
    ("factory", "message"),
    [
        (lambda: MODEL, "factory() returned the same object twice: it has to build a new one at each call, so that it can be built on poisoned memory"),
        (lambda: nn.Linear(2, 2, device="meta"), "weight: on meta, where tensors have no values; let the factory materialize and initialize it"),
        (MODEL, "assert_init_complete calls a factory that builds the model, and this is a model already: pass lambda: Linear(...)"),
        (3, "assert_init_complete calls a factory, and int is not a function: pass lambda: Model(...)"),
    ],
)  # fmt: skip
def test_wrong_calls(factory: Callable[[], Any], message: str) -> None:
    assert usage(assert_init_complete, factory) == message
