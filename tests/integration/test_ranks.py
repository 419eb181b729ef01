"""Tests marked ``ranks=``: their ids, what is chosen, what is wrong, and one run on real ranks."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable

import pytest

from .conftest import Run

TWO = """
    import pytest
    @pytest.mark.params(ranks=2)
    def test_a(): pass
    @pytest.mark.params(ranks=[4, 2, 4], dtypes=["float32", "float64"])
    def test_b(): pass
    @pytest.mark.params
    def test_c(): pass
"""


def test_ids(ids: Callable[..., list[str]]) -> None:
    assert ids(TWO) == [
        "test_a[cpu-2ranks]",
        "test_b[cpu-float32-4ranks]",
        "test_b[cpu-float32-2ranks]",
        "test_b[cpu-float64-4ranks]",
        "test_b[cpu-float64-2ranks]",
        "test_c[cpu]",
    ]
    assert ids("", "--param-ranks=4,8") == [
        "test_a[cpu-2ranks]",
        "test_b[cpu-float32-4ranks]",
        "test_b[cpu-float64-4ranks]",
        "test_c[cpu]",
    ]
    assert ids("import pytest\n@pytest.mark.params(ranks=1)\ndef test_a(): pass") == [
        "test_a[cpu-1rank]"
    ]


def test_the_closest_that_names_ranks_decides(ids: Callable[..., list[str]]) -> None:
    source = """
    import pytest
    pytestmark = pytest.mark.params(ranks=2)
    @pytest.mark.params(dtypes="float64")
    def test_a(): pass
    @pytest.mark.params(ranks=None)
    def test_b(): pass
    @pytest.mark.parametrize("x", [1, pytest.param(2, marks=pytest.mark.params(ranks=[3]))])
    def test_c(x): pass
    """
    assert ids(source) == [
        "test_a[cpu-float64-2ranks]",
        "test_b[cpu]",
        "test_c[cpu-2ranks-1]",
        "test_c[cpu-3ranks-2]",
    ]


VALID = "it is a whole number from 1 to 4096, or a list of them"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("True", f"True is not a number of ranks; {VALID}"),
        ("'2'", f"'2' is not a number of ranks; {VALID}"),
        ("0", f"0 is not a number of ranks; {VALID}"),
        ("2.0", f"2.0 is not a number of ranks; {VALID}"),
        ("[2, -1]", f"-1 is not a number of ranks; {VALID}"),
        ("[]", f"names no number; {VALID}"),
    ],
)
def test_a_wrong_number_is_an_error_of_the_collection(run: Run, value: str, text: str) -> None:
    result = run(f"import pytest\n@pytest.mark.params(ranks={value})\ndef test_a(): pass", "-q")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert f"test_it.py::test_a: @pytest.mark.params(ranks={value}): {text}" in result.outlines


def test_a_device_by_its_index_is_none_for_two_ranks(run: Run) -> None:
    source = "import pytest\n@pytest.mark.params(devices='cuda:1', ranks=2)\ndef test_a(): pass"
    result = run(source, "-q")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert (
        "test_it.py::test_a: @pytest.mark.params: 'cuda:1' is one device, and ranks=2 needs one "
        "for each: name 'cuda'"
    ) in result.outlines


OPTION = "it is a whole number from 1 to 4096, or several with commas between"


@pytest.mark.parametrize(
    ("args", "text"),
    [
        (
            ["--param-ranks=two"],
            f"--param-ranks (command line): 'two' is not a number of ranks; {OPTION}",
        ),
        (
            ["--param-ranks=2,0"],
            f"--param-ranks (command line): '0' is not a number of ranks; {OPTION}",
        ),
        (["--param-ranks="], f"--param-ranks (command line): names no number; {OPTION}"),
        (["-o", "param_ranks=-1"], f"param_ranks (ini): '-1' is not a number of ranks; {OPTION}"),
        (
            ["--param-rank-timeout=0"],
            "--param-rank-timeout (command line): '0' is not a time limit; it is a positive "
            "number of seconds",
        ),
        (
            ["-o", "param_rank_timeout=nan"],
            "param_rank_timeout (ini): 'nan' is not a time limit; it is a positive number of "
            "seconds",
        ),
    ],
)
def test_a_wrong_option_is_one_line(run: Run, args: list[str], text: str) -> None:
    result = run(TWO, *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line] == [f"ERROR: {text}"]


def test_two_ranks_on_a_device_by_its_index_is_one_line(run: Run, two_cards: None) -> None:
    result = run(TWO, "--param-device=cuda:1", "--param-ranks=2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert [line for line in result.errlines if line] == [
        "ERROR: --param-device=cuda:1 --param-ranks=2: a test that runs on 2 ranks; cuda:1 is one "
        "device"
    ]


@pytest.mark.parametrize(
    ("args", "reasons"),
    [
        (
            ["-o", "param_ranks=8"],
            ["runs on 2 ranks; chosen: 8", *["runs on 4 or 2 ranks; chosen: 8"] * 4],
        ),
        (
            ["--param-device=cuda:1"],
            [f"runs on {n} ranks; cuda:1 is one device" for n in (2, 4, 2, 4, 2)],
        ),
    ],
)
def test_what_was_not_chosen_is_skipped_with_its_id(
    run: Run, two_cards: None, args: list[str], reasons: list[str]
) -> None:
    result = run(TWO, *args, "-v", "-rs")
    result.assert_outcomes(passed=1, skipped=5)
    for reason in reasons:
        assert any(line.endswith(f": {reason}") for line in result.outlines), reason


def test_a_test_case_cannot_run_on_ranks(run: Run) -> None:
    source = """
    import unittest, pytest
    @pytest.mark.params(ranks=2)
    class TestIt(unittest.TestCase):
        def test_a(self): pass
    """
    result = run(source)
    result.assert_outcomes(errors=1)
    assert "unittest.TestCase cannot run on ranks: make it a plain class" in result.outlines


@pytest.mark.parametrize("how", ["--collect-only", "--setup-plan", "--setup-only"])
def test_what_runs_no_test_starts_no_process(
    run: Run, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    from pytest_paramcheck.plugin.ranks import pools

    monkeypatch.delattr(pools, "Pool")
    source = """
    import pytest
    @pytest.fixture
    def folder(): raise RuntimeError("nothing is set up here")
    @pytest.mark.params(ranks=2)
    def test_a(folder): pass
    """
    assert run(source, how).ret == pytest.ExitCode.OK


@pytest.mark.slow  # loads torch in a process of its own
def test_a_run_without_ranks_loads_nothing_for_them(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys, threading, pytest
        @pytest.mark.params
        def test_a():
            folder = "pytest_paramcheck.plugin.ranks."
            ours = [name for name in sys.modules if name.startswith(folder)]
            assert ours == [folder + "here"]
            assert threading.active_count() == 1
        """
    )
    run = subprocess.run(
        [
            sys.executable,
            "-m",
            "pytest",
            "-q",
            "-p",
            "no:hypothesispytest",
            "-p",
            "no:cacheprovider",
        ],
        cwd=pytester.path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr


def test_on_two_real_ranks(run: Run, pytester: pytest.Pytester) -> None:
    """Everyday's one run on real ranks: what they share, what fails, and what this process sees."""
    source = """
    import os
    import pytest, torch, torch.distributed as dist
    @pytest.fixture(scope="module")
    def built(): return [dist.get_rank()]
    @pytest.mark.params(ranks=2)
    def test_a(built):
        sum_of = torch.tensor([dist.get_rank() + 1.0])
        dist.all_reduce(sum_of)
        assert sum_of.item() == 3 and built == [dist.get_rank()] and not built.append(1)
    @pytest.mark.params(ranks=2)
    def test_b(built, assert_tied):
        linear = torch.nn.Linear(2, 2)
        assert built[1:] == [1]
        if dist.get_rank() == 1:
            assert_tied(linear.weight, linear.bias)
    def test_c():
        assert not dist.is_initialized() and "RANK" not in os.environ
    """
    result = run(source, "--param-ranks=2")
    result.assert_outcomes(passed=2, failed=1)
    assert [line for line in result.outlines if line.startswith("FAILED")] == [
        "FAILED test_it.py::test_b[cpu-2ranks] - [rank 1] ParamCheckError: not tied: #1, #2"
    ]


ASKED = (
    "ERROR: --param-ranks=8: none of the 5 marked tests ran on it (4 skipped: runs on 4 or 2 "
    "ranks; chosen: 8; 1 skipped: runs on 2 ranks; chosen: 8)"
)


@pytest.mark.parametrize(
    ("source", "args", "code"),
    [
        (TWO, ["--param-ranks=8"], 1),
        (TWO, ["--param-ranks=8", "-k", "test_c"], 0),  # by the user, on purpose
        ("def test_a(): pass", ["--param-ranks=8"], 0),  # none is due
        (TWO, ["-o", "param_ranks=8"], 0),
    ],
)
def test_a_number_that_was_asked_for_has_to_be_tested(
    run: Run, source: str, args: list[str], code: int
) -> None:
    result = run(source, *args)
    assert result.ret == code
    assert [line for line in result.outlines if line.startswith("ERROR")] == [ASKED][: int(code)]


TORCHRUN = {
    "TORCHELASTIC_RUN_ID": "none",
    "RANK": "0",
    "WORLD_SIZE": "3",
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "1",
}


def test_torchrun_has_chosen_the_number(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    result = run(TWO, "-rs")
    result.assert_outcomes(passed=1, skipped=5)
    for reason in ("runs on 2 ranks", "runs on 4 or 2 ranks"):
        assert any(line.endswith(f": {reason}; torchrun started 3") for line in result.outlines)
    assert any(
        line.startswith("ERROR: torchrun --nproc-per-node=3: none of the 5 marked tests ran on it")
        for line in result.outlines
    )


@pytest.mark.parametrize(
    ("args", "text"),
    [
        ("--param-ranks=2", "--param-ranks=2: torchrun started 3"),
        ("-n2", "-n: torchrun starts the processes; run pytest without -n"),
    ],
)
def test_what_torchrun_does_not_go_together_with(
    run: Run, monkeypatch: pytest.MonkeyPatch, args: str, text: str
) -> None:
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    result = run(TWO, args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {text}" in result.errlines


@pytest.mark.parametrize("missing", TORCHRUN)
def test_what_others_leave_behind_is_not_torchrun(missing: str) -> None:
    """Containers and schedulers set a RANK or a WORLD_SIZE: reading those would hang the run."""
    from pytest_paramcheck.plugin.ranks.here import launched

    here = launched(TORCHRUN)
    assert here is not None
    assert (here.rank, here.ranks) == (0, 3)
    assert launched({**TORCHRUN, missing: ""}) is None
    assert launched({name: v for name, v in TORCHRUN.items() if name != missing}) is None
