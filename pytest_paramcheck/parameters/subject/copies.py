"""A deep copy of a model, as independent of the original as torch's own copies should be."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import TypeVar

import torch
from torch import nn

from .hidden import reachable_tensors
from .walk import first_places

T = TypeVar("T")


def copy_with_computed(value: T, modules: Iterable[nn.Module]) -> T:
    """Return ``copy.deepcopy(value)``; of what a forward left in its modules, with a graph, which
    torch does not copy, the values."""
    try:
        return copy.deepcopy(value)
    except RuntimeError:
        held = reachable_tensors([vars(module) for module in modules])
        memo = {id(one): one.detach().clone() for one in held if one.grad_fn is not None}
        if not memo:
            raise
    return copy.deepcopy(value, memo)


def deep_copy(model: nn.Module, *, computed: bool = False) -> nn.Module:
    """Return ``copy.deepcopy(model)``, whose errors come through.

    ``computed``: see :func:`copy_with_computed`.

    torch copies a scripted module by operations that autograd records: the parameters of the
    copy would be no leaves, and a backward pass through it would reach the original.
    """
    modules = {id(module): module for _, _, module in first_places(model)}
    if not any(isinstance(module, torch.jit.ScriptModule) for module in modules.values()):
        return copy_with_computed(model, modules.values()) if computed else copy.deepcopy(model)
    with torch.no_grad():
        twin = copy.deepcopy(model)
    theirs = dict(twin.named_parameters(remove_duplicate=False))
    for name, parameter in model.named_parameters(remove_duplicate=False):
        other = theirs.get(name)
        if other is not None and other.requires_grad is not parameter.requires_grad:
            other.requires_grad_(parameter.requires_grad)
    return twin
