"""Every planted bug is caught and named, every clean twin passes the very same check."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_paramcheck import CHECKS, ParamCheckError

from ..failures import Failure, failures
from ..gallery import gallery, torch_line
from ..problems import matches, problems
from ..public import ASSERTIONS
from . import PlantedBug, markdown, planted_bugs
from .causes import CAUSES

BUGS = planted_bugs()
DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLE = DOCS / "planted_bugs.md"
GALLERY = DOCS / "gallery.md"

FAILURES = failures()
each = pytest.mark.parametrize("bug", [pytest.param(b, id=b.id) for b in BUGS])


@each
def test_the_planted_bug_is_caught_and_the_first_line_names_the_parameter(
    bug: PlantedBug,
) -> None:
    with pytest.raises(ParamCheckError) as caught:
        bug.run(planted=True)
    first = str(caught.value).splitlines()[0]
    # Whole words: "w" is no name in "wrong shape".
    named = {word.strip(",;:()") for word in first.split()}
    assert bug.names
    assert set(bug.names) <= named, first


@each
def test_the_clean_twin_passes_the_same_check(bug: PlantedBug) -> None:
    bug.run(planted=False)


def test_there_are_at_least_130_bugs_of_different_classes() -> None:
    assert len({b.title for b in BUGS}) == len({b.id for b in BUGS}) == len(BUGS)
    assert len(BUGS) >= 130


def test_what_catches_is_public() -> None:
    assert {b.catch.name for b in BUGS} <= {*CHECKS, *ASSERTIONS}


def test_the_committed_table_is_what_the_command_prints() -> None:
    assert TABLE.read_text(encoding="utf-8") == markdown()


def test_the_committed_gallery_is_what_the_command_prints() -> None:
    committed = GALLERY.read_text(encoding="utf-8")
    if torch_line() not in committed:
        pytest.skip("the gallery was written with another torch")
    assert committed == gallery()


@pytest.mark.parametrize(
    "failure", [pytest.param(f, id=f"{f.family}-{f.call.__name__}") for f in FAILURES]
)
def test_a_failure_of_the_gallery_fails(failure: Failure) -> None:
    assert failure.by in {*CHECKS, *ASSERTIONS}
    assert failure.error().findings


@pytest.mark.slow  # reads the whole package and runs every failure
def test_every_problem_that_the_package_can_report_is_in_the_gallery() -> None:
    errors = [(failure.by, failure.error()) for failure in FAILURES]
    for bug in BUGS:
        with pytest.raises(ParamCheckError) as caught:
            bug.run(planted=True)
        errors.append((bug.catch.name, caught.value))
    shown = {finding.problem: by for by, error in errors for finding in error.findings}

    known = [problem for problem in problems() if problem.strip("*")]
    assert len(known) > 150
    # Each of these wants a planted bug, or a call in tests/failures.
    assert [p for p in known if not any(matches(p, problem) for problem in shown)] == []
    # The reader of the code misses nothing but what conditions of values say themselves.
    conditions = ("assert_values", "check_values", "check_training_step")
    unread = [p for p in shown if not any(matches(problem, p) for problem in known)]
    assert [p for p in unread if shown[p] not in conditions] == []


def test_most_messages_state_the_cause_of_their_bug() -> None:
    assert CAUSES.keys() <= {bug.id for bug in BUGS}
    silent = []
    for bug in BUGS:
        text = " ".join(bug.message().partition("\n")[2].split())
        words = CAUSES.get(bug.id, ())
        if not words or not all(word in text for word in words):
            silent.append(bug.id)
    assert len(silent) <= 0.15 * len(BUGS), silent
    # What has words says them: a cause that is no longer stated is noticed.
    assert [one for one in silent if one in CAUSES] == []


def test_no_line_is_wider_than_120_columns_and_none_has_more_than_30() -> None:
    # The committed gallery is what they print now, which has a test of its own; where it puts
    # "..." for a number, a line may have been shorter.
    texts = GALLERY.read_text(encoding="utf-8").split("```text\n")[1:]
    blocks = [text.partition("\n```")[0].splitlines() for text in texts]
    assert len(blocks) == len(BUGS) + len(FAILURES)
    assert max(map(len, blocks)) <= 30
    wide = [line for block in blocks for line in block if len(line) > 120]
    assert [line for line in wide if "max rel ..." not in line] == []
