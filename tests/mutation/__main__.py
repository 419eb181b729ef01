"""``python -m tests.mutation FOLDER``: begins a mutation run in a folder, or goes on with it.

The folder holds the package as it was at the beginning, a copy of the project in which the
mutants are written, what each test file costs, and what is known of each mutant. The tests are
copied anew at each call: after new tests, ``--again`` runs the survivors once more.
"""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import cosmic_ray.plugins
from cosmic_ray.mutating import use_mutation
from cosmic_ray.work_db import WorkDB
from cosmic_ray.work_item import MutationSpec, TestOutcome, WorkerOutcome, WorkItem, WorkResult

from ..house import House
from .choice import Choice
from .forks import costs_of, load, passes
from .mutants import places_of
from .reporting import Outcome, change_of, read_equivalent, report
from .sampling import CORE, sample

PROJECT = Path(__file__).resolve().parents[2]
PACKAGE = "pytest_paramcheck"

#: -x: one failing test is enough. No cache: it would be written beside the tests, for nobody.
#: A short traceback writes out no arguments: some tests' models have no end in print.
PYTEST = (*("-q", "-n", "0", "--tb=short"), *("-p", "no:cacheprovider"))

#: A mutant may loop forever.
SLOWER, SECONDS = 5, 20


class Run:
    """A mutation run in its folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.suite = folder / "suite"
        self._kept = folder / "source" / PACKAGE
        self._costs: dict[str, float | None] = {}
        folder.mkdir(parents=True, exist_ok=True)
        if not self._kept.exists():
            # Mutants are known by where they stand: the package stays as it was drawn from.
            _copy(PROJECT / PACKAGE, self._kept)
        self.db = WorkDB(str(folder / "session.sqlite"), WorkDB.Mode.create)
        # As the tests are: those of today.
        self.choice = Choice(House(PROJECT / PACKAGE), PROJECT)

    def copy(self) -> None:
        """Copy the project as it is now, around the package as it was at the beginning."""
        shutil.rmtree(self.suite, ignore_errors=True)
        _copy(PROJECT, self.suite, PACKAGE)
        _copy(self._kept, self.suite / PACKAGE)
        os.chdir(self.suite)
        # What the tests start themselves loads the copy too, not the installed package.
        os.environ.update(PYTHONPATH=str(self.suite), HYPOTHESIS_PROFILE="few")
        loaded = subprocess.run(
            [sys.executable, "-B", "-c", f"import {PACKAGE}; print({PACKAGE}.__file__)"],
            check=True, capture_output=True, text=True, cwd=self.folder,
        ).stdout  # fmt: skip
        if not Path(loaded.strip()).is_relative_to(self.suite):
            raise SystemExit(f"the tests would load {loaded}")

    def draw(self, *, mutants: int, per_core_file: int, seed: int) -> None:
        """Draw the mutants, once."""
        files = sorted(
            path.relative_to(self.suite) for path in self.suite.glob(f"{PACKAGE}/**/*.py")
        )
        drawn = sample(
            {path.as_posix(): places_of(path) for path in files},
            CORE,
            mutants=mutants,
            per_core_file=per_core_file,
            seed=seed,
        )
        self.db.add_work_items(
            WorkItem.single(f"{number:05d}", mutant) for number, mutant in enumerate(drawn)
        )

    def todo(self, *, again: bool) -> list[WorkItem]:
        """List what is still to run, in the order in which it was drawn."""
        if again:
            items = [item for item, result in self.db.completed_work_items if not result.is_killed]
        else:
            items = list(self.db.pending_work_items)
        return sorted(items, key=lambda item: item.job_id)

    def tests_of(self, path: Path) -> tuple[str, ...]:
        """Name the test files of a file of the package."""
        module = ".".join(path.with_suffix("").parts).removesuffix(".__init__")
        return self.choice.tests_of(module)

    def time(self) -> None:
        """Run each test file that is new or changed once without a mutant."""
        kept = self.folder / "costs.json"
        known = json.loads(kept.read_text(encoding="utf-8")) if kept.exists() else {}
        files = self._states()
        new = [name for name, state in files.items() if known.get(name, [None])[0] != state]
        if new:
            say(f"running {len(new)} test files without a mutant")
            costs = costs_of(self.suite, [*PYTEST, *new])
            known.update({name: [files[name], costs.get(name)] for name in new})
            kept.write_text(json.dumps(known, indent=1), encoding="utf-8")
        else:
            # Reads every test file, and leaves its bytecode for the mutants' runs.
            costs_of(self.suite, ["--collect-only", *PYTEST, *files])
        self._costs = {name: known[name][1] for name in files}
        for name in new:
            if self._costs[name] is None:
                say(f"{name}: not green without a mutant")

    def _states(self) -> dict[str, str]:
        """Say of which text of each test file its cost was measured."""
        return {
            name: hashlib.sha256((self.suite / name).read_bytes()).hexdigest()
            for name in self.choice.all_tests()
        }

    def run(self, item: WorkItem, tests: Sequence[str]) -> WorkResult | None:
        """Write a mutant, run tests on it, and take it back; None: they fail without it too."""
        costs = [cost for test in tests if (cost := self._costs[test]) is not None]
        if len(costs) < len(tests):
            return None
        (mutant,) = item.mutations
        path = mutant.module_path
        written = path.stat()
        operator = cosmic_ray.plugins.get_operator(mutant.operator_name)(**mutant.operator_args)
        with use_mutation(path, operator, mutant.occurrence) as (before, after):
            green, output = passes(
                self.suite, ["-x", *PYTEST, *tests], SECONDS + SLOWER * sum(costs)
            )
        # The bytecode of the file as it was is valid again.
        os.utime(path, ns=(written.st_atime_ns, written.st_mtime_ns))
        result = WorkResult(
            WorkerOutcome.NORMAL,
            output,
            TestOutcome.SURVIVED if green else TestOutcome.KILLED,
            "\n".join(difflib.unified_diff(before.split("\n"), after.split("\n"), lineterm="")),
        )
        self.db.set_result(item.job_id, result)
        return result

    def report(self) -> str:
        """Write what is known so far."""
        done = sorted(self.db.completed_work_items, key=lambda pair: pair[0].job_id)
        outcomes = [
            Outcome(
                change_of(mutant.module_path.as_posix(), mutant.definition_name, result.diff or ""),
                result.is_killed,
                self.tests_of(mutant.module_path),
            )
            for item, result in done
            for mutant in item.mutations
            if result.worker_outcome is WorkerOutcome.NORMAL
        ]
        equivalent = read_equivalent(
            Path(__file__).with_name("equivalent.txt").read_text(encoding="utf-8")
        )
        sources = {
            path.relative_to(PROJECT).as_posix(): path.read_text(encoding="utf-8")
            for path in (PROJECT / PACKAGE).rglob("*.py")
        }
        return report(outcomes, equivalent, drawn=self.db.num_work_items, sources=sources)


def _copy(source: Path, target: Path, *left_out: str) -> None:
    ignored = shutil.ignore_patterns(*left_out, ".*", "__pycache__", "build", "dist", "*.egg-info")
    shutil.copytree(source, target, ignore=ignored)


def say(text: str) -> None:
    print(text, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser("python -m tests.mutation", description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--mutants", type=int, default=300, help="over the whole package")
    parser.add_argument("--per-core-file", type=int, default=10, help="of sampling.CORE")
    parser.add_argument("--limit", type=int, help="run at most so many now")
    parser.add_argument("--again", action="store_true", help="run the survivors once more")
    parser.add_argument("--all-tests", action="store_true", help="not only the file's own tests")
    parser.add_argument("--report", action="store_true", help="run nothing")
    options = parser.parse_args()

    run = Run(options.folder.resolve())
    if options.report:
        say(run.report())
        return
    run.copy()
    if not run.db.num_work_items:
        run.draw(mutants=options.mutants, per_core_file=options.per_core_file, seed=options.seed)
    load()
    try:
        run.time()
        for item in run.todo(again=options.again)[: options.limit]:
            (mutant,) = item.mutations
            own = run.tests_of(mutant.module_path)
            result = run.run(item, run.choice.all_tests() if options.all_tests else own)
            say(f"{item.job_id} {line_of(mutant)}: {outcome_of(result)}")
    except KeyboardInterrupt:
        say("stopped; the same command goes on")
    say(run.report())


def line_of(mutant: MutationSpec) -> str:
    line, _ = mutant.start_pos
    return f"{mutant.module_path}:{line} {mutant.operator_name.removeprefix('core/')}"


def outcome_of(result: WorkResult | None) -> str:
    if result is None:
        return "waits, its tests are not green"
    return str(result.test_outcome.value if result.test_outcome else result.worker_outcome.value)


if __name__ == "__main__":
    main()
