"""Everything an assertion could leave behind, as one flat mapping that can be compared."""

from __future__ import annotations

import importlib
import random
import signal
import warnings
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

#: torch.optim hides its own submodule from attribute access.
OPTIMIZER = importlib.import_module("torch.optim.optimizer")
Optimizer = torch.optim.Optimizer


def state_of(subject: Any, *, written: bool = False) -> dict[str, Any]:
    """Return the state of a subject, wherever in it modules, tensors and optimizers are, and of
    the process. ``written``: the call itself writes values and gradients, so leave them out."""
    state = dict(_process())
    for path, module in _modules(subject):
        state.update(_module(path, module))
    for path, tensor in _tensors(subject):
        state.update(_tensor(path, tensor, written))
    for path, held in _held(subject):
        state.update(_held_state(path, held, written))
    for path, optimizer in _optimizers(subject):
        state.update(_optimizer(path, optimizer, written))
    return state


def difference(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    """Return the keys whose values differ."""
    missing = object()
    return sorted(
        key for key in {*before, *after} if before.get(key, missing) != after.get(key, missing)
    )


def _accelerator() -> Iterator[tuple[str, Any]]:
    """What the machine's accelerator has of its own: a random state per index, autocast."""
    kind = torch.accelerator.current_accelerator().type  # type: ignore[union-attr]
    module = torch.get_device_module(kind)
    if kind != "mps":  # its one state is read otherwise
        for index in range(module.device_count()):
            yield f"torch rng of {kind}:{index}", module.get_rng_state(index).numpy().tobytes()
    yield f"autocast of {kind}", torch.is_autocast_enabled(kind)
    yield f"autocast dtype of {kind}", torch.get_autocast_dtype(kind)


def _process() -> Iterator[tuple[str, Any]]:
    yield "torch rng", torch.get_rng_state().numpy().tobytes()
    yield "python rng", random.getstate()
    kind, keys, *rest = np.random.get_state()
    yield "numpy rng", (kind, np.asarray(keys).tobytes(), *rest)
    if torch.accelerator.is_available():
        yield from _accelerator()
    yield "grad mode", torch.is_grad_enabled()
    yield "inference mode", torch.is_inference_mode_enabled()
    yield "autocast", torch.is_autocast_enabled("cpu")
    torch.autocast_increment_nesting()
    yield "autocast nesting", torch.autocast_decrement_nesting()
    yield "autocast dtype", torch.get_autocast_dtype("cpu")
    yield "autocast cache", torch.is_autocast_cache_enabled()
    yield "anomaly mode", torch.is_anomaly_enabled()
    yield "deterministic", torch.are_deterministic_algorithms_enabled()
    yield "deterministic warn only", torch.is_deterministic_algorithms_warn_only_enabled()
    yield "fill uninitialized", torch.utils.deterministic.fill_uninitialized_memory
    yield "default device", torch.empty(0).device
    yield "default dtype", torch.get_default_dtype()
    yield "threads", torch.get_num_threads()
    yield "warning filters", list(warnings.filters)
    yield "interrupt", signal.getsignal(signal.SIGINT)
    overwrite = torch.__future__.get_overwrite_module_params_on_conversion()
    yield "overwrite on conversion", overwrite
    for name, value in vars(nn.modules.module).items():
        if "hooks" in name and isinstance(value, Mapping):
            yield f"global {name}", list(value.items())
    for name in ("_global_optimizer_pre_hooks", "_global_optimizer_post_hooks"):
        yield f"global {name}", list(getattr(OPTIMIZER, name, {}).items())


def _module(path: str, module: nn.Module) -> Iterator[tuple[str, Any]]:
    yield f"{path} training", module.training
    yield f"{path} attributes", sorted(vars(module))
    yield f"{path} class", type(module)
    for name, value in vars(module).items():
        if "hooks" in name and isinstance(value, Mapping):
            yield f"{path} {name}", list(value.items())
    for table in ("_parameters", "_buffers", "_modules"):
        members = getattr(module, table)
        yield f"{path} {table}", [(name, id(value)) for name, value in members.items()]
    yield f"{path} volatile", sorted(module._non_persistent_buffers_set)
    yield f"{path} forward", vars(module).get("forward")


def _tensor(path: str, tensor: Tensor, written: bool) -> Iterator[tuple[str, Any]]:
    yield f"{path} flags", (tensor.requires_grad, tensor.is_leaf, str(tensor.device), tensor.dtype)
    for name in ("_backward_hooks", "_post_accumulate_grad_hooks"):
        yield f"{path} {name}", list((getattr(tensor, name, None) or {}).items())
    if written or is_lazy(tensor):
        return
    yield f"{path} version", None if tensor.is_inference() else tensor._version
    yield f"{path} values", raw(tensor)
    yield f"{path} place", _place(tensor)
    yield f"{path} graph", tensor.grad_fn
    yield f"{path} attributes", [(key, id(held)) for key, held in tensor.__dict__.items()]
    grad = tensor.grad if tensor.is_leaf else None
    yield f"{path} grad object", None if grad is None else id(grad)
    yield f"{path} grad values", None if grad is None else raw(grad)


def _optimizer(
    path: str, optimizer: torch.optim.Optimizer, written: bool
) -> Iterator[tuple[str, Any]]:
    for name, value in vars(optimizer).items():
        if "hooks" in name and isinstance(value, Mapping):
            yield f"{path} {name}", list(value.items())
    yield f"{path} attributes", sorted(vars(optimizer))
    for number, group in enumerate(optimizer.param_groups):
        yield f"{path} group {number} parameters", [id(p) for p in group["params"]]
        rest = {key: value for key, value in group.items() if key != "params"}
        yield f"{path} group {number}", repr(rest)
    if written:
        return
    for number, state in enumerate(optimizer.state.values()):
        for key, value in state.items():
            shown = raw(value) if isinstance(value, Tensor) else repr(value)
            yield f"{path} state {number} {key}", shown


def raw(tensor: Tensor) -> bytes | str:
    """The bytes of a tensor; its description where it has none to read."""
    if tensor.device.type == "meta" or tensor.is_nested or _freed(tensor):
        return f"{tensor.dtype} {tensor.device}"
    with torch.no_grad():
        plain = tensor.detach()
        plain = plain if plain.layout is torch.strided else plain.to_dense()
        plain = plain.cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        if plain.is_complex():
            plain = torch.view_as_real(plain).reshape(-1)
        # A copy: a storage that numpy has seen can never be resized again.
        return bytes(plain.clone().view(torch.uint8).numpy().tobytes())


def _freed(tensor: Tensor) -> bool:
    if tensor.layout is not torch.strided or type(tensor) not in (Tensor, nn.Parameter):
        return False
    return tensor.numel() > 0 and tensor.untyped_storage().data_ptr() == 0


def _place(tensor: Tensor) -> Any:
    if tensor.is_nested:
        return tensor.size(0)
    if tensor.layout is not torch.strided or type(tensor) not in (Tensor, nn.Parameter):
        return tuple(tensor.shape)
    storage = tensor.untyped_storage()
    # Its size where it belongs to the tensor: memory is given back, not always the same address.
    return tensor.shape, tensor.stride(), tensor.storage_offset(), storage._cdata, storage.nbytes()


def _held(subject: Any) -> Iterator[tuple[str, Any]]:
    """What modules keep in plain attributes, in containers and objects there."""
    seen: set[int] = set()
    standard = vars(nn.Module())
    todo = [
        (f"{path}.{name}", value)
        for path, module in _modules(subject)
        if not isinstance(module, torch.jit.ScriptModule)
        for name, value in vars(module).items()
        if name not in standard
    ]
    while todo:
        path, value = todo.pop()
        if id(value) in seen or isinstance(value, (nn.Module, type, Optimizer)) or callable(value):
            continue
        seen.add(id(value))
        yield path, value
        if isinstance(value, Mapping):
            todo += [(f"{path}[{key!r}]", item) for key, item in value.items()]
        elif isinstance(value, (list, tuple, set, deque)):
            todo += [(f"{path}[{number}]", item) for number, item in enumerate(value)]
        elif type(value).__module__.startswith("tests."):
            slots = [name for cls in type(value).__mro__ for name in getattr(cls, "__slots__", ())]
            stored = vars(value) if hasattr(type(value), "__dict__") and not slots else {}
            todo += [(f"{path}.{name}", held) for name, held in stored.items()]
            todo += [(f"{path}.{name}", getattr(value, name, None)) for name in slots]


def _held_state(path: str, held: Any, written: bool) -> Iterator[tuple[str, Any]]:
    if isinstance(held, Tensor):
        yield from _tensor(path, held, written)
    elif isinstance(held, torch.Generator):
        yield f"{path} generator", raw(held.get_state())
    elif isinstance(held, random.Random):
        yield f"{path} generator", held.getstate()
    elif isinstance(held, np.random.Generator):
        yield f"{path} generator", repr(held.bit_generator.state)
    elif isinstance(held, np.random.RandomState):
        yield f"{path} generator", repr(held.get_state())
    elif isinstance(held, np.ndarray):
        yield f"{path} array", (held.shape, held.tobytes())
    elif isinstance(held, Mapping):
        yield f"{path} items", [(key, id(value)) for key, value in held.items()]
    elif isinstance(held, (list, tuple, deque)):
        yield f"{path} items", [id(value) for value in held]
    elif isinstance(held, set):
        yield f"{path} items", {id(value) for value in held}
    elif isinstance(held, (bytearray, int, float, str)):
        yield f"{path} value", bytes(held) if isinstance(held, bytearray) else held
    else:
        yield f"{path} object", id(held)


def _walk(subject: Any, path: str = "subject") -> Iterator[tuple[str, Any]]:
    yield path, subject
    if isinstance(subject, Mapping):
        for key, value in subject.items():
            yield from _walk(value, f"{path}[{key!r}]")
    elif isinstance(subject, (tuple, list)):
        for number, value in enumerate(subject):
            yield from _walk(value, f"{path}[{number}]")


def _modules(subject: Any) -> Iterator[tuple[str, nn.Module]]:
    for path, part in _walk(subject):
        if isinstance(part, nn.Module):
            for name, module in part.named_modules():
                yield f"{path}.{name}", module


def _tensors(subject: Any) -> Iterator[tuple[str, Tensor]]:
    for path, part in _walk(subject):
        if isinstance(part, Tensor):
            yield path, part
        elif isinstance(part, nn.Module):
            for name, tensor in (*part.named_parameters(), *part.named_buffers()):
                yield f"{path}.{name}", tensor


def _optimizers(subject: Any) -> Iterator[tuple[str, torch.optim.Optimizer]]:
    for path, part in _walk(subject):
        if isinstance(part, torch.optim.Optimizer):
            yield path, part
