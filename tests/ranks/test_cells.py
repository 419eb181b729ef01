"""Each assertion on each kind of distributed model: one verdict, the right one, on every rank."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from . import uses  # noqa: F401 - it adds its cells
from .cells import CELLS
from .pair import Ranks
from .special import FOUR

pytestmark = pytest.mark.slow


@pytest.fixture(scope="session")
def two() -> Iterator[Ranks]:
    ranks = Ranks(2)
    yield ranks
    ranks.close()


@pytest.fixture(scope="session")
def four() -> Iterator[Ranks]:
    ranks = Ranks(4)
    yield ranks
    ranks.close()


@pytest.mark.parametrize("name", CELLS)
def test_cell(name: str, two: Ranks) -> None:
    check(name, CELLS[name], two)


@pytest.mark.parametrize("name", FOUR)
def test_cell_of_four_ranks(name: str, four: Ranks) -> None:
    check(name, FOUR[name], four)


def check(name: str, want: str, ranks: Ranks) -> None:
    said = ranks.run(f"tests.ranks.uses:{name}")
    outcomes = [one["outcome"] for one in said]
    shown = "\n".join(one["text"] for one in said)
    if want == "one":
        assert sorted(outcomes) == ["finding", "pass"], shown
        return
    assert outcomes == [want] * ranks.world, shown
    if name.split("/")[0] not in PLAIN:
        assert len({one["text"] for one in said}) == 1, shown


#: Kinds that each rank asks by itself, about what it holds.
PLAIN = ("plain", "ddp", "fsdp1", "flat", "zero", "pp")
