"""Why a parameter was not reached: a second run that follows it through forward and backward.

The run replays the first one (same random states, everything put back) under two observers
(``trace``), and asks them.

Tests: ``tests/unit/test_reach.py`` and ``test_trace.py``.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

from torch import Tensor

from ...messages.wording import first_line
from ..subject.inventory import Inventory
from .gradstate import GradState, grad_state
from .modes import record_gradients
from .preserve import put_away
from .reach import (
    LossFn,
    backward_in_view,
    loss_problem,
    parameters_of,
    put_foreign_gradients_away,
    uncompiled,
)
from .reasons import Reason
from .trace import Tracer
from .undo import Undo


def explain(
    inventory: Inventory,
    loss_fn: LossFn,
    wanted: Sequence[Tensor],
    *,
    zero_too: bool = False,
    counts: bool = False,
) -> list[Reason]:
    """Run ``loss_fn(model)`` again and return for each parameter why it was not reached.

    ``zero_too`` says that one of them was reached without a signal, so that values matter,
    ``counts`` that a gradient in ``.grad`` after this run is one.
    Compiled modules run uncompiled, so that their operations can be seen.
    """
    model = inventory.root
    if model is None:
        return [Reason("unknown") for _ in wanted]
    zeros = {id(e.tensor): e.name for e in inventory.parameters if zero_too and _is_zero(e.tensor)}
    tracked = {id(p): p for p in wanted}
    tracked |= {id(p): p for p in parameters_of(model).values() if id(p) in zeros}
    tracer = Tracer(model, list(tracked.values()), zeros, zero_too, explain.__code__)
    try:
        # Its warnings were given in the first run.
        with Undo() as undo, undo, uncompiled(), warnings.catch_warnings():
            put_away(undo, model, loss_fn)
            record_gradients(undo)
            warnings.simplefilter("ignore")
            with tracer:
                loss = loss_fn(model)
                if loss_problem(loss) is None:
                    tracer.follow(loss)
                    put_foreign_gradients_away(undo, loss, model)
                    backward_in_view(loss)
            reasons = [tracer.reason(p, loss) for p in wanted]
            return [
                Reason("reached") if counts and _signal(parameter) else reason
                for parameter, reason in zip(wanted, reasons, strict=True)
            ]
    except Exception as error:
        # The caller's function ran once and cannot run twice (an iterator used up).
        note = first_line(f"{type(error).__name__}: {error}", 80).rstrip(": ")
        return [Reason("unknown", note=note) for _ in wanted]
    finally:
        tracer.clear()


def _signal(parameter: Tensor) -> bool:
    """Whether this run gave a parameter a gradient that is not zero."""
    grad = parameter.grad
    return grad is not None and grad_state(grad) is GradState.NONZERO


def _is_zero(parameter: Tensor | None) -> bool:
    return (
        parameter is not None
        and parameter.is_floating_point()
        and parameter.numel() > 0
        and parameter.device.type != "meta"
        and grad_state(parameter) is GradState.ZERO
    )
