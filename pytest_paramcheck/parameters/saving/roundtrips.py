"""Saving a model and getting it back: each route returns another model, or says what was lost.

A load goes into a deep copy whose values were overwritten first: a load that does nothing
would otherwise look like one that worked.

Tests: ``tests/unit/test_roundtrip.py`` and ``test_model_errors.py``.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

from ...messages.errors import ParamCheckUsageError
from ...messages.folding import fold_names
from ...messages.wording import did_you_mean, first_line, shorten
from ..files.checkpoint import load_file
from ..files.damage import refused_name
from ..files.paths import reason_of
from ..files.safetensors_file import safetensors_torch
from ..subject.fsdp import is_sharded_by_fsdp
from ..subject.reading import take_inventory
from .operations import OPERATIONS, copied, quiet_storage_warnings, tensors_by_id
from .overwrite import overwrite


@dataclass(frozen=True, slots=True)
class Returned:
    """What came back: a model, the keys that were not saved or not taken, or the refusal of
    what saves (``unsaved``) or loads (``refused``) and what to do about it."""

    model: nn.Module
    not_saved: tuple[str, ...] = ()
    not_taken: tuple[str, ...] = ()
    unsaved: str = ""
    refused: str = ""
    hint: str = ""


#: The way that needs no copy: shards are saved by all ranks (``dcp``).
DCP = "dcp"
#: Saves a model and loads it.
Route: TypeAlias = Callable[[nn.Module], Returned]


#: Makes what a model is loaded into: a copy, or another build.
Target: TypeAlias = Callable[[nn.Module], nn.Module]


def route_of(
    through: str | Callable[[nn.Module], nn.Module | None], target: Target = copied
) -> Route:
    """Return a named route, or the one that a user's callable stands for.

    ``target`` makes what a state_dict is loaded into.

    Raises :class:`ParamCheckUsageError` with the valid names.
    """
    if callable(through):
        return _callable(through)
    routes: Mapping[str, Route] = {
        "state_dict": partial(_state_dict, target=target),
        "torch.save": partial(_torch_save, target=target),
        "safetensors": partial(_safetensors, target=target),
        "pickle": _pickle,
    }
    if through not in routes:
        named = f" there are {', '.join((*routes, DCP))}, or a callable"
        near = did_you_mean(str(through), (*routes, DCP)) or named
        raise ParamCheckUsageError(f"through={through!r} is not a way to save a model;{near}")
    return routes[through]


def _callable(through: Callable[[nn.Module], nn.Module | None]) -> Route:
    def save_and_load(model: nn.Module) -> Returned:
        __tracebackhide__ = True
        # torch copies none that fully_shard wrapped: the model itself is saved and left alone.
        sharded = is_sharded_by_fsdp(model)
        subject = model if sharded else copied(model)
        result = through(subject)
        if sharded and (result is None or result is model):
            raise ParamCheckUsageError(
                "through= got the model itself, which torch cannot copy once fully_shard wrapped "
                "it: return another one that was loaded"
            )
        after = subject if result is None else result
        if not isinstance(after, nn.Module):
            raise ParamCheckUsageError(
                f"through= returned {type(after).__name__}: it returns a module, or None where it "
                f"works in place"
            )
        return Returned(after)

    return save_and_load


def _pickle(model: nn.Module) -> Returned:
    __tracebackhide__ = True
    subject = copied(model)
    try:
        with quiet_storage_warnings():
            after = OPERATIONS["pickle"](subject)
    except Exception as error:  # pickling raises whatever the members of a model raise
        return Returned(model, unsaved=_said(error))
    return Returned(model if after is None else after)


def _torch_save(model: nn.Module, target: Target) -> Returned:
    __tracebackhide__ = True
    other = _overwritten(model, target)
    state = model.state_dict()
    with _scratch() as folder:
        file = Path(folder) / "model.pt"
        try:
            with quiet_storage_warnings():
                torch.save(state, file)
        except OSError:
            raise  # a full disk
        except Exception as error:  # what is in a state_dict may be anything, and so its errors
            return Returned(other, unsaved=_said(error))
        try:
            with quiet_storage_warnings():
                state = load_file(file)
        except Exception as error:
            if name := refused_name(str(error)):
                said = f"torch.load with weights_only=True refuses {name}"
                hint = f"torch.serialization.add_safe_globals([...]) allows {name} by name"
                return Returned(other, refused=said, hint=hint)
            return Returned(other, refused=_said(error))
        return load_into(other, state)


def _safetensors(model: nn.Module, target: Target) -> Returned:
    __tracebackhide__ = True
    library = safetensors_torch()
    other = _overwritten(model, target)
    with _scratch() as folder:
        file = str(Path(folder) / "model.safetensors")
        try:
            with quiet_storage_warnings():
                library.save_model(model, file)
        except KeyError as error:  # the table of dtypes that the format has
            return Returned(other, unsaved=_no_dtype(model, str(error)))
        except OSError:
            raise
        except Exception as error:  # views, sparse layouts, what is no tensor: each in its way
            return Returned(other, unsaved=_said(error))
        try:
            missing, unexpected = library.load_model(other, file, strict=False)
        except RuntimeError as error:
            return Returned(other, refused=_reason(error))
    return Returned(other, tuple(missing), tuple(unexpected))


@contextmanager
def _scratch() -> Iterator[str]:
    """Lend a folder; what the system says against it is not about the model."""
    try:
        with tempfile.TemporaryDirectory() as folder:
            yield folder
    except OSError as error:
        raise ParamCheckUsageError(
            f"nothing can be saved to the temporary folder {tempfile.gettempdir()}: "
            f"{reason_of(error)}"
        ) from None


def _state_dict(model: nn.Module, target: Target) -> Returned:
    __tracebackhide__ = True
    return load_into(_overwritten(model, target), model.state_dict())


def load_into(target: nn.Module, state: Mapping[str, Any]) -> Returned:
    """Load as users do, strictly; only where that is refused ask which keys were the reason.

    A model's own ``load_state_dict`` may take no ``strict`` and return nothing.
    """
    __tracebackhide__ = True
    try:
        target.load_state_dict(state)
    except RuntimeError as error:
        refusal = _reason(error)
    else:
        return Returned(target)
    try:
        keys = target.load_state_dict(state, strict=False)
    except (RuntimeError, TypeError):
        return Returned(target, refused=refusal)
    missing = tuple(getattr(keys, "missing_keys", ()))
    unexpected = tuple(getattr(keys, "unexpected_keys", ()))
    if missing or unexpected:
        return Returned(target, missing, unexpected)
    return Returned(target, refused=refusal)


def _overwritten(model: nn.Module, target: Target) -> nn.Module:
    __tracebackhide__ = True
    other = target(model)
    overwrite(take_inventory(other))
    return other


def _no_dtype(model: nn.Module, dtype: str) -> str:
    named = tensors_by_id(model).values()
    names = fold_names(name for name, tensor in named if str(tensor.dtype) == dtype)
    return f"safetensors has no {dtype.removeprefix('torch.')}: {shorten(names, 3)}"


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {first_line(error, 160) or 'no reason given'}"


def _reason(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
