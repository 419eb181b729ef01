"""The check that training goes on from a checkpoint as if it had never stopped.

Tests: ``tests/unit/test_resume.py`` and ``test_model_errors.py``.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

from ..checks.resume import alike_within, not_resumed
from ..messages.errors import raise_if
from ..parameters.running.randomness import keep_random_states
from ..parameters.running.resume import train_and_resume
from ..parameters.running.undo import Restore
from .builds import fresh
from .case import NothingToCheck
from .check import check
from .needs import need_trainable, need_values
from .run import CaseRun
from .steps import backward, step

Saves: TypeAlias = Callable[[dict[str, Any]], Any]
Loads: TypeAlias = Callable[[dict[str, Any], Any], object]


def _with_random_states(save: Saves, load: Loads, case: CaseRun) -> tuple[Saves, Loads]:
    """Return what saves and loads the random states as well: a case is asked about its model."""
    at_break: list[Restore] = []

    def saves(objects: dict[str, Any]) -> Any:
        __tracebackhide__ = True
        at_break[:] = [keep_random_states([case.device])]
        return save(objects)

    def loads(objects: dict[str, Any], saved: Any) -> None:
        __tracebackhide__ = True
        load(objects, saved)
        at_break[0]()

    return saves, loads


@check()
def check_resume(case: CaseRun) -> None:
    """A step after a save and a load gives, bit for bit, what it gives without them."""
    __tracebackhide__ = True
    declared = case.declared.resume
    if isinstance(declared, str):
        raise NothingToCheck(f"declared: {declared}")
    need_trainable(case.model)
    need_values(case.model)
    save, load = (None, None) if declared is None else _with_random_states(*declared, case)

    def build() -> dict[str, Any]:
        __tracebackhide__ = True
        model = fresh(case)
        optimizers = case.optimizers(model)
        if not optimizers or not all(hasattr(one, "state_dict") for one in optimizers):
            raise NothingToCheck("an optimizer of the case has no state_dict()")
        names = [f"optimizer {n}" for n in range(len(optimizers))]
        if len(names) == 1:
            names = ["optimizer"]
        return {"model": model, **dict(zip(names, optimizers, strict=True))}

    def train(objects: dict[str, Any]) -> None:
        __tracebackhide__ = True
        model, *optimizers = objects.values()
        for optimizer in optimizers:
            optimizer.zero_grad()
        backward(case, model)
        for optimizer in optimizers:
            step(case, model, optimizer)

    resumed = train_and_resume(
        build, train, save, load, steps=1, same=alike_within(0.0, 0.0), devices=[case.device]
    )
    for failed, why in (
        (resumed.unsaved, "check_torch_save_roundtrip"),
        (resumed.refused, "check_state_dict_roundtrip"),
    ):
        if failed and failed[0] == "model":
            raise NothingToCheck(f"the model's own state does not come back: {why} says why")
    if resumed.uneven:
        raise NothingToCheck("two runs without a break differ as well: not deterministic here")
    if resumed.idle:
        raise NothingToCheck("a step changed nothing: check_training_step says why")
    raise_if(not_resumed(resumed, 1), case.title)
