"""Which class does in its own way what torch does for every module: copies, moves, saves, loads.

What is lost there is mostly lost by it. It is said as what it is: a class that has such a method.

Tests: ``tests/unit/test_own_methods.py``.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from ...messages.wording import join_words
from .inventory import Inventory

COPYING = ("__deepcopy__", "__reduce_ex__", "__reduce__", "__getstate__", "__setstate__")
MOVING = ("_apply", "to")
SAVING = ("state_dict", "_save_to_state_dict", "load_state_dict", "_load_from_state_dict")
#: What torch calls on the way, and what registers it.
_HOOKS = {
    "_state_dict_pre_hooks": "register_state_dict_pre_hook()",
    "_state_dict_hooks": "register_state_dict_post_hook()",
    "_load_state_dict_pre_hooks": "register_load_state_dict_pre_hook()",
    "_load_state_dict_post_hooks": "register_load_state_dict_post_hook()",
}


class OwnMethods:
    """Answers for many names which module around them has some of the methods of its own."""

    def __init__(self, inventory: Inventory, methods: Sequence[str]) -> None:
        self._methods = methods
        prefixes, modules = inventory.walked
        self._modules: dict[str, list[nn.Module]] = {}  # a wrapper has the name of what it wraps
        for prefix, module in zip(prefixes, modules, strict=True):
            self._modules.setdefault(prefix, []).append(module)
        self._known: dict[str, str] = {}

    def around(self, names: Sequence[str]) -> str:
        """Return the innermost module around one of the names that has some.

        ``Head has its own _save_to_state_dict()``, or ``""`` where none has. What torch's own
        modules do is torch's business.
        """
        return next(filter(None, (self._below(_prefix(name)) for name in names)), "")

    def _below(self, prefix: str) -> str:
        asked: list[str] = []
        while prefix not in self._known:
            asked.append(prefix)
            own = (_said(module, self._methods) for module in self._modules.get(prefix, ()))
            if (said := next(filter(None, own), "")) or not prefix:
                self._known[prefix] = said
                break
            prefix = _prefix(prefix[:-1])
        said = self._known[prefix]
        self._known.update(dict.fromkeys(asked, said))
        return said


def _prefix(name: str) -> str:
    """Return the name of the module that a name is in, with its dot."""
    return name[: name.rfind(".") + 1]


def _said(module: nn.Module, methods: Sequence[str]) -> str:
    kind = type(module)
    own = [f"{method}()" for method in methods if _is_own(kind, method)]
    if own:
        return f"{kind.__name__} has its own {join_words(own)}"
    if methods is SAVING:
        called = [said for hooks, said in _HOOKS.items() if _foreign(getattr(module, hooks, {}))]
        if called:
            return f"{kind.__name__} has a hook registered with {join_words(called)}"
    return ""


def _is_own(kind: type, method: str) -> bool:
    own = getattr(kind, method, None)
    if own is None or own is getattr(nn.Module, method, None):
        return False
    return not str(getattr(own, "__module__", "torch.") or "torch.").startswith("torch.")


def _foreign(hooks: object) -> bool:
    if not isinstance(hooks, dict):
        return False
    return any(
        not str(getattr(_inner(hook), "__module__", "") or "").startswith("torch.")
        for hook in hooks.values()
    )


def _inner(hook: object) -> object:
    """Return what was registered: torch wraps some hooks in an object of its own."""
    return getattr(hook, "hook", hook)
