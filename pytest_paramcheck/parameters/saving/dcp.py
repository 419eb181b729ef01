"""A round trip through a folder of torch.distributed.checkpoint, which all ranks share.

Tests: ``tests/ranks`` and ``tests/unit/test_dcp.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import torch
from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ..files.dcp import cause_of, quiet
from ..tensors.call import exchange, group_of_call, tells_others, writes_here
from ..tensors.sharded import local_of


def saved_and_loaded(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Save tensors to a folder that all ranks of the running call share, and load them into others.

    What is loaded into was overwritten first: a load that does nothing would look like one that
    worked. A plain model is saved and loaded by each process alone.
    """
    checkpoint: Any = import_module("torch.distributed.checkpoint")  # imported by who uses it

    group, alone = group_of_call(), not tells_others()
    with _shared_folder() as folder, quiet(), _told(checkpoint.CheckpointException):
        checkpoint.save(dict(state), checkpoint_id=folder, process_group=group, no_dist=alone)
        target = {name: _overwritten(tensor) for name, tensor in state.items()}
        checkpoint.load(target, checkpoint_id=folder, process_group=group, no_dist=alone)
    return target


@contextmanager
def _told(raised: type[BaseException]) -> Iterator[None]:
    """Say why torch could not: its own exception is none that tests would catch."""
    try:
        yield
    except raised as error:
        raise ParamCheckUsageError(
            f"torch.distributed.checkpoint cannot save and load it: {cause_of(error)}"
        ) from None


@contextmanager
def _shared_folder() -> Iterator[str]:
    """Lend all ranks one temporary folder, which the first makes and removes after the last."""
    with ExitStack() as stack:
        own = stack.enter_context(tempfile.TemporaryDirectory()) if writes_here() else ""
        yield next(filter(None, exchange(own).values()))
        exchange(None)


def load_anew(model: nn.Module, folder: str, *, alone: bool) -> str:
    """Load a folder into a model whose parameters are overwritten first; returns why it cannot be.

    All ranks of the group call it, or ``alone`` each for itself.
    """
    checkpoint: Any = import_module("torch.distributed.checkpoint")  # imported by who uses it
    states: Any = import_module("torch.distributed.checkpoint.state_dict")
    for parameter in model.parameters():
        _overwrite(parameter.detach())
    try:
        with quiet():
            # Copies: what is loaded into the model's own tensors would be there without its
            # load_state_dict.
            state = {
                name: value.detach().clone() if isinstance(value, Tensor) else value
                for name, value in states.get_model_state_dict(model).items()
            }
            checkpoint.load(state, checkpoint_id=folder, no_dist=alone)
            states.set_model_state_dict(model, state)
    except (Exception, checkpoint.CheckpointException) as error:
        return cause_of(error)
    return ""


def _overwritten(tensor: Tensor) -> Tensor:
    other = tensor.detach().clone()
    _overwrite(other)
    return other


def _overwrite(tensor: Tensor) -> None:
    with torch.no_grad():
        local = local_of(tensor)
        if local.numel():
            flat = local.contiguous().view(-1).view(torch.uint8)
            local.copy_(flat.bitwise_not().view(local.dtype).view(local.shape))
