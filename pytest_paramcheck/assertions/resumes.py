"""The assertion about training that is interrupted and goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from torch import nn

from ..checks.resume import alike_within, not_resumed
from ..checks.tolerance import demand_tolerances
from ..messages.errors import ParamCheckUsageError, raise_if
from ..messages.functions import demand_arguments
from ..parameters.running.modes import keep_modes
from ..parameters.running.randomness import keep_random_states
from ..parameters.running.resume import train_and_resume
from ..parameters.running.undo import Undo
from ..parameters.tensors.default_device import default_device
from ..parameters.tensors.describe import kind_in_words
from .verdict import one_verdict

Objects = TypeVar("Objects")
#: What the functions are called with.
_ARGUMENTS = {
    "build": (),
    "step": ("objects",),
    "save": ("objects",),
    "load": ("objects", "saved"),
}


@one_verdict(runs=True)
def assert_resumes(
    build: Callable[[], Objects],
    step: Callable[[Objects], object],
    *,
    save: Callable[[Objects], Any] | None = None,
    load: Callable[[Objects, Any], object] | None = None,
    steps: int = 2,
    rtol: float = 0.0,
    atol: float = 0.0,
) -> None:
    """Assert that training goes on from a save as if it had not been interrupted.

    ``build()`` returns a model, or a mapping of objects with a ``state_dict()``: model, optimizer,
    schedule, scaler. ``step(objects)`` is one step with them. One run takes ``steps`` steps, saves
    (what is saved goes through ``torch.save``) and takes as many again. Another loads that into a
    fresh build and takes the second half. Both start from the random states at the call; those at
    the break are given back after the load, unless ``load`` is given: it does what a script does.
    Nothing of that stays.

    Passes where both runs end with the same parameters, buffers and states, bit for bit or within
    the tolerances.

    * ``save=``: what saves, ``save(objects)``; by default each ``state_dict()``.
    * ``load=``: what loads, ``load(objects, saved)``; by default each ``load_state_dict()``.
    * ``steps=``: how many steps come before the save, and how many after it.
    * ``rtol=``, ``atol=``: how far off a value may be.

    Fails, naming what was lost and what it was: an optimizer's state, a schedule, a count in a
    plain number or a generator that no ``state_dict()`` has, random states that ``load`` does not
    set; what saving itself changes; what cannot be saved or loaded; steps that change nothing, and
    a ``step`` that gives something else each time (it reads an iterator of its own).

    An error of the functions comes through as it is. Raises :class:`ParamCheckError`;
    :class:`ParamCheckUsageError` for a ``build`` that returns something without a state_dict or
    the same object twice, and for ``steps`` below 1.

    >>> import torch
    >>> from torch import nn
    >>> def build():
    ...     model = nn.Linear(3, 2)
    ...     return {"model": model, "optimizer": torch.optim.Adam(model.parameters())}
    >>> def step(objects):
    ...     objects["model"](torch.ones(1, 3)).exp().sum().backward()
    ...     objects["optimizer"].step()
    ...     objects["optimizer"].zero_grad()
    >>> assert_resumes(build, step)
    >>> assert_resumes(build, step, save=lambda objects: {"model": objects["model"].state_dict()})
    Traceback (most recent call last):
    ParamCheckError: not restored: optimizer (Linear)
    <BLANKLINE>
      optimizer  step, exp_avg and exp_avg_sq of 2 parameters (weight, bias): none after the load:
                 weight, bias differ 2 steps later
    """
    __tracebackhide__ = True
    demand_tolerances(rtol=rtol, atol=atol)
    if type(steps) is not int or steps < 1:
        raise ParamCheckUsageError(f"steps={steps!r}: at least one step before the break")
    functions: dict[str, object] = {"build": build, "step": step, "save": save, "load": load}
    for name, function in functions.items():
        if function is not None and (not callable(function) or isinstance(function, nn.Module)):
            raise ParamCheckUsageError(
                f"{name} is {kind_in_words(function)}; it has to be a function"
            )
        if callable(function):
            said = ", ".join(_ARGUMENTS[name]) or "nothing"
            demand_arguments(function, len(_ARGUMENTS[name]), f"{name} is called with {said}")
    devices = [default_device()]
    with Undo() as undo, undo:
        keep_modes(undo, {device.type for device in devices})
        undo.push(keep_random_states(devices))
        resumed = train_and_resume(
            build, step, save, load, steps=steps, same=alike_within(rtol, atol), devices=devices
        )
        findings = not_resumed(resumed, steps)
        title = resumed.title
        del resumed  # an error keeps this frame, and with it what differed
    raise_if(findings, title)
