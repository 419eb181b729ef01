"""Modules that FSDP wrapped: whose class they were, and which parameters their names mean.

Between unshard and reshard (after a forward pass, for the root at least) the modules of a model
wrapped by ``fully_shard`` hold gathered copies of their parameters. The names mean the sharded
ones, which optimizers hold and checkpoints save.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from torch import nn

from ...messages.errors import ParamCheckUsageError
from .walk import first_places


def has_fsdp() -> bool:
    """Whether ``fully_shard`` was ever imported."""
    return _fsdp_module() is not None


def _fsdp_module() -> Any:
    return getattr(sys.modules.get("torch.distributed.fsdp"), "FSDPModule", None)


def is_sharded_by_fsdp(root: nn.Module) -> bool:
    """Whether ``fully_shard`` wrapped a module or one in it."""
    kind = _fsdp_module()
    return kind is not None and any(isinstance(module, kind) for _, _, module in first_places(root))


def own_class(module: nn.Module) -> type:
    """Return the class that the user wrote: ``fully_shard`` makes one of its own (FSDPLinear)."""
    kind = _fsdp_module()
    cls = type(module)
    if kind is None or not isinstance(module, kind):
        return cls
    return next((base for base in cls.__mro__[1:] if not issubclass(base, kind)), cls)


def sharded_instead(root: nn.Module) -> dict[int, nn.Parameter]:
    """Map the id of each gathered copy that modules may hold to the sharded parameter."""
    return {id(gathered): sharded for gathered, sharded in _gathered(root)}


def gathered_copies(root: nn.Module) -> Iterator[nn.Parameter]:
    """Yield the gathered copies of a model's parameters: what a forward pass really uses."""
    for gathered, _ in _gathered(root):
        yield gathered


def _gathered(root: nn.Module) -> Iterator[tuple[nn.Parameter, nn.Parameter]]:
    kind = _fsdp_module()
    if kind is None:
        return
    for _, _, module in first_places(root):
        if isinstance(module, kind):
            for parameter in _sharded_by(module):
                gathered = getattr(parameter, "_unsharded_param", None)
                if gathered is not None:
                    yield gathered, parameter.sharded_param


def _sharded_by(module: Any) -> Iterator[Any]:
    try:
        state = module._get_fsdp_state()
        groups = getattr(state, "_fsdp_param_groups", None)  # several since torch 2.13
        if groups is None:
            groups = [state._fsdp_param_group] if state._fsdp_param_group is not None else []
        for group in groups:
            yield from group.fsdp_params
    except AttributeError:
        # Private: where it is gone, nothing tells a gathered copy from a parameter.
        raise ParamCheckUsageError("the model is unsharded: call model.reshard() first") from None


def refuse_slices(root: nn.Module, *, slices: bool, flat: bool) -> None:
    """Raise where FullyShardedDataParallel holds something else than an assertion can ask about.

    ``slices``: it is right of slices of parameters; ``flat``: of flat ones without names too.
    """
    loaded = sys.modules.get("torch.distributed.fsdp.fully_sharded_data_parallel")
    kind = getattr(loaded, "FullyShardedDataParallel", None)
    if kind is None:
        return
    wrapped = [module for _, _, module in first_places(root) if isinstance(module, kind)]
    if not flat and any(not getattr(module, "_use_orig_params", True) for module in wrapped):
        raise ParamCheckUsageError(
            "use_orig_params=False hides the parameters' names: wrap with use_orig_params=True, "
            "or use fully_shard"
        )
    if wrapped and not slices:
        raise ParamCheckUsageError(
            "FullyShardedDataParallel keeps a slice of each parameter on each rank, which is no "
            "parameter by itself: use fully_shard, or ask before the wrap"
        )
