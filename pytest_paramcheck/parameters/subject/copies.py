"""A deep copy of a model, as independent of the original as torch's own copies should be."""

from __future__ import annotations

import copy

import torch
from torch import nn

from .walk import first_places


def deep_copy(model: nn.Module) -> nn.Module:
    """Return ``copy.deepcopy(model)``, whose errors come through.

    torch copies a scripted module by operations that autograd records: the parameters of the
    copy would be no leaves, and a backward pass through it would reach the original.
    """
    modules = {id(module): module for _, _, module in first_places(model)}
    if not any(isinstance(module, torch.jit.ScriptModule) for module in modules.values()):
        return copy.deepcopy(model)
    with torch.no_grad():
        twin = copy.deepcopy(model)
    theirs = dict(twin.named_parameters(remove_duplicate=False))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        other = theirs.get(name)
        if other is not None and other.requires_grad is not parameter.requires_grad:
            other.requires_grad_(parameter.requires_grad)
    return twin
