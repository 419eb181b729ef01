"""One declaration of a model, from which its whole-model checks follow.

:class:`ModelCase` is what a user writes, :class:`CaseRun` is the case on one device: the model
built from a seed, its inputs and its loss. Which checks apply is decided in ``battery.py``.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .findings import ParamCheckUsageError
from .wording import did_you_mean, shorten

if TYPE_CHECKING:
    import torch
    from torch import Tensor, nn

    from .checks.shapes import ShapeSpec
    from .parameters.select import Pattern


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
        if _is_module(self.factory) or not callable(self.factory):
            hint = (
                "; pass the class or a function that builds it" if _is_module(self.factory) else ""
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


CASE_FIELDS = tuple(f.name for f in fields(ModelCase))


class CaseRun:
    """A case on the device and dtype that are torch's defaults now.

    ``model`` is one instance that all checks look at and none changes; :meth:`build` makes a
    fresh one from the same seed.
    """

    def __init__(self, case: ModelCase, seed: int = 0) -> None:
        import torch

        self.case = case
        self.seed = seed
        self._model: nn.Module | None = None
        self._latest: weakref.ref[nn.Module] | None = None
        self._inputs: Any = None
        #: The default device where the run was made: what the model is built on.
        self.device: torch.device = torch.get_default_device()

    @property
    def model(self) -> nn.Module:
        """The instance that all checks look at and none changes."""
        __tracebackhide__ = True
        if self._model is None:
            self._model = self.build()
        return self._model

    @property
    def title(self) -> str:
        """What messages call the model."""
        return self.case.name

    def build(self, seed: int | None = None) -> nn.Module:
        """Build a fresh instance from the seed, leaving the random states as they were.

        Raises :class:`ParamCheckUsageError` where the factory hands out what it built before: a
        check that compares two instances would see one, and training would change it for all.
        """
        __tracebackhide__ = True
        from torch import nn

        model = self._seeded(self.case.factory, seed)
        if not isinstance(model, nn.Module):
            raise ParamCheckUsageError(
                f"the factory of {self.case.name} returned {type(model).__name__}, no nn.Module"
            )
        earlier = self._latest() if self._latest is not None else None
        for known in (self._model, earlier):
            if known is not None:
                self._refuse_again(model, known)
        self._latest = weakref.ref(model)
        return model

    def _refuse_again(self, model: nn.Module, earlier: nn.Module) -> None:
        __tracebackhide__ = True
        if model is earlier:
            raise ParamCheckUsageError(
                f"the factory of {self.case.name} returned the same object twice: it has to build "
                f"a new model at each call"
            )
        before = {id(p) for p in earlier.parameters() if p.requires_grad}
        shared = [name for name, p in model.named_parameters() if id(p) in before]
        if shared:
            raise ParamCheckUsageError(
                f"the factory of {self.case.name} builds models that share parameters "
                f"({shorten(shared, 3)}): it has to build all that trains anew at each call"
            )

    def _seeded(self, make: Callable[[], Any], seed: int | None = None) -> Any:
        __tracebackhide__ = True
        from .environment import seed_all
        from .parameters.preserve import keep_random_states

        restore = keep_random_states([self.device])
        try:
            seed_all(self.seed if seed is None else seed, self.device)
            return make()
        finally:
            restore()

    @property
    def inputs(self) -> Any:
        """Fresh copies of the inputs, made from the seed where they are made, on the device."""
        __tracebackhide__ = True
        import torch

        if self._inputs is None:
            given = self.case.inputs
            self._inputs = self._seeded(given) if callable(given) else given
        # A forward may write into what it gets (nn.ReLU(inplace=True) as the first layer).
        return _fresh(self._inputs, self.device, torch.get_default_dtype())

    def forward(self, model: nn.Module) -> Any:
        """Run the model on the inputs."""
        __tracebackhide__ = True
        if self.case.inputs is None:
            raise NothingToCheck(f"{self.case.name} declares no inputs to run it on")
        inputs = self.inputs
        if isinstance(inputs, Mapping):
            return model(**inputs)
        if isinstance(inputs, (tuple, list)) and not hasattr(inputs, "_fields"):
            return model(*inputs)
        return model(inputs)  # a PackedSequence is a tuple, and one argument

    def loss(self, model: nn.Module) -> Tensor:
        """Return the loss of one forward pass."""
        __tracebackhide__ = True
        import torch

        if self.case.inputs is None:
            if self.case.loss is None:
                raise NothingToCheck(f"{self.case.name} declares neither inputs nor a loss")
            loss = self.case.loss(model)
        else:
            output = self.forward(model)
            loss = projection(output) if self.case.loss is None else self.case.loss(output)
        if not isinstance(loss, torch.Tensor):
            raise ParamCheckUsageError(
                f"the loss of {self.case.name} returned {type(loss).__name__}, no scalar tensor"
            )
        if loss.numel() != 1:
            raise ParamCheckUsageError(
                f"the loss of {self.case.name} returned a tensor of shape {tuple(loss.shape)}, no "
                f"scalar: reduce it with .mean() or .sum()"
            )
        return loss

    def optimizers(self, model: nn.Module) -> list[Any]:
        """Return the declared optimizers of a model, or Adam over what trains.

        Adam's step has the size of its learning rate however small the gradient is, so that a
        parameter which gets any gradient at all moves in every dtype; Adagrad's first step has
        too, and takes the sparse gradients that Adam refuses.
        """
        __tracebackhide__ = True
        import torch

        trainable = [p for p in model.parameters() if p.requires_grad]
        given: Any = self.case.optimizer
        if given is None:
            sparse = {
                id(p)
                for module in model.modules()
                if getattr(module, "sparse", False) is True
                for p in module.parameters(recurse=False)
            }
            kinds: list[tuple[Callable[..., Any], list[Any]]] = [
                (torch.optim.Adam, [p for p in trainable if id(p) not in sparse]),
                (torch.optim.Adagrad, [p for p in trainable if id(p) in sparse]),
            ]
            return [kind(held, lr=0.01) for kind, held in kinds if held]
        by_class = isinstance(given, type) and issubclass(given, torch.optim.Optimizer)
        made = given(trainable if by_class else model)
        made = list(made) if isinstance(made, (list, tuple)) else [made]
        for optimizer in made:
            if not isinstance(getattr(optimizer, "param_groups", None), list):
                raise ParamCheckUsageError(
                    f"the optimizer of {self.case.name} returned {type(optimizer).__name__}, no "
                    f"optimizer or list of them"
                )
        return made


def projection(output: Any) -> Tensor:
    """Return a scalar that every floating value of an output moves: a fixed random projection.

    A plain sum will not do: it is constant behind a softmax or a LayerNorm, and every gradient
    before it is zero.
    """
    import torch

    tensors = [t for t in _tensors(output, set()) if t.is_floating_point() or t.is_complex()]
    if not tensors:
        raise NothingToCheck("the output has no floating tensor to take a loss of; declare a loss")
    total = None
    for tensor in tensors:
        if not tensor.requires_grad:
            continue
        flat = tensor.abs() if tensor.is_complex() else tensor
        generator = torch.Generator(device="cpu").manual_seed(0)
        weights = torch.rand(flat.shape, generator=generator, device="cpu", dtype=torch.float32).to(
            device=flat.device, dtype=flat.dtype
        )
        term = (flat * weights).sum()
        total = term if total is None else total + term.to(total.device)
    if total is None:
        return tensors[0].sum()  # no graph: the check that runs it says why
    return total


def _tensors(value: Any, seen: set[int]) -> list[Tensor]:
    import torch

    if isinstance(value, torch.Tensor):
        return [value]
    if id(value) in seen:
        return []
    seen.add(id(value))
    if isinstance(value, Mapping):
        parts: Iterable[Any] = value.values()
    elif isinstance(value, (list, tuple)):
        parts = value
    elif hasattr(value, "__dataclass_fields__"):
        parts = [getattr(value, name) for name in value.__dataclass_fields__]
    else:
        return []
    return [tensor for part in parts for tensor in _tensors(part, seen)]


def _fresh(value: Any, device: torch.device, dtype: torch.dtype) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        # float32 is what torch makes where nobody says what: it follows the test's choice.
        wanted = dtype if value.dtype is torch.float32 else value.dtype
        copied = value.detach().to(device=device, dtype=wanted, copy=True)
        return copied.requires_grad_(value.requires_grad)
    if isinstance(value, Mapping):
        return {key: _fresh(part, device, dtype) for key, part in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_fresh(part, device, dtype) for part in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_fresh(part, device, dtype) for part in value)
    return value


def _is_module(value: object) -> bool:
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
    if _is_module(value) or not callable(value):
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
