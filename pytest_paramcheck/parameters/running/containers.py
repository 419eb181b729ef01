"""Built-in containers, arrays and the attributes of objects: their members, put back.

Read and written with the built-in's own methods: what a subclass overrides is its author's
code. What did not change is not touched.
"""

from __future__ import annotations

import sys
from collections import OrderedDict, deque
from functools import partial
from typing import Any

from .undo import Restore

#: The containers that can change, each before the one it derives from.
CONTAINERS: tuple[type, ...] = (OrderedDict, dict, list, set, deque, bytearray)


def container_type(cls: type) -> Any:
    """Return the built-in whose methods read and write containers of this class, or None."""
    if cls in CONTAINERS:
        return cls
    return next((base for base in CONTAINERS if issubclass(cls, base)), None)


def keep_container(container: Any) -> Restore:
    """Note the members of a container; return how to put them back, the very objects."""
    base = container_type(type(container))
    items = base.items(container) if issubclass(base, dict) else base.__iter__(container)
    return _Members(base, container, list(items))


class _Members:
    """The members of one container. Slots: a large model has many, and garbage collection costs
    more than all else here."""

    __slots__ = ("base", "container", "content")

    def __init__(self, base: Any, container: Any, content: list[Any]) -> None:
        self.base, self.container, self.content = base, container, content

    def __call__(self) -> None:
        restore = _restore_dict if issubclass(self.base, dict) else _restore_items
        restore(self.base, self.container, self.content)


def keep_array(array: Any) -> Restore | None:
    """Note what a numpy array holds; None for one that nobody can write to, or of objects."""
    if not array.flags.writeable or array.dtype.hasobject:
        return None
    return partial(_restore_array, array, array.copy())


def is_array(cls: type) -> bool:
    """Whether this is numpy's array, which nobody holds where numpy was never imported."""
    return issubclass(cls, getattr(sys.modules.get("numpy"), "ndarray", ()))


def _restore_dict(base: Any, container: Any, content: list[tuple[Any, Any]]) -> None:
    now = list(base.items(container))
    if len(now) == len(content) and all(
        key is old_key and value is old
        for (key, value), (old_key, old) in zip(now, content, strict=True)
    ):
        return
    if [key for key, _ in now[: len(content)]] == [key for key, _ in content]:
        for key, _ in now[len(content) :]:
            base.__delitem__(container, key)
    else:
        base.clear(container)
    for key, value in content:
        if key not in container or dict.__getitem__(container, key) is not value:
            base.__setitem__(container, key, value)


def _restore_items(base: Any, container: Any, content: list[Any]) -> None:
    now = list(base.__iter__(container))
    if base is set:
        if {id(item) for item in now} == {id(item) for item in content}:
            return
    elif len(now) == len(content) and all(a is b for a, b in zip(now, content, strict=True)):
        return
    base.clear(container)
    (base.update if base is set else base.extend)(container, content)


def _restore_array(array: Any, content: Any) -> None:
    if array.shape != content.shape:
        array.resize(content.shape, refcheck=False)
    if array.tobytes() != content.tobytes():
        array[...] = content
