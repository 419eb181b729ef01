"""The modules of a model: every name of each, or each once.

Modules that are held in several places multiply their paths: one that is held twice at each of
20 levels has a million. Who needs no names walks each module once, as torch does, and names are
walked up to a limit that is said.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypeAlias

from torch import nn

from .wrappers import wrapped_child

#: The modules above the one being walked, innermost first.
_Path: TypeAlias = "tuple[nn.Module, _Path] | None"
#: The children still to come of a module, the one that it wraps, its prefixes, and its path.
_Level: TypeAlias = tuple[Iterator[tuple[str, nn.Module | None]], str | None, str, str, _Path]


def walk_modules(root: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield (prefix, prefix with wrappers, module), depth first, in registration order.

    The order is that of ``named_parameters(remove_duplicate=False)``: a shared module comes
    once for each of its names. A module that contains itself is walked once per path, where
    torch's own walk never ends.
    """
    child_of: dict[type, str | None] = {}
    seen: set[int] = set()

    def enter(module: nn.Module, prefix: str, raw_prefix: str, above: _Path) -> _Level:
        seen.add(id(module))
        cls = type(module)
        if cls not in child_of:
            child_of[cls] = wrapped_child(module)
        # Lists: who walks may change what it comes to. No pairs of them: of 100,000 children the
        # garbage collector would look at each again and again.
        children = module._modules
        pairs = zip(list(children.keys()), list(children.values()), strict=True)
        return pairs, child_of[cls], prefix, raw_prefix, (module, above)

    yield "", "", root
    levels = [enter(root, "", "", None)]
    while levels:
        children, inner, prefix, raw_prefix, path = levels[-1]
        for key, child in children:
            if child is None:
                continue
            below = f"{prefix}{key}."
            # No wrapper so far: one string for both.
            raw_below = below if raw_prefix is prefix else f"{raw_prefix}{key}."
            if key == inner:
                below = prefix
            if not child._modules:
                yield below, raw_below, child
            elif id(child) not in seen or not _is_above(child, path):
                yield below, raw_below, child
                levels.append(enter(child, below, raw_below, path))
                break
        else:
            levels.pop()


def _is_above(module: nn.Module, path: _Path) -> bool:
    while path is not None:
        if path[0] is module:
            return True
        path = path[1]
    return False


def unwrapped(module: nn.Module) -> nn.Module:
    while (key := wrapped_child(module)) is not None:
        child = module._modules.get(key)
        if child is None:
            break
        module = child
    return module


def first_places(root: nn.Module) -> Iterator[tuple[str, str, nn.Module]]:
    """Yield what :func:`walk_modules` does, each module once: by the first of its names."""
    seen: set[int] = set()
    stack: list[tuple[nn.Module, str, str]] = [(root, "", "")]
    while stack:
        module, prefix, raw_prefix = stack.pop()
        if id(module) in seen:
            continue
        seen.add(id(module))
        yield prefix, raw_prefix, module
        children = module._modules
        if not children:
            continue
        inner = wrapped_child(module)
        for key in reversed(list(children.keys())):
            child = children[key]
            if child is not None and id(child) not in seen:
                below = f"{prefix}{key}."
                raw_below = below if raw_prefix is prefix else f"{raw_prefix}{key}."
                stack.append((child, prefix if key == inner else below, raw_below))
