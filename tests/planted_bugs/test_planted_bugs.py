"""Every planted bug is caught and named, every clean twin passes the very same check."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_paramcheck import CHECKS, ParamCheckError

from ..gallery import gallery, torch_line
from ..public import ASSERTIONS
from . import PlantedBug, markdown, planted_bugs

BUGS = planted_bugs()
DOCS = Path(__file__).resolve().parents[2] / "docs"
TABLE = DOCS / "planted_bugs.md"
GALLERY = DOCS / "gallery.md"

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
