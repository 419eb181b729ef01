"""One declaration of a model, from which its whole-model checks follow.

:class:`ModelCase` is what a user writes, :class:`CaseRun` is the case on one device: the model
built from a seed, its inputs and its loss. Which checks apply is decided in ``battery.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import did_you_mean

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..checks.shapes import ShapeSpec
    from ..parameters.subject.select import Pattern


class NothingToCheck(Exception):  # noqa: N818 - an outcome, as pytest.skip is; no error
    """Raised by a check that has nothing to look at: its item is skipped with the reason."""


@dataclass(frozen=True, eq=False)
class ModelCase:
    """A model declared once; every invariant that applies becomes a named test item.

    ``factory`` builds the model: a callable without required arguments, often the class. The
    rest says what is true of it, and what is not said is not checked:

    * ``inputs``: what forward takes: a tensor, a tuple (positional), a mapping (keywords), or
      a callable that returns one of these. Each forward pass gets copies on the test's device;
      float32 ones in the test's default dtype. A named tuple is one argument.
    * ``loss``: with ``inputs`` a function of the output, without them a function of the model;
      it returns a scalar. Without a loss, a fixed random projection of the output is used.
    * ``ties``: exactly these tie groups (``[]``: none). None: whatever a first instance has.
    * ``frozen``: patterns; exactly these parameters are frozen (``[]``: none).
    * ``unreached``: patterns of parameters that this loss never reaches, or reaches without
      signal. A declaration that is no longer true is a finding.
    * ``alike``: patterns of parameters that start equal on purpose; likewise.
    * ``shapes``: as for :func:`assert_shapes`.
    * ``optimizer``: a function of the model that returns an optimizer or a list of them, or an
      optimizer class. Without it the training step uses Adam.
    * ``steps``: training steps until everything must have moved (LoRA needs two).
    * ``manifest``: the path of a manifest to hold the model to.
    * ``expected_failures``: check name -> reason; a check that passes all the same fails.
    * ``name``: what the test ids and the summary call it; the factory's name by default.

    Raises :class:`ParamCheckUsageError` for what cannot be meant.

    >>> from torch import nn
    >>> ModelCase(lambda: nn.Linear(3, 2), name="linear").name
    'linear'
    """

    factory: Callable[[], nn.Module]
    inputs: Any = None
    loss: Callable[[Any], Tensor] | None = None
    ties: Iterable[Iterable[str]] | None = None
    frozen: Sequence[Pattern] | None = None
    unreached: Sequence[Pattern] = ()
    alike: Sequence[Pattern] = ()
    shapes: Mapping[Pattern, ShapeSpec] | None = None
    optimizer: Callable[..., Any] | None = None
    steps: int = 1
    manifest: str | Path | None = None
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        if is_module(self.factory) or not callable(self.factory):
            hint = (
                "; pass the class or a function that builds it" if is_module(self.factory) else ""
            )
            raise ParamCheckUsageError(
                f"ModelCase: factory must be a function or class that builds the model, got "
                f"{type(self.factory).__name__}{hint}"
            )
        for known in ("loss", "optimizer"):
            value = getattr(self, known)
            if value is not None and not callable(value):
                raise ParamCheckUsageError(
                    f"ModelCase: {known} must be a function, got {type(value).__name__}"
                )
        for known in ("frozen", "unreached", "alike"):
            value = getattr(self, known)
            if isinstance(value, (str, type)):
                shown = value.__name__ if isinstance(value, type) else repr(value)
                raise ParamCheckUsageError(
                    f"ModelCase: {known} is a list of patterns, got {shown}; "
                    f"did you mean [{shown}]?"
                )
            if known == "frozen" and value is None:
                continue
            if not isinstance(value, Iterable):
                raise ParamCheckUsageError(
                    f"ModelCase: {known} is a list of patterns, got {type(value).__name__}"
                )
            # Several checks and devices read it: an iterator could be read once.
            object.__setattr__(self, known, list(value))
        if self.ties is not None:
            object.__setattr__(self, "ties", _tie_groups(self.ties))
        shapes: object = self.shapes
        if shapes is not None and not isinstance(shapes, Mapping):
            raise ParamCheckUsageError(
                f"ModelCase: shapes maps patterns to shapes, got {type(shapes).__name__}"
            )
        steps: object = self.steps
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
            raise ParamCheckUsageError(f"ModelCase: steps must be 1 or more, got {self.steps!r}")
        failures: object = self.expected_failures
        if not isinstance(failures, Mapping):
            raise ParamCheckUsageError(
                "ModelCase: expected_failures maps check names to reasons, got "
                f"{type(failures).__name__}"
            )
        for check, reason in failures.items():
            if not isinstance(reason, str) or not reason.strip():
                raise ParamCheckUsageError(
                    f"ModelCase: expected_failures[{check!r}] needs a reason, got {reason!r}"
                )
        name: object = self.name
        if not isinstance(name, str) or "::" in name:
            raise ParamCheckUsageError(
                f"ModelCase: name becomes part of test ids: a string without '::', got {name!r}"
            )
        if not self.name:
            # A frozen dataclass sets its own fields this way.
            object.__setattr__(self, "name", _factory_name(self.factory))

    @property
    def runs(self) -> bool:
        """Whether the case says how to run the model."""
        return self.inputs is not None or self.loss is not None


def is_module(value: object) -> bool:
    return hasattr(value, "named_parameters") and not isinstance(value, type)


def _tie_groups(ties: object) -> list[list[str]]:
    if isinstance(ties, (str, Mapping)) or not isinstance(ties, Iterable):
        raise ParamCheckUsageError(f"ModelCase: ties is a list of sets of names, got {ties!r}")
    groups: list[Any] = list(ties)
    for group in groups:
        if isinstance(group, str) or not isinstance(group, Iterable):
            shown = ", ".join(map(repr, groups))
            raise ParamCheckUsageError(
                f"ModelCase: a tie group is a set of names, got {group!r}; "
                f"did you mean [{{{shown}}}]?"
            )
    return [
        sorted(group) if isinstance(group, (set, frozenset)) else list(group) for group in groups
    ]


def _factory_name(factory: Any) -> str:
    name = getattr(factory, "__name__", "") or type(factory).__name__
    return "model" if name == "<lambda>" else name


def as_cases(value: Any, origin: str) -> list[ModelCase]:
    """Return the cases that a factory, a case or a list of either stands for.

    Raises :class:`ParamCheckUsageError` that explains a factory with required arguments.
    """
    if isinstance(value, ModelCase):
        _check_signature(value.factory, origin)
        return [value]
    if isinstance(value, (list, tuple)):
        if not value:
            raise ParamCheckUsageError(f"{origin}: an empty list, nothing to check")
        return [case for part in value for case in as_cases(part, origin)]
    if is_module(value) or not callable(value):
        raise ParamCheckUsageError(
            f"{origin}: {type(value).__name__} is neither a factory nor a ModelCase"
        )
    _check_signature(value, origin)
    return [ModelCase(value)]


def _check_signature(factory: Any, origin: str) -> None:
    try:
        signature = inspect.signature(factory)
    except (TypeError, ValueError):
        return  # builtins without a signature: calling it will tell
    required = [
        p.name
        for p in signature.parameters.values()
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    ]
    if required:
        raise ParamCheckUsageError(
            f"{origin}: {_factory_name(factory)}{signature} cannot be called without arguments: "
            f"give {', '.join(required)} a default, or name a ModelCase"
        )


def unknown_check(name: str, known: Iterable[str]) -> ParamCheckUsageError:
    """Return the error for an expected failure of a check that does not exist."""
    names = list(known)
    return ParamCheckUsageError(
        f"expected_failures names no check {name!r};"
        f"{did_you_mean(name, names) or ' the checks are ' + ', '.join(names)}"
    )
