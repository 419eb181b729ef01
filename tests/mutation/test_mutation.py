"""The mutation run: what is drawn, which tests a file has, how survivors are named and counted."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

import pytest_paramcheck

from ..house import House
from .choice import Choice, bears
from .reporting import Change, Outcome, change_of, read_equivalent, report
from .sampling import CORE, sample

PLACES = {
    "core/a.py": [[f"a{place}{kind}" for kind in "xy"] for place in range(6)],
    "core/b.py": [["b0x"]],
    "plugin/c.py": [[f"c{place}x"] for place in range(9)],
    "plugin/d.py": [],
}


def drawn(mutants: int, per_core_file: int, seed: int = 0) -> list[str]:
    return sample(
        PLACES, ("core/a.py", "core/b.py"), mutants=mutants, per_core_file=per_core_file, seed=seed
    )


def test_the_first_mutants_are_spread_over_all_files() -> None:
    assert {mutant[0] for mutant in drawn(3, 0)} == {"a", "b", "c"}
    assert len(drawn(8, 0)) == 8


def test_core_files_are_brought_to_their_number_or_to_all_they_have() -> None:
    counted = Counter(mutant[0] for mutant in drawn(3, 10))
    assert counted == {"a": 10, "b": 1, "c": 1}


@pytest.mark.parametrize("path", CORE)
def test_each_core_file_is_there(path: str) -> None:
    assert (Path(pytest_paramcheck.__file__).parents[1] / path).is_file()


def test_no_mutant_is_drawn_twice_and_no_more_than_there_are() -> None:
    assert sorted(drawn(1000, 5)) == sorted(
        mutant for places in PLACES.values() for place in places for mutant in place
    )


def test_a_place_is_drawn_a_second_time_only_after_all_others() -> None:
    first = [mutant for mutant in drawn(0, 10) if mutant[0] == "a"][:6]
    assert {mutant[:2] for mutant in first} == {f"a{place}" for place in range(6)}


def test_the_seed_decides() -> None:
    assert drawn(8, 5) == drawn(8, 5)
    assert len({tuple(drawn(8, 5, seed)) for seed in range(5)}) == 5


SOURCES = {
    "paramcheck/__init__.py": '"""The package."""',
    "paramcheck/checks/__init__.py": '"""Checks."""',
    "paramcheck/checks/ties.py": '"""Tests: ``unit/test_knots.py``\nand ``test_ends.py``."""',
    "paramcheck/checks/finite.py": '"""Finite."""\nfrom . import knots_low, low\n',
    "paramcheck/checks/low.py": '"""Used by others alone."""\nfrom . import lowest\n',
    "paramcheck/checks/knots_low.py": '"""Used by one file, and a part of what a test is about."""',
    "paramcheck/checks/lowest.py": '"""Used by one that others use."""\n',
    "paramcheck/checks/alone.py": '"""Used by nobody."""\n',
    "paramcheck/plugin/finite.py": '"""Shows in runs."""',
    "paramcheck/assertions.py": "def assert_finite() -> None: ...\n",
    "tests/unit/test_knots.py": "",
    "tests/unit/test_ends.py": "",
    "tests/unit/test_ties.py": "",
    "tests/unit/test_finite.py": "",
    "tests/unit/test_finite_sums.py": "",
    "tests/unit/test_public.py": "from paramcheck import assert_finite\n",
    "tests/integration/test_ini.py": "",
    "tests/integration/test_run.py": "from paramcheck.checks.finite import finite\n",
}


@pytest.fixture
def choice(tmp_path: Path) -> Choice:
    for name, text in SOURCES.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return Choice(House(tmp_path / "paramcheck"), tmp_path)


RUNS = ("tests/integration/test_ini.py", "tests/integration/test_run.py")
FINITE = (
    "tests/unit/test_finite.py",
    "tests/unit/test_finite_sums.py",
    "tests/integration/test_run.py",
)


@pytest.mark.parametrize(
    ("module", "tests"),
    [
        pytest.param(
            "checks.ties", ("tests/unit/test_ends.py", "tests/unit/test_knots.py"), id="docstring"
        ),
        pytest.param("checks.finite", FINITE, id="name-and-imports"),
        pytest.param("assertions", ("tests/unit/test_public.py",), id="what-it-makes-public"),
        pytest.param("checks.low", FINITE, id="its-importers"),
        pytest.param(
            "checks.knots_low", (*FINITE, "tests/unit/test_knots.py"), id="its-importers-and-nearby"
        ),
        pytest.param("checks.lowest", FINITE, id="their-importers"),
        pytest.param(
            "checks.alone",
            (
                *sorted(name for name in SOURCES if name.startswith("tests/unit")),
                *RUNS,
            ),
            id="all",
        ),
        pytest.param(
            "plugin.finite",
            ("tests/unit/test_finite.py", "tests/unit/test_finite_sums.py", *RUNS),
            id="the-plugin",
        ),
    ],
)
def test_the_tests_of_a_file(choice: Choice, module: str, tests: tuple[str, ...]) -> None:
    assert choice.tests_of(f"paramcheck.{module}") == tests


def test_a_name_is_borne_by_whole_words() -> None:
    assert bears("loaded", "loaded")
    assert bears("loaded_hooks", "loaded")
    assert not bears("loaded", "loaded_own")
    assert not bears("reached", "reach")


DIFF = """\
--- mutation diff ---
--- a/checks/finite.py
+++ b/checks/finite.py
@@ -3,5 +3,5 @@
     for entry in entries:
-        if entry.size > 0:
+        if entry.size >= 0:
             yield entry
"""

CHANGE = Change("checks/finite.py", "bad", ("if entry.size > 0:",), ("if entry.size >= 0:",))

SHOWN = """\
checks/finite.py, in bad
- if entry.size > 0:
+ if entry.size >= 0:"""


def test_a_change_is_named_by_its_lines_wherever_they_stand() -> None:
    assert change_of("checks/finite.py", "bad", DIFF) == CHANGE
    assert change_of("checks/finite.py", "bad", DIFF.replace("-3,5 +3,5", "-9,5 +9,5")) == CHANGE
    assert str(CHANGE) == SHOWN


def test_the_list_of_equivalent_mutants_is_read_as_the_report_writes_them() -> None:
    text = f"# A remark.\n\n{SHOWN}\n# An empty one has nothing\n# that is not finite.\n"
    assert read_equivalent(text) == {CHANGE: "An empty one has nothing that is not finite."}


@pytest.mark.parametrize("text", [SHOWN, f"{SHOWN}\n# why\n\n{SHOWN}\n# why", "a.py\n# why"])
def test_the_list_refuses_what_has_no_reason_stands_twice_or_names_no_change(text: str) -> None:
    with pytest.raises(ValueError, match=r"^(a block that is no mutant|twice in the list)"):
        read_equivalent(text)


def test_the_committed_list_can_be_read() -> None:
    text = Path(__file__).with_name("equivalent.txt").read_text(encoding="utf-8")
    assert all(change.path.startswith("pytest_paramcheck/") for change in read_equivalent(text))


def other(path: str, line: str) -> Change:
    return Change(path, "f", (line,), (f"not {line}",))


def test_the_report() -> None:
    tests = ("tests/unit/test_finite.py",)
    dead, gone = other("a.py", "x"), other("a.py", "y")
    outcomes = [
        Outcome(CHANGE, False, tests),
        Outcome(other("a.py", "u"), False, ("tests/unit/test_a.py",)),
        Outcome(other("a.py", "v"), True, tests),
        Outcome(other("a.py", "w"), True, tests),
        Outcome(dead, True, tests),
        Outcome(gone, False, tests),
    ]
    told = report(
        outcomes,
        {dead: "wrongly", gone: "the line was"},
        drawn=9,
        sources={"a.py": "    x\n"},
    )
    assert told.splitlines() == [
        "6 of 9 mutants run: 2 of 4 killed, 50.0%; 2 survived, 2 equivalent",
        "",
        "## a.py: 1 survived (tests/unit/test_a.py)",
        "",
        "a.py, in f",
        "- u",
        "+ not u",
        "",
        "## checks/finite.py: 1 survived (tests/unit/test_finite.py)",
        "",
        *SHOWN.splitlines(),
        "",
        "## Listed as equivalent, and killed",
        "",
        str(dead).splitlines()[0],
        "- x",
        "+ not x",
        "",
        "## Listed as equivalent, of code that is gone",
        "",
        "a.py, in f",
        "- y",
        "+ not y",
    ]


def test_the_report_of_nothing() -> None:
    assert report([], {}, drawn=9, sources={}) == (
        "0 of 9 mutants run: 0 of 0 killed; 0 survived, 0 equivalent"
    )


TESTED = {
    "test_good.py": "def test_good() -> None: ...\n",
    "test_bad.py": "def test_bad() -> None:\n    assert False\n",
    "test_endless.py": "def test_endless() -> None:\n    while True: ...\n",
}

ASK = """
import sys
from pathlib import Path
from tests.mutation.forks import costs_of, passes
folder = Path(sys.argv[1])
costs = costs_of(folder, ["test_good.py", "test_bad.py"])
print([name for name, cost in costs.items() if cost is not None])
for name in ("test_good.py", "test_bad.py", "test_endless.py"):
    print(passes(folder, ["-q", name], 1)[0])
"""


@pytest.mark.slow
def test_a_fork_says_what_passes_and_ends_what_has_no_end(tmp_path: Path) -> None:
    for name, text in TESTED.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    told = subprocess.run(
        [sys.executable, "-c", ASK, str(tmp_path)],
        check=True, capture_output=True, text=True, cwd=Path(__file__).parents[2],
    ).stdout  # fmt: skip
    assert told.splitlines() == ["['test_good.py']", "True", "False", "False"]
