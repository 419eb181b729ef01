"""Run a caller's function on a model and leave nothing behind.

:func:`preserved` puts back what a forward and a backward pass touch: gradients, buffers, modes,
hooks and attributes of the modules, ``requires_grad``, random states, grad and autocast mode.
It does not copy parameters (that would double a model's memory): what a caller's function
itself writes into a parameter stays written.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from ..subject.inventory import walk_modules
from ..subject.wrappers import wrapped_child
from ..tensors.content import no_values, same_bits, version_of
from .randomness import Restore, keep_random_states


@contextmanager
def preserved(model: nn.Module) -> Iterator[None]:
    """Inside the block no parameter has a gradient; after it the model is as it was before.

    Each ``.grad`` is put back as the very object it was: inside the block it is None, so that
    nothing is added to it. Post-accumulate hooks (an optimizer step in backward) rest inside
    the block: they write to parameters and clear gradients. An error of the body passes
    through unchanged, after everything was put back.
    """
    __tracebackhide__ = True
    modules = list({id(m): m for _, _, m in walk_modules(model)}.values())
    parameters = _unique(p for m in modules for p in m._parameters.values())
    buffers = _unique(b for m in modules for b in (*m._buffers.values(), *_plain_tensors(m)))
    devices = {tensor.device for tensor in (*parameters, *buffers)}
    restores = [
        keep_modes({device.type for device in devices}),
        keep_random_states(devices),
        _keep_flags(parameters),
        keep_gradients(parameters),
        _keep_content(buffers),
        *(_keep_module(module) for module in modules),
    ]
    try:
        yield
    finally:
        for restore in reversed(restores):
            restore()


def keep_gradients(leaves: Iterable[Tensor]) -> Restore:
    """Set the gradients of leaves to None, let their hooks rest; return how to undo it."""
    kept = [(leaf, leaf.grad, _resting(leaf), _copied(leaf._backward_hooks)) for leaf in leaves]
    for leaf, _, _, _ in kept:
        leaf.grad = None

    def restore() -> None:
        for leaf, grad, resting, hooks in kept:
            if leaf.grad is not grad:
                leaf.grad = grad
            if resting:
                leaf._post_accumulate_grad_hooks.update(resting)
            _put_back(leaf._backward_hooks, hooks)

    return restore


def _resting(leaf: Tensor) -> dict[Any, Any]:
    """Take the post-accumulate hooks off a leaf and return them."""
    hooks = getattr(leaf, "_post_accumulate_grad_hooks", None)
    resting = dict(hooks or {})
    if hooks:
        hooks.clear()
    return resting


def keep_modes(device_types: Iterable[str] = ()) -> Restore:
    """Note grad mode, autocast and the default dtype, which a function may set for good."""
    grad = torch.is_grad_enabled()
    dtype = torch.get_default_dtype()
    autocast = [
        (kind, torch.is_autocast_enabled(kind), torch.get_autocast_dtype(kind))
        for kind in sorted({"cpu", *device_types})
        if torch.amp.autocast_mode.is_autocast_available(kind)
    ]

    def restore() -> None:
        if torch.is_grad_enabled() is not grad:
            torch.set_grad_enabled(grad)
        if torch.get_default_dtype() is not dtype:
            torch.set_default_dtype(dtype)
        for kind, enabled, kind_dtype in autocast:
            if torch.is_autocast_enabled(kind) is not enabled:
                torch.set_autocast_enabled(kind, enabled)
            if torch.get_autocast_dtype(kind) is not kind_dtype:
                torch.set_autocast_dtype(kind, kind_dtype)

    return restore


def _keep_flags(parameters: Iterable[Tensor]) -> Restore:
    kept = [(parameter, parameter.requires_grad) for parameter in parameters]

    def restore() -> None:
        for parameter, flag in kept:
            if parameter.requires_grad is not flag:
                parameter.requires_grad_(flag)

    return restore


def _keep_content(buffers: Iterable[Tensor]) -> Restore:
    kept = []
    with torch.no_grad():
        for buffer in buffers:
            if not no_values(buffer):
                kept.append((buffer, buffer.detach().clone(), version_of(buffer)))

    def restore() -> None:
        for buffer, clone, version in kept:
            # What went through `.data` leaves the version as it was: then the bits decide.
            same = version is not None and version_of(buffer) == version
            if not (same and same_bits(buffer, clone)):
                _write(buffer, clone)

    return restore


def _plain_tensors(module: nn.Module) -> list[Tensor]:
    """The tensors in plain attributes: hidden states, caches."""
    return [
        value
        for value in vars(module).values()
        if isinstance(value, Tensor) and not isinstance(value, nn.Parameter)
    ]


def _write(buffer: Tensor, content: Tensor) -> None:
    if same_bits(buffer, content):
        return
    with torch.inference_mode(buffer.is_inference()), torch.no_grad():
        if buffer.shape == content.shape and buffer.dtype == content.dtype:
            try:
                buffer.copy_(content)
            except RuntimeError:  # an expanded one cannot be written as a whole
                buffer.data = content
        else:
            buffer.data = content


def _keep_module(module: nn.Module) -> Restore:
    training = module.training
    if isinstance(module, torch.jit.ScriptModule):
        attributes: dict[str, Any] = {}
        held = []
    else:
        attributes = vars(module)
        held = [(v, _copied(v)) for v in attributes.values() if type(v) in _CONTAINERS]
    # A wrapper (DDP, FSDP, compiled) keeps the state of its own machinery in its attributes:
    # to turn that back under its feet would break it.
    before = None if wrapped_child(module) is not None else dict(attributes)

    def restore() -> None:
        for container, content in held:
            _put_back(container, content)
        if before is not None:
            _put_back(attributes, before)
        if module.training is not training:
            module.training = training

    return restore


_CONTAINERS = (dict, OrderedDict, list, set)


def _copied(container: Any) -> Any:
    return None if container is None else container.copy()


def _put_back(container: Any, content: Any) -> None:
    """Give a dict, list or set its former members, the very objects, in their order."""
    if container is None:
        return
    if content is None:
        container.clear()
    elif isinstance(container, dict):
        if len(container) == len(content) and all(
            key is old_key and value is old
            for (key, value), (old_key, old) in zip(container.items(), content.items(), strict=True)
        ):
            return
        for key in [key for key in container if key not in content]:
            del container[key]
        if list(container) == [key for key in content if key in container]:
            container.update(content)  # so that what did not change is not touched
        if list(container) != list(content):
            container.clear()
            container.update(content)
    elif isinstance(container, list):
        if len(container) != len(content) or any(
            a is not b for a, b in zip(container, content, strict=True)
        ):
            container[:] = content
    elif container != content:
        container.clear()
        container.update(content)


def _unique(tensors: Iterable[Tensor | None]) -> list[Tensor]:
    return list({id(t): t for t in tensors if t is not None}.values())
