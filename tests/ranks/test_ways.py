"""Every way in which pytest runs tests on ranks: workers, torchrun, a debugger, options."""

from __future__ import annotations

import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

from .running import Ran, Running, run, write
from .suites import FAILING, FAILING_COUNTS, HEAD, PASSING, PASSING_COUNT


def test_workers(tmp_path: Path) -> None:
    """As in one process; what is built for a session is built once on each worker's ranks."""
    ran = run(tmp_path, "-n", "2", "--dist=loadfile", test_one=PASSING, test_two=PASSING)

    assert ran.outcomes() == {"passed": 2 * PASSING_COUNT}, ran.out
    assert (ran.code, ran.left) == (0, [])


def test_failures_in_workers(tmp_path: Path) -> None:
    ran = run(tmp_path, "-n", "2", "--param-rank-timeout=6", test_it=FAILING)

    assert ran.outcomes() == FAILING_COUNTS, ran.out
    assert ran.left == []


def test_each_rank_started_anew(tmp_path: Path) -> None:
    """Where processes are not forked from one that has loaded torch."""
    conftest = """
import multiprocessing
if "RANK" not in os.environ:
    multiprocessing.get_all_start_methods = lambda: ["spawn"]
"""
    ran = run(tmp_path, conftest=conftest, test_it=PASSING)

    assert ran.outcomes() == {"passed": PASSING_COUNT}, ran.out
    assert (ran.code, ran.left) == (0, [])


def test_what_is_shown_with_no_capturing(tmp_path: Path) -> None:
    source = HEAD + "def test_a():\n    print('out', R)\n    os.system('echo from a child')\n"
    ran = run(tmp_path, "-s", "--param-ranks=2", test_it=source)

    assert (ran.code, ran.left) == (0, [])
    for rank in (0, 1):
        assert re.search(rf"\[rank {rank}\] out {rank}\n", ran.out)
        assert f"[rank {rank}] from a child\n" in ran.out


def test_last_failed_junit_and_durations(tmp_path: Path) -> None:
    source = HEAD + (
        "def test_a(record_property):\n"
        "    record_property('of', 'rank %d' % R)\n"
        "    time.sleep(0.3 * R)\n"
        "def test_b(): assert R != 1\n"
    )
    write(tmp_path, test_it=source)
    args = ["--junitxml=out.xml", "--durations=1", "--lf"]
    first = Running(tmp_path, args).end()
    cases = list(ElementTree.parse(tmp_path / "out.xml").iter("testcase"))
    (tmp_path / "recorded" / "reports").unlink()
    second = Running(tmp_path, args).end()

    assert first.outcomes() == {"passed": 1, "failed": 1}
    assert (first.left, second.left) == ([], [])
    assert {case.get("name"): case.find("failure") is not None for case in cases} == {
        "test_a[cpu-2ranks]": False,
        "test_b[cpu-2ranks]": True,
    }
    properties = {p.get("name"): p.get("value") for p in cases[0].iter("property")}
    assert properties == {"param_device": "cpu", "param_ranks": "2", "of": "rank 0"}
    assert re.search(r"0\.[3-9]\ds call +test_it.py::test_a", first.out)
    assert {report["id"] for report in second.reports} == {"test_b[cpu-2ranks]"}


def test_options_plugins_and_ini_reach_the_ranks(tmp_path: Path) -> None:
    """By whatever way they reach pytest; what is written down is written by pytest alone."""
    plugin = """
    import pytest
    def pytest_addoption(parser):
        parser.addoption("--mine", default="none")
        parser.addini("words", "of ours", type="args")
    @pytest.fixture
    def mine(request): return request.config.getoption("--mine")
    """
    source = HEAD + (
        "import warnings, tools_of_mine\n"
        "def test_a(mine, request, tmp_path):\n"
        "    warnings.warn('said on each rank')\n"
        "    assert mine == 'given' and request.config.getini('words') == ['a', 'b']\n"
        "    assert request.config.getini('log_level') == 'INFO'\n"
        "    assert request.config.rootpath.name == request.config.invocation_params.dir.name\n"
        "    assert os.getcwd() == str(request.config.invocation_params.dir)\n"
        "    assert request.config.getoption('verbose') == 2\n"
        "    assert request.config.getoption('importmode') == 'importlib'\n"
        "def test_b():\n"
        "    with pytest.raises(DeprecationWarning):\n"
        "        warnings.warn('old', DeprecationWarning)\n"
    )
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "tools_of_mine.py").touch()
    (tmp_path / "pytest.ini").write_text(
        "[pytest]\npythonpath = lib\nwords = a b\nlog_file = log.txt\nparam_ranks = 2\n"
        "addopts = -p my_plugin -vv --import-mode=importlib -W error::DeprecationWarning\n",
        encoding="utf-8",
    )
    ran = run(
        tmp_path,
        *("--mine=given", "-o", "log_level=INFO", "-k", "not nothing", "test_it.py"),
        environment={"PYTHONPATH": f"{tmp_path}:{Path(__file__).parents[2]}"},
        my_plugin=plugin,
        test_it=source,
    )

    assert ran.outcomes() == {"passed": 2}, ran.out
    assert ran.out.count("UserWarning: said on each rank") == 1


def test_what_ranks_select_differently_is_said_once(tmp_path: Path) -> None:
    source = HEAD + (
        "def test_a(): pass\ndef test_b(): pass\nif R == 1:\n    def test_only_there(): pass\n"
    )
    ran = run(tmp_path, "-k", "test_a or test_b", test_it=source)

    assert ran.outcomes() == {"passed": 2}
    said = "rank 1 alone collected test_it.py::test_only_there: what is collected must not depend"
    assert ran.out.count(said) == 1


# -- a debugger ----------------------------------------------------------------------------------

DEBUGGED = HEAD + (
    "def test_here():\n"
    "    secret = torch.ones(1)\n"
    "    dist.all_reduce(secret)\n"
    "    secret = int(secret)\n"
    "    assert dist.get_rank() == 1\n"
    "    dist.barrier()\n"
    "def test_there():\n"
    "    dist.barrier()\n"
    "    assert dist.get_rank() == 0, 'rank 1 is wrong'\n"
    "def test_fine(tmp_path): dist.barrier()\n"
    "@pytest.mark.params(ranks=1)\n"
    "def test_alone(): assert dist.get_world_size() == 1\n"
    "@pytest.mark.params(ranks=None)\n"
    "def test_plain(): assert not dist.is_initialized() and 'RANK' not in os.environ\n"
)


DEBUGGING = "p ('secret', secret)\nc\n"


def test_a_debugger(tmp_path: Path) -> None:
    """It opens in this process, which is rank 0; what other ranks say is in the teardown."""
    write(tmp_path, test_it=DEBUGGED)
    running = Running(tmp_path, ["--pdb", "-ra", "-p", "no:cacheprovider"], says=DEBUGGING)
    ran = running.end()
    assert "('secret', 2)" in ran.out, ran.out
    assert ran.out.count("entering PDB") == 1
    assert ran.left == []
    lines = ran.out.splitlines()
    assert "FAILED test_it.py::test_here[cpu-2ranks] - assert 0 == 1" in lines
    assert (
        "ERROR test_it.py::test_there[cpu-2ranks] - rank 1 failed: AssertionError: rank 1 is wrong"
    ) in lines
    assert "1 failed, 4 passed, 1 error in" in lines[-1]


# -- torchrun ------------------------------------------------------------------------------------

LAUNCHED = HEAD + (
    "def test_ok(tmp_path): dist.barrier()\n"
    "def test_one_sided():\n"
    "    assert R != 1, 'only rank 1 is wrong'\n"
    "    dist.barrier()\n"
    "def test_after(): dist.barrier()\n"
    "@pytest.mark.params(ranks=3)\n"
    "def test_three(): pass\n"
    "@pytest.fixture\n"
    "def broken():\n"
    "    if R == 1: raise RuntimeError('setup of rank 1')\n"
    "def test_setup(broken): dist.barrier()\n"
    "def test_skips_on_one():\n"
    "    if R == 1: pytest.skip('on 1')\n"
    "    dist.barrier()\n"
    "def test_skips(): pytest.skip('on all')\n"
    "@pytest.mark.xfail(reason='known')\n"
    "def test_xfail():\n"
    "    assert R == 0\n"
    "    dist.barrier()\n"
    "@pytest.mark.parametrize('x', range(R + 2 if R >= 0 else 3))\n"
    "def test_depends_on_the_rank(x): pass\n"
    "@pytest.mark.params(ranks=None)\n"
    "def test_own():\n"
    "    dist.init_process_group('gloo')\n"
    "    dist.barrier()\n"
    "    dist.destroy_process_group()\n"
    "def test_leaves_the_session():\n"
    "    if R == 1: pytest.exit('enough')\n"
    "def test_not_reached(): pass\n"
)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("launched")
    write(folder, test_it=LAUNCHED)
    command = ["--standalone", "--nproc-per-node=2", "--local-ranks-filter=0", "-m", "pytest"]
    args = ["-p", "no:cacheprovider", "-ra", "--param-rank-timeout=20"]
    args += ["--junitxml=out.xml", f"--basetemp={folder / 'temporary'}"]
    torchrun = (sys.executable, "-m", "torch.distributed.run", *command)
    return Running(folder, args, command=torchrun).end()


def test_torchrun(launched: Ran) -> None:
    """Every rank says the same of every test with ranks."""
    by_rank: dict[bool, list[tuple[str, str, str]]] = {True: [], False: []}
    first = len([r for r in launched.reports if r["id"] == "test_ok[cpu-2ranks]"]) // 2
    assert first == 3  # set-up, call, teardown of each
    half = [
        report
        for report in launched.reports
        if report["when"] == "call" and not re.search(r"rank\[|leaves", report["id"])
    ]
    for number, report in enumerate(half):
        said = (report["id"], report["outcome"], report["summary"] or "")
        by_rank[number < len(half) // 2].append(said)
    assert by_rank[True] == by_rank[False]
    outcomes = {name.partition("[")[0]: outcome for name, outcome, _ in by_rank[True]}
    assert outcomes == {
        "test_ok": "passed",
        "test_one_sided": "failed",
        "test_after": "passed",
        "test_skips_on_one": "failed",
        "test_skips": "skipped",
        "test_xfail": "skipped",
        "test_own": "passed",
    }, launched.out
    assert launched.left == []


def test_what_torchrun_writes(launched: Ran) -> None:
    """One file of results, of rank 0, and temporary folders of each rank's own."""
    cases = list(ElementTree.parse(launched.folder / "out.xml").iter("testcase"))
    failed = [case.get("name") for case in cases if case.find("failure") is not None]
    assert failed[:2] == ["test_one_sided[cpu-2ranks]", "test_skips_on_one[cpu-2ranks]"]
    assert (launched.folder / "temporary").is_dir()
    assert (launched.folder / "temporary-rank1").is_dir()


@pytest.mark.parametrize(
    "line",
    [
        "FAILED test_it.py::test_one_sided[cpu-2ranks] - [rank 1] AssertionError: only rank 1 is "
        "wrong",
        "FAILED test_it.py::test_skips_on_one[cpu-2ranks] - ranks disagree: rank 1 skipped (on 1), "
        "rank 0 ran",
        "ERROR test_it.py::test_setup[cpu-2ranks] - [rank 1] RuntimeError: setup of rank 1",
        "FAILED test_it.py::test_leaves_the_session[cpu-2ranks] - rank 1 ended its session: "
        "_pytest.outcomes.Exit: enough",
        "XFAIL test_it.py::test_xfail[cpu-2ranks] - known",
    ],
)
def test_what_torchrun_shows(launched: Ran, line: str) -> None:
    assert line in launched.out.splitlines(), launched.out


def test_what_torchrun_did_not_collect_alike(launched: Ran) -> None:
    assert "runs on 3 ranks; torchrun started 2" in launched.out
    assert (
        "rank 1 alone collected test_it.py::test_depends_on_the_rank[cpu-2ranks-2]"
    ) in launched.out
