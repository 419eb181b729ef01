"""Each assertion on each kind of distributed model: one verdict, the right one, on every rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .cells import CELLS
from .pair import Ranks

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def two() -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str, two: Ranks) -> None:
    said = two.run(f"tests.ranks.cells:{name}")
    outcomes = [one["outcome"] for one in said]
    if CELLS[name] == "one":
        assert sorted(outcomes) == ["finding", "pass"], said[1]["text"]
        return
    shown = "\n".join(one["text"] for one in said)
    assert outcomes == [CELLS[name]] * 2, shown
    distributed = name.split("/")[0] in ("fsdp2", "tp", "replicated")
    if distributed:
        assert said[0]["text"] == said[1]["text"], shown
