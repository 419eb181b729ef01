"""What the user reads when ranks fail: one run with every kind, each on its whole text."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .running import Ran, run
from .suites import FAILING, FAILING_COUNTS

#: Enough for what does end, on a busy machine.
LIMIT = "6"


STARTING = """
import os, pytest
if os.environ.get("RANK") == "1":
    os._exit(7)
@pytest.mark.params(ranks=3)
def test_on_three(): pass
def test_beside_it(): pass
"""
IMPORTING = """
import os, pytest
if os.environ.get("RANK") == "1":
    raise ImportError("not on rank 1")
@pytest.mark.params(ranks=4)
def test_on_four(): pass
"""
SUBTESTS = """
import os, pytest
R = int(os.environ.get("RANK", -1))
@pytest.mark.params(ranks=2)
def test_subtests(subtests):
    for i in range(3):
        with subtests.test(i=i):
            found = i * R
            assert found == 0
@pytest.mark.params(ranks=2)
def test_subtests_alike(subtests):
    with subtests.test():
        assert False
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Ran:
    folder = tmp_path_factory.mktemp("failing")
    # Those that cannot start have ranks of their own, by their number.
    others = {"test_start": STARTING, "test_import": IMPORTING}
    if pytest.version_tuple >= (9,):
        others["test_subtests"] = SUBTESTS
    return run(folder, f"--param-rank-timeout={LIMIT}", test_it=FAILING, **others)


def test_how_many(ran: Ran) -> None:
    assert ran.outcomes("test_it.py") == FAILING_COUNTS, ran.out
    assert ran.left == []


def line_of(text: str) -> int:
    """The line of the file in which a text stands."""
    return FAILING[: FAILING.index(text)].count("\n") + 1


HANGS = line_of("        time.sleep(1000)")
RULE = "what is collected must not depend on the rank"
#: Test -> the phase that failed, what stands in the short summary, the lines it shows of its own.
TEXTS = {
    "test_every_rank": ("call", "[every rank] assert 2 == 3", ""),
    "test_killed": (
        "call",
        None,
        "rank 1 was killed by SIGKILL\nrank 0, later: RuntimeError: *",
    ),
    "test_exits": (
        "call",
        None,
        "rank 1 exited with code 3\nrank 0 passed",
    ),
    "test_hangs": (
        "call",
        None,
        f"rank 1 did not finish in {LIMIT} s, at test_it.py:{HANGS} in test_hangs\n"
        f"rank 0 did not finish in {LIMIT} s, at test_it.py:{HANGS + 1} in test_hangs, in a "
        f"collective (barrier)",
    ),
    "test_skips_on_one": (
        "call",
        None,
        "ranks disagree: rank 1 skipped (rank 1 only), rank 0 ran",
    ),
    "test_xfail_killed": ("call", None, "rank 1 was killed by SIGKILL\nrank 0 passed"),
    "test_leaves_the_session": (
        "call",
        None,
        "rank 1 ended its session: _pytest.outcomes.Exit: enough\nrank 0 passed",
    ),
    "test_setup": ("setup", "[rank 1] RuntimeError: setup of rank 1", "passed"),
    "test_skips_in_setup_on_one": (
        "setup",
        None,
        "ranks disagree: rank 1 skipped (rank 1 only), rank 0 ran",
    ),
    "test_teardown": ("teardown", "[rank 0] RuntimeError: teardown of rank 0", "passed"),
    "test_xfail_other_error": ("call", "[rank 0] KeyError: 'not this one'", ""),
    "test_breakpoint": (
        "call",
        "[every rank] RuntimeError: a rank has no terminal: run pytest --pdb, it makes rank 0 "
        "this process",
        "",
    ),
}


@pytest.mark.parametrize("name", TEXTS)
def test_text(ran: Ran, name: str) -> None:
    phase, summary, text = TEXTS[name]
    report = ran.of(f"{name}[cpu-2ranks]")[phase]

    assert report["outcome"] == "failed"
    if summary is None:
        lines = text.split("\n")
        assert report["summary"].partition("\n")[0] == lines[0]
        shown = report["text"].split("\n")
        assert len(shown) == len(lines)
        for found, wanted in zip(shown, lines, strict=True):
            if wanted.endswith("*"):
                assert found.startswith(wanted[:-1])
            else:
                assert found == wanted
    else:
        assert report["summary"].partition("\n")[0] == summary
        assert report["text"].rstrip().endswith(text)


def test_one_sided(ran: Ran) -> None:
    report = ran.of("test_one_raises_other_waits[cpu-2ranks]")["call"]
    line = line_of('    assert R != 1, "only rank 1 is wrong"')

    assert report["summary"].startswith("[rank 1] AssertionError: only rank 1 is wrong\n")
    text = re.sub(r"_{3,} (.*) _{3,}", r"___ \1 ___", report["text"])
    assert text.endswith(
        f"test_it.py:{line}: AssertionError\n"
        f"___ rank 0 of 2 ___\n"
        f"was stopped 2 s after another rank failed, at test_it.py:{line + 1} in "
        f"test_one_raises_other_waits, in a collective (barrier)"
    )
    assert report["sections"] == [
        ["Captured stdout call (rank 1)", "hello from 1\n"],
        ["Captured stdout (rank 0)", "hello from 0\n"],
    ]


def test_two_errors(ran: Ran) -> None:
    """The earlier one is the failure, the other is shown whole below it."""
    report = ran.of("test_two_errors[cpu-2ranks]")["call"]

    assert report["summary"] == "[rank 1] ValueError: of rank 1"
    text = re.sub(r"_{3,} (.*) _{3,}", r"___ \1 ___", report["text"])
    own, _, other = text.partition("\n___ rank 0 of 2, later ___\n")
    assert own.endswith(": ValueError")
    assert "KeyError: 'of rank 0'" in other


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("0", f"rank 1 alone collected test_it.py::test_depends_on_the_rank[cpu-2ranks-2]: {RULE}"),
        ("2", f"rank 0 did not collect this test, rank 1 did: {RULE}"),
    ],
)
def test_ranks_that_collect_other_tests(ran: Ran, name: str, text: str) -> None:
    assert ran.failure(f"test_depends_on_the_rank[cpu-2ranks-{name}]") == text


def test_skips_and_xfails(ran: Ran) -> None:
    assert ran.of("test_skips[cpu-2ranks]")["call"]["text"].endswith("'Skipped: not here')")
    assert [*ran.of("test_skipif[cpu-2ranks]")] == ["setup", "teardown"]
    for name in ("test_xfail", "test_xfail_while_other_waits"):
        assert ran.of(f"{name}[cpu-2ranks]")["call"]["xfail"] == "known"
    assert ran.failure("test_xpass[cpu-2ranks]") == "[XPASS(strict)] known"


def test_the_last_words_of_a_rank_that_died(tmp_path: Path) -> None:
    source = """
    import os, pytest
    @pytest.mark.params(ranks=2)
    def test_a():
        if os.environ["RANK"] == "1":
            os.write(1, b"last words\\n")
            os._exit(1)
    """
    ran = run(tmp_path, "--capture=sys", test_it=source)

    assert ran.failure("test_a[cpu-2ranks]") == (
        "rank 1 exited with code 1\nrank 0 passed\n--- last output of rank 1\nlast words"
    )


def test_a_rank_that_cannot_start(ran: Ran) -> None:
    assert ran.failure("test_on_three[cpu-3ranks]") == "rank 1 exited with code 7"
    assert ran.of("test_beside_it")["call"]["outcome"] == "passed"


def test_a_rank_whose_file_cannot_be_imported(ran: Ran) -> None:
    text = ran.failure("test_on_four[cpu-4ranks]")
    lacks = f"rank 1 did not collect this test, ranks 0,2,3 did: {RULE}\n--- rank 1\n"
    assert text.startswith(lacks)
    assert text.endswith("ImportError: not on rank 1")


@pytest.mark.skipif(pytest.version_tuple < (9,), reason="pytest has no subtests")
def test_subtests(ran: Ran) -> None:
    """pytest counts their failures in another process than the one that shows them."""
    some, every = (ran.of(f"test_subtests{name}[cpu-2ranks]")["call"] for name in ("", "_alike"))

    assert some["text"].startswith("[rank 1] contains 2 failed subtests\n___ ")
    assert [line for line in some["text"].split("\n") if line.startswith("E  ")] == [
        "E               assert 1 == 0",
        "E               assert 2 == 0",
    ]
    assert every["text"].startswith("[every rank] contains 1 failed subtest\n___ ")
