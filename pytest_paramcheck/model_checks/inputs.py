"""What a model is run on: declared inputs, those of a conftest, or what its library says.

What a library says is a guess: it is tried on a build of its own before a check relies on it, and
dropped where it does not run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from ..messages.wording import first_line
from .case import NothingToCheck

if TYPE_CHECKING:
    from torch.nn import Module
else:
    Module = Any  # what typing.get_type_hints finds: torch is loaded on first use

ASKED = "inputs from pytest_paramcheck_inputs"

#: Asks the conftests above a test for the inputs of a model; None where there are none.
_ask: ContextVar[Callable[[Module], Any] | None] = ContextVar("_ask", default=None)


class NoInputs(NothingToCheck):
    """Nobody says how to run the model: the one thing to declare, whichever check asks."""

    def __init__(self, dropped: str) -> None:
        self.to_write = f"ModelCase(inputs=...){dropped and '; ' + dropped}"
        super().__init__(f"no inputs to run it on: {self.to_write}")


@dataclass(frozen=True, slots=True)
class Found:
    """Inputs, or what makes them, and whose they are; ``""`` where nobody gave any.

    ``guessed``: nobody declared them, so that what they raise is no failure. ``code`` is an
    expression for them, where there is a short one. ``dropped`` says of which guesses ran into
    what, where none was left.
    """

    given: Any = None
    source: str = ""
    guessed: bool = False
    code: str = ""
    dropped: str = ""


@contextmanager
def inputs_asked(ask: Callable[[Module], Any]) -> Iterator[None]:
    """Let this function say what models are run on, inside the block; None is no answer."""
    token = _ask.set(ask)
    try:
        yield
    finally:
        _ask.reset(token)


def who_is_asked() -> object:
    """Return what tells those apart who answer for one model in different ways."""
    return _ask.get()


def answered(model: Module) -> Found | None:
    """Return what a conftest says of a model."""
    __tracebackhide__ = True
    ask = _ask.get()
    answer = None if ask is None else ask(model)
    return None if answer is None else Found(answer, ASKED)


def first_that_runs(
    models: Sequence[Module], made_for: Callable[[Module, Callable[[], Any]], Any]
) -> Found:
    """Return the first guess that runs on all models, tried one model after the other.

    On a cpu before on the case's own device: an index out of range leaves an accelerator
    unusable for the rest of the process. ``made_for`` makes inputs, for a model.
    """
    from .libraries import guesses

    dropped: dict[str, str] = {}
    for guess in guesses(models[0]):
        said = ""
        for model in models:
            said = said or _raised(model, partial(made_for, model, guess.make))
        if not said:
            return Found(guess.make, f"inputs from {guess.source}", True, guess.code)
        dropped.setdefault(guess.source, said)
    return Found(dropped="; ".join(f"those from {name} raise {dropped[name]}" for name in dropped))


def _raised(model: Module, make: Callable[[], Any]) -> str:
    import torch

    try:
        with torch.enable_grad():
            called(model, make())
    except Exception as error:  # whatever a model raises for what it was not made for
        return failing(error)
    return ""


def failing(error: Exception) -> str:
    """Return what was raised, in one line."""
    return f"{type(error).__name__}: {first_line(error, 120)}".removesuffix(": ")


def called(model: Module, inputs: Any) -> Any:
    """Run a model on inputs: a tuple for positions, a mapping for keywords."""
    __tracebackhide__ = True
    if isinstance(inputs, Mapping):
        return model(**inputs)
    if isinstance(inputs, (tuple, list)) and not hasattr(inputs, "_fields"):
        return model(*inputs)
    return model(inputs)  # a PackedSequence is a tuple, and one argument
