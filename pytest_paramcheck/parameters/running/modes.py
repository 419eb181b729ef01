"""What a function may set for good in the process: modes, defaults, global hooks.

Grad and inference mode, autocast, anomaly and deterministic mode, the default dtype and device,
the function modes that are on (``with torch.device(...)`` is one), whether the functions of tensor
subclasses are called, and hooks on all modules.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import nn, overrides

from .containers import keep_container
from .undo import Restore, Undo


def keep_modes(undo: Undo, device_types: Iterable[str] = ()) -> None:
    """Have the modes and defaults of the process put back."""
    # Its __exit__ puts back what it found, as often as it is called. An interrupt in the line
    # of a `with` comes before the __exit__ of that one.
    functions: Any = torch._C.DisableTorchFunctionSubclass()
    undo.push(partial(_put_back, functions, functions.__enter__()))
    _put_back(functions)
    # The guard alone can put inference mode back. It sets grad mode too, so that comes after.
    grad, inference = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    guard: Any = torch.inference_mode(inference)
    undo.push(
        *(keep_container(hooks) for hooks in _global_hooks()),
        _keep_defaults(),
        *(_keep_autocast(kind) for kind in sorted({"cpu", *device_types}) if _has_autocast(kind)),
        lambda: torch.set_grad_enabled(grad),
        lambda: _leave(guard),
    )
    guard.__enter__()
    torch.set_grad_enabled(grad)


def record_gradients(undo: Undo) -> None:
    """Record gradients from here on, whatever mode the test runs under."""
    guard: Any = torch.inference_mode(False)
    # Autocast keeps its casts of the weights, and with them the graph of an earlier run.
    undo.push(torch.clear_autocast_cache, lambda: _leave(guard))
    torch.clear_autocast_cache()
    guard.__enter__()
    torch.set_grad_enabled(True)


def _put_back(guard: Any, entered: object = None) -> None:
    guard.__exit__(None, None, None)


def _leave(guard: Any) -> None:
    if hasattr(guard, "_inference_mode_context") or hasattr(guard, "_inference_mode_raii_context"):
        guard.__exit__(None, None, None)  # does nothing the second time


def _global_hooks() -> list[dict[Any, Any]]:
    held = vars(nn.modules.module)
    return [
        hooks
        for name, hooks in held.items()
        if name.startswith("_global_") and isinstance(hooks, dict)
    ]


def _has_autocast(kind: str) -> bool:
    return torch.amp.autocast_mode.is_autocast_available(kind)


def _keep_autocast(kind: str) -> Restore:
    enabled, dtype = torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind)

    def restore() -> None:
        # Leaving inference mode puts this flag back as well, by what torch keeps per thread.
        if torch.is_autocast_enabled(kind) is not enabled:
            torch.set_autocast_enabled(kind, enabled)
        if torch.get_autocast_dtype(kind) is not dtype:
            torch.set_autocast_dtype(kind, dtype)

    return restore


def _keep_defaults() -> Restore:
    settings: list[tuple[Callable[[], Any], Callable[[Any], Any]]] = [
        (torch.get_default_dtype, torch.set_default_dtype),
        (_devices, _set_devices),
        (torch.is_autocast_cache_enabled, torch.set_autocast_cache_enabled),
        (_autocast_nesting, _set_autocast_nesting),
        (_anomaly, lambda value: torch.set_anomaly_enabled(*value)),
        (_deterministic, _set_deterministic),
    ]
    before = [(get, put, get()) for get, put in settings]

    def restore() -> None:
        for get, put, value in before:
            if get() != value:
                put(value)

    return restore


def _devices() -> tuple[Any, Any, list[Any]]:
    """What set_default_device() left, and every ``with torch.device(...)`` and other mode."""
    default = getattr(getattr(torch, "_GLOBAL_DEVICE_CONTEXT", None), "device_context", None)
    current = getattr(sys.modules.get("torch.utils._device"), "CURRENT_DEVICE", None)
    modes = overrides._get_current_function_mode_stack()  # type: ignore[no-untyped-call]
    return default, current, list(modes)


def _set_devices(value: tuple[Any, Any, list[Any]]) -> None:
    # Not through set_default_device: the very objects are needed, whose owners leave them later.
    default, current, modes = value
    module: Any = sys.modules.get("torch.utils._device")
    if module is not None:  # imported with the first of them
        module.CURRENT_DEVICE = current
        torch._GLOBAL_DEVICE_CONTEXT.device_context = default
    for _ in _devices()[2]:
        overrides._pop_mode()  # type: ignore[no-untyped-call]
    for mode in modes:
        overrides._push_mode(mode)  # type: ignore[no-untyped-call]


def _autocast_nesting() -> int:
    # In one line: an interrupt between the two would leave it one deeper.
    return int((torch.autocast_increment_nesting(), torch.autocast_decrement_nesting())[1])


def _set_autocast_nesting(value: int) -> None:
    # Above its own depth autocast never drops the casts of weights that it keeps: after a
    # training step these would be the old ones.
    while _autocast_nesting() > value:
        torch.autocast_decrement_nesting()
    while _autocast_nesting() < value:
        torch.autocast_increment_nesting()


def _anomaly() -> tuple[bool, bool]:
    return torch.is_anomaly_enabled(), torch.is_anomaly_check_nan_enabled()


def _deterministic() -> tuple[bool, bool, bool]:
    return (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
        _settings().fill_uninitialized_memory,
    )


def _set_deterministic(value: tuple[bool, bool, bool]) -> None:
    enabled, warn_only, fill = value
    torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
    _settings().fill_uninitialized_memory = fill


def _settings() -> Any:
    return torch.utils.deterministic
