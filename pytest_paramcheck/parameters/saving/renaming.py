"""Keys of a checkpoint as a loader translates them: prefixes, or a function on keys.

Tests: ``tests/unit/test_loaded_renamed.py``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias, cast

from ...messages.errors import ParamCheckUsageError
from ...messages.functions import demand_arguments
from ...messages.wording import did_you_mean
from ..tensors.describe import kind_in_words

#: What translates the keys of a checkpoint: ``{"module": "", "encoder": "backbone"}``, or a
#: function key -> name.
Rename: TypeAlias = Mapping[str, str] | Callable[[str], str]


def renamed(
    checkpoint: Mapping[Any, Any], rename: Rename
) -> tuple[Mapping[Any, Any], dict[str, str]]:
    """Return a checkpoint under other names, and for each of those the key that it had.

    Of several prefixes the longest that matches a key decides. A key that is no string stays.
    """
    if isinstance(rename, Mapping):
        translate = _by_prefix(rename, [key for key in checkpoint if isinstance(key, str)])
    elif callable(rename):
        demand_arguments(rename, 1, "rename= is called with a key: lambda key: ...")
        translate = rename
    else:
        raise ParamCheckUsageError(
            f"rename= is a mapping of prefixes or a function on keys, not {kind_in_words(rename)}"
        )
    found: OrderedDict[Any, Any] = OrderedDict()
    origins: dict[str, str] = {}
    for key, value in checkpoint.items():
        if not isinstance(key, str):
            found[key] = value
            continue
        name = translate(key)
        if not isinstance(cast("object", name), str):
            raise ParamCheckUsageError(
                f"rename returned {kind_in_words(name)} for {key!r}; it returns a name, and "
                f"unexpected= says what is left out"
            )
        if name in found:
            raise ParamCheckUsageError(
                f"rename gives {origins[name]!r} and {key!r} one name: {name!r}"
            )
        found[name], origins[name] = value, key
    if hasattr(checkpoint, "_metadata"):
        found._metadata = checkpoint._metadata  # type: ignore[attr-defined]
    return found, origins


def _by_prefix(prefixes: Mapping[str, str], keys: list[str]) -> Callable[[str], str]:
    rules: dict[str, str] = {}
    for old, new in prefixes.items():
        if not all(isinstance(one, str) for one in (old, new)):
            raise ParamCheckUsageError(
                f"rename= maps prefixes to prefixes, not {kind_in_words(old)} to "
                f"{kind_in_words(new)}"
            )
        path = old.rstrip(".")
        if not any(_is_below(key, path) for key in keys):
            above = {key.rpartition(".")[0] for key in keys}
            near = did_you_mean(path, [*filter(None, above), *keys])
            raise ParamCheckUsageError(
                f"rename: no key of the checkpoint is {old!r} or begins with "
                f"{path + '.'!r}{';' if near else ''}{near}"
            )
        rules[path] = new.rstrip(".")
    longest_first = sorted(rules, key=len, reverse=True)

    def translate(key: str) -> str:
        for path in longest_first:
            if _is_below(key, path):
                rest = key[len(path) :].lstrip(".") if path else key
                return ".".join(filter(None, (rules[path], rest)))
        return key

    return translate


def _is_below(key: str, path: str) -> bool:
    """Whether a prefix ends at a dot of the key, or is all of it: never inside a component."""
    return not path or key == path or key.startswith(f"{path}.")
