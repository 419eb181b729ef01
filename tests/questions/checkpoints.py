"""Questions about files, loads and copies."""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import nn

from . import asking


@asking(
    "What did `strict=False` not load?",
    "discuss.pytorch.org/t/81025, discuss.pytorch.org/t/84539",
    "`saved` is a state_dict or a path; the head is new.",
    'assert_loaded(model, saved, missing=["head"])',
)
def loaded(right: bool) -> dict[str, Any]:
    model = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 1)})
    body = "body" if right else "backbone"
    saved = {f"{body}.weight": torch.ones(3, 3), f"{body}.bias": torch.ones(3)}
    model.load_state_dict(saved, strict=False)
    return {"model": model, "saved": saved}


@asking(
    "Did the adapter's renamed keys arrive?",
    "huggingface/peft#2699, vllm-project/vllm#34186",
    "The loader puts `default` into each key.",
    'rename = lambda key: key.replace("lora_A.", "lora_A.default.")\n'
    'assert_loaded(model, saved, rename=rename, missing=["base"])',
)
def adapter(right: bool) -> dict[str, Any]:
    lora = nn.ModuleDict({"default": nn.Linear(3, 2, bias=False)})
    model = nn.ModuleDict({"base": nn.Linear(3, 3), "lora_A": lora})
    saved = {"lora_A.weight": torch.randn(2, 3)}
    if right:
        lora["default"].weight.data.copy_(saved["lora_A.weight"])
    return {"model": model, "saved": saved}


@asking(
    "Is the published file whole?",
    "huggingface/transformers#10789, baichuan-inc/Baichuan-7B#132",
    "A file, an index of shards or a folder.",
    "assert_checkpoint(path)",
)
def published(right: bool) -> dict[str, Any]:
    path = Path(tempfile.mkdtemp()) / "model.pt"
    weight = torch.ones(3, 3) if right else torch.empty(0)
    torch.save({"attn.weight": torch.ones(3, 3), "ffn.weight": weight}, path)
    return {"path": path}


@asking(
    "Does training resume where it was saved, counts and schedule included?",
    "lightly-ai/lightly-train#892, huggingface/lerobot#2877",
    "`build()` returns what has a state_dict, `step(objects)` is one step.",
    "assert_resumes(build, step)",
)
def resumes(right: bool) -> dict[str, Any]:
    class Average(nn.Module):
        """An average whose decay depends on a count of its updates."""

        def __init__(self) -> None:
            super().__init__()
            self.model, self.mean = nn.Linear(2, 2), nn.Linear(2, 2)
            self.updates: Any = 0
            if right:
                del self.updates
                self.register_buffer("updates", torch.tensor(0))

    @torch.no_grad()
    def step(average: Average) -> None:
        average.updates += 1
        for mean, new in zip(average.mean.parameters(), average.model.parameters(), strict=True):
            new.mul_(1.1)
            mean.lerp_(new, 1 / (1 + int(average.updates)))

    return {"build": Average, "step": step}


@asking(
    "Do flags that I set on Parameters survive a copy?",
    "pytorch/pytorch#117275, pytorch/pytorch#136929",
    "`convert()` copies, wraps or converts layers of the model.",
    'with assert_unchanged(model, only="attributes"):\n    convert()',
)
def attributes(right: bool) -> dict[str, Any]:
    model = nn.ModuleList([nn.Linear(3, 2)])
    model[0].weight._no_weight_decay = True

    def convert() -> None:
        copied = copy.deepcopy(model[0])
        if right:
            copied.weight.__dict__.update(model[0].weight.__dict__)
        model[0] = copied

    return {"model": model, "convert": convert}


QUESTIONS = [loaded, adapter, published, resumes, attributes]
