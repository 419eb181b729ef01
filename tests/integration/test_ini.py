"""The ini values in each of the files that pytest reads, as text and with TOML's own types."""

from __future__ import annotations

import pytest

from .conftest import Run

TEST = """
import pytest, random, torch
@pytest.mark.params
def test_a():
    assert torch.initial_seed() == 3
"""
WRITTEN = [
    ("pytest.ini", "[pytest]\nparam_devices = meta cpu\nparam_dtypes = float64\nparam_seed = 3"),
    ("pytest.ini", "[pytest]\nparam_devices = meta,cpu\nparam_dtypes = float64\nparam_seed = 3"),
    *(
        (
            "pyproject.toml",
            f"[tool.pytest{options}]\nparam_devices = {devices}\nparam_dtypes = {dtypes}\n"
            f"param_seed = {seed}",
        )
        # pytest 9.0 is the first that reads [tool.pytest].
        for options in [".ini_options", *([""] if pytest.version_tuple >= (9,) else [])]
        for devices, dtypes, seed in [
            ('["meta", "cpu"]', '["float64"]', "3"),
            ('["meta,cpu"]', '["torch.float64"]', '"3"'),
            ('"meta cpu"', '"float64"', "3"),
            ('"meta, cpu"', '"float64"', '"3"'),
        ]
    ),
]


@pytest.mark.parametrize(("file", "text"), WRITTEN, ids=[text for _, text in WRITTEN])
def test_both_files_and_all_types(
    run: Run, pytester: pytest.Pytester, file: str, text: str
) -> None:
    (pytester.path / file).write_text(text + "\n", encoding="utf-8")

    result = run(TEST, "-v")

    result.assert_outcomes(passed=2)
    result.stdout.fnmatch_lines(["*test_a[[]meta-float64]*", "*test_a[[]cpu-float64]*"])


@pytest.mark.parametrize("table", ["tool.pytest.ini_options", "tool.pytest"])
def test_nothing_written_is_the_default(run: Run, pytester: pytest.Pytester, table: str) -> None:
    pytester.makepyprojecttoml(f"[{table}]")

    result = run(TEST.replace("3", "0"), "-v")

    result.assert_outcomes(passed=1)
    result.stdout.fnmatch_lines(["*test_a[[]cpu]*"])


WRONG = [
    (
        "param_devices = 3",
        "config option 'param_devices' expects a list for type 'args', got int: 3",
    ),
    ("param_seed = [3]", "config option 'param_seed' expects a string, got list: [3]"),
    # A number that is false is no ini left out.
    (
        "param_ranks = 0",
        "param_ranks (ini): '0' is not a number of ranks; it is a whole number from 1 to 4096, or "
        "several with commas between",
    ),
    (
        "param_rank_timeout = 0",
        "param_rank_timeout (ini): '0' is not a time limit; it is a positive number of seconds",
    ),
    (
        "param_seed = -3",
        "param_seed (ini): '-3' is not a seed; a seed is an integer from 0 to 2**63 - 1",
    ),
    (
        'param_dtypes = "flaot32"',
        "param_dtypes (ini): 'flaot32' cannot be a default dtype; did you mean 'float32'?",
    ),
    ('param_devices = "\'cpu"', "param_devices (ini): No closing quotation"),
]
"""What is of no type that is taken, pytest says; what is of one and wrong, the plugin."""


@pytest.mark.parametrize(("line", "error"), WRONG if pytest.version_tuple >= (9,) else WRONG[5:])
def test_wrong_values(run: Run, pytester: pytest.Pytester, line: str, error: str) -> None:
    native = pytest.version_tuple >= (9,)
    table = "tool.pytest" if native else "tool.pytest.ini_options"
    file = pytester.makepyprojecttoml(f"[{table}]\n{line}")

    result = run(TEST)

    assert result.ret == pytest.ExitCode.USAGE_ERROR
    whole = error if "(ini)" in error else f"{file}: {error}"
    assert [line for line in result.errlines if line] == [f"ERROR: {whole}"]
