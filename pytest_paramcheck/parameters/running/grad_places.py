"""Gradients that are kept elsewhere than in ``.grad``, and backward passes that are not one call.

Fused kernels add weight gradients to a tensor on the Parameter (``main_grad``), some stacks keep
them in a flat buffer; a GradScaler multiplies the loss first, a deferred weight gradient takes a
second call. Only the user knows which.

Tests: ``tests/unit/test_grad_places.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias, cast

import torch
from torch import Tensor, nn

from ...messages.errors import ParamCheckUsageError
from ...messages.functions import demand_arguments, takes
from ...messages.wording import did_you_mean
from ..subject.inventory import Entry, Inventory
from ..tensors.content import no_values, version_of
from ..tensors.describe import kind_in_words
from .gradstate import GradState, grad_of, grad_states
from .tensor_state import TensorStates
from .undo import Undo

#: Where a gradient is: the name of an attribute of parameters, or a function of a parameter's
#: name and the parameter that returns it (None: there is none).
GradAt: TypeAlias = str | Callable[[str, Tensor], "Tensor | None"]
#: What a backward pass is: a function of the loss, or of the loss and the model.
Backward: TypeAlias = Callable[..., object]


def read_places(
    grad: GradAt, named: Sequence[tuple[str, Tensor]], title: str, *, later: bool = False
) -> list[Tensor | None]:
    """Return the gradient of each parameter, as it lies where it is said to be.

    ``later``: an attribute may not be there yet.
    """
    if isinstance(grad, str):
        if not later and not any(hasattr(tensor, grad) for _, tensor in named):
            there = dict.fromkeys(key for _, t in named for key in (*t.__dict__, "grad"))
            near = did_you_mean(grad, there)
            raise ParamCheckUsageError(
                f"grad={grad!r}: no parameter of {title} has such an attribute"
                f"{';' if near else ''}{near}"
            )
        found: list[Any] = [getattr(tensor, grad, None) for _, tensor in named]
    elif callable(grad):
        said = "grad= is called with name and parameter: lambda name, parameter: ..."
        demand_arguments(grad, 2, said)
        found = [grad(name, tensor) for name, tensor in named]
    else:
        raise ParamCheckUsageError(
            f"grad= is the name of an attribute or a function of name and parameter, not "
            f"{kind_in_words(cast('object', grad))}"
        )
    for (name, _), one in zip(named, found, strict=True):
        if one is not None and not isinstance(one, Tensor):
            raise ParamCheckUsageError(f"the gradient of {name} is {kind_in_words(one)}")
    return found


def place_text(grad: GradAt) -> str:
    """Return where a gradient is said to be, in words."""
    return f".{grad}" if isinstance(grad, str) else "where grad= says"


def whole_name(entry: Entry) -> str:
    """Return the name of the parameter that an entry is, or is a part of."""
    return entry.name if entry.part is None else entry.name.removesuffix(entry.part.text)


def entries_at(
    grad: GradAt | None, entries: Sequence[Entry], inventory: Inventory, *, later: bool = False
) -> list[Entry]:
    """Return entries that are gradients, for those of the parameters that they are the ones of."""
    if grad is None:
        return list(entries)
    named = [(whole_name(e), e.tensor) for e in entries if e.tensor is not None]
    held = iter(read_places(grad, named, inventory.title, later=later))
    found = []
    for entry in entries:
        value = next(held) if entry.tensor is not None else None
        one = Entry(entry.name, None if value is None else value.detach(), "tensor", True)
        one.names, one.part = list(entry.names), entry.part
        found.append(one)
    return found


def places_of(
    grad: GradAt | None, entries: Sequence[Entry], inventory: Inventory
) -> Callable[[], list[Tensor | None]] | None:
    """Return what reads the gradients of these entries, of a part those of its elements."""
    if grad is None:
        return None
    entries_at(grad, entries, inventory, later=True)  # a wrong call is said before the block

    def read() -> list[Tensor | None]:
        return [grad_of(one) for one in entries_at(grad, entries, inventory, later=True)]

    return read


class Places:
    """Where the gradients of parameters are during a run of ours."""

    def __init__(
        self, grad: GradAt | None, named: Sequence[tuple[str, Tensor]], title: str
    ) -> None:
        self._grad, self._named, self._title = grad, named, title
        self._before: list[tuple[int, int | None] | None] = []

    def put_away(self, undo: Undo) -> None:
        """Set what lies there to zero, to be put back, so that an old gradient is not a new one."""
        if self._grad is None:
            return
        held = read_places(self._grad, self._named, self._title)
        states = TensorStates()
        unique = {id(one): (one, name) for one, (name, _) in zip(held, self._named, strict=True)}
        states.keep((one, name) for one, name in unique.values() if one is not None)
        states.push_to(undo)
        with torch.no_grad():
            for one, _ in unique.values():
                if one is not None and not no_values(one):
                    one.zero_()
        again = read_places(self._grad, self._named, self._title)
        readable = [None if one is None or no_values(one) else one.detach() for one in again]
        for (name, _), state in zip(self._named, grad_states(readable), strict=True):
            if state not in (GradState.NONE, GradState.ZERO):
                raise ParamCheckUsageError(
                    f"grad= returns a copy of the gradient of {name}, in which an old one cannot "
                    f"be told from a new one: return the tensor itself, or a view of it"
                )
        self._before = [None if one is None else (id(one), version_of(one)) for one in held]

    def read(self) -> list[Tensor | None]:
        """Return the gradients; None for a place that nothing was written to."""
        if self._grad is None:
            return [tensor.grad for _, tensor in self._named]
        now = read_places(self._grad, self._named, self._title)
        return [
            None if one is not None and self._untouched(one, before) else one
            for one, before in zip(now, self._before, strict=True)
        ]

    def _untouched(self, now: Tensor, before: tuple[int, int | None] | None) -> bool:
        # A kernel that writes without counting leaves at least its values behind.
        same = before == (id(now), version_of(now))
        return same and not no_values(now) and not bool(now.detach().ne(0).any())

    def elsewhere(self, written: Sequence[str]) -> list[str]:
        """Return for each parameter where else a gradient was written; ``""`` for nowhere."""
        if self._grad is None:
            return list(written)
        return ["grad" if tensor.grad is not None else "" for _, tensor in self._named]


def run_backward(loss: Tensor, model: nn.Module, backward: Backward | None) -> None:
    """Run the backward pass of a loss, as the user says or as torch does."""
    if backward is None:
        loss.backward()  # type: ignore[no-untyped-call]
    elif not callable(backward):
        raise ParamCheckUsageError(
            f"backward= is a function of the loss, or of the loss and the model, not "
            f"{kind_in_words(cast('object', backward))}"
        )
    elif not takes(backward, 1) and not takes(backward, 2):
        raise ParamCheckUsageError("backward= is called with the loss: lambda loss: ...")
    elif _takes_model(backward):
        backward(loss, model)
    else:
        backward(loss)


def _takes_model(backward: Backward) -> bool:
    try:
        parameters = inspect.signature(backward).parameters.values()
    except (TypeError, ValueError):
        return False
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return sum(p.kind in kinds and p.default is p.empty for p in parameters) > 1
