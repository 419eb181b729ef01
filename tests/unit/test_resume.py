"""Training that goes on from a save in fresh objects, against training without a break."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import (
    CosineAnnealingLR,
    LambdaLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
    StepLR,
)

from pytest_paramcheck import (
    CHECKS,
    ModelCase,
    NothingToCheck,
    ParamCheckError,
    ParamCheckUsageError,
    assert_resumes,
)
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import failure, failure_lines, usage, whole

ROWS = torch.linspace(-1, 1, 12).reshape(3, 4)


resumes = assert_resumes


def first_line(*args: Any, **options: Any) -> str:
    return failure_lines(resumes, *args, **options)[0]


def with_momentum(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)


Parts = dict[str, Any]


def parts() -> Parts:
    model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5), nn.BatchNorm1d(3))
    opt = with_momentum(model)
    return {"model": model, "opt": opt, "sched": StepLR(opt, step_size=30)}


def step(objects: Parts) -> None:
    objects["opt"].zero_grad()
    objects["model"](ROWS).square().sum().backward()
    objects["opt"].step()
    if "sched" in objects:
        objects["sched"].step()


def states(objects: Parts, *keys: str) -> Parts:
    return {key: objects[key].state_dict() for key in keys}


def alone() -> nn.Linear:
    return nn.Linear(4, 3)


def descend(model: nn.Module, scale: float = 1.0) -> None:
    model.zero_grad()
    (model(ROWS) * scale).sum().backward()
    with torch.no_grad():
        for parameter in model.parameters():
            assert parameter.grad is not None
            parameter -= 0.1 * parameter.grad


# -- what resumes ---------------------------------------------------------------------------------


def test_states_and_random_numbers_are_all_there_is() -> None:
    resumes(parts, step)
    resumes(alone, descend)
    resumes(parts, step, save=lambda objects: states(objects, "model", "opt", "sched"))


SCHEDULERS: list[Callable[[Any], Any]] = [
    lambda opt: CosineAnnealingLR(opt, T_max=3),
    lambda opt: LambdaLR(opt, lambda epoch: 0.5**epoch),
    lambda opt: OneCycleLR(opt, max_lr=0.1, total_steps=9),
    lambda opt: SequentialLR(
        opt, [LambdaLR(opt, lambda epoch: 0.1), StepLR(opt, 1)], milestones=[3]
    ),
]


# SequentialLR of torch 2.8 warns of its own call.
@pytest.mark.filterwarnings("ignore:The epoch parameter in .scheduler.step:UserWarning")
@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("kind", [torch.optim.Adam, torch.optim.RMSprop, torch.optim.NAdam])
def test_schedulers_and_optimizers_of_torch_resume(
    kind: Callable[..., Any], scheduler: Callable[[Any], Any]
) -> None:
    def build() -> Parts:
        model = alone()
        opt = kind(model.parameters(), lr=0.01)
        return {"model": model, "opt": opt, "sched": scheduler(opt)}

    resumes(build, step)


def test_a_scheduler_of_losses_resumes() -> None:
    def build() -> Parts:
        model = alone()
        opt = torch.optim.SGD(model.parameters(), lr=0.1)
        return {"model": model, "opt": opt, "plateau": ReduceLROnPlateau(opt, patience=0)}

    def train(objects: Parts) -> None:
        step({"model": objects["model"], "opt": objects["opt"]})
        objects["plateau"].step(1.0)

    resumes(build, train, steps=3)


class Counting(nn.Linear):
    """Counts its passes, in a buffer or in a plain number."""

    def __init__(self, kept: bool) -> None:
        super().__init__(4, 3)
        self.register_buffer("kept", torch.ones(()) if kept else None)
        self.count, self.log = 1, ["no part of training"]

    def forward(self, x: Tensor) -> Tensor:
        self.count += 1
        self.log = [*self.log, "a pass"]
        if self.kept is not None:
            self.kept += 1
            return super().forward(x) / self.kept
        return super().forward(x) / self.count


class Scratch(nn.Linear):
    """Writes down what no result depends on, and what it says nobody is to save."""

    def __init__(self) -> None:
        super().__init__(4, 3)
        self.register_buffer("seen", torch.zeros(()), persistent=False)
        self.last: Any = None

    def forward(self, x: Tensor) -> Tensor:
        self.seen += 1
        self.last = super().forward(x)
        return self.last


def test_what_no_result_depends_on_may_be_lost() -> None:
    resumes(Scratch, descend)
    resumes(lambda: Counting(kept=True), descend)


def test_the_random_states_are_those_of_the_save_unless_load_is_given() -> None:
    def noisy(model: nn.Module) -> None:
        descend(model, scale=random.random())

    def load(model: nn.Module, saved: Any) -> None:
        model.load_state_dict(saved)

    def load_all(model: nn.Module, saved: Any) -> None:
        model.load_state_dict(saved["model"])
        random.setstate(saved["random"])

    def save_all(model: nn.Module) -> Any:
        return {"model": model.state_dict(), "random": random.getstate()}

    resumes(alone, noisy)
    resumes(alone, noisy, save=save_all, load=load_all)
    assert first_line(alone, noisy, load=load) == "not restored: the random states (Linear)"


def test_what_is_saved_shares_nothing_with_what_trains_on() -> None:
    kept: list[Any] = []

    def load(model: nn.Module, saved: Any) -> None:
        kept.append(saved["weight"].clone())
        model.load_state_dict(saved)

    resumes(alone, descend, save=lambda model: model.state_dict(), load=load)
    torch.manual_seed(0)
    resumes(alone, descend, load=load)
    torch.manual_seed(0)
    model = alone()
    descend(model)
    descend(model)
    assert torch.equal(kept[-1], model.weight)


# -- what does not --------------------------------------------------------------------------------


def test_a_count_in_a_plain_number_is_named() -> None:
    assert failure(resumes, lambda: Counting(kept=False), descend) == whole(
        r"""
        not restored: count (Counting)

          count  3 at the save, 1 after the load: no state_dict() has it; \
                 weight, bias differ 2 steps later

          hint: register it as a buffer (a tensor), or save it with get_extra_state()
        """
    )


def test_only_what_decides_is_named() -> None:
    """``log`` is lost as well, and nothing depends on it."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = Counting(kept=False), Counting(kept=False)
            self.free = 0

        def forward(self, x: Tensor) -> Tensor:
            self.free += 1
            return self.one(x) + self.two(x)

    assert first_line(Two, descend) == "not restored: one.count, two.count (Two)"


def test_a_generator_that_starts_anew_is_named() -> None:
    class Drawing(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            self.generator = torch.Generator().manual_seed(1)

        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * torch.rand(3, generator=self.generator)

    assert failure(resumes, Drawing, descend) == whole(
        r"""
        not restored: generator (Drawing)

          generator  a generator that starts anew after the load: no state_dict() has it; \
                     weight, bias differ 2 steps later

          hint: save its get_state() with get_extra_state(), and set_state() it in \
                set_extra_state()
        """
    )

    class Saving(Drawing):
        def get_extra_state(self) -> Tensor:
            return self.generator.get_state()

        def set_extra_state(self, state: Tensor) -> None:
            self.generator.set_state(state)

    resumes(Saving, descend)  # the hint, followed


def test_what_a_save_leaves_out_is_named() -> None:
    assert failure(resumes, parts, step, save=lambda o: states(o, "model")) == whole(
        r"""
        not restored: sched.last_epoch, sched._step_count, opt (Sequential)

          sched.last_epoch   2 at the save, 0 after the load: {0,2}.weight, {0,2}.bias, \
                             2.running_mean and 1 more differ 2 steps later
          sched._step_count  3 at the save, 1 after the load
          opt                momentum_buffer of 4 parameters (0.weight, 0.bias, 2.weight and 1 \
                             more): none after the load
        """
    )
    # Nothing that trains differs yet: the learning rate falls at the 30th step.
    assert first_line(parts, step, save=lambda o: states(o, "model", "opt")) == (
        "not restored: sched.last_epoch, sched._step_count (Sequential)"
    )


def test_a_load_that_does_nothing_is_named() -> None:
    assert first_line(alone, descend, load=lambda model, saved: None) == (
        "not restored: weight, bias (Linear)"
    )


def test_a_state_dict_that_leaves_state_out_is_named() -> None:
    class Forgetful(torch.optim.SGD):
        def state_dict(self) -> Any:
            return {**super().state_dict(), "state": {}}

    def build() -> Parts:
        model = alone()
        return {"model": model, "opt": Forgetful(model.parameters(), lr=0.1, momentum=0.9)}

    assert failure(resumes, build, step) == whole(
        r"""
        not restored: opt.state (Linear)

          opt.state  weight.momentum_buffer, bias.momentum_buffer at the save, {} after the \
                     load: no state_dict() has it; weight, bias differ 2 steps later

          hint: let its state_dict() save it, and load_state_dict() take it back
        """
    )


def test_saving_that_changes_what_trains_on_is_named() -> None:
    def save(objects: Parts) -> Any:
        saved = states(objects, "model", "opt", "sched")
        objects["model"].half().float()  # made small for the disk, and never put back
        return saved

    assert first_line(parts, step, save=save).startswith("changed by saving: {0,2}.weight")


def test_a_step_that_depends_on_something_else_is_not_deterministic() -> None:
    batches: Iterator[int] = iter(range(100))

    def train(model: nn.Module) -> None:
        descend(model, scale=float(next(batches)))

    said = failure_lines(resumes, alone, train)
    assert said[0] == "not deterministic here: weight, bias (Linear)"
    assert said[2].endswith(": two runs of 4 steps without a break differ as well")
    assert said[-1] == (
        "  hint: step(...) may depend on what build() returned and on random numbers alone, not "
        "on an iterator"
    )


def test_tolerances_are_kept_to() -> None:
    drift = iter(range(1, 100))

    def train(model: nn.Module) -> None:
        descend(model, scale=1 + 1e-6 * next(drift))

    resumes(alone, train, rtol=1e-3, atol=1e-3)
    assert first_line(alone, train, rtol=1e-9).startswith("not deterministic here")


def test_steps_that_change_nothing_prove_nothing() -> None:
    assert first_line(alone, lambda model: None) == "nothing changed in 4 steps (Linear)"


def test_what_cannot_be_saved_or_loaded_is_a_finding() -> None:
    class Unsaved(nn.Linear):
        def get_extra_state(self) -> Any:
            return lambda: None

        def set_extra_state(self, state: Any) -> None:
            pass

    class Refusing(nn.Linear):
        def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("refused")

    assert first_line(lambda: Unsaved(4, 3), descend) == "cannot be saved: the model (Unsaved)"
    assert first_line(lambda: Refusing(4, 3), descend) == (
        "does not load back: the model (Refusing)"
    )

    def offloaded() -> nn.Module:
        model = nn.Linear(4, 3)
        model.register_buffer("cache", torch.ones(3))
        model.cache.untyped_storage().resize_(0)  # type: ignore[operator, union-attr]
        return model

    assert first_line(offloaded, descend) == "cannot be saved: the model (Linear)"


def test_wrong_calls_are_no_findings() -> None:
    model = alone()
    with pytest.raises(ParamCheckUsageError, match="the same model twice"):
        resumes(lambda: model, descend)
    with pytest.raises(ParamCheckUsageError, match=r"got 'model': int"):
        resumes(lambda: {"model": 3}, descend)
    with pytest.raises(ParamCheckUsageError, match="an empty mapping"):
        resumes(dict, descend)
    with pytest.raises(ParamCheckUsageError, match="no state of 'model', 'opt' or 'sched'"):
        resumes(parts, step, save=lambda objects: objects["model"].state_dict())


def test_errors_of_the_users_functions_come_through() -> None:
    def fail(*args: Any) -> Any:
        raise ZeroDivisionError

    for given in ({"build": fail}, {"step": fail}, {"save": fail}, {"load": fail}):
        with pytest.raises(ZeroDivisionError):
            resumes(**{"build": alone, "step": descend, **given})


# -- the check ------------------------------------------------------------------------------------


def outcome(factory: Callable[[], nn.Module], **given: Any) -> str:
    case = ModelCase(factory, **{"name": "model", "inputs": ROWS, **given})
    try:
        run_check(CHECKS["check_resume"], CaseRun(case))
    except NothingToCheck as nothing:
        return f"skip: {nothing}"
    except ParamCheckError as error:
        return str(error).partition("\n")[0]
    return "ok"


def test_a_case_resumes_after_one_step() -> None:
    assert outcome(lambda: nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))) == "ok"
    assert outcome(lambda: Counting(kept=True)) == "ok"
    assert outcome(Scratch) == "ok"
    assert outcome(lambda: Counting(kept=False)) == "not restored: count (model)"


def save_with_count(objects: dict[str, Any]) -> Any:
    states = {key: held.state_dict() for key, held in objects.items()}
    return {"states": states, "count": objects["model"].count}


def load_with_count(objects: dict[str, Any], saved: Any) -> None:
    for key, held in objects.items():
        held.load_state_dict(saved["states"][key])
    objects["model"].count = saved["count"]


def load_states(objects: dict[str, Any], saved: Any) -> None:
    for key, held in objects.items():
        held.load_state_dict(saved["states"][key])


def load_the_model(objects: dict[str, Any], saved: Any) -> None:
    objects["model"].load_state_dict(saved["states"]["model"])


def test_a_case_says_how_it_resumes() -> None:
    def counting() -> nn.Module:
        return Counting(kept=False)

    assert outcome(counting, resume=(save_with_count, load_with_count)) == "ok"
    assert outcome(counting, resume=(save_with_count, load_states)) == (
        "not restored: count (model)"
    )

    def dropping() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 3), nn.Dropout(0.5))
        model.count = 0  # type: ignore[assignment]
        return model

    assert outcome(dropping, resume=(save_with_count, load_with_count)) == "ok"
    assert (
        outcome(lambda: Counting(kept=True), resume=(save_with_count, load_the_model))
        == "not restored: optimizer (model)"
    )


def test_a_case_says_why_it_need_not_resume() -> None:
    said = outcome(lambda: Counting(kept=False), resume="the count starts anew by design")
    assert said == "skip: declared: the count starts anew by design"


def test_several_optimizers_resume() -> None:
    def optimizers(model: Any) -> list[torch.optim.Optimizer]:
        return [with_momentum(model[0]), torch.optim.Adam(model[1].parameters())]

    def model() -> nn.Module:
        return nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 3))

    assert outcome(model, optimizer=optimizers) == "ok"


def test_what_other_checks_say_is_not_said_again() -> None:
    class Unsaved(nn.Linear):
        def get_extra_state(self) -> Any:
            return lambda: None

        def set_extra_state(self, state: Any) -> None:
            pass

    assert outcome(lambda: Unsaved(4, 3)) == (
        "skip: the model's own state does not come back: check_torch_save_roundtrip says why"
    )
    assert outcome(lambda: nn.Linear(4, 3), loss=lambda out: out.sum() * 0) == (
        "skip: a step changed nothing: check_training_step says why"
    )


def test_a_model_that_is_never_the_same_is_skipped() -> None:
    draws = iter(range(100))

    class Drifting(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x) * (1 + next(draws))

    assert outcome(lambda: Drifting(4, 3)) == (
        "skip: two runs without a break differ as well: not deterministic here"
    )


def test_a_case_that_resumes_takes_three_steps_and_two_builds() -> None:
    count: Counter[str] = Counter()

    class Counted(nn.Linear):
        def __init__(self) -> None:
            super().__init__(4, 3)
            count["builds"] += 1

        def forward(self, x: Tensor) -> Tensor:
            count["passes"] += 1
            return super().forward(x)

    run = CaseRun(ModelCase(Counted, inputs=ROWS))
    assert isinstance(run.model, Counted)
    count.clear()
    run_check(CHECKS["check_resume"], run)
    assert count == {"builds": 2, "passes": 3}


def test_the_process_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    resumes(lambda: nn.Linear(4, 2), lambda model: model.weight.data.add_(torch.rand(2, 4)))
    assert torch.equal(torch.get_rng_state(), before)


def test_functions_that_are_called_with_something_else() -> None:
    def build() -> nn.Module:
        return nn.Linear(3, 2)

    wrong: list[tuple[dict[str, Any], str]] = [
        ({"build": descend}, "build is called with nothing"),
        ({"step": build}, "step is called with objects"),
        ({"save": lambda: None}, "save is called with objects"),
        ({"load": lambda saved: None}, "load is called with objects, saved"),
    ]
    for given, said in wrong:
        assert usage(resumes, **{"build": build, "step": descend, **given}) == said


def test_wrong_calls() -> None:
    def build() -> nn.Module:
        return nn.Linear(3, 2)

    assert usage(resumes, build, print, steps=0) == "steps=0: at least one step before the break"
    assert usage(resumes, build(), print) == "build is Linear; it has to be a function"
