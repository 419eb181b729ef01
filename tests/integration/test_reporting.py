"""What a person sees of a failure, of the options and of the fixtures."""

from __future__ import annotations

import inspect
import json

import pytest

import pytest_paramcheck

from ..public import ASSERTIONS
from .conftest import Run

FAILING = """
    import torch
    from torch import nn

    def test_values(assert_finite):
        model = nn.ModuleDict({name: nn.Linear(1, 1) for name in "abcdefgh"})
        with torch.no_grad():
            for n, parameter in enumerate(model.parameters()):
                parameter.fill_(float("nan"))
                if n > LAST:
                    break
        assert_finite(model)
"""


@pytest.mark.parametrize("args", [[], ["--assert=plain"]], ids=["rewritten", "plain"])
def test_the_traceback_ends_at_the_line_of_the_user(run: Run, args: list[str]) -> None:
    result = run(FAILING.replace("LAST", "0"), *args)
    result.assert_outcomes(failed=1)
    places = [line for line in result.outlines if line.startswith("test_it.py:")]
    assert places == ["test_it.py:11: ParamCheckError"]
    assert not any("pytest_paramcheck" in line for line in result.outlines)


def test_the_short_summary_shows_the_names(run: Run) -> None:
    result = run(FAILING.replace("LAST", "0"))
    assert result.outlines[-2] == (
        "FAILED test_it.py::test_values - "
        "ParamCheckError: not finite: a.weight, a.bias (ModuleDict)"
    )


def test_vv_shows_all_rows(run: Run) -> None:
    def rows(*args: str) -> list[str]:
        result = run(FAILING.replace("LAST", "99"), *args)
        return [o for o in result.outlines if o.startswith("E     ") and "NaN" in o]

    assert len(rows()) == 10
    assert len(rows("-v")) == 10
    assert len(rows("-vv")) == 16


def test_ours_are_quiet_where_there_is_nothing_to_say(run: Run) -> None:
    result = run("def test_a(): pass", "-p", "no:paramcheck")
    idle = run("def test_a(): pass")

    def told(result: pytest.RunResult) -> list[str]:
        return [o for o in result.outlines if "plugins:" not in o and "passed" not in o]

    assert told(result) == told(idle)


def test_fixtures_are_listed_with_a_useful_line(run: Run) -> None:
    result = run("", "--fixtures")
    listed = {
        line.split()[0]: result.outlines[number + 1].strip()
        for number, line in enumerate(result.outlines[:-1])
        if "plugin/fixtures.py" in line and "pytest_paramcheck" in line
    }
    expected = {
        name: inspect.getdoc(getattr(pytest_paramcheck, name)).partition("\n")[0]
        for name in ASSERTIONS
    }
    assert {name: listed[name] for name in expected} == expected
    assert listed["param_device"] == (
        "The device this test runs on (the first chosen one in an unmarked test)."
    )
    assert listed["param_dtype"] == (
        "The default dtype this test runs with (torch's own where none was chosen)."
    )
    assert not [name for name in listed if name.startswith("_")]


def test_the_marker_is_listed(run: Run) -> None:
    result = run("", "--markers")
    result.stdout.fnmatch_lines(
        "@pytest.mark.params([*], devices=None, dtypes=None, ranks=None): run once *"
    )


def test_properties_of_other_plugins_need_not_be_pairs(run: Run, pytester) -> None:
    pytester.makeconftest(
        """
        import pytest
        @pytest.hookimpl(tryfirst=True)
        def pytest_runtest_setup(item):
            item.user_properties += [("a", "b", "c"), 3, None, ("param_device", ["cpu"]), ([], 1)]
        """
    )
    source = """
    import pytest
    @pytest.mark.params(devices="cpu")
    def test_a(): pass
    def test_b(): pass
    """
    result = run(source, "--param-device=cpu")
    result.assert_outcomes(passed=2)
    assert result.ret == pytest.ExitCode.OK


VALUES = """
    import pytest, torch
    from torch import nn
    @pytest.mark.params{args}
    def test_a(): assert torch.ones(1).item() == 1
    @pytest.mark.params{args}
    def test_finding(assert_tied): assert_tied(nn.Linear(1, 1), nn.Linear(1, 1))
    @pytest.mark.params(devices=["meta"])
    def test_asks_for_it(): assert torch.ones(1).item() == 1
    @pytest.fixture
    def value(): return torch.ones(1).item()
    @pytest.mark.params{args}
    def test_set_up(value): pass
"""


@pytest.mark.parametrize(
    ("args", "origin"),
    [
        (["--param-device=meta"], "--param-device"),
        (["-o", "param_devices=meta"], "param_devices (ini)"),
    ],
)
def test_why_a_test_ran_on_meta(run: Run, args: list[str], origin: str) -> None:
    result = run(VALUES.format(args=""), *args)
    result.assert_outcomes(failed=3, errors=1)
    lines = result.outlines
    starts = [n for n, line in enumerate(lines) if line.strip("- ") == "paramcheck"]
    hint = (
        f"run on meta because of {origin}; if it reads values: "
        f'@pytest.mark.params(devices=["!meta"])'
    )
    assert [lines[n + 1] for n in starts] == [hint, hint]  # test_a and test_set_up

    followed = run(VALUES.format(args=hint.rpartition("params")[2]), *args)
    followed.assert_outcomes(failed=1, skipped=3)
    assert "paramcheck" not in [line.strip("- ") for line in followed.outlines]


def test_nothing_is_said_of_meta_elsewhere(run: Run) -> None:
    result = run(VALUES.format(args="").replace("== 1", "== 2"), "-k", "not asks")
    result.assert_outcomes(failed=2, passed=1, deselected=1)
    assert "paramcheck" not in [line.strip("- ") for line in result.outlines]


def test_without_the_plugin_a_conftest_of_ours_is_no_error(run: Run, pytester) -> None:
    pytester.makeconftest("def pytest_configure(config): pass")
    run("def test_a(): pass", "-p", "no:paramcheck").assert_outcomes(passed=1)


def test_fixtures_of_any_scope_can_use_an_assertion(run: Run) -> None:
    result = run(
        """
        import pytest
        from torch import nn
        from pytest_paramcheck import assert_finite as function
        @pytest.fixture(scope="session")
        def model(assert_finite):
            assert assert_finite is function
            model = nn.Linear(2, 2)
            assert_finite(model)
            return model
        def test_a(model): pass
        """
    )
    result.assert_outcomes(passed=1)


def test_every_fixture_gives_the_function_itself(run: Run) -> None:
    result = run(
        """
        import pytest, pytest_paramcheck
        NAMES = [name for name in pytest_paramcheck.__all__ if name.startswith("assert_")]
        @pytest.mark.parametrize("name", NAMES)
        def test_a(name, request):
            given, function = request.getfixturevalue(name), getattr(pytest_paramcheck, name)
            assert given is function or name == "assert_manifest"
        """
    )
    result.assert_outcomes(passed=len(ASSERTIONS))


@pytest.mark.parametrize(
    "args", [(), pytest.param(("-n", "1"), marks=pytest.mark.slow)], ids=["here", "worker"]
)
def test_findings_are_a_property_of_the_report(
    run: Run, pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, args: tuple[str, ...]
) -> None:
    monkeypatch.delenv("PYTEST_XDIST_WORKER", raising=False)  # where this is a worker's own test
    pytester.makeconftest(
        """
        import json, os
        def pytest_runtest_logreport(report):
            if report.when == "teardown" and "PYTEST_XDIST_WORKER" not in os.environ:
                with open("properties.txt", "a") as file:
                    print(json.dumps(report.user_properties), file=file)
        """
    )
    result = run(
        """
        import torch
        def test_a(assert_finite):
            assert_finite({"a": torch.tensor(float("nan")), "b\\ud800": torch.tensor([1.0])})
        def test_b(record_property):
            record_property("mine", 1)
        """,
        "--junitxml=junit.xml",
        "-o",
        "junit_family=xunit1",  # record_property needs it, ours does not
        *args,
    )

    result.assert_outcomes(failed=1, passed=1)
    lines = (pytester.path / "properties.txt").read_text().splitlines()
    given = [json.loads(line) for line in lines]
    (key, value), *more = given[0]
    assert (key, more) == ("paramcheck_findings", [])
    assert json.loads(value) == [
        {
            "subject": "a dict of tensors",
            "findings": [
                {
                    "names": ["a"],
                    "problem": "not finite",
                    "expected": "",
                    "found": "1 of 1 value: 1 NaN",
                    "why": "",
                    "hint": "",
                }
            ],
            "left_out": 0,
        }
    ]
    assert given[1] == [["mine", 1]]
    assert 'name="paramcheck_findings"' in (pytester.path / "junit.xml").read_text()


def test_a_passing_test_has_no_findings_of_an_earlier_run_of_it(run: Run, pytester) -> None:
    pytester.makeconftest(
        """
        from _pytest.runner import runtestprotocol
        def pytest_runtest_protocol(item, nextitem):
            runtestprotocol(item, nextitem=nextitem, log=False)
            reports = runtestprotocol(item, nextitem=nextitem, log=False)
            for report in reports:
                item.ihook.pytest_runtest_logreport(report=report)
            print([key for report in reports for key, _ in report.user_properties])
            return True
        """
    )
    result = run(
        """
        import torch
        seen = []
        def test_a(assert_finite):
            seen.append(1)
            assert_finite({"a": torch.tensor(1.0 if len(seen) > 1 else float("nan"))})
        """,
        "-s",
    )

    result.assert_outcomes(passed=1)
    assert "[]" in result.outlines[-3] + result.outlines[-4] + result.outlines[-2]
