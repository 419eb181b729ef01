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


def test_every_problem_that_the_package_can_report_is_in_the_gallery() -> None:
    errors = [failure.error() for failure in FAILURES]
    for bug in BUGS:
        with pytest.raises(ParamCheckError) as caught:
            bug.run(planted=True)
        errors.append(caught.value)
    shown = {finding.problem for error in errors for finding in error.findings}

    known = [problem for problem in problems() if problem.strip("*")]
    assert len(known) > 150
    # Each of these wants a planted bug, or a call in tests/failures.
    assert [p for p in known if not any(matches(p, problem) for problem in shown)] == []
    # The reader of the code misses only what conditions of values say themselves.
    unread = {p for p in shown if not any(matches(problem, p) for problem in known)}
    assert unread <= {"norm is not 1", "not positive"}
