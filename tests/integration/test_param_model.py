"""``pytest --param-model=module:factory``: the whole-model checks without a test file."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from textwrap import dedent

import pytest

from pytest_paramcheck import CHECKS
from pytest_paramcheck.model_checks.case import unknown_check

from .conftest import BARE, STRICT, Run

MODELS = """
import torch
from torch import nn
from pytest_paramcheck import ModelCase

def make():
    return nn.Linear(3, 2)

class Net(nn.Linear):
    def __init__(self, size=3):
        super().__init__(size, 2)

def broken():
    model = nn.Linear(3, 2)
    model.more = [nn.Linear(2, 2)]
    return model

def needs(vocab, d: int, *, tie=True):
    return nn.Linear(vocab, d)

def boom():
    raise ZeroDivisionError("mine")

def number():
    return 3

CASE = ModelCase(make, inputs=torch.ones(1, 3), frozen=[], name="linear")
CASES = [CASE, broken]
TWICE = [make, ModelCase(make)]
UNKNOWN = ModelCase(make, expected_failures={"check_tie": "why"})
MEANT = ModelCase(broken, expected_failures={"check_registered": "issue 7"})
WRAPPED = ModelCase(make, wrap=lambda model: model, name="lm")
NUMBER = 3
INSTANCE = make()

class Zoo:
    small = make

    @staticmethod
    def call(text):
        return make()
"""


@pytest.fixture
def models(pytester: pytest.Pytester) -> str:
    """Write the models to a module that no other test has imported; return its name."""
    name = f"models_{abs(hash(str(pytester.path)))}"
    pytester.makepyfile(**{name: dedent(MODELS)})
    return name


NO_TRIPS = ("-k", "not roundtrip")


def test_a_factory_in_a_directory_without_tests(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:make", *NO_TRIPS)

    found = result.parseoutcomes()
    assert set(found) == {"passed", "skipped", "deselected"}
    assert sum(found.values()) == len(BARE)
    assert found["passed"] > found["skipped"]
    assert result.ret == pytest.ExitCode.OK
    assert not [line for line in result.outlines if "checks failed" in line]


def test_a_factory_of_something_else(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:number", "-k", "check_finite")

    result.assert_outcomes(failed=1, deselected=len(BARE) - 1)
    result.stdout.fnmatch_lines(
        ["ParamCheckUsageError: the factory of number returned int, no* nn.Module (*:number)"]
    )


@pytest.mark.parametrize(
    ("spec", "found"),
    [
        ("make", ["check_finite[cpu]"]),
        ("Net", ["check_finite[cpu]"]),
        ("Zoo.small", ["check_finite[cpu]"]),
        ("CASE", ["check_finite[cpu]"]),
        ("CASES", ["linear-check_finite[cpu]", "broken-check_finite[cpu]"]),
        ("Net(size=5)", ["check_finite[cpu]"]),
        ("needs(4, d=2)", ["check_finite[cpu]"]),
    ],
)
def test_what_can_be_named(
    ids: Callable[..., list[str]], run: Run, models: str, spec: str, found: list[str]
) -> None:
    assert ids("", f"--param-model={models}:{spec}", "-k", "check_finite") == found
    outcomes = run("", f"--param-model={models}:{spec}", "-k", "check_finite").parseoutcomes()
    assert (outcomes["passed"], outcomes.get("failed")) == (len(found), None)


def test_several_models_and_devices(ids: Callable[..., list[str]], models: str) -> None:
    found = ids(
        "",
        f"--param-model={models}:make",
        f"--param-model={models}:Net",
        f"--param-model={models}:make",  # named twice, checked once
        "--param-device=cpu,meta",
        "-k",
        "ties",
    )

    assert found == ["check_ties[cpu]", "check_ties[meta]"] * 2


def test_the_tests_of_a_project_are_left_alone_unless_a_path_is_named(
    run: Run, models: str, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_own="def test_own(): pass")
    pytester.makeconftest("")

    model = (f"--param-model={models}:make", "-k", "check_finite or own")
    run("", *model).assert_outcomes(passed=1, deselected=len(BARE) - 1)
    run("", *model, "test_own.py").assert_outcomes(passed=2, deselected=len(BARE) - 1)
    run("", *model, ".").assert_outcomes(passed=2, deselected=len(BARE) - 1)


def test_collection_is_counted_and_shown(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:make", "--co", "-k", "ties or check_finite")

    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if line.startswith("collected"))
    assert lines[start : start + 5] == [
        f"collected {len(BARE)} items / {len(BARE) - 2} deselected / 2 selected",
        "",
        f"<ModelNode {models}:make>",
        "  <ModelCheckItem check_finite[cpu]>",
        "  <ModelCheckItem check_ties[cpu]>",
    ]


def test_a_failure_is_the_message_and_nothing_else(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:broken", "-k", "registered or ties")

    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if line.startswith("____"))
    assert lines[start : start + 11] == [
        f" {models}:broken::check_registered[cpu] ".center(200, "_"),
        "ParamCheckError: not registered: more[0].weight, more[0].bias (Linear)",
        "",
        "  more[0].weight  Parameter 2x2 float32 cpu: Linear in a list",
        "  more[0].bias    Parameter 2 float32 cpu: Linear in a list",
        "",
        "  hint: self.more = nn.ModuleList(...)",
        " to run it alone ".center(200, "-"),
        f"pytest --param-model={models}:broken '{models}:broken::check_registered[cpu]'",
        "broken: 1 of 2 checks failed: check_registered",
        " short test summary info ".center(200, "="),
    ]
    # pytest 8.0 shows no message there for an item that is no Python function.
    failed = f"FAILED {models}:broken::check_registered[cpu]"
    message = "ParamCheckError: not registered: more[0].weight, more[0].bias (Linear)"
    assert lines[start + 11] in (failed, f"{failed} - {message}")


def test_a_factory_that_raises_shows_its_own_lines_only(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:boom", "-k", "ties")

    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if line.startswith("____"))
    end = next(n for n, line in enumerate(lines) if "checks failed" in line)
    assert [line.rstrip() for line in lines[start + 1 : end]] == [
        "",
        "    def boom():",
        '>       raise ZeroDivisionError("mine")',
        "E       ZeroDivisionError: mine",
        "",
        f"{models}.py:21: ZeroDivisionError",
        " to run it alone ".center(200, "-"),
        f"pytest --param-model={models}:boom '{models}:boom::check_ties[cpu]'",
    ]


def test_expected_failures_of_a_case(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:MEANT", "-rx", "-k", "registered")

    result.assert_outcomes(xfailed=1, deselected=len(BARE) - 1)
    assert f"XFAIL {models}:MEANT::check_registered[cpu] - issue 7" in result.outlines


def test_lf_runs_what_failed(pytester: pytest.Pytester, models: str) -> None:
    strict = [arg for arg in STRICT if arg != "no:cacheprovider"]
    strict.pop(strict.index("-p"))
    few = ("-k", "registered or check_finite")
    first = pytester.runpytest_inprocess(*strict, f"--param-model={models}:broken", *few)
    again = pytester.runpytest_inprocess(*strict, f"--param-model={models}:broken", "--lf")

    first.assert_outcomes(failed=1, passed=1, deselected=len(BARE) - 2)
    again.assert_outcomes(failed=1, deselected=len(BARE) - 1)


def test_a_conftest_adds_its_own_checks(run: Run, models: str, pytester: pytest.Pytester) -> None:
    pytester.makeconftest(
        "def pytest_paramcheck_checks():\n"
        "    def check_small(case):\n"
        "        assert sum(p.numel() for p in case.model.parameters()) < 7, 'too large'\n"
        "    return [check_small]\n"
    )
    result = run("", f"--param-model={models}:make", "-k", "small")

    result.assert_outcomes(failed=1, deselected=len(BARE))
    assert "make: 1 of 1 checks failed: check_small" in result.outlines


def test_the_id_of_an_item_can_be_given_as_an_argument(
    run: Run, pytester: pytest.Pytester, models: str, plugin_args: tuple[str, ...]
) -> None:
    (pytester.path / "pack").mkdir()
    (pytester.path / "pack/dotted.py").write_text(f"from {models} import *\n")
    pytester.makepyfile(test_own="def test_own(): pass")
    for spec in (f"{models}:broken", "pack.dotted:broken"):
        args = (f"--param-model={spec}", "--param-device=cpu,meta", *plugin_args)
        first = run("", *args, "-v", "-k", "check_finite or registered")
        shown = [line.split()[0] for line in first.outlines if "FAILED  " in line + "  "]
        failed = [line.split()[1] for line in first.outlines if line.startswith("FAILED ")]
        expected = [f"{spec}::check_registered[{device}]" for device in ("cpu", "meta")]
        assert failed == expected == [line for line in shown if line.startswith(spec)]

        run("", *args, failed[0]).assert_outcomes(failed=1)
        run("", *args, *failed).assert_outcomes(failed=2)
        run("", *args, f"{spec}::check_registered").assert_outcomes(failed=2)
        run("", *args, failed[0], "test_own.py").assert_outcomes(failed=1, passed=1)
        assert sum(run("", *args, spec).parseoutcomes().values()) == 2 * len(BARE)


@pytest.mark.parametrize(
    ("call", "options"),
    [
        ("broken", ()),
        ("needs(2, d=2)", ("--param-device=cpu,meta", "--param-seed=3", "--param-dtype=float64")),
        ("Zoo.call('a b')", ("-p", "no:randomly")),
    ],
)
def test_the_command_that_runs_a_failure_alone(
    run: Run, pytester: pytest.Pytester, models: str, call: str, options: tuple[str, ...]
) -> None:
    pytester.makeconftest(
        "def pytest_paramcheck_checks():\n"
        "    def check_nothing(case):\n"
        "        assert False\n"
        "    return [check_nothing]\n"
    )
    result = run("", f"--param-model={models}:{call}", *options, "-k", "nothing")
    shown = [line for line in result.outlines if line.startswith("pytest ")]
    program, *words = shlex.split(shown[-1])

    again = run("", *words)
    assert program == "pytest"
    assert len(shown) == (2 if options[:1] == ("--param-device=cpu,meta",) else 1)
    again.assert_outcomes(failed=1)
    assert [line for line in again.outlines if line.startswith("pytest ")] == shown[-1:]


def test_the_id_of_an_item_that_is_not_there(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:make", f"{models}:make::check_finit[cpu]")

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line] == [
        f"ERROR: not found: {models}:make::check_finit[cpu]; did you mean "
        f"'{models}:make::check_finite[cpu]'?"
    ]


def test_a_skip_points_to_the_factory(run: Run, models: str) -> None:
    """Whether the check found nothing to look at, or the device is not there."""
    nothing = run("", f"--param-model={models}:make", "-rs", *NO_TRIPS)
    line = MODELS.strip().splitlines().index("def make():") + 1
    skips = [o.partition("] ")[2] for o in nothing.outlines if o.startswith("SKIPPED")]
    assert {skip.partition(": ")[0] for skip in skips} == {f"{models}.py:{line}"}

    absent = run("", f"--param-model={models}:Net", "-o", "param_devices=cuda", "-rs", "-k", "init")
    assert {line.partition("]")[2] for line in absent.outlines if "SKIPPED" in line} == {
        f" {models}.py: torch sees no cuda device"
    }


# -- what cannot be meant: one line, before anything is collected --------------------------------


def error_of(run: Run, spec: str, pytester: pytest.Pytester) -> str:
    result = run("", f"--param-model={spec}")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    lines = [line for line in result.errlines if line]
    assert len(lines) == 1, lines
    return lines[0].removeprefix(f"ERROR: --param-model={spec}: ")


@pytest.mark.parametrize("spec", ["models", "models:", ":make", "", "a/b.py"])
def test_no_module_or_no_factory(run: Run, pytester: pytest.Pytester, spec: str) -> None:
    assert error_of(run, spec, pytester) == "expected package.module:factory"


def test_a_module_that_is_not_there(run: Run, pytester: pytest.Pytester) -> None:
    where = f"from {pytester.path} or on sys.path"

    assert error_of(run, "nowhere:make", pytester) == f"no module named 'nowhere' {where}"
    assert error_of(run, "torch.nowhere:make", pytester) == (
        f"no module named 'torch.nowhere' {where}"
    )


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("import not_there_at_all", "ModuleNotFoundError: No module named 'not_there_at_all'"),
        ("1 / 0", "ZeroDivisionError: division by zero"),
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("def (", "SyntaxError: invalid syntax ({name}.py, line 1)"),
    ],
)
def test_a_module_that_cannot_be_imported(
    run: Run, pytester: pytest.Pytester, source: str, said: str
) -> None:
    name = f"bad_{abs(hash(source))}"
    (pytester.path / f"{name}.py").write_text(source)

    assert error_of(run, f"{name}:make", pytester) == (
        f"importing {name} failed: {said.format(name=name)}"
    )


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("mak", "{0} has no 'mak'; did you mean 'make'?"),
        ("qqqq", "{0} has no 'qqqq'"),
        ("Zoo.smal", "{0}:Zoo has no 'smal'; did you mean 'small'?"),
        ("NUMBER", "int is neither a factory nor a ModelCase"),
        ("INSTANCE", "Linear is neither a factory nor a ModelCase"),
        (
            "needs",
            "needs(vocab, d: int, *, tie=True) cannot be called without arguments: write "
            "{0}:needs(vocab=..., d=...), give vocab, d a default, or name a ModelCase",
        ),
        ("TWICE", "two cases are called 'make': give one a name="),
        ("UNKNOWN", str(unknown_check("check_tie", CHECKS))),
    ],
)
def test_what_is_no_model(
    run: Run, models: str, pytester: pytest.Pytester, spec: str, said: str
) -> None:
    assert error_of(run, f"{models}:{spec}", pytester) == said.format(models)


# -- the last lines --------------------------------------------------------------------------------


def last_lines(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "passed" in line or "inputs" in line][:-1]


def test_the_last_lines_say_what_was_run_and_what_was_not(run: Run, models: str) -> None:
    result = run("", f"--param-model={models}:make", "-k", "finite or check_ties or reach or step")

    assert last_lines(result) == [
        "make: 2 checks passed; not declared: frozen, shapes, optimizer",
        "make: 3 checks need inputs (check_grads_reach, check_grads_finite and 1 more): "
        "ModelCase(inputs=...)",
    ]


def test_what_is_declared_is_not_asked_for(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        declared="""
        import torch
        from torch import nn
        from pytest_paramcheck import ModelCase
        make = lambda: nn.Linear(3, 2)
        CASES = [
            ModelCase(make, inputs=torch.ones(1, 3), frozen=[], name="inputs"),
            ModelCase(make, loss=lambda m: m.weight.sum(), shapes={"*": (...,)}, name="loss",
                      optimizer=torch.optim.SGD),
            ModelCase(nn.ReLU, loss=lambda m: 0, shapes={}, frozen=[], name="empty",
                      optimizer=torch.optim.SGD),
        ]
        """
    )
    result = run("", "--param-model=declared:CASES", "-k", "check_finite")

    assert last_lines(result) == [
        "inputs: 1 check passed, run on declared inputs; not declared: shapes, optimizer",
        "loss: 1 check passed, run on a declared loss; not declared: frozen",
        "empty: 0 checks passed, 1 skipped, run on a declared loss",
    ]


def test_models_that_went_alike_share_a_line_and_q_says_nothing(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(
        many="""
        from torch import nn
        from pytest_paramcheck import ModelCase
        make = lambda: nn.Linear(1, 1)
        CASES = [ModelCase(make, name=f"m{n}") for n in range(40)]
        """
    )
    said = last_lines(run("", "--param-model=many:CASES", "-k", "finite"))
    quiet = run("", "--param-model=many:CASES", "-k", "check_finite", "-q")

    assert said[0] == (
        "m0, m1, m2 and 37 more: 1 check passed; not declared: frozen, shapes, optimizer"
    )
    assert len(said) == 2
    assert not [line for line in quiet.outlines if "declared" in line]


def test_junit_carries_what_was_not_run(run: Run, models: str, pytester: pytest.Pytester) -> None:
    run("", f"--param-model={models}:make", "-k", "finite", "--junitxml=out.xml")
    written = (pytester.path / "out.xml").read_text(encoding="utf-8")

    assert '<property name="param_not_declared" value="frozen,shapes,optimizer"' in written
    assert '<property name="param_want_inputs" value="ModelCase(inputs=...)"' in written


def test_a_wrapped_model_needs_ranks(run: Run, models: str) -> None:
    spec = f"--param-model={models}:WRAPPED"
    alone, on_ranks = run("", spec), run("", spec, "--param-ranks=2", "--collect-only", "-q")

    assert alone.errlines == [
        f"ERROR: {spec}: ModelCase 'lm' has wrap=: give --param-ranks=2 as well",
        "",
    ]
    assert f"{models}:WRAPPED::check_step[cpu-2ranks]" in on_ranks.outlines
