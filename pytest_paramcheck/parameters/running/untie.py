"""A copy of a model in which every name has a parameter of its own.

What each use of a tied parameter contributes to its gradient cannot be read off the model:
autograd adds the contributions up as they arrive. In a copy without ties they arrive apart.
"""

from __future__ import annotations

import copy
from collections import OrderedDict

from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.wording import first_line
from ..subject.inventory import take_inventory, walk_modules


def untied_copy(model: nn.Module) -> nn.Module:
    """Return a deep copy of a model whose tied parameters and shared modules are separate.

    The first name of each tie keeps the copy's own parameter, so that references outside the
    registry (a plain list of layers) count as the first name's. Buffers of shared modules stay
    shared. Raises :class:`ParamCheckUsageError` for a model that cannot be copied.
    """
    __tracebackhide__ = True
    try:
        copied = copy.deepcopy(model)
    except Exception as error:
        raise ParamCheckUsageError(
            f"{type(model).__name__} cannot be deep-copied, so its uses cannot be told apart: "
            f"{type(error).__name__}: {first_line(error)}"
        ) from error
    _keep_flags(model, copied)
    _split_modules(copied, {id(copied)}, ())
    owners = _owners(copied)
    for group in take_inventory(copied).tie_groups:
        for name in group[1:]:
            owner, key = owners[name]
            shared = owner._parameters.get(key)
            if shared is not None:
                # Through setattr, which modules with lists of their weights (LSTM) listen to.
                setattr(owner, key, copy.deepcopy(shared))
    return copied


def _keep_flags(model: nn.Module, copied: nn.Module) -> None:
    """Give the copied modules the modes of the originals (a deep copy of some resets them)."""
    for (_, _, old), (_, _, new) in zip(walk_modules(model), walk_modules(copied), strict=True):
        if new.training is not old.training:
            new.training = old.training


def _split_modules(module: nn.Module, seen: set[int], path: tuple[nn.Module, ...]) -> None:
    """Give each further path of a shared module a module of its own, with the same parameters."""
    for key, child in module._modules.items():
        if child is None or any(child is above for above in path) or child is module:
            continue  # a module that contains itself has no end of paths
        if id(child) in seen:
            child = _shallow(child)
            module._modules[key] = child
        seen.add(id(child))
        _split_modules(child, seen, (*path, module))


def _shallow(module: nn.Module) -> nn.Module:
    twin = copy.copy(module)
    for name, value in vars(module).items():
        if type(value) in (dict, OrderedDict, list, set):
            vars(twin)[name] = value.copy()
    return twin


def _owners(root: nn.Module) -> dict[str, tuple[nn.Module, str]]:
    """Every name of the inventory, with the module that holds it and the key there."""
    owners: dict[str, tuple[nn.Module, str]] = {}
    for prefix, raw_prefix, module in walk_modules(root):
        for key, tensor in (*module._parameters.items(), *module._buffers.items()):
            if isinstance(tensor, Tensor):
                name = prefix + key
                owners[raw_prefix + key if name in owners else name] = module, key
    return owners
