"""``ModelCase(wrap=, split=)`` on two ranks: right wraps pass, each defect is caught by name."""

from __future__ import annotations

from pathlib import Path

import pytest

from .running import Ran, run

HEAD = """
import os, pytest, torch, torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor.parallel import (
    ColwiseParallel, RowwiseParallel, parallelize_module)
from torch.nn.parallel import DistributedDataParallel as DDP
from pytest_paramcheck import ModelCase, parametrize_with_param_checks

R = int(os.environ.get("RANK", 0))

class LM(nn.Module):
    def __init__(self, tied=True):
        super().__init__()
        self.emb = nn.Embedding(12, 8)
        self.up = nn.Linear(8, 16)
        self.down = nn.Linear(16, 8)
        self.head = nn.Linear(8, 12, bias=False)
        if tied:
            self.head.weight = self.emb.weight

    def forward(self, tokens):
        return self.head(self.down(self.up(self.emb(tokens)).relu()))

class Other(LM):
    def __init__(self):
        torch.manual_seed(R)  # each rank draws its own
        super().__init__()

class SavesAPart(LM):
    def state_dict(self, *args, **kwargs):
        state = super().state_dict(*args, **kwargs)
        return {key: value for key, value in state.items() if "head" not in key}

class Skips(nn.Linear):
    def _load_from_state_dict(self, *args):
        pass

class SkipsKeys(LM):
    def __init__(self):
        super().__init__(tied=False)
        self.down = Skips(16, 8)

class Running(nn.Module):
    def __init__(self):
        super().__init__()
        self.down, self.norm = nn.Linear(6, 6), nn.BatchNorm1d(6)
        self.register_buffer("drawn", torch.rand(6), persistent=False)

    def forward(self, tokens):
        return self.norm(self.down(tokens.float())) + self.drawn

def untied_part():
    return SavesAPart(tied=False)

def tokens():
    return torch.arange(24).reshape(4, 6) * 7 // 5 % 12

def equal_rows():
    return torch.arange(6).expand(4, 6)

def untied():
    return LM(tied=False)

def fsdp(model):
    fully_shard(model.up)
    fully_shard(model.down)
    return fully_shard(model)

def fsdp_of_each(model):
    fully_shard(model.emb)
    fully_shard(model.head)
    return fsdp(model)

def tp(model):
    mesh = init_device_mesh("cpu", (2,))
    plan = {"up": ColwiseParallel(), "down": RowwiseParallel()}
    return parallelize_module(model, mesh, plan)

def nothing(model):
    return model

def padded(model):
    model.emb = nn.Embedding(16, 8)  # to a multiple of what the ranks need
    return fsdp(model)

def scaled(model):
    wrapped = DDP(model)
    for parameter in wrapped.parameters():
        parameter.register_hook(lambda grad: grad * 2)
    return wrapped

def added_late(model):
    wrapped = DDP(model)
    wrapped.module.head = nn.Linear(8, 12, bias=False)
    return wrapped

def changes_a_value(model):
    wrapped = DDP(model)
    with torch.no_grad():
        wrapped.module.up.bias.add_(1)
    return wrapped

def by_world(output):
    return output.logsumexp(-1).sum() * dist.get_world_size()

def case(factory, wrap, name, **given):
    return ModelCase(factory, wrap=wrap, name=name, **{"inputs": tokens, "split": 0, **given})
"""
CASES = (
    HEAD
    + """
RIGHT = [
    case(LM, DDP, "ddp"),
    case(untied, fsdp, "fsdp"),
    case(untied, tp, "tp", split=None),
    case(LM, DDP, "whole", split=None),
    case(Other, DDP, "own_seeds_under_ddp"),
    case(LM, DDP, "equal_rows", inputs=equal_rows),
    case(Running, DDP, "buffers"),
]
WRONG = [
    case(Other, nothing, "own_seeds"),
    case(untied, nothing, "not_reduced"),
    case(untied, scaled, "scaled"),
    case(untied, added_late, "added_late"),
    case(LM, fsdp_of_each, "tie_cut"),
    case(untied, changes_a_value, "value_changed"),
    case(untied, DDP, "by_world", loss=by_world),
    case(untied_part, fsdp, "saves_a_part"),
    case(SkipsKeys, fsdp, "skips_keys"),
    case(SkipsKeys, DDP, "ddp_skips_keys"),
    case(untied, padded, "padded"),
]

@pytest.mark.params(ranks=2)
@parametrize_with_param_checks([*RIGHT, *WRONG])
def test_it(check):
    check()
"""
)
RIGHT = ("ddp", "fsdp", "tp", "whole", "own_seeds_under_ddp", "equal_rows", "buffers")
CHECKS = ("check_replicated", "check_wrap", "check_step", "check_dcp_roundtrip")


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("wrapped")
    return run(folder, "--param-rank-timeout=30", test_it=CASES)


def said(ran: Ran, case: str, check: str) -> str:
    """Return how a check of a case ended, in a line."""
    (report,) = [
        report
        for report in ran.reports
        if report["id"] == f"test_it[cpu-2ranks-{case}-{check}]"
        and (report["when"] == "call" or report["outcome"] != "passed")
    ]
    if report["outcome"] == "skipped":
        return "skip: " + str(report["text"]).rpartition("Skipped: ")[2].rstrip("')\"")
    if report["outcome"] == "failed":
        return str(report["summary"]).partition("\n")[0]
    return "ok"


def test_right_wraps_pass_or_skip_with_a_reason(ran: Ran) -> None:
    failed = [
        f"{report['id']}: {report['text']}"
        for report in ran.reports
        if report["outcome"] == "failed" and any(f"-{name}-" in report["id"] for name in RIGHT)
    ]
    assert failed == []


@pytest.mark.parametrize("name", RIGHT)
def test_right_wraps_are_checked(ran: Ran, name: str) -> None:
    outcomes = {check: said(ran, name, check) for check in CHECKS}
    hidden = {
        "whole": "skip: all ranks get the same inputs, which hides a missing reduction: declare "
        "split=",
        "equal_rows": "skip: each rank's part of the inputs is the same, which hides a missing "
        "reduction",
    }
    step = hidden.get(name, "ok")
    assert outcomes == {**dict.fromkeys(CHECKS, "ok"), "check_step": step}


@pytest.mark.parametrize(
    ("name", "check", "text"),
    [
        ("own_seeds", "check_replicated", "differ"),
        ("not_reduced", "check_step", "gradient differs from the model's own"),
        ("scaled", "check_step", "gradient differs from the model's own"),
        ("added_late", "check_step", "gradient differs from the model's own"),
        ("tie_cut", "check_wrap", "tie"),
        ("value_changed", "check_wrap", "different values: up.bias"),
        ("by_world", "check_step", "gradient differs from the model's own"),
        ("saves_a_part", "check_dcp_roundtrip", "not saved: head.weight"),
        ("skips_keys", "check_dcp_roundtrip", "different values: down.weight, down.bias"),
        ("ddp_skips_keys", "check_dcp_roundtrip", "different values: down.weight, down.bias"),
        ("padded", "check_dcp_roundtrip", "does not load back"),
    ],
)
def test_each_defect_is_caught_by_name(ran: Ran, name: str, check: str, text: str) -> None:
    line = said(ran, name, check)
    assert line.startswith("[every rank] ")
    assert text in line


@pytest.mark.parametrize(
    ("name", "times"), [("scaled", "2 times that"), ("by_world", "2 times that")]
)
def test_by_how_much(ran: Ran, name: str, times: str) -> None:
    assert times in ran.failure(f"test_it[cpu-2ranks-{name}-check_step]")


def test_a_model_of_the_command_line(tmp_path: Path) -> None:
    module = HEAD + "\nmodel = case(LM, DDP, 'lm')\n"
    ran = run(tmp_path, "--param-model=zoo:model", "--param-ranks=2", "-v", zoo=module)

    assert ran.code == 0, ran.out
    assert "zoo:model::check_step[cpu-2ranks] PASSED" in ran.out.replace("--param-model=", "")
    assert ran.left == []


def test_a_wrap_without_ranks(tmp_path: Path) -> None:
    module = HEAD + "\nmodel = case(LM, DDP, 'lm')\n"
    test = module + "\n@parametrize_with_param_checks(model)\ndef test_it(check): check()\n"
    by_command = run(tmp_path, "--param-model=zoo:model", zoo=module)
    by_test = run(tmp_path, "test_zoo.py", test_zoo=test)

    assert by_command.code == 4
    assert (
        "ERROR: --param-model=zoo:model: ModelCase 'lm' has wrap=: give --param-ranks=2 as well"
    ) in by_command.out.splitlines()
    assert by_test.code == 2
    assert (
        "test_zoo.py::test_it: ModelCase 'lm' has wrap=: mark the test @pytest.mark.params(ranks=2)"
    ) in by_test.out.splitlines()
