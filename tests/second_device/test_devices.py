"""The marker, its words and options on a machine with an accelerator of two indices."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from ..integration.conftest import Run
from . import here  # noqa: F401 (skips this file without the device)

Ids = Callable[..., list[str]]

ONE = """
    import pytest, torch
    @pytest.mark.params
    def test_a(param_device):
        made = torch.ones(1).device
        assert made == torch.ones(1, device=param_device).device
        print("made on", made)
"""


def made_on(result: pytest.RunResult) -> list[str]:
    return [line.split("made on ")[1] for line in result.outlines if "made on" in line]


@pytest.mark.parametrize(
    ("choice", "names", "made"),
    [
        ("accelerator", ["twin"], ["twin:0"]),
        ("auto", ["twin"], ["twin:0"]),
        ("all", ["cpu", "twin"], ["cpu", "twin:0"]),
        ("twin", ["twin"], ["twin:0"]),
        ("twin:1", ["twin:1"], ["twin:1"]),
        ("twin:1,all,meta", ["twin:1", "cpu", "twin", "meta"], ["twin:1", "cpu", "twin:0", "meta"]),
    ],
)
def test_words_and_indices(
    ids: Ids, run: Run, choice: str, names: list[str], made: list[str]
) -> None:
    assert ids(ONE, f"--param-device={choice}") == [f"test_a[{name}]" for name in names]
    result = run(ONE, f"--param-device={choice}", "-s", "-p", "no:terminal")
    assert made_on(result) == made


def test_an_index_that_is_not_there_is_an_error_before_collection(run: Run) -> None:
    result = run(ONE, "--param-device=twin:1,twin:2")
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        "ERROR: --param-device (command line): twin:2 is not there: "
        "twin:2: torch sees 2 twin devices"
    )


@pytest.mark.parametrize("where", ["ini", "marker"])
def test_an_index_that_only_the_suite_names_is_a_skip(run: Run, where: str) -> None:
    marker = "(devices=['twin:1', 'twin:5'])" if where == "marker" else ""
    source = ONE.replace("@pytest.mark.params", f"@pytest.mark.params{marker}")
    ini = ["-o", "param_devices=twin:1 twin:5"] if where == "ini" else []
    result = run(source, "-rs", "-v", *ini)
    result.assert_outcomes(passed=1, skipped=1)
    result.stdout.fnmatch_lines(
        ["*test_a?twin:5? SKIPPED*", "SKIPPED * twin:5: torch sees 2 twin devices"]
    )


def test_what_a_marker_supports(run: Run) -> None:
    source = """
    import pytest, torch
    @pytest.mark.params(devices=["cpu", "accelerator"])
    def test_both(): pass
    @pytest.mark.params(devices="accelerator")
    def test_narrow(): assert torch.ones(1).device.type == "twin"
    @pytest.mark.params(devices="twin:1")
    def test_one(): assert torch.ones(1).device == torch.device("twin:1")
    """
    result = run(source, "-v", "--param-device=meta,twin,cpu")
    passed = [line.split("::")[1].split()[0] for line in result.outlines if " PASSED" in line]
    assert passed == [
        *("test_both[twin]", "test_both[cpu]"),
        *("test_narrow[twin]", "test_one[twin:1]"),
    ]
    assert run(source).parseoutcomes() == {"passed": 4}  # nothing chosen: all that each supports


def test_workers_take_turns_at_the_indices(run: Run) -> None:
    source = """
    import os, pytest, torch
    @pytest.mark.params
    @pytest.mark.parametrize("n", range(8))
    def test_a(n, param_device):
        worker = int(os.environ["PYTEST_XDIST_WORKER"].removeprefix("gw"))
        assert torch.ones(1).device == param_device == torch.device("twin", worker % 2)
    @pytest.mark.params(devices="twin:1")
    def test_named(param_device):
        assert torch.ones(1).device == param_device == torch.device("twin:1")
    """
    loads = ("-p", "tests.second_device.twin", "-p", "no:hypothesispytest")
    result = run(source, "-n", "2", *loads, "-o", "param_devices=accelerator")
    result.assert_outcomes(passed=9)


def test_a_test_that_none_ran_on_fails_the_run(run: Run) -> None:
    source = """
    import pytest
    @pytest.mark.params
    def test_a(param_device):
        if param_device.type == "twin":
            pytest.skip("not today")
    """
    result = run(source, "--param-device=cpu,twin:1")
    assert result.ret == pytest.ExitCode.TESTS_FAILED
    result.assert_outcomes(passed=1, skipped=1)


# -- what a test runs in ---------------------------------------------------------------------

SEEDED = """
    import pytest, torch
    states = {}
    def everywhere():
        return [torch.twin.get_rng_state(index) for index in range(2)]
    def draw():
        return [torch.rand(2, device=where).tolist() for where in ("cpu", "twin:0", "twin:1")]
    def test_before():
        torch.manual_seed(99)
        draw()
        states["before"] = everywhere()
"""


@pytest.mark.parametrize("chosen", ["twin", "twin:1"])
def test_seeds_and_random_states_of_every_index(run: Run, chosen: str) -> None:
    source = (
        SEEDED
        + """
    @pytest.mark.params
    @pytest.mark.parametrize("n", [1, 2])
    def test_marked(n, wide):
        drawn = draw()
        torch.manual_seed(5)
        assert draw() == drawn
        assert torch.nn.Linear(2, 2).weight.device == torch.ones(1).device
    @pytest.fixture(scope="session")
    def wide(param_device):
        return torch.rand(3, device=param_device), torch.rand(3, device="twin:1")
    def test_after():
        assert all(torch.equal(a, b) for a, b in zip(states["before"], everywhere()))
    """
    )
    result = run(source, f"--param-device={chosen}", "--param-seed=5")
    result.assert_outcomes(passed=4)


def test_fixtures_are_where_they_are_on_any_device(run: Run) -> None:
    source = """
    import pytest, torch
    def here(): return str(torch.ones(1).device)
    @pytest.fixture
    def narrow():
        yield here()
        assert here() == "twin:1"
    @pytest.fixture(scope="session")
    def wide(): return here()
    @pytest.fixture(scope="session")
    def bound(param_device): return here()
    @pytest.mark.params
    def test_a(narrow, wide, bound):
        assert (narrow, wide, bound, here()) == ("twin:1", "cpu", "twin:1", "twin:1")
    def test_unmarked(param_device):
        assert here() == "cpu" and str(param_device) == "twin:1"
    """
    run(source, "--param-device=twin:1").assert_outcomes(passed=2)


def test_a_model_that_is_silently_built_on_the_cpu_is_found(run: Run) -> None:
    source = """
    import pytest, torch
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.head = torch.nn.Linear(3, 2)
            # Ignores the default device, and nobody notices where that is the cpu.
            self.scale = torch.nn.Parameter(torch.Tensor(2).fill_(1))
            self.steps = torch.tensor([1.0], device="cpu")
    @pytest.mark.params
    def test_a(assert_devices, param_device):
        assert_devices(Model(), param_device)
    """
    run(source).assert_outcomes(passed=1)
    result = run(source, "--param-device=cpu,twin,twin:1")
    result.assert_outcomes(passed=1, failed=2)
    result.stdout.fnmatch_lines(
        [
            "E       ParamCheckError: wrong device: scale, steps (Model)",
            "E         scale  expected twin:1, found cpu",
            "E         steps  expected twin:1, found cpu*",
        ]
    )


def test_the_whole_model_checks_of_a_factory(run: Run, pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        models="""
        import torch
        def plain():
            return torch.nn.Linear(3, 2)
        """
    )
    result = run("", "--param-model=models:plain", "--param-device=cpu,twin:1", "-v")
    outcomes = result.parseoutcomes()
    assert set(outcomes) == {"passed", "skipped"}  # without inputs some have nothing to run
    moved = [line.split()[0] for line in result.outlines if "check_device_move" in line]
    assert moved == [f"models:plain::check_device_move[{device}]" for device in ("cpu", "twin:1")]
