"""A page of a model case: run on its inputs, with its loss and its optimizers."""

from __future__ import annotations

from typing import Any

from ..model_checks.inputs import NoInputs
from ..model_checks.run import CaseRun
from .page import gather
from .page_data import Contents


def gather_case(run: CaseRun, *, before: Any = None, title: str = "") -> Contents:
    """Measure what a page of a case shows; its model is left as it is.

    Gradients where it says how it is run, updates where it declares an optimizer.
    """
    case = run.declared
    notes: list[str] = []
    loss = None
    if run.device.type != "meta":
        if case.loss is not None or run.inputs_from:
            name = "the declared loss" if case.loss is not None else "projection of the output"
            loss = {name: run.loss}
        if run.inputs_from and case.inputs is None:
            notes.append(f"run on {run.inputs_from}, which nobody declared")
        if loss is None:
            try:
                run.forward(run.model)
            except NoInputs as reason:
                notes.append(f"not run, so without gradients: {reason}")
    return gather(
        run.model,
        loss=loss,
        optimizer=run.optimizers if case.optimizer is not None else None,
        before=before,
        title=title or run.title,
        notes=notes,
    )
