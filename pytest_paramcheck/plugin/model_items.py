"""Whole-model checks as test items: the decorator, and a check bound to a case.

What a case is and what its checks do stands in ``model_checks/``; this is the part that speaks
to pytest. Torch is loaded when the first case is collected.

Tests: ``tests/integration/test_model_cases.py``, ``test_param_model.py``, ``test_hooks.py`` and
``test_workers.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import pytest

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import printable
from ..model_checks.case import ModelCase, NothingToCheck, name_declaration, unknown_check
from ..model_checks.inputs import NoInputs
from .factories import validate_names
from .hook_answers import hooks_for
from .marked import params_of, support_of
from .options import CASES
from .properties import CHECK, INPUTS, LEFT_OUT, MODEL, NOT_DECLARED, WANT_INPUTS

if TYPE_CHECKING:
    from ..model_checks.check import Check
    from ..model_checks.run import CaseRun, LatestRun


def parametrize_with_param_checks(
    cases: ModelCase | Iterable[ModelCase],
) -> pytest.MarkDecorator:
    """Parametrize a test with one ``check`` per model case and check that applies.

    The test takes the argument ``check`` and calls it. Which checks apply follows from what a
    case declares; those of ``pytest_paramcheck_checks`` in a conftest come with them. A check
    that finds nothing to look at skips its item with the reason.

    Raises :class:`ParamCheckUsageError` for anything that is no :class:`ModelCase`.

    >>> from torch import nn
    >>> from pytest_paramcheck import ModelCase
    >>> @parametrize_with_param_checks([ModelCase(lambda: nn.Linear(3, 2), name="linear")])
    ... def test_parameters(check):
    ...     check()
    """
    given: object = cases
    listed: list[Any] = list(given) if isinstance(given, Iterable) else [given]
    if not listed:
        raise ParamCheckUsageError("parametrize_with_param_checks: no cases, nothing to check")
    for case in listed:
        if not isinstance(case, ModelCase):
            raise ParamCheckUsageError(
                f"parametrize_with_param_checks takes ModelCase objects, got "
                f"{getattr(case, '__name__', type(case).__name__)}; write ModelCase(factory)"
            )
    validate_names(listed)
    mark: pytest.MarkDecorator = getattr(pytest.mark, CASES)
    return mark(listed)


class BoundCheck:
    """A check bound to a case: what the test calls."""

    def __init__(
        self,
        case: ModelCase,
        check: Check,
        seed: int,
        latest: LatestRun,
        said: Sequence[tuple[str, object]] = (),
    ) -> None:
        self._case = case
        self._check = check
        self._seed = seed
        self._latest = latest
        self._said_of_the_case = said
        self._said_when_run: list[tuple[str, object]] = []

    @property
    def model(self) -> str:
        """The name of the case."""
        return self._case.name

    @property
    def factory(self) -> Callable[[], object]:
        """What builds the model."""
        return self._case.factory

    @property
    def case_run(self) -> CaseRun:
        """The case under torch's current defaults, as the check gets it."""
        return self._latest.get(self._case, self._seed)

    @property
    def name(self) -> str:
        """The name of the check."""
        return self._check.name

    @property
    def properties(self) -> list[tuple[str, object]]:
        """What reports carry: to JUnit, and to the summary through xdist."""
        return [(MODEL, self.model), (CHECK, self.name), *self._said_of_the_case]

    @property
    def said_when_run(self) -> list[tuple[str, object]]:
        """What is known once the check has run: the latest time, where it runs on several
        devices."""
        return self._said_when_run

    def __call__(self) -> None:
        """Run the check; skip where there is nothing to look at."""
        __tracebackhide__ = True
        # Nothing that a skip's traceback holds may hold the model.
        if (reason := self._run()) is not None:
            pytest.skip(printable(reason))

    def _run(self) -> str | None:
        """Run the check; return why there was nothing to look at."""
        __tracebackhide__ = True
        from ..model_checks.check import run_check
        from ..model_checks.run import run_on, take_left_out

        self._said_when_run = []
        run = self._latest.get(self._case, self._seed)
        try:
            run_check(self._check, run)
        except NoInputs as nothing:
            self._said_when_run = [(WANT_INPUTS, nothing.to_write)]
            return str(nothing)
        except NothingToCheck as nothing:
            return str(nothing)
        except ParamCheckUsageError as error:
            # The line that called us is the same for all cases: the declaration is the wrong call.
            name_declaration(error, self._case)
            raise
        finally:
            if source := run_on(run):
                self._said_when_run = [(INPUTS, source)]
            if left_out := take_left_out(run):
                self._said_when_run.append((LEFT_OUT, left_out))
        return None

    def __repr__(self) -> str:
        return f"<{self.name} of {self.model}>"


def bound_checks(
    case: ModelCase, custom: Iterable[Callable[[CaseRun], None]], seed: int, latest: LatestRun
) -> Iterator[tuple[BoundCheck, list[pytest.MarkDecorator]]]:
    """Yield the checks that apply to a case, with a strict xfail where a failure is expected.

    Raises :class:`ParamCheckUsageError` for an expected failure of a check that is not there.
    """
    from ..model_checks.check import Check
    from ..model_checks.registry import CHECKS

    known = dict(CHECKS)
    said = {INPUTS: case.run_by, NOT_DECLARED: ",".join(case.not_declared)}
    carried = [(name, value) for name, value in said.items() if value]
    for function in custom:
        known[function.__name__] = Check(function, values=False)
    for name in case.expected_failures:
        if name not in known:
            raise unknown_check(name, known)
        if not known[name].applies(case):
            raise ParamCheckUsageError(
                f"expected_failures: {name} does not apply to {case.name}, so it cannot fail: "
                f"declare what it needs, or take it out"
            )
    for name, check in known.items():
        if check.applies(case):
            marks = []
            if reason := case.expected_failures.get(name):
                marks.append(pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError))
            yield BoundCheck(case, check, seed, latest, carried), marks


def custom_checks(node: pytest.Item | pytest.Session) -> list[Callable[[CaseRun], None]]:
    """Return the checks that conftests and plugins add for a node.

    Raises :class:`ParamCheckUsageError` for an answer that is no list of named functions.
    """
    from ..model_checks.registry import CHECKS

    hook = "hook pytest_paramcheck_checks"
    found: dict[str, Callable[[CaseRun], None]] = {}
    for answer in hooks_for(node).pytest_paramcheck_checks():
        if not isinstance(answer, (list, tuple)):
            raise ParamCheckUsageError(
                f"{hook}: expected a list of functions, got {type(answer).__name__}"
            )
        for check in answer:
            name = getattr(check, "__name__", "")
            if not callable(check) or not name.isidentifier():
                raise ParamCheckUsageError(
                    f"{hook}: a check is a function with a name of its own, got {check!r}"
                )
            if name in CHECKS:
                raise ParamCheckUsageError(
                    f"{hook}: {name} is a registered check: give yours another name"
                )
            if found.setdefault(name, check) is not check:
                raise ParamCheckUsageError(f"{hook}: two checks are called {name}")
    return list(found.values())


def need_ranks(cases: Iterable[ModelCase], remedy: str) -> None:
    """Raise :class:`ParamCheckUsageError` for a case that runs on ranks only."""
    for case in cases:
        if case.wrap is not None:
            raise ParamCheckUsageError(f"ModelCase {case.name!r} has wrap=: {remedy}")


def parametrize_checks(metafunc: pytest.Metafunc, seed: int, latest: LatestRun) -> None:
    """Parametrize a test that carries cases; a usage error fails its collection."""
    node = metafunc.definition
    try:
        cases = [case for mark in node.iter_markers(CASES) for case in mark.args[0]]
        validate_names(cases)  # those of a class and of its method come together
        support = support_of(node)
        if support is None or support.ranks is None:
            need_ranks(cases, "mark the test @pytest.mark.params(ranks=2)")
        if "check" not in metafunc.fixturenames:
            raise ParamCheckUsageError(
                f"parametrize_with_param_checks passes the argument 'check': "
                f"write def {metafunc.function.__name__}(check): check()"
            )
        custom = custom_checks(node)
        params = [
            pytest.param(bound, id=f"{bound.model}-{bound.name}", marks=marks)
            for case in cases
            for bound, marks in bound_checks(case, custom, seed, latest)
        ]
    except ParamCheckUsageError as error:
        problem = str(error)
    else:
        metafunc.parametrize("check", params)
        return
    # Outside the handler: pytest would show the error a second time as the cause of the first.
    pytest.fail(f"{node.nodeid}: {problem}", pytrace=False)


def note_check(item: pytest.Item, value: object) -> None:
    """Let the reports of an item say which check of which model it runs."""
    if isinstance(value, BoundCheck):
        item.user_properties += value.properties


def note_run(item: pytest.Item) -> None:
    """Let the reports of an item say what its check found out by running."""
    check = getattr(item, "bound", None)  # of an item without a test function
    if isinstance(item, pytest.Function):
        check = params_of(item).get("check")
    if isinstance(check, BoundCheck):
        item.user_properties += [p for p in check.said_when_run if p not in item.user_properties]
