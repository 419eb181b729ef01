"""Saving a model and getting it back: each way returns another model, or says what was lost.

A load goes into a deep copy whose values were overwritten first: a load that does nothing
would otherwise look like one that worked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from ..findings import ParamCheckUsageError
from ..wording import did_you_mean
from .checkpoint_files import read_checkpoint, safetensors_torch
from .content import no_values
from .inventory import Inventory, take_inventory
from .operations import OPERATIONS, copied


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back: a model, the keys that were not saved or not taken, or torch's refusal."""

    model: nn.Module
    not_saved: tuple[str, ...] = ()
    not_taken: tuple[str, ...] = ()
    refused: str = ""


Way: TypeAlias = Callable[[nn.Module], Returned]


def way(through: str | Callable[[nn.Module], nn.Module | None]) -> Way:
    """Return a named way, or the one that a user's callable stands for.

    Raises :class:`ParamCheckUsageError` with the valid names.
    """
    if callable(through):
        return _callable(through)
    ways: Mapping[str, Way] = {
        "state_dict": lambda model: _load(model, model.state_dict()),
        "torch.save": _torch_save,
        "safetensors": _safetensors,
        "pickle": _callable(OPERATIONS["pickle"]),
    }
    if through not in ways:
        near = did_you_mean(str(through), ways) or f" there are {', '.join(ways)}, or a callable"
        raise ParamCheckUsageError(f"through={through!r} is no way to save a model;{near}")
    return ways[through]


def _callable(through: Callable[[nn.Module], nn.Module | None]) -> Way:
    def go(model: nn.Module) -> Returned:
        subject = copied(model)
        result = through(subject)
        after = subject if result is None else result
        if not isinstance(after, nn.Module):
            raise ParamCheckUsageError(
                f"through= returned {type(after).__name__}: it returns a module, or None where it "
                f"works in place"
            )
        return Returned(after)

    return go


def _torch_save(model: nn.Module) -> Returned:
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "model.pt"
        torch.save(model.state_dict(), file)
        return _load(model, read_checkpoint(file))


def _safetensors(model: nn.Module) -> Returned:
    library = safetensors_torch()
    target = _overwritten(model)
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "model.safetensors")
        library.save_model(model, file)
        try:
            missing, unexpected = library.load_model(target, file, strict=False)
        except RuntimeError as error:
            return Returned(target, refused=_reason(error))
    return Returned(target, tuple(missing), tuple(unexpected))


def _load(model: nn.Module, state: Mapping[str, Any]) -> Returned:
    target = _overwritten(model)
    try:
        keys = target.load_state_dict(state, strict=False)
    except RuntimeError as error:
        return Returned(target, refused=_reason(error))
    return Returned(target, tuple(keys.missing_keys), tuple(keys.unexpected_keys))


def _overwritten(model: nn.Module) -> nn.Module:
    target = copied(model)
    overwrite(take_inventory(target))
    return target


def overwrite(inventory: Inventory) -> None:
    """Give every parameter and persistent buffer other values than it has."""
    for entry in inventory.entries:
        tensor = entry.tensor
        if tensor is not None and entry.persistent and not no_values(tensor) and tensor.numel():
            _fill(tensor)


def _fill(tensor: Tensor) -> None:
    with torch.inference_mode(tensor.is_inference()), torch.no_grad():
        try:
            tensor.fill_(1 if bool((tensor == 0).all()) else 0)
        except (RuntimeError, NotImplementedError):
            return  # a layout that cannot be filled: a load that does nothing goes unnoticed


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
