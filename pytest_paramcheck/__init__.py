"""Assert what must hold of a PyTorch model's parameters, in pytest, a script or a notebook.

Every public name is loaded on first use (PEP 562): importing this package imports neither
torch nor pytest, so that a test run without a model test does not pay for them.
``catalogue.py`` lists the names; DESIGN is in the README and in the modules' docstrings.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from .catalogue import PUBLIC

__version__ = "0.1.0"
__all__ = sorted(PUBLIC)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    entry = PUBLIC.get(name)
    if entry is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if entry.module == name:
        return import_module(f"{__name__}.{name}")
    return getattr(import_module(f"{__name__}.{entry.module}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
