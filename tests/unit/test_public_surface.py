"""What users may rely on, written out: who changes a line here changes it for them."""

from __future__ import annotations

import inspect
import re
import typing
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import pytest_paramcheck
from pytest_paramcheck import ModelCase, assert_manifest
from pytest_paramcheck.plugin import hookspecs, options
from pytest_paramcheck.plugin.marker import MARKER_LINE
from pytest_paramcheck.plugin.model_items import BoundCheck

ROOT = Path(__file__).resolve().parents[2]
#: The README's table of fixtures is where the assertions are written out.
ASSERTIONS = sorted(
    re.findall(r"^\| `(assert_\w+)` \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.M)
)


def test_the_names() -> None:
    assert pytest_paramcheck.__all__ == [
        "BUFFERS",
        "CHECKS",
        "CaseRun",
        "FROZEN",
        "Finding",
        "ModelCase",
        "ModelCheck",
        "NothingToCheck",
        "PARAMETERS",
        "ParamCheckError",
        "ParamCheckUsageError",
        "ParamCheckWarning",
        "ParamPage",
        "ParamRow",
        "ParamTable",
        "Pattern",
        "ShapeSpec",
        "Subject",
        "TRAINABLE",
        *ASSERTIONS,
        "init",
        "param_page",
        "param_table",
        "parametrize_with_param_checks",
        "part",
        "values",
    ]


def test_the_distributions() -> None:
    assert pytest_paramcheck.init.__all__ == [
        "Distribution",
        "constant",
        "kaiming_normal",
        "kaiming_uniform",
        "like",
        "normal",
        "ones",
        "orthogonal",
        "trunc_normal",
        "uniform",
        "xavier_normal",
        "xavier_uniform",
        "zeros",
    ]


def test_the_conditions() -> None:
    assert pytest_paramcheck.values.__all__ == [
        "Condition",
        "between",
        "nonnegative",
        "norm",
        "orthogonal",
        "positive",
        "symmetric",
        "triangular",
        "zero_where",
    ]


class Parser:
    """Notes what is added to it, in the place of pytest's parser."""

    def __init__(self) -> None:
        self.options: dict[str, dict[str, Any]] = {}
        self.ini: dict[str, object] = {}

    def getgroup(self, *_: str) -> Parser:
        return self

    def addoption(self, name: str, **kwargs: Any) -> None:
        self.options[name] = kwargs

    def addini(self, name: str, _: str, **kwargs: object) -> None:
        self.ini[name] = kwargs.get("type")


def test_the_options_and_ini_values() -> None:
    parser: Any = Parser()
    options.add_options(parser)

    assert {name: given.get("action") for name, given in parser.options.items()} == {
        "--param-device": "append",
        "--param-dtype": "append",
        "--param-ranks": "append",
        "--param-rank-timeout": None,
        "--param-seed": None,
        "--param-model": "append",
        "--param-page": None,
        "--param-update": "store_true",
    }
    assert parser.ini == {
        "param_devices": "args",
        "param_dtypes": "args",
        "param_ranks": "args",
        "param_rank_timeout": "string",
        "param_seed": "string",
        "param_marker": "string",
    }


def test_the_hooks_and_their_arguments() -> None:
    hooks = {
        name: list(inspect.signature(hook).parameters)
        for name, hook in vars(hookspecs).items()
        if name.startswith("pytest_")
    }
    assert hooks == {
        "pytest_paramcheck_named_tensors": ["subject"],
        "pytest_paramcheck_storages": ["tensor"],
        "pytest_paramcheck_checks": [],
        "pytest_paramcheck_devices": ["item"],
        "pytest_paramcheck_inputs": ["model"],
    }


def test_the_entry_point() -> None:
    project = (ROOT / "pyproject.toml").read_text(encoding="utf-8")

    assert '\n[project.entry-points.pytest11]\nparamcheck = "pytest_paramcheck.plugin"\n' in project


def test_the_markers() -> None:
    assert MARKER_LINE.startswith("params(*, devices=None, dtypes=None, ranks=None): ")
    assert options.CASES_LINE.startswith("param_cases(cases): ")


def test_the_warning_is_the_one_of_the_plugin() -> None:
    plugin = pytest_paramcheck.plugin

    assert plugin.ParamCheckWarning is pytest_paramcheck.ParamCheckWarning
    assert issubclass(plugin.ParamCheckWarning, pytest.PytestWarning)


def test_the_format_of_a_manifest(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3, affine=False))
    model.append(model[0])
    model[0].requires_grad_(False)
    path = tmp_path / "manifest.txt"
    assert_manifest(model, path=path, update=True)

    assert path.read_bytes().decode() == (
        "# pytest-paramcheck manifest, format 1\n"
        "# Registration order: optimizer checkpoints map by position. "
        "Written by --param-update.\n"
        "0.weight 3x3 float32 frozen\n"
        "1.running_mean 3 float32 buffer\n"
        "1.running_var 3 float32 buffer\n"
        "1.num_batches_tracked scalar int64 buffer\n"
        "2.weight 3x3 float32 frozen tied-to 0.weight\n"
    )


def test_the_members_of_a_check() -> None:
    check = pytest_paramcheck.ModelCheck

    assert {name for name in vars(check) if not name.startswith("_")} == {"name", "model"}
    assert "__call__" in vars(check)
    # As of what a test receives: a checker that takes one for a method complains of check.name.
    assert {
        type(vars(kind)[name]) for kind in (check, BoundCheck) for name in ("name", "model")
    } == {property}


def test_the_annotations_of_a_case_can_be_read() -> None:
    assert list(typing.get_type_hints(ModelCase)) == [
        "factory",
        "inputs",
        "loss",
        "ties",
        "frozen",
        "unreached",
        "alike",
        "shapes",
        "values",
        "optimizer",
        "steps",
        "resume",
        "wrap",
        "split",
        "manifest",
        "expected_failures",
        "name",
    ]
