"""Questions about values."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from . import asking


@asking(
    "Do the filters have unit norm after every step?",
    "discuss.pytorch.org/t/41207",
    "`model.weight` has a row for each filter.",
    'assert_values(model, {"weight": values.norm(dim=1, equals=1)})',
)
def unit_norm(right: bool) -> dict[str, Any]:
    model = nn.Linear(4, 3, bias=False)
    if right:
        with torch.no_grad():
            model.weight.div_(model.weight.norm(dim=1, keepdim=True))
    return {"model": model}


@asking(
    "Does the standard deviation stay positive?",
    "leggedrobotics/rsl_rl#124 and five more projects",
    "`policy.std` is a bare parameter that a step may make negative.",
    'assert_values(policy, {"std": values.positive()})',
)
def positive(right: bool) -> dict[str, Any]:
    policy = nn.Module()
    policy.std = nn.Parameter(torch.tensor([0.05, 0.1 if right else -0.01]))
    return {"policy": policy}


@asking(
    "Do pruned weights stay pruned?",
    "he-y/filter-pruning-geometric-median#47, ruihangdu/PyTorch-Deep-Compression#2",
    "`mask` is true where a weight was kept.",
    'assert_values(model, {"weight": values.zero_where(~mask)})',
)
def pruned(right: bool) -> dict[str, Any]:
    model = nn.Linear(8, 8, bias=False)
    mask = model.weight.detach().abs() > 0.15
    if right:
        with torch.no_grad():
            model.weight.mul_(mask)
    return {"model": model, "mask": mask}


@asking(
    "Was a weight that is used as `x @ w` drawn for its own fan-in?",
    "pytorch/pytorch#130122",
    "`w` is stored (in, out), 64 x 512; torch counts the last dimension as what comes in.",
    'assert_init(model, {"w": init.kaiming_normal(nonlinearity="linear", fan_in=64)})',
)
def fans(right: bool) -> dict[str, Any]:
    model = nn.Module()
    model.w = nn.Parameter(torch.empty(64, 512))
    nn.init.kaiming_normal_(model.w.t() if right else model.w, nonlinearity="linear")
    return {"model": model}


@asking(
    "Do two networks hold the same weights?",
    "codegenes.net/blog/checking-if-two-neural-networks-have-same-weights-pytorch",
    "`a` and `b` are two models.",
    "assert_same_values(a, b)",
)
def same(right: bool) -> dict[str, Any]:
    a, b = nn.Linear(3, 2), nn.Linear(3, 2)
    if right:
        b.load_state_dict(a.state_dict())
    return {"a": a, "b": b}


@asking(
    "Does a bfloat16 copy hold what its float32 source does?",
    "unslothai/unsloth#3091, huggingface/transformers#30709",
    "`half` was made from `model`.",
    "assert_same_values(half, model, dtypes=False)",
)
def half(right: bool) -> dict[str, Any]:
    model = nn.Linear(3, 2)
    half = copy.deepcopy(model).bfloat16()
    if not right:
        half.weight.data.neg_()
    return {"model": model, "half": half}


@asking(
    "Does one seed give one model?",
    "livaage.github.io/ml_resources/topics/engineering/testing-ml-code",
    "`build()` seeds and builds. A `ModelCase` asks it without being told (`check_deterministic`).",
    "assert_same_values(build(), build())",
)
def one_seed(right: bool) -> dict[str, Any]:
    def build() -> nn.Module:
        if right:
            torch.manual_seed(0)
        return nn.Linear(3, 2)

    return {"build": build}


@asking(
    "Do parameters and buffers have the dtype I asked for?",
    "huggingface/transformers#30709",
    "The last pattern that matches decides.",
    'assert_dtypes(model, {"*": torch.bfloat16, "*num_batches_tracked": torch.int64})',
)
def dtypes(right: bool) -> dict[str, Any]:
    model = nn.BatchNorm1d(3).bfloat16()
    if not right:
        model.running_mean = model.running_mean.float()
    return {"model": model}


QUESTIONS = [unit_norm, positive, pruned, fans, same, half, one_seed, dtypes]
