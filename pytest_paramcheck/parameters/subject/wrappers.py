"""Names that a wrapper put in front of the user's own.

What decides is what the owner *is*, never how the child is spelled: a real child called
``module`` keeps its name. Classes are looked up among the modules that are already loaded,
because ``torch._dynamo`` and ``torch.distributed.fsdp`` take seconds to import and nobody
can hold an instance of a class whose module was never imported.
"""

from __future__ import annotations

import sys

from torch import nn

#: (module, class, the child that is the user's own model)
WRAPPERS = (
    ("torch._dynamo.eval_frame", "OptimizedModule", "_orig_mod"),
    ("torch.nn.parallel.distributed", "DistributedDataParallel", "module"),
    ("torch.nn.parallel.data_parallel", "DataParallel", "module"),
    ("torch.optim.swa_utils", "AveragedModel", "module"),
    (
        "torch.distributed.fsdp.fully_sharded_data_parallel",
        "FullyShardedDataParallel",
        "_fsdp_wrapped_module",
    ),
    (
        "torch.distributed.algorithms._checkpoint.checkpoint_wrapper",
        "ActivationWrapper",
        "_checkpoint_wrapped_module",
    ),
)


def wrapped_child(module: nn.Module) -> str | None:
    """Return the name of the child that a wrapper wraps, or None for any other module."""
    for module_name, class_name, child in WRAPPERS:
        wrapper = getattr(sys.modules.get(module_name), class_name, None)
        if isinstance(wrapper, type) and isinstance(module, wrapper):
            return child
    return None


#: Wrappers that run a model on other tensors than its parameters (module, class).
SHARDING = (
    ("torch.distributed.fsdp", "FSDPModule"),
    ("torch.distributed.fsdp.fully_sharded_data_parallel", "FullyShardedDataParallel"),
)


def runs_on_other_tensors(module: nn.Module) -> bool:
    """Whether forward uses gathered copies of this module's parameters, not the objects."""
    return any(
        isinstance(module, sharding)
        for name, cls in SHARDING
        if isinstance(sharding := getattr(sys.modules.get(name), cls, None), type)
    )
