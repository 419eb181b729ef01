"""The whole-model checks find nothing in models as public code writes them, from any seed."""

from __future__ import annotations

import pytest

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .findings import RUNNING
from .idioms import models

#: A true finding: a complex parameter does lose its imaginary part in .to(torch.float64).
TRUE = {("FNO", "check_dtype_move"): "imaginary part lost: w (FNO)"}


def found(case: ModelCase, names: list[str], seed: int) -> list[str]:
    """Return what checks say of a case in this order, on one run of it."""
    run = CaseRun(case, seed)
    said = []
    for name in names:
        if not CHECKS[name].applies(case):
            continue
        try:
            run_check(CHECKS[name], run)
        except NothingToCheck:
            continue
        except ParamCheckError as error:
            first = str(error).partition("\n")[0]
            if TRUE.get((case.name, name)) != first:
                said.append(f"{name}: {error}")
    return said


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", models())
def test_a_correct_model_has_no_finding(name: str) -> None:
    factory, inputs = models()[name]
    case = ModelCase(factory, inputs=inputs, name=name)
    everything = list(CHECKS)
    assert found(case, everything, 0) == []
    assert found(case, everything[::-1], 0) == []
    assert found(ModelCase(factory, name=name), everything, 0) == []
    for seed in range(1, 6):
        assert found(case, RUNNING, seed) == []
