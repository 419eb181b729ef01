"""Real workers (``-n 2``): they collect, run and report what one process does.

Each run starts two processes that import torch, so that one run answers as many questions as go
together: only what its options or its exit status exclude has a run of its own. One of them is
run every day, the others (slow) where everything is.
"""

from __future__ import annotations

from textwrap import dedent

import pytest

from .conftest import Run
from .test_absent import ALL_SKIPPED, NO_CUDA, ONE, error_lines
from .test_devices import SUITE, junit_cases
from .test_environment import SEEDS
from .test_manifest_life import ALL, FOLDER, MANY, UPDATE, files
from .test_model_cases import EXPECTED
from .test_param_model import models as models

#: Without hypothesis, which every worker would import though no test here uses it.
WORKERS = ("-n", "2", "-p", "no:hypothesispytest")


def test_a_green_run(run: Run, pytester: pytest.Pytester) -> None:
    """Ids and their order, absent devices, seeds, JUnit properties and manifests."""
    manifests = MANY.replace("mark.params\n", 'mark.params(devices=["cpu", "meta"])\n')
    run(manifests, UPDATE)
    sources = {
        "test_absent": ONE,
        "test_ids": SUITE,
        # xdist refuses to run where ids or their order differ between workers: these regroup.
        "test_regrouped": SUITE.replace("test_c()", "test_c(param_device)"),
        "test_seeds": SEEDS,
    }
    pytester.makepyfile(**{name: dedent(source) for name, source in sources.items()})
    result = run(
        manifests.replace('"big"', '"large"'),
        *("-o", "param_devices=cuda all meta", "--junitxml=out.xml", UPDATE, "-v", "-rs"),
        *WORKERS,
    )

    # A device that is only in the ini and not on this machine.
    assert result.ret == pytest.ExitCode.OK
    assert error_lines(result) == []
    result.stdout.fnmatch_lines(["*test_a[[]cuda[]]*"])
    assert any(line.endswith(f": {NO_CUDA}") for line in result.outlines)
    result.assert_outcomes(passed=33, skipped=8)

    # The ids, and the property of each.
    marked = {
        f"{name}[{device}{rest}]": device
        for name, rest in (("test_a", "-1"), ("test_a", "-2"), ("test_c", ""))
        for device in ("cpu", "cuda", "meta")
    }
    unmarked = dict.fromkeys(("test_b", "test_e[a]", "test_e[b]"))
    for name in ("test_ids", "test_regrouped"):
        found = {case["name"]: case["device"] for case in junit_cases(name)}
        assert found == {**marked, **unmarked}

    # What was written and asked for, though no worker saw all of it.
    assert files(pytester) == sorted([*ALL, f"{FOLDER}/test_sizes-large.txt"])
    assert [line for line in result.outlines if line.startswith(("paramcheck:", "  __"))] == [
        "paramcheck: wrote 1 manifest:",
        f"  {FOLDER}/test_sizes-large.txt",
        "paramcheck: 1 unused manifest (delete it if no test needs it):",
        f"  {FOLDER}/test_sizes-big.txt",
    ]


@pytest.mark.slow
def test_what_is_not_due_and_what_is_not_ours(run: Run, models: str) -> None:
    """Nothing is due where all tests say "!meta"; one warning; an id as an argument."""
    source = """
    import pytest
    @pytest.mark.params(devices=["!meta"])
    def test_values(): pass
    @pytest.mark.params(n_coins=4)
    def test_theirs(): pass
    @pytest.mark.params([1, 2])
    def test_theirs_too(): pass
    @pytest.mark.parametrize("i", [0, pytest.param(1, marks=pytest.mark.params(devices="!meta"))])
    @pytest.mark.params(devices="cpu")
    def test_sets(i, param_device): pass
    """
    once = ("-W", "default::pytest_paramcheck.ParamCheckWarning")
    model = (f"--param-model={models}:make", f"{models}:make::check_finite[cpu]", "test_it.py")
    result = run(source, *model, "--param-device=cpu,meta", *once, *WORKERS)

    result.assert_outcomes(passed=6, warnings=1)
    assert (result.ret, error_lines(result)) == (pytest.ExitCode.OK, [])
    whole = run("", "test_it.py", "--param-device=cpu,meta", *once, *WORKERS)
    whole.assert_outcomes(passed=5, warnings=1)
    assert whole.ret == pytest.ExitCode.TESTS_FAILED
    assert error_lines(whole) == ["ERROR: --param-device=meta: none of the 1 marked test ran on it"]


@pytest.mark.slow
def test_all_skipped_on_an_asked_device_fails_the_run(run: Run) -> None:
    result = run(ALL_SKIPPED, "--param-device=cpu", "--param-device=meta", *WORKERS)

    assert result.ret == pytest.ExitCode.TESTS_FAILED
    assert error_lines(result) == [
        "ERROR: --param-device=meta: none of the 2 marked tests ran on it (1 skipped: needs values)"
    ]


@pytest.mark.slow
def test_a_model_that_is_named_leaves_the_tests_alone(
    run: Run, models: str, pytester: pytest.Pytester
) -> None:
    """And what ``-k`` left out does not fail the run: nothing was asked of meta."""
    pytester.makepyfile(test_own="def test_own(): pass")
    pytester.makeini("[pytest]\ntestpaths = .")

    select = ("--param-device=meta,cpu", "-k", "cpu and check_finite or own")
    result = run("", f"--param-model={models}:make", *select, *WORKERS)
    result.assert_outcomes(passed=1)
    assert result.ret == pytest.ExitCode.OK
    assert error_lines(result) == []


@pytest.mark.slow
def test_what_fails_and_what_was_expected_to(run: Run, models: str) -> None:
    """An expected failure is strict both ways; one line per model, whoever declared it."""
    result = run(EXPECTED, f"--param-model={models}:broken", ".", "-rxf", "-k", "regist", *WORKERS)

    result.assert_outcomes(xfailed=1, failed=2)
    assert any(
        line.startswith("XFAIL test_it.py::test_parameters[broken-check_registered] - issue 7")
        for line in result.outlines
    )
    assert "[XPASS(strict)] issue 7" in result.outlines
    assert sorted(line for line in result.outlines if "checks failed" in line) == [
        f"broken ({models}:broken): 1 of 1 checks failed: check_registered",
        "make: 1 of 1 checks failed: check_registered",
    ]
