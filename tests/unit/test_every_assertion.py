"""What holds of every public assertion, whatever it asserts."""

from __future__ import annotations

import contextlib
import gc
import random
import types
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from pytest_paramcheck import ParamCheckError, ParamCheckUsageError
from pytest_paramcheck.messages.folding import fold_names

from ..public import ASSERTIONS
from ..recipes import Recipe, all_recipes
from .hostile import DAMAGES, equip
from .state import difference, state_of

TESTS = str(Path(__file__).parents[1])
RECIPES = all_recipes()
every_assertion = pytest.mark.parametrize("name", ASSERTIONS)
#: Without those whose recipe is a ``with`` block: what the user's code does there is meant.
every_assertion_but_blocks = pytest.mark.parametrize(
    "name", [name for name in ASSERTIONS if not (name in RECIPES and RECIPES[name].writes)]
)

#: Their findings are about the model as a whole.
ABOUT_THE_WHOLE = {"assert_param_count", "assert_grad_norm"}


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Recipes draw random values; none of them may decide a test."""
    torch.manual_seed(0)
    random.seed(0)
    np.random.seed(0)


def recipe_of(name: str) -> Recipe:
    if name not in RECIPES:
        pytest.fail(f"{name} has no recipe: add one to tests/recipes/", pytrace=False)
    return RECIPES[name]


@every_assertion
def test_the_good_subject_passes(name: str) -> None:
    recipe = recipe_of(name)

    recipe.call(recipe.good())


@every_assertion
def test_the_bad_subject_fails_and_the_first_line_names_a_parameter(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.bad()

    with pytest.raises(ParamCheckError) as caught:
        recipe.call(subject)

    error = caught.value
    first_line, _, rest = str(error).partition("\n")
    names = [name for finding in error.findings for name in finding.names]
    assert error.findings
    assert error.findings[0].problem in first_line
    if name not in ABOUT_THE_WHOLE:
        assert fold_names(names)[0] in first_line
    assert rest.startswith("\n  ")  # a blank line, then the rows


@every_assertion
def test_it_leaves_everything_as_it_was_when_it_passes(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.good()
    before = state_of(subject, written=recipe.writes)

    recipe.call(subject)

    assert difference(before, state_of(subject, written=recipe.writes)) == []


@every_assertion
def test_it_leaves_everything_as_it_was_when_it_fails(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.bad()
    before = state_of(subject, written=recipe.writes)

    with pytest.raises(ParamCheckError):
        recipe.call(subject)

    assert difference(before, state_of(subject, written=recipe.writes)) == []


def _gradients_and_modes(subject: Any) -> None:
    """Give what can have one a gradient, and set flags and modes the way nobody has them."""
    for part in subject if isinstance(subject, tuple) else (subject,):
        if isinstance(part, nn.Module):
            for number, module in enumerate(part.modules()):
                module.training = number % 2 == 0
            part.register_forward_hook(lambda *_: None)
            part.register_full_backward_hook(lambda *_: None)


# A batch that requires no gradient: torch's word to the author of the hook, which is this test.
@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@every_assertion
def test_hooks_and_modes_of_the_user_stay(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.good()
    _gradients_and_modes(subject)
    before = state_of(subject, written=recipe.writes)

    # What the user set may be a finding (a mode that differs): what stays is what counts.
    with contextlib.suppress(ParamCheckError):
        recipe.call(subject)

    assert difference(before, state_of(subject, written=recipe.writes)) == []


def _modules_of(subject: Any) -> list[nn.Module]:
    parts = subject if isinstance(subject, tuple) else (subject,)
    return [part for part in parts if isinstance(part, nn.Module)]


#: What the forward pass of every model in the subject does; "nothing" is a model that only holds
#: a freed storage, generators and caches.
FORWARD = {
    "nothing": (),
    "caches": ("buffers", "lists", "objects", "draws"),
    "memory": ("rebind", "free", "parameter hooks"),
}


@pytest.mark.filterwarnings("ignore:Full backward hook is firing:UserWarning")
@pytest.mark.parametrize("damage", FORWARD)
@every_assertion_but_blocks
def test_what_the_forward_pass_does_is_put_back(name: str, damage: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.good()
    for model in _modules_of(subject):
        equip(model)
        for one in FORWARD[damage]:
            model.register_forward_hook(lambda m, *_, one=one: (DAMAGES[one](m), None)[1])
    before = state_of(subject)

    # What the models hold now may be a finding, or nothing that could be copied.
    with contextlib.suppress(ParamCheckError, ParamCheckUsageError):
        recipe.call(subject)

    assert difference(before, state_of(subject)) == []


@every_assertion_but_blocks
def test_a_pending_backward_of_the_user_still_runs(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.good()
    saved: list[torch.Tensor] = []
    for model in _modules_of(subject):
        norm = nn.BatchNorm1d(2)
        model.norms = [norm]
        model.register_forward_hook(lambda m, *_: (m.norms[0](torch.rand(3, 2)), None)[1])
        for tensor in (*norm.buffers(), *model.parameters(), *model.buffers()):
            if tensor.dtype.is_floating_point and tensor.layout is torch.strided:
                # A product saves both factors for its backward pass.
                saved.append((torch.ones((), requires_grad=True) * tensor.detach()).sum())

    with contextlib.suppress(ParamCheckError, ParamCheckUsageError):
        recipe.call(subject)

    for loss in saved:
        loss.backward()


@every_assertion
def test_an_error_keeps_no_copy_of_a_model_alive(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.bad()
    gc.freeze()  # from here on the collector knows only what is new, garbage of before left out
    try:
        with pytest.raises(ParamCheckError) as caught:
            recipe.call(subject)
        gc.collect()
        known = {id(held) for held in _reachable(_arguments(caught.tb))}
        new = [one for one in gc.get_objects() if issubclass(type(one), (torch.Tensor, nn.Module))]
    finally:
        gc.unfreeze()

    assert [type(one) for one in new if id(one) not in known] == []


def _arguments(traceback: types.TracebackType | None) -> list[Any]:
    """What the user's frames hold, and what they handed to the assertion."""
    held: list[Any] = []
    by_user = False
    while traceback is not None:
        frame = traceback.tb_frame
        code = frame.f_code
        from_user, by_user = by_user, code.co_filename.startswith(TESTS)
        if by_user:
            held += frame.f_locals.values()
        elif from_user:
            names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount + 2]
            held += [frame.f_locals[name] for name in names if name in frame.f_locals]
        traceback = traceback.tb_next
    return held


#: What leads from anything to everything.
NOT_FOLLOWED = (type, types.ModuleType, types.FrameType, types.TracebackType)


def _reachable(held: list[Any]) -> list[Any]:
    todo, seen = list(held), {}
    while todo:
        one = todo.pop()
        if id(one) in seen or issubclass(type(one), NOT_FOLLOWED):
            continue
        seen[id(one)] = one
        if type(one) is types.FunctionType:
            todo += [one.__closure__, one.__defaults__]  # not its globals
        elif issubclass(type(one), torch.Tensor):
            todo += [one.grad, *gc.get_referents(one)]
        else:
            todo += gc.get_referents(one)
    return list(seen.values())


@contextlib.contextmanager
def _default_dtype(dtype: torch.dtype) -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


AMBIENTS: dict[str, Callable[[], AbstractContextManager[Any]]] = {
    "meta": lambda: torch.device("meta"),
    "float64": lambda: _default_dtype(torch.float64),
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu"),
    "anomaly": lambda: torch.autograd.set_detect_anomaly(True),
}


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
@pytest.mark.parametrize("ambient", AMBIENTS)
@pytest.mark.parametrize(
    "name", [n for n in ASSERTIONS if n in RECIPES and not RECIPES[n].runs_user_code]
)
def test_the_modes_of_the_test_around_it_do_not_matter(name: str, ambient: str) -> None:
    recipe = recipe_of(name)
    good, bad, twin = recipe.good(), recipe.bad(), recipe.bad()
    with pytest.raises(ParamCheckError) as plain:
        recipe.call(twin)

    with AMBIENTS[ambient]():
        before = state_of(good, written=recipe.writes)
        recipe.call(good)
        after = state_of(good, written=recipe.writes)
        with pytest.raises(ParamCheckError) as caught:
            recipe.call(bad)

    assert difference(before, after) == []
    assert str(caught.value).partition("\n")[0] == str(plain.value).partition("\n")[0]


@every_assertion_but_blocks
def test_a_second_call_says_the_same(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.bad()
    messages = []
    for _ in range(2):
        with pytest.raises(ParamCheckError) as caught:
            recipe.call(subject)
        messages.append(str(caught.value))

    assert messages[0] == messages[1]


@every_assertion
def test_every_frame_of_ours_is_hidden_from_the_traceback(name: str) -> None:
    recipe = recipe_of(name)
    subject = recipe.bad()

    with pytest.raises(ParamCheckError) as caught:
        recipe.call(subject)

    ours = [
        entry
        for entry in caught.traceback
        if entry.frame.f_globals.get("__name__", "").startswith("pytest_paramcheck")
    ]
    assert ours
    assert [str(entry) for entry in ours if not entry.ishidden(caught)] == []


@every_assertion
def test_the_error_holds_texts_and_numbers_only(name: str) -> None:
    recipe = recipe_of(name)
    with pytest.raises(ParamCheckError) as caught:
        recipe.call(recipe.bad())

    for finding in caught.value.findings:
        texts = (finding.problem, finding.expected, finding.found, finding.why, finding.hint)
        details = [text for row in finding.rows for text in row]
        assert {type(text) for text in (*finding.names, *texts, *details)} == {str}
        assert "tensor(" not in str(caught.value)


# The shared tests above are worth what `state_of` sees: each thing it has to see, changed.


def _write(model: nn.Linear) -> None:
    model.weight.data[0, 0] += 1


def _write_grad(model: nn.Linear) -> None:
    assert model.weight.grad is not None
    model.weight.grad[0, 0] += 1


def _replace_grad(model: nn.Linear) -> None:
    assert model.weight.grad is not None
    model.weight.grad = model.weight.grad.clone()


def _same_values(model: nn.Linear) -> None:
    with torch.no_grad():
        model.weight.copy_(model.weight.clone())


@pytest.mark.parametrize(
    ("change", "seen"),
    [
        (_write, "subject. | values"),
        (_write_grad, "grad values"),
        (_replace_grad, "grad object"),
        (_same_values, "version"),
        (lambda model: model.eval(), "training"),
        (lambda model: model.requires_grad_(False), "flags"),
        (lambda model: model.double(), "flags"),
        (lambda model: model.register_forward_hook(print), "_forward_hooks"),
        (lambda model: model.register_forward_pre_hook(print), "_forward_pre_hooks"),
        (lambda model: model.register_full_backward_hook(print), "_backward_hooks"),
        (lambda model: model.register_state_dict_post_hook(lambda *_: None), "_state_dict_hooks"),
        (lambda model: model.weight.register_hook(print), "_backward_hooks"),
        (
            lambda model: model.weight.register_post_accumulate_grad_hook(print),
            "_post_accumulate_grad_hooks",
        ),
        (lambda model: model.register_buffer("new", torch.ones(1)), "_buffers"),
        (lambda model: setattr(model, "note", 1), "attributes"),
        (lambda model: setattr(model, "forward", print), "forward"),
        (lambda model: setattr(model, "weight", nn.Parameter(model.weight.data)), "_parameters"),
        (lambda model: torch.rand(1), "torch rng"),
        (lambda model: random.random(), "python rng"),
        (lambda model: np.random.rand(), "numpy rng"),
    ],
)
def test_the_comparison_sees_each_thing_it_has_to(
    change: Callable[[nn.Linear], object], seen: str
) -> None:
    model = nn.Linear(3, 2)
    model(torch.ones(1, 3)).sum().backward()
    before = state_of((model, {"w": torch.ones(2)}))

    change(model)

    found = difference(before, state_of((model, {"w": torch.ones(2)})))
    assert any(seen.rpartition("| ")[2] in key for key in found), found


@pytest.mark.parametrize("ambient", [a for a in AMBIENTS if a != "autocast"])
@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled:UserWarning")
def test_the_comparison_sees_modes(ambient: str) -> None:
    before = state_of(())
    with AMBIENTS[ambient]():
        assert difference(before, state_of(())) != []


def test_the_comparison_sees_autocast() -> None:
    before = state_of(())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert difference(before, state_of(())) == ["autocast", "autocast nesting"]


def test_a_usage_error_is_no_failure() -> None:
    assert not issubclass(ParamCheckUsageError, ParamCheckError)
