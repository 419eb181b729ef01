"""How to call each public assertion: once on a subject it passes, once on one it fails.

Shared tests run over all of them: every assertion leaves its subject as it was, has a fixture,
raises with a message whose first line names the parameter. Each family has a module here with
a ``RECIPES`` mapping; an assertion without a recipe fails the shared tests.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Recipe:
    """``good()`` and ``bad()`` build a fresh subject (a module, or a tuple of what the calls
    need, modules among it); ``call(subject)`` runs the assertion.

    ``writes`` says that the call itself is a ``with`` block whose body, the user's code, writes
    to the subject: then values and gradients are not compared, everything else is.
    ``runs_user_code`` says that it runs what is the user's (a loss, a factory, the block of a
    ``with``), which may depend on the default device or on grad mode as it likes.
    """

    good: Callable[[], Any]
    bad: Callable[[], Any]
    call: Callable[[Any], object]
    writes: bool = False
    runs_user_code: bool = False


def all_recipes() -> dict[str, Recipe]:
    """The recipes of all families, by assertion."""
    recipes: dict[str, Recipe] = {}
    for found in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{found.name}")
        recipes.update(module.RECIPES)
    return recipes
