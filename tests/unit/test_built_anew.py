"""Builds that share: one finding, and no other check that calls it the factory's fault."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun

from .messages import failure_lines

INPUTS = torch.linspace(-1, 1, 12).reshape(4, 3)
ACT, FLAT, TABLE = nn.PReLU(), torch.zeros(3), torch.ones(3)
FROZEN, NORM = nn.Linear(3, 3).requires_grad_(False), nn.BatchNorm1d(3)


def default_argument(act: nn.Module = ACT) -> nn.Module:
    return nn.Sequential(nn.Linear(3, 3), act)


class Flat(nn.Module):
    """Another Parameter in each build, on one memory."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(FLAT)
        self.register_buffer("table", TABLE)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale * self.table


class TwoNames(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = ACT, ACT


def all_outcomes(case: ModelCase) -> dict[str, str]:
    run, said = CaseRun(case), {}
    for name, check in CHECKS.items():
        if check.applies(case):
            try:
                run_check(check, run)
            except NothingToCheck as nothing:
                said[name] = f"skip: {nothing}"
            except ParamCheckError as error:
                said[name] = str(error).partition("\n")[0]
    return said


SHARED = "two models built one after the other share"


@pytest.mark.parametrize(
    ("factory", "names"),
    [
        (default_argument, "1.weight"),
        (Flat, "scale"),
        (TwoNames, "a.weight, b.weight"),
        (lambda: nn.Sequential(FROZEN, NORM), "1.weight, 1.bias, 1.running_mean, 1.running_var"),
    ],
    ids=["default argument", "memory", "two names", "norm"],
)
def test_what_builds_share_is_one_finding(factory: Callable[[], nn.Module], names: str) -> None:
    with pytest.raises(ParamCheckError) as error:
        run_check(CHECKS["check_built_anew"], CaseRun(ModelCase(factory, name="model")))
    headline = str(error.value).partition("\n")[0]
    assert headline.startswith(f"{SHARED}: {names}")


def test_all_that_is_said_of_it() -> None:
    declared = ModelCase(default_argument, name="model")
    assert failure_lines(run_check, CHECKS["check_built_anew"], CaseRun(declared)) == [
        "two models built one after the other share: 1.weight (model)",
        "",
        "  1.weight  Parameter 1 float32 cpu, made once and used by both",
        "",
        "  hint: make it in the factory: a default argument or a global is made once",
    ]


@pytest.mark.parametrize("names", [list(CHECKS), list(reversed(CHECKS))], ids=["in order", "back"])
def test_the_other_checks_skip_or_pass_in_any_order(names: list[str]) -> None:
    case = ModelCase(default_argument, inputs=INPUTS, name="model")
    before = ACT.weight.detach().clone()
    said = all_outcomes(case)

    assert [n for n, text in said.items() if not text.startswith("skip: ")] == ["check_built_anew"]
    assert f"skip: {SHARED} 1.weight: check_built_anew says so" in said.values()
    assert torch.equal(before, ACT.weight)


def test_what_is_frozen_and_what_nobody_writes_may_be_made_once() -> None:
    class Right(Flat):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.backbone = FROZEN

    assert "check_built_anew" not in all_outcomes(ModelCase(Right))


# -- models without a copy ------------------------------------------------------------------------


class Refuses(nn.Linear):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("only one of me")


class OldNorm(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.utils.weight_norm(nn.Linear(3, 2)))


class Pruned(nn.Sequential):
    def __init__(self) -> None:
        layer = nn.Linear(3, 2)
        prune.random_unstructured(layer, "weight", 0.5)
        super().__init__(layer)


@pytest.mark.filterwarnings("ignore::FutureWarning")
@pytest.mark.parametrize(
    ("factory", "hook"),
    [(lambda: Refuses(3, 2), ""), (OldNorm, "WeightNorm"), (Pruned, "RandomUnstructured")],
)
def test_a_model_that_cannot_be_copied_says_so_once(
    factory: Callable[[], nn.Module], hook: str
) -> None:
    said = all_outcomes(ModelCase(factory, inputs=INPUTS, name="model"))

    # What torch's own hook keeps from being copied is no fault of the model's.
    assert said["check_deepcopy"] == (
        f"skip: 0.weight is computed by torch.nn.utils' {hook}, with which no module can be "
        f"deep-copied; torch.nn.utils.parametrizations can"
        if hook
        else "cannot be deep-copied: the model (model)"
    )
    failed = [name for name, text in said.items() if not text.startswith("skip: ")]
    assert failed == ([] if hook else ["check_deepcopy"])
    assert not [n for n in said if "roundtrip" in n]


@pytest.mark.filterwarnings("ignore::FutureWarning")
def test_a_graph_beside_torchs_own_is_the_models() -> None:
    class Kept(OldNorm):
        def __init__(self) -> None:
            super().__init__()
            self.doubled = self[0].bias * 2

    said = all_outcomes(ModelCase(Kept, name="model"))
    assert said["check_deepcopy"] == "cannot be deep-copied: the model (model)"


class Forgets(Refuses):
    def _save_to_state_dict(self, destination: dict[str, object], *args: object) -> None:
        super()._save_to_state_dict(destination, *args)  # type: ignore[arg-type]
        for key in list(destination):
            if key.endswith("bias"):
                del destination[key]


def test_what_is_lost_is_found_without_a_copy_too() -> None:
    said = all_outcomes(ModelCase(lambda: Forgets(3, 2), name="model"))
    assert said["check_state_dict_roundtrip"].startswith("not saved: bias")


def test_nothing_is_loaded_into_what_another_build_shares() -> None:
    class Holds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.own = Refuses(3, 2)
            self.backbone = FROZEN

    before = FROZEN.weight.detach().clone()
    said = all_outcomes(ModelCase(Holds, name="model"))

    assert said["check_state_dict_roundtrip"] == (
        "skip: there is no copy to load into (check_deepcopy says why), and two builds share "
        "model.backbone.weight, other.backbone.weight, model.backbone.bias and 1 more"
    )
    assert torch.equal(before, FROZEN.weight)


def test_what_builds_share_is_neither_moved_nor_overwritten() -> None:
    frozen = nn.Linear(3, 3).requires_grad_(False)

    class Resets(nn.Linear):
        def reset_parameters(self) -> None:
            nn.init.ones_(self.weight)
            nn.init.ones_(self.bias)
            for part in getattr(self, "parts", ()):
                part.reset_parameters()

    class Holds(Resets):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.parts = nn.ModuleList([frozen])

    before = {name: tensor.clone() for name, tensor in frozen.state_dict().items()}
    case = ModelCase(Holds, name="model")
    for name in ("check_dtype_move", "check_device_move", "check_reset_parameters"):
        run_check(CHECKS[name], CaseRun(case))
        for key, tensor in frozen.state_dict().items():
            assert (tensor.dtype, tensor.device.type) == (torch.float32, "cpu")
            assert torch.equal(tensor, before[key])

    class NoCopy(Holds):
        def __deepcopy__(self, memo: object) -> object:
            raise RuntimeError("no copy")

    for name in ("check_dtype_move", "check_device_move", "check_reset_parameters"):
        with pytest.raises(NothingToCheck, match=r"^two builds share model\.parts\.0\.weight"):
            run_check(CHECKS[name], CaseRun(ModelCase(NoCopy, name="model")))
