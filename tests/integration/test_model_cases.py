"""Whole-model checks as test items: ids, selection, expected failures, the summary, reports."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from collections.abc import Callable
from textwrap import dedent

import pytest

from .conftest import BARE, STRICT, WITH_INPUTS, Run

HEAD = """
import pytest, torch
from torch import nn
from pytest_paramcheck import ModelCase, parametrize_with_param_checks

class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.emb = nn.Embedding(5, 3)
        self.head = nn.Linear(3, 5, bias=False)
        self.head.weight = self.emb.weight

    def forward(self, ids):
        return self.head(self.emb(ids))

def make():
    return nn.Linear(3, 2)

def broken():
    model = nn.Linear(3, 2)
    model.more = [nn.Linear(2, 2)]
    model.bias.data[0] = float("nan")
    return model

"""
TEST = "def test_parameters(check): check()\n"


def suite(cases: str, *, head: str = "", test: str = TEST) -> str:
    return dedent(HEAD) + f"{head}\n@parametrize_with_param_checks({cases})\n{test}"


NO_TRIPS = ("-k", "not roundtrip")


def test_ids_name_the_model_and_the_check(ids: Callable[..., list[str]]) -> None:
    found = ids(suite("[ModelCase(make), ModelCase(Tied, inputs=torch.tensor([1, 2]))]"))

    assert found == [
        *(f"test_parameters[make-{name}]" for name in BARE),
        *(f"test_parameters[Tied-{name}]" for name in WITH_INPUTS),
    ]


def test_the_marker_comes_first_in_the_ids(ids: Callable[..., list[str]]) -> None:
    found = ids(
        suite("ModelCase(make)", head="@pytest.mark.params"),
        "--param-device=cpu,meta",
        "-k",
        "check_finite or ties",
    )

    assert found == [
        "test_parameters[cpu-make-check_finite]",
        "test_parameters[cpu-make-check_ties]",
        "test_parameters[meta-make-check_finite]",
        "test_parameters[meta-make-check_ties]",
    ]


def test_right_models_pass_and_nothing_is_said(run: Run) -> None:
    result = run(
        suite("[ModelCase(make), ModelCase(Tied, inputs=torch.tensor([1, 2]))]"), *NO_TRIPS
    )

    found = result.parseoutcomes()
    assert set(found) == {"passed", "skipped", "deselected"}
    assert sum(found.values()) == len(BARE) + len(WITH_INPUTS)
    assert found["passed"] > len(BARE)
    assert not [line for line in result.outlines if "checks failed" in line]


def test_on_several_devices_values_are_skipped_on_meta(run: Run) -> None:
    result = run(
        suite("ModelCase(make)", head="@pytest.mark.params"),
        "--param-device=cpu,meta",
        "-rs",
        "-k",
        "check_finite or shapes or ties or device_move or materialized",
    )

    result.assert_outcomes(passed=5, skipped=3, deselected=2 * (len(BARE) - 4))
    reasons = sorted(line.partition(": ")[2] for line in result.outlines if "SKIPPED" in line)
    assert reasons == [
        "on meta, where tensors have no values",
        "the case runs on meta",
        "the case runs on meta, from where nothing can be moved",
    ]


def test_a_failure_ends_at_the_users_line(run: Run) -> None:
    result = run(suite("ModelCase(broken)"), "-k", "registered")

    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if line.startswith("____"))
    end = next(n for n, line in enumerate(lines) if "checks failed" in line)
    line = next(
        n
        for n, text in enumerate(suite("ModelCase(broken)").strip().splitlines(), 1)
        if "check()" in text
    )
    # pytest 9 underlines the failing call, pytest 8 does not.
    shown = [text.rstrip() for text in lines[start + 1 : end] if set(text) != {" ", "^"}]
    assert shown == [
        "",
        "check = <check_registered of broken>",
        "",
        "    @parametrize_with_param_checks(ModelCase(broken))",
        ">   def test_parameters(check): check()",
        "E   ParamCheckError: not registered: more[0].weight, more[0].bias (Linear)",
        "E",
        "E     more[0].weight  Parameter 2x2 float32 cpu: Linear in a list",
        "E     more[0].bias    Parameter 2 float32 cpu: Linear in a list",
        "E",
        "E     hint: self.more = nn.ModuleList(...)",
        "",
        f"test_it.py:{line}: ParamCheckError",
    ]


def test_one_line_per_model_with_a_failure(run: Run) -> None:
    result = run(
        suite("[ModelCase(make), ModelCase(broken), ModelCase(broken, name='again')]"),
        "-k",
        "registered or check_finite or ties",
    )

    assert [line for line in result.outlines if "checks failed" in line] == [
        "broken: 2 of 3 checks failed: check_registered, check_finite",
        "again: 2 of 3 checks failed: check_registered, check_finite",
    ]


def test_models_of_one_name_in_two_files_are_told_apart(
    run: Run, pytester: pytest.Pytester
) -> None:
    pytester.makepyfile(test_other=suite("ModelCase(broken)"))
    result = run(suite("ModelCase(broken)"), "-k", "check_finite")

    assert [line for line in result.outlines if "checks failed" in line] == [
        "broken (test_it.py): 1 of 1 checks failed: check_finite",
        "broken (test_other.py): 1 of 1 checks failed: check_finite",
    ]


FAILURE = "expected_failures={'check_registered': 'issue 7'}"
EXPECTED = suite(f"[ModelCase(broken, {FAILURE}), ModelCase(make, {FAILURE})]")


def test_an_expected_failure_is_strict_both_ways(run: Run, plugin_args: tuple[str, ...]) -> None:
    result = run(EXPECTED, "-rxf", *plugin_args, "-k", "registered")

    result.assert_outcomes(xfailed=1, failed=1, deselected=2 * (len(BARE) - 1))
    assert any(
        line.startswith("XFAIL test_it.py::test_parameters[broken-check_registered] - issue 7")
        for line in result.outlines
    )
    assert "[XPASS(strict)] issue 7" in result.outlines
    assert [line for line in result.outlines if "checks failed" in line] == [
        "make: 1 of 1 checks failed: check_registered"
    ]


def test_an_expected_failure_of_a_check_that_is_skipped_is_a_skip(run: Run) -> None:
    result = run(
        suite(
            "ModelCase(broken, expected_failures={'check_finite': 'issue 8'})",
            head="@pytest.mark.params",
        ),
        "--param-device=cpu,meta",
        "-rsx",
        "-k",
        "check_finite",
    )

    result.assert_outcomes(xfailed=1, skipped=1, deselected=2 * (len(BARE) - 1))


def test_an_expected_failure_is_no_licence_to_crash(run: Run) -> None:
    head = "def boom(): raise ZeroDivisionError('mine')"
    result = run(
        suite("ModelCase(boom, expected_failures={'check_finite': 'issue 8'})", head=head),
        "-k",
        "check_finite",
    )

    result.assert_outcomes(failed=1, deselected=len(BARE) - 1)
    assert "E   ZeroDivisionError: mine" in result.outlines


def test_a_factory_that_raises_shows_its_own_line(run: Run) -> None:
    head = "def boom():\n    raise ZeroDivisionError('mine')\n"
    result = run(suite("ModelCase(boom)", head=head), "-k", "check_finite", "--tb=short")

    start = next(n for n, line in enumerate(result.outlines) if line.startswith("____"))
    shown = [
        line.strip() for line in result.outlines[start + 1 :] if not line.strip().startswith("^")
    ]
    assert shown[1] == "def test_parameters(check): check()"
    assert shown[3:5] == ["raise ZeroDivisionError('mine')", "E   ZeroDivisionError: mine"]
    assert shown[2].endswith(": in boom")


@pytest.mark.parametrize(
    ("cases", "test", "text"),
    [
        (
            "ModelCase(make)",
            "def test_it(): pass",
            "parametrize_with_param_checks passes the argument 'check': "
            "write def test_it(check): check()",
        ),
        (
            "ModelCase(make, expected_failures={'check_tied': 'why'})",
            TEST,
            "expected_failures names no check 'check_tied'; did you mean 'check_ties', "
            "'check_step' or 'check_finite'?",
        ),
        (
            "ModelCase(make, expected_failures={'check_shapes': 'why'})",
            TEST,
            "expected_failures: check_shapes does not apply to make, so it cannot fail: "
            "declare what it needs, or take it out",
        ),
    ],
)
def test_what_cannot_be_meant_is_one_line_at_collection(
    run: Run, cases: str, test: str, text: str
) -> None:
    result = run(suite(cases, test=test))

    assert result.ret == pytest.ExitCode.INTERRUPTED
    lines = result.outlines
    start = next(n for n, line in enumerate(lines) if "ERROR collecting" in line)
    name = "test_it" if "test_it()" in test else "test_parameters"
    assert lines[start + 1] == f"test_it.py::{name}: {text}"
    assert lines[start + 2].startswith("===="), "one line, no traceback"


def test_a_class_and_its_method_bring_their_cases_together(
    ids: Callable[..., list[str]],
) -> None:
    source = dedent(HEAD) + (
        "@parametrize_with_param_checks(ModelCase(make))\n"
        "class TestModels:\n"
        "    @parametrize_with_param_checks(ModelCase(Tied))\n"
        "    def test_p(self, check): check()\n"
    )

    assert ids(source, "-k", "ties") == [
        "TestModels::test_p[Tied-check_ties]",
        "TestModels::test_p[make-check_ties]",
    ]


def test_it_multiplies_with_the_users_own_parametrize(ids: Callable[..., list[str]]) -> None:
    found = ids(
        suite(
            "ModelCase(make)",
            head="@pytest.mark.parametrize('n', [1, 2])",
            test="def test_p(check, n): check()",
        ),
        "-k",
        "ties",
    )

    assert sorted(found) == ["test_p[make-check_ties-1]", "test_p[make-check_ties-2]"]


def test_it_stops_at_the_first_failure_with_x(run: Run) -> None:
    result = run(suite("ModelCase(broken)"), "-x")

    result.assert_outcomes(failed=1)
    assert "broken: 1 of 1 checks failed: check_registered" in result.outlines


def test_lf_runs_what_failed(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(test_it=suite("[ModelCase(make), ModelCase(broken)]"))
    strict = [arg for arg in STRICT if arg != "no:cacheprovider"]
    strict.pop(strict.index("-p"))
    first = pytester.runpytest_inprocess(*strict, "-k", "registered or check_finite or ties")
    again = pytester.runpytest_inprocess(*strict, "--lf")

    first.assert_outcomes(failed=2, passed=4, deselected=2 * (len(BARE) - 3))
    again.assert_outcomes(failed=2)


def test_junit_carries_model_and_check(run: Run, pytester: pytest.Pytester) -> None:
    run(
        suite("ModelCase(broken)", head="@pytest.mark.params"),
        "--junitxml=x.xml",
        "-k",
        "check_finite",
    )

    case = ET.parse(pytester.path / "x.xml").getroot().find(".//testcase")
    assert case is not None
    values = {p.get("name"): p.get("value") for p in case.iter("property")}
    assert json.loads(str(values.pop("paramcheck_findings")))[0]["subject"] == "Linear"
    assert values == {
        "param_device": "cpu",
        "param_model": "broken",
        "param_check": "check_finite",
        "param_not_declared": "frozen,shapes,optimizer",
    }


def test_the_models_checked_do_not_stay_alive(run: Run) -> None:
    head = """
import gc, weakref
alive = []
def kept():
    model = nn.Linear(3, 2)
    alive.append(weakref.ref(model))
    return model
"""
    source = suite("[ModelCase(kept), ModelCase(make)]", head=head) + (
        "def test_zz():\n    gc.collect()\n    assert [ref() for ref in alive if ref()] == []\n"
    )

    assert run(source, *NO_TRIPS).ret == pytest.ExitCode.OK
