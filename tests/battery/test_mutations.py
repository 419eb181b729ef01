"""Every planted bug is caught and named, every clean twin passes the very same check."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_paramcheck import CHECKS, ParamCheckError
from pytest_paramcheck.catalogue import ASSERTIONS

from .mutations import MUTATIONS, Mutation, markdown

TABLE = Path(__file__).resolve().parents[2] / "docs" / "mutations.md"

each = pytest.mark.parametrize("mutation", [pytest.param(m, id=m.id) for m in MUTATIONS])


@each
def test_the_planted_bug_is_caught_and_the_first_line_names_the_parameter(
    mutation: Mutation,
) -> None:
    with pytest.raises(ParamCheckError) as caught:
        mutation.run(planted=True)
    first = str(caught.value).splitlines()[0]
    # Whole words: "w" is no name in "wrong shape".
    named = {word.strip(",;:()") for word in first.split()}
    assert mutation.names
    assert set(mutation.names) <= named, first


@each
def test_the_clean_twin_passes_the_same_check(mutation: Mutation) -> None:
    mutation.run(planted=False)


def test_there_are_at_least_forty_bugs_of_different_classes() -> None:
    assert len({m.title for m in MUTATIONS}) == len({m.id for m in MUTATIONS}) == len(MUTATIONS)
    assert len(MUTATIONS) >= 40


def test_what_catches_is_public() -> None:
    assert {m.catch.name for m in MUTATIONS} <= {*CHECKS, *ASSERTIONS}


def test_the_committed_table_is_what_the_command_prints() -> None:
    assert TABLE.read_text(encoding="utf-8") == markdown()
