"""The whole-model checks over many public models: what they say, kept and compared.

Each model is a case that declares nothing: it is run on what its library says of its inputs, with
every check from seed 0 and those that run it from more seeds (``--seeds``). What was found is kept
in a file (``--store``) as it comes, so that an interrupted run goes on where it was; one model is
run at a time, in a process of its own for some of them, so that a crash is a line and not the end.
"""

from __future__ import annotations

import argparse
import difflib
import json
import sys
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from pytest_paramcheck import CHECKS, CaseRun, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import take_left_out

#: The checks that run a model: what another seed may decide.
RUNNING = [
    "check_grads_reach",
    "check_grads_finite",
    "check_tied_grads_sum",
    "check_eval_unchanged",
    "check_training_step",
    "check_resume",
]
#: Models that one process checks before the next takes over.
PER_PROCESS = 40
#: How a model that nothing was run on is told from one that has findings.
INPUTS = "inputs"
#: What the inputs do not come to, which is no finding.
LEFT_OUT = "not reached"


def look(case: ModelCase, seed: int) -> dict[str, Any]:
    """Run the checks of a case from a seed; return what each of them says."""
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    started = time.perf_counter()
    run = CaseRun(case, seed)
    looked, said, not_reached = 0, {}, ""
    for name in CHECKS if seed == 0 else RUNNING:
        check = CHECKS[name]
        if not check.applies(case):
            continue
        try:
            run_check(check, run)
        except NothingToCheck as nothing:
            if name == "check_grads_reach" and not run.inputs_from:
                said[INPUTS] = str(nothing)
            continue
        except ParamCheckError as error:
            said[name] = str(error).splitlines()[0]
        except Exception as error:  # a crash of the model or of a check is a line as well
            said[name] = f"crash: {type(error).__name__}: {str(error).partition(chr(10))[0]}"
        looked += 1
        not_reached = take_left_out(run) or not_reached
    try:
        source = run.inputs_from
    except Exception as error:
        source = f"crash: {type(error).__name__}"
    seconds = round(time.perf_counter() - started, 1)
    found = {"looked": looked, "said": said, "inputs": source, "seconds": seconds}
    return {**found, LEFT_OUT: not_reached} if not_reached else found


class Store:
    """What was found so far, one line of JSON for each model and seed."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.found: dict[tuple[str, int], dict[str, Any]] = {}
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        for line in lines:
            one = json.loads(line)
            self.found[one["model"], one["seed"]] = one

    def add(self, model: str, seed: int, found: dict[str, Any]) -> None:
        """Keep what was found, at once."""
        one = {"model": model, "seed": seed, **found}
        self.found[model, seed] = one
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps(one) + "\n")


Look = Callable[[str, int], dict[str, Any]]


def fill(store: Store, models: Sequence[str], seeds: Iterable[int], look_at: Look) -> None:
    """Run what the store does not know yet; ``look_at`` is a function of a module."""
    left = [(m, seed) for seed in seeds for m in models if (m, seed) not in store.found]
    while left:
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            batch, left = left[:PER_PROCESS], left[PER_PROCESS:]
            for number, (model, seed) in enumerate(batch):
                try:
                    found = pool.submit(look_at, model, seed).result()
                except BrokenProcessPool:
                    died = {"crash": "the process died"}
                    found = {"looked": 0, "said": died, "inputs": "", "seconds": 0}
                    left = batch[number + 1 :] + left
                store.add(model, seed, found)
                sys.stderr.write(f"{len(store.found)} {model} {seed} {found['seconds']} s\n")
                if "crash" in found["said"]:
                    break


def lines_of(store: Store, models: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Return a line for each model and check that says something, or differs with the seed."""
    lines = []
    for model in models:
        first = store.found[model, 0]["said"]
        lines += [f"{model}  {check}  {said}" for check, said in first.items()]
        if left_out := store.found[model, 0].get(LEFT_OUT):
            lines.append(f"{model}  {LEFT_OUT}  {left_out}")
        for check in RUNNING:
            others = [
                str(seed)
                for seed in seeds
                if seed and (check in store.found[model, seed]["said"]) != (check in first)
            ]
            if others:
                lines.append(f"{model}  {check}  another verdict from seed {', '.join(others)}")
    return sorted(lines)


def summary(store: Store, models: Sequence[str], seeds: Sequence[int]) -> list[str]:
    """Return what was run, in numbers."""
    first = [store.found[model, 0] for model in models]
    by = Counter(one["inputs"] or "no inputs" for one in first)
    looked = sum(store.found[model, seed]["looked"] for model in models for seed in seeds)
    return [
        f"{len(models)} models, seeds {', '.join(map(str, seeds))}, {looked} checks",
        *(f"{number} models: {source}" for source, number in sorted(by.items())),
    ]


def main(file: Path, models: Sequence[str], look_at: Look) -> int:
    """The command line of a list of models, compared with its committed file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--update", action="store_true", help=f"write {file.name}")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, from 0 (default: 1)")
    parser.add_argument("--only", default="", help="only the models whose name contains this")
    default = Path(tempfile.gettempdir()) / file.with_suffix(".jsonl").name
    parser.add_argument("--store", type=Path, default=default, help=f"default: {default}")
    given = parser.parse_args()
    chosen = [model for model in models if given.only in model]
    seeds = range(given.seeds)
    store = Store(given.store)
    fill(store, chosen, seeds, look_at)
    text = file.read_text(encoding="utf-8") if file.exists() else ""
    header = [line for line in text.splitlines() if line.startswith("#")]
    known = [line for line in text.splitlines() if not line.startswith("#")]
    known = [line for line in known if line.split("  ")[0] in chosen]
    now = lines_of(store, chosen, seeds)
    if given.update:
        file.write_text("\n".join([*header, *now]) + "\n", encoding="utf-8")
        known = now
    different = list(difflib.unified_diff(known, now, "committed", "found", lineterm="", n=0))
    said = [*different, *summary(store, chosen, seeds), f"{len(now)} lines"]
    sys.stdout.write("\n".join(said) + "\n")
    return 1 if different else 0
