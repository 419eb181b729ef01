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


def own_methods(inventory: Inventory, names: Sequence[str], methods: Sequence[str]) -> str:
    """Return the innermost module around names that has some of the methods of its own.

    ``Head has its own _save_to_state_dict()``, or ``""`` where none has. What torch's own
    modules do is torch's business.
    """
    owners = {name.rpartition(".")[0] for name in names}
    said = ""
    for path, module in inventory.modules:
        if any(owner == path or owner.startswith(f"{path}.") or not path for owner in owners):
            said = _said(module, methods) or said
    return said


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
