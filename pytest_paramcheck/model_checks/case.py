"""One declaration of a model, from which its whole-model checks follow.

:class:`ModelCase` is what a user writes; which checks apply to it stands beside each check.
"""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import did_you_mean, printable

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from ..checks.shapes import ShapeSpec
    from ..checks.values import Asked
    from ..parameters.subject.patterns import Pattern
else:
    # What typing.get_type_hints finds: torch is not loaded where cases are declared.
    Module = Tensor = ShapeSpec = Asked = Pattern = Any


#: Whose inputs they are that a case declares.
DECLARED = "declared inputs"


class NothingToCheck(Exception):  # noqa: N818 - an outcome, as pytest.skip is; no error
    """Raised by a check that has nothing to look at: its item is skipped with the reason."""


@dataclass(frozen=True, eq=False)
class ModelCase:
    """A model declared once; every invariant that applies becomes a named test item.

    ``factory`` builds the model: a callable without required arguments, often the class. The
    rest says what is true of it, and what is not said is not checked:

    * ``inputs``: what forward takes: a tensor, a tuple (positional), a mapping (keywords), or
      a callable that returns one of these. Each forward pass gets copies on the test's device;
      float32 ones in the test's default dtype. A named tuple is one argument. None: what the
      hook ``pytest_paramcheck_inputs`` says, else the model's library, where that runs.
    * ``loss``: with ``inputs`` a function of the output, without them a function of the model;
      it returns a scalar. Without a loss, a fixed random projection of the output is used.
    * ``ties``: exactly these tie groups (``[]``: none). None: whatever a first instance has.
    * ``frozen``: patterns; exactly these parameters are frozen (``[]``: none).
    * ``unreached``: patterns of parameters that this loss never reaches, or reaches without
      signal. A declaration that is no longer true is a finding.
    * ``alike``: patterns of parameters that start equal on purpose; likewise.
    * ``shapes``: as for :func:`assert_shapes`.
    * ``values``: as for :func:`assert_values`: what has to hold of the model as it is built, and
      after training steps of a declared optimizer.
    * ``optimizer``: a function of the model that returns an optimizer or a list of them, or an
      optimizer class. Without it the training step uses Adamax.
    * ``steps``: training steps until everything must have moved, or got a gradient: behind a
      zero scale it comes after a step (LoRA's first factor moves in the second). Gradients are
      asked for after three steps at least.
    * ``resume``: how training goes on from a save, where more than each ``state_dict()`` is saved:
      ``(save, load)``, as for :func:`assert_resumes`, of ``{"model": ..., "optimizer": ...}``
      (several are ``"optimizer 0"``, ...); random states come back by themselves. A text says why
      it need not go on as it was, and that is not asked.
    * ``wrap``: a function of the model that returns it wrapped or sharded (DistributedDataParallel,
      ``fully_shard``, ``parallelize_module``), for a test on ranks: every check sees what it
      returns. ``split``: the dimension along which each rank gets its part of every input tensor;
      None: all ranks get the whole.
    * ``manifest``: the path of a manifest to hold the model to.
    * ``expected_failures``: check name -> reason; a check that passes all the same fails.
    * ``name``: what the test ids and the summary call it; the factory's name by default.

    Raises :class:`ParamCheckUsageError` for what cannot be meant.

    >>> from torch import nn
    >>> ModelCase(lambda: nn.Linear(3, 2), name="linear").name
    'linear'
    """

    factory: Callable[[], Module]
    inputs: Any = None
    loss: Callable[[Any], Tensor] | None = None
    ties: Iterable[Iterable[str]] | None = None
    frozen: Sequence[Pattern] | None = None
    unreached: Sequence[Pattern] = ()
    alike: Sequence[Pattern] = ()
    shapes: Mapping[Pattern, ShapeSpec] | None = None
    values: Mapping[Pattern, Asked] | None = None
    optimizer: Callable[..., Any] | None = None
    steps: int = 1
    resume: tuple[Callable[..., Any], Callable[..., Any]] | str | None = None
    wrap: Callable[[Any], Any] | None = None
    split: int | None = None
    manifest: str | Path | None = None
    expected_failures: Mapping[str, str] = field(default_factory=dict)
    name: str = ""

    def __post_init__(self) -> None:
        for field_name, parse in _PARSERS.items():
            # A frozen dataclass sets its own fields this way.
            object.__setattr__(self, field_name, parse(getattr(self, field_name), field_name))
        if self.split is not None and self.wrap is None:
            raise ParamCheckUsageError("ModelCase: split is for a case with wrap=, on ranks")
        if not self.name:
            object.__setattr__(self, "name", _factory_name(self.factory))
        object.__setattr__(self, "_place", _calling_line())

    @property
    def run_by(self) -> str:
        """What the model is declared to run on: inputs, a loss, or ``""`` for nothing."""
        if self.inputs is not None:
            return DECLARED
        return "" if self.loss is None else "a declared loss"

    @property
    def not_declared(self) -> list[str]:
        """The fields without which a check is not collected, but for those that say how to run."""
        return [name for name in ("frozen", "shapes", "optimizer") if getattr(self, name) is None]


def _calling_line() -> str:
    """Return ``file:line`` of whoever declares the case: the first frame that is not ours."""
    frame = inspect.currentframe()
    while frame is not None:
        # dataclasses.replace() declares a case for its caller.
        package = str(frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in (__name__.partition(".")[0], "dataclasses"):
            path = Path(frame.f_code.co_filename)
            with contextlib.suppress(ValueError):
                path = path.relative_to(Path.cwd())
            return f"{path}:{frame.f_lineno}"
        frame = frame.f_back
    return ""


def name_declaration(error: ParamCheckUsageError, case: ModelCase) -> None:
    """Let a usage error that a check of a case ended with say where the case is declared."""
    place: str = getattr(case, "_place", "")
    said, *more = error.args or ("",)
    error.args = (f"{said} (ModelCase {case.name!r}{place and ', ' + place})", *more)


def is_module(value: object) -> bool:
    """Whether a value is a model and no class of models, without loading torch to ask."""
    return hasattr(value, "named_parameters") and not isinstance(value, type)


# What each field takes: a parser gets the value and the field's name, and returns what the case
# holds or raises ParamCheckUsageError.


def _factory(value: object, field_name: str) -> object:
    if callable(value) and not is_module(value):
        return value
    hint = "; pass the class or a function that builds it" if is_module(value) else ""
    raise ParamCheckUsageError(
        f"ModelCase: {field_name} must be a function or class that builds the model, got "
        f"{type(value).__name__}{hint}"
    )


def _function(value: Any, field_name: str) -> Any:
    if value is not None and not callable(value):
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} must be a function, got {type(value).__name__}"
        )
    return value


def _patterns(value: object, field_name: str) -> list[Any]:
    if isinstance(value, (str, type)):
        shown = value.__name__ if isinstance(value, type) else repr(value)
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} is a list of patterns, got {shown}; did you mean [{shown}]?"
        )
    if not isinstance(value, Iterable) or isinstance(value, Mapping):
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} is a list of patterns, got {type(value).__name__}"
        )
    return list(value)  # several checks and devices read it: an iterator could be read once


def _patterns_or_none(value: object, field_name: str) -> list[Any] | None:
    return None if value is None else _patterns(value, field_name)


def _tie_groups(value: object, field_name: str) -> list[Collection[str]] | None:
    if value is None:
        return None
    if isinstance(value, (str, Mapping)) or not isinstance(value, Iterable):
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} is a list of sets of names, got {value!r}"
        )
    unordered = isinstance(value, (set, frozenset))
    groups: list[Any] = list(value)
    for group in groups:
        if isinstance(group, str) or not isinstance(group, Iterable):
            shown = ", ".join(sorted(map(repr, groups)) if unordered else map(repr, groups))
            raise ParamCheckUsageError(
                f"ModelCase: a tie group is a set of names, got {group!r}; "
                f"did you mean [{{{shown}}}]?"
            )
    # A set stays one: who knows the model puts its names into registration order.
    return [
        frozenset(group) if isinstance(group, (set, frozenset)) else list(group) for group in groups
    ]


def _shapes(value: object, field_name: str) -> Mapping[Any, Any] | None:
    if value is not None and not isinstance(value, Mapping):
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} maps patterns to shapes, got {type(value).__name__}"
        )
    return value


def _values(value: object, field_name: str) -> Mapping[Any, Any] | None:
    if value is not None and not (isinstance(value, Mapping) and value):
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} maps patterns to conditions, one at least, got "
            f"{value if isinstance(value, Mapping) else type(value).__name__}"
        )
    return value


def _steps(value: object, field_name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ParamCheckUsageError(f"ModelCase: {field_name} must be 1 or more, got {value!r}")
    return value


def _resume(value: object, field_name: str) -> object:
    if isinstance(value, str) and value.strip():
        return value
    if isinstance(value, (tuple, list)) and len(value) == 2:
        if all(callable(one) and not is_module(one) for one in value):
            return tuple(value)
    elif value is None:
        return None
    raise ParamCheckUsageError(
        f"ModelCase: {field_name} is (save, load), two functions, or the reason why it is not "
        f"asked, got {value!r}"
    )


def _dimension(value: object, field_name: str) -> object:
    if value is not None and (isinstance(value, bool) or not isinstance(value, int)):
        raise ParamCheckUsageError(f"ModelCase: {field_name} is a dimension, got {value!r}")
    return value


def _reasons(value: object, field_name: str) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} maps check names to reasons, got {type(value).__name__}"
        )
    for check, reason in value.items():
        if not isinstance(reason, str) or not reason.strip():
            raise ParamCheckUsageError(
                f"ModelCase: {field_name}[{check!r}] needs a reason, got {reason!r}"
            )
    return value


def _name(value: object, field_name: str) -> str:
    if not isinstance(value, str) or "::" in value:
        raise ParamCheckUsageError(
            f"ModelCase: {field_name} becomes part of test ids: a string without '::', "
            f"got {value!r}"
        )
    return printable(value)  # it is shown in ids, titles and the summary


_PARSERS: Mapping[str, Callable[[Any, str], Any]] = {
    "factory": _factory,
    "loss": _function,
    "optimizer": _function,
    "frozen": _patterns_or_none,
    "unreached": _patterns,
    "alike": _patterns,
    "ties": _tie_groups,
    "shapes": _shapes,
    "values": _values,
    "steps": _steps,
    "resume": _resume,
    "wrap": _function,
    "split": _dimension,
    "expected_failures": _reasons,
    "name": _name,
}


def _factory_name(factory: Any) -> str:
    name = getattr(factory, "__name__", "") or type(factory).__name__
    return "model" if name == "<lambda>" else printable(name)


def as_cases(value: Any, origin: str, *, written: str = "") -> list[ModelCase]:
    """Return the cases that a factory, a case or a list of either stands for.

    ``written`` is the ``module:name`` that names the value where it can be called from there.
    Raises :class:`ParamCheckUsageError` that explains a factory with required arguments.
    """
    if isinstance(value, ModelCase):
        _validate_signature(value.factory, origin)
        return [value]
    if isinstance(value, (list, tuple)):
        if not value:
            raise ParamCheckUsageError(f"{origin}: an empty list, nothing to check")
        return [case for part in value for case in as_cases(part, origin)]
    if is_module(value) or not callable(value):
        raise ParamCheckUsageError(
            f"{origin}: {type(value).__name__} is neither a factory nor a ModelCase"
        )
    _validate_signature(value, origin, written)
    return [placed(ModelCase(value), origin)]


def placed(case: ModelCase, place: str) -> ModelCase:
    """Return a case that says of itself where it was declared."""
    object.__setattr__(case, "_place", place)
    return case


def _validate_signature(factory: Any, origin: str, written: str = "") -> None:
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
        values = ", ".join(f"{name}=..." for name in required)
        call = f"write {written}({values}), " if written else ""
        raise ParamCheckUsageError(
            f"{origin}: {_factory_name(factory)}{signature} cannot be called without arguments: "
            f"{call}give {', '.join(required)} a default, or name a ModelCase"
        )


def unknown_check(name: str, known: Iterable[str]) -> ParamCheckUsageError:
    """Return the error for an expected failure of a check that does not exist."""
    names = list(known)
    return ParamCheckUsageError(
        f"expected_failures names no check {name!r};"
        f"{did_you_mean(name, names) or ' the checks are ' + ', '.join(names)}"
    )
