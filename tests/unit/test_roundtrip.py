"""``assert_roundtrip``: what comes back from saving and loading, and what does not."""

from __future__ import annotations

import errno
import os
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn
from torch.nn.utils import prune

from pytest_paramcheck import ParamCheckError, assert_roundtrip

from ..models import LM, IgnoresLoads, lm
from .messages import failure_lines, usage
from .state import difference, state_of
from .tensor_kinds import WITH_VALUES

WAYS = ("state_dict", "torch.save", "pickle", "safetensors")


class Freezes(nn.Linear):
    """What is unpickled is frozen."""

    def __setstate__(self, state: Any) -> None:
        super().__setstate__(state)
        self.requires_grad_(False)

    def __deepcopy__(self, memo: Any) -> Any:
        twin = Freezes(self.in_features, self.out_features)
        twin.load_state_dict(self.state_dict())
        return twin


class LoadsBy(nn.Linear):
    """Writes what ``load`` makes of an old tensor and the one in the state_dict."""

    def __init__(self, load: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__(3, 2)
        with torch.no_grad():
            self.weight.copy_(torch.tensor([[0.0, 1e-40, 7.0], [1e30, -1.0, -0.0]]))
        self.register_buffer("seen", torch.tensor([0, 255, 7], dtype=torch.uint8))
        self.register_buffer("on", torch.tensor([True, False]))
        self.register_buffer("step", torch.tensor(3))
        self.load = load

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        with torch.no_grad():
            for name in ("weight", "bias", "seen", "on", "step"):
                old = getattr(self, name)
                old.copy_(self.load(old, state[prefix + name]))


def square(value: int) -> nn.Linear:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, value)
    nn.init.zeros_(layer.bias)
    return layer


#: Each leaves some of what is there.
TAKES_HALF: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "nothing": lambda old, new: old,
    "adds": lambda old, new: old | new if old.dtype == torch.bool else old + new,
    "skips zeros": lambda old, new: new.where(new != 0, old),
    "keeps zeros": lambda old, new: new.where(old == 0, old),
    "keeps what is finite": lambda old, new: old.where(old.isfinite(), new),
}

#: torch has no deep copy of them.
CANNOT_BE_COPIED = [name for name, kind in WITH_VALUES.items() if not kind.copied]


class TestRoundtrip:
    @pytest.mark.parametrize("through", WAYS)
    def test_an_ordinary_model_survives(self, through: str) -> None:
        model = lm()
        model.norm.weight.requires_grad_(False)
        assert_roundtrip(model, through)

    @pytest.mark.parametrize("through", WAYS)
    def test_awkward_values_survive(self, through: str) -> None:
        """NaN, infinities and -0.0 come back bit for bit; comparing values would flag NaN."""
        model = nn.Linear(2, 2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[float("nan"), -0.0], [float("inf"), 1e-40]]))
        assert_roundtrip(model, through)

    def test_a_load_that_does_nothing(self) -> None:
        class Forgets(nn.Linear):
            def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
                return nn.Linear(1, 1).load_state_dict(nn.Linear(1, 1).state_dict())

        lines = failure_lines(assert_roundtrip, Forgets(3, 2))
        assert lines[0] == "different values: weight, bias (Forgets)"

    def test_a_state_dict_that_leaves_something_out(self) -> None:
        class Forgets(nn.Linear):
            def state_dict(self, *args: Any, **kwargs: Any) -> Any:
                state = super().state_dict(*args, **kwargs)
                del state["bias"]
                return state

        assert failure_lines(assert_roundtrip, Forgets(3, 2)) == [
            "not saved: bias (Forgets)",
            "",
            "  bias  the file or state_dict has no such key: Forgets has its own state_dict()",
        ]

    def test_a_state_dict_that_does_not_fit_itself(self) -> None:
        class Resizes(nn.Linear):
            def state_dict(self, *args: Any, **kwargs: Any) -> Any:
                state = super().state_dict(*args, **kwargs)
                state["bias"] = torch.zeros(7)
                state["more"] = torch.zeros(1)
                return state

        lines = failure_lines(assert_roundtrip, Resizes(3, 2))
        assert lines[0] == "does not load back (Resizes)"
        assert "size mismatch for bias" in lines[2]

    def test_a_tie_lost_on_the_way(self) -> None:
        def untie(model: Any) -> None:
            model.head.weight = nn.Parameter(model.head.weight.detach().clone())

        assert failure_lines(assert_roundtrip, lm(), untie) == [
            "tie lost: head.weight (LM)",
            "",
            "  head.weight  expected tied to emb.weight, found not tied",
        ]

    def test_what_a_round_trip_changes_has_no_consequence_for_checkpoints(self) -> None:
        """Nobody saved one in between: a rename is a loss and a gain, and order is order."""

        def change(model: Any) -> None:
            first, _, third = model
            model[1].weight = first.weight
            del model[2]
            model.add_module("other", third)
            del model[0].bias
            model[0].register_buffer("bias", torch.zeros(2), persistent=False)

        assert failure_lines(assert_roundtrip, nn.Sequential(*map(square, range(3))), change) == [
            "lost in the round trip: 2.weight and 1 more; new after loading; role changed; "
            "and 2 more (Sequential)",
            "",
            "  lost in the round trip:",
            "    2.weight  expected 2x2 float32 trainable",
            "    2.bias    expected 2 float32 trainable",
            "  new after loading:",
            "    other.weight  2x2 float32 trainable",
            "    other.bias    2 float32 trainable",
            "  role changed:",
            "    0.bias  expected trainable, found buffer not-persistent",
            "  tied only after loading:",
            "    1.weight  expected not tied, found tied to 0.weight",
            "  different values:",
            "    1.weight  4 of 4 values: max abs 1 at [0, 0], max rel inf",
        ]

    def test_a_flag_and_a_dtype_lost_on_the_way(self) -> None:
        def half(model: nn.Module) -> nn.Module:
            return model.requires_grad_(False).to(torch.bfloat16)

        assert failure_lines(assert_roundtrip, nn.Linear(3, 2), half) == [
            "dtype changed: weight, bias; role changed: weight, bias (Linear)",
            "",
            "  dtype changed:",
            "    weight  expected float32, found bfloat16",
            "    bias    expected float32, found bfloat16",
            "  role changed:",
            "    weight  expected trainable, found frozen",
            "    bias    expected trainable, found frozen",
        ]

    def test_another_model_comes_back(self) -> None:
        assert failure_lines(assert_roundtrip, nn.Linear(3, 2), lambda model: nn.PReLU()) == [
            "lost in the round trip: bias; reshaped: weight (Linear)",
            "",
            "  lost in the round trip:",
            "    bias  expected 2 float32 trainable",
            "  reshaped:",
            "    weight  expected 2x3, found 1",
        ]

        def more(model: Any) -> None:
            model.extra = nn.Parameter(torch.ones(2))

        assert failure_lines(assert_roundtrip, nn.Linear(3, 2), more) == [
            "new after loading: extra (Linear)",
            "",
            "  extra  2 float32 trainable",
        ]

    def test_a_model_without_values_comes_back(self) -> None:
        assert failure_lines(assert_roundtrip, nn.Linear(3, 2), lambda model: model.to("meta")) == [
            "came back without values: weight, bias (Linear)",
            "",
            "  weight  on meta, where tensors have no values",
            "  bias    on meta, where tensors have no values",
        ]

    def test_a_flag_that_pickling_loses(self) -> None:
        assert_roundtrip(Freezes(3, 2), "state_dict")
        assert failure_lines(assert_roundtrip, Freezes(3, 2), "pickle") == [
            "role changed: weight, bias (Freezes)",
            "",
            "  weight  expected trainable, found frozen",
            "  bias    expected trainable, found frozen",
        ]

    def test_two_parameters_that_change_places(self) -> None:
        """All keys, shapes and values are there, each under the other's name."""

        class Swaps(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.a = nn.Parameter(torch.zeros(2))
                self.b = nn.Parameter(torch.ones(2))

            def state_dict(self, *args: Any, **kwargs: Any) -> Any:
                state = super().state_dict(*args, **kwargs)
                state["a"], state["b"] = state["b"], state["a"]
                return state

        assert failure_lines(assert_roundtrip, Swaps()) == [
            "different values: a, b (Swaps)",
            "",
            "  a  2 of 2 values: max abs 1 at [0], max rel 1: Swaps has its own state_dict()",
            "  b  2 of 2 values: max abs 1 at [0], max rel inf: Swaps has its own state_dict()",
        ]

    @pytest.mark.parametrize("through", WAYS)
    def test_a_half_trained_model_is_left_as_it_was(self, through: str) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        model(torch.eye(3)).sum().backward()
        model[1].eval()
        model[0].bias.requires_grad_(False)
        before = state_of(model)
        assert_roundtrip(model, through)
        assert difference(before, state_of(model)) == []

    def test_modes_that_a_callable_leaves_behind(self) -> None:
        def careless(model: nn.Module) -> None:
            torch.manual_seed(5)
            torch.set_grad_enabled(False)
            torch.set_default_dtype(torch.float64)

        model = nn.Linear(3, 2)
        before = state_of(model)
        assert_roundtrip(model, careless)
        assert difference(before, state_of(model)) == []

    def test_a_load_that_does_nothing_to_a_sparse_buffer(self) -> None:
        """A sparse tensor cannot be filled, its values can."""
        model = IgnoresLoads(torch.eye(2, 3).to_sparse())
        assert failure_lines(assert_roundtrip, model) == [
            "different values: kept (IgnoresLoads)",
            "",
            "  kept  2 of 6 values: max abs 2.26 at [1, 1], max rel 2.3: IgnoresLoads has its own "
            "load_state_dict()",
        ]

    @pytest.mark.parametrize("through", ["state_dict", "torch.save"])
    @pytest.mark.parametrize("load", TAKES_HALF)
    def test_a_load_that_takes_only_half(self, load: str, through: str) -> None:
        """What is there before the load must not be a value that the load happens to leave
        right: zeros are, for one that adds."""
        with pytest.raises(ParamCheckError) as caught:
            assert_roundtrip(LoadsBy(TAKES_HALF[load]), through)
        missed = {name for finding in caught.value.findings for name in finding.names}
        has_zeros = {"weight", "seen", "on"}
        assert missed == (has_zeros if load == "skips zeros" else {*has_zeros, "bias", "step"})
        assert_roundtrip(LoadsBy(lambda old, new: new), through)

    def test_a_load_that_keeps_the_scale_of_a_quantized_tensor(self) -> None:
        build = WITH_VALUES["quantized"]

        class KeepsScale(nn.Module):
            def __init__(self, loads: bool = False) -> None:
                super().__init__()
                self.register_buffer("kept", build())
                self.loads = loads

            def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
                new = state[prefix + "kept"]
                if not self.loads:
                    new = torch._make_per_tensor_quantized_tensor(
                        new.int_repr(), self.kept.q_scale(), self.kept.q_zero_point()
                    )
                self.kept.copy_(new)

        lines = failure_lines(assert_roundtrip, KeepsScale())
        assert lines[0] == "different values: kept (KeepsScale)"
        assert_roundtrip(KeepsScale(loads=True))

    def test_what_shares_memory_is_overwritten_once(self) -> None:
        """Changed twice, a bit would be as before."""
        flat = torch.ones(6)
        model = nn.Module()
        for name, view in (("a", flat), ("b", flat.view(6)), ("c", flat[3:]), ("d", flat[2:5])):
            model.register_buffer(name, view)
        assert_roundtrip(model)
        model.load_state_dict = lambda state: None  # type: ignore[assignment,method-assign]
        lines = failure_lines(assert_roundtrip, model)
        assert lines[0] == "different values: a, b, c, d (Module)"
        assert [line.partition(":")[0] for line in lines[2:]] == [
            "  a  6 of 6 values",
            "  b  6 of 6 values",
            "  c  3 of 3 values",
            "  d  3 of 3 values",
        ]

    @pytest.mark.parametrize("kind", [kind for kind in WITH_VALUES if kind not in CANNOT_BE_COPIED])
    def test_a_load_that_does_nothing_is_noticed_for_every_kind(self, kind: str) -> None:
        lines = failure_lines(assert_roundtrip, IgnoresLoads(WITH_VALUES[kind]()))
        assert lines[0] == "different values: kept (IgnoresLoads)"

    @pytest.mark.parametrize("kind", CANNOT_BE_COPIED)
    @pytest.mark.parametrize("through", WAYS)
    def test_what_cannot_be_copied_is_named(self, kind: str, through: str) -> None:
        said = usage(assert_roundtrip, IgnoresLoads(WITH_VALUES[kind]()), through)
        assert said.startswith("IgnoresLoads cannot be copied, so nothing can be done to a copy: ")

    def test_a_copy_that_shares_memory_is_never_written_to(self) -> None:
        class Shares(nn.Linear):
            def __deepcopy__(self, memo: Any) -> Any:
                return self

        class SharesMemory(nn.Linear):
            def __deepcopy__(self, memo: Any) -> Any:
                twin = SharesMemory(3, 2)
                twin.weight = nn.Parameter(self.weight.data[:])
                return twin

        def message(name: str, names: str) -> str:
            return (
                f"a deep copy of {name} shares memory with it ({names}): what is done to the "
                f"copy would be done to the model; let its __deepcopy__ copy them"
            )

        for model, names in ((Shares(3, 2), "weight, bias"), (SharesMemory(3, 2), "weight")):
            before = model.weight.detach().clone()
            for through in (*WAYS, lambda model: model):
                assert usage(assert_roundtrip, model, through) == message(
                    type(model).__name__, names
                )
            assert torch.equal(model.weight, before)

    def test_a_load_state_dict_of_the_model_s_own(self) -> None:
        """It takes no ``strict``, returns nothing, and knows about a key left out for a tie."""

        class Own(LM):
            def state_dict(self, *args: Any, **kwargs: Any) -> Any:
                state = super().state_dict(*args, **kwargs)
                del state["head.weight"]
                return state

            def load_state_dict(self, state: Any) -> None:  # type: ignore[override]
                super().load_state_dict({**state, "head.weight": state["emb.weight"]})

        for through in ("state_dict", "torch.save"):
            assert_roundtrip(Own(), through)

    def test_what_cannot_be_saved(self) -> None:
        class Local(nn.Linear):
            pass

        lines = failure_lines(assert_roundtrip, Local(3, 2), "pickle")
        assert lines[0] == "cannot be saved (Local)"
        assert lines[2].startswith("  AttributeError: Can't ")

        model = nn.Linear(3, 2)
        model.register_buffer("phase", torch.ones(2, dtype=torch.complex128))
        assert_roundtrip(model, "torch.save")
        assert failure_lines(assert_roundtrip, model, "safetensors") == [
            "cannot be saved (Linear)",
            "",
            "  safetensors has no complex128: phase",
        ]

    def test_a_state_dict_that_weights_only_refuses(self) -> None:
        class Extra(nn.Linear):
            def get_extra_state(self) -> Any:
                return nn.Linear

            def set_extra_state(self, state: Any) -> None:
                del state

        assert_roundtrip(Extra(3, 2))
        assert failure_lines(assert_roundtrip, Extra(3, 2), "torch.save") == [
            "does not load back (Extra)",
            "",
            "  torch.load with weights_only=True refuses torch.nn.modules.linear.Linear",
            "",
            "  hint: torch.serialization.add_safe_globals([...]) allows "
            "torch.nn.modules.linear.Linear by name",
        ]

    def test_the_error_of_a_callable_comes_through(self) -> None:
        error = KeyError("mine")

        def fails(model: nn.Module) -> None:
            raise error

        with pytest.raises(KeyError) as caught:
            assert_roundtrip(nn.Linear(3, 2), fails)
        assert caught.value is error

    @pytest.mark.filterwarnings("ignore:.torch.nn.utils.weight_norm. is deprecated:FutureWarning")
    @pytest.mark.parametrize("through", ["state_dict", "torch.save", "safetensors"])
    def test_what_a_forward_left_with_its_graph_is_no_obstacle(self, through: str) -> None:
        """torch copies no such tensor; pruning and old weight_norm leave one in each module."""
        pruned = prune.random_unstructured(nn.Linear(3, 2), "weight", amount=0.5)
        normed = nn.utils.weight_norm(nn.Linear(3, 2))
        cached = nn.Linear(3, 2)
        cached.cache = {"last": [cached(torch.rand(4, 3))]}
        for model in (pruned, normed, cached):
            before = dict(vars(model))
            assert_roundtrip(model, through)
            assert all(vars(model)[name] is value for name, value in before.items())

    def test_what_cannot_be_copied_for_its_attributes(self) -> None:
        model = nn.Linear(3, 2)
        model.lock = threading.Lock()
        assert usage(assert_roundtrip, model) == (
            "Linear cannot be copied, so nothing can be done to a copy: "
            "cannot pickle '_thread.lock' object"
        )

    @pytest.mark.parametrize("through", ["torch.save", "safetensors"])
    def test_a_disk_that_is_full_is_no_fault_of_the_model(
        self, through: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
    ) -> None:
        def full(*args: Any, **options: Any) -> Any:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
        said = f"nothing can be saved to the temporary folder {tmp_path}: "
        for owner, name in ((torch, "save"), (safetensors.torch, "save_model")):
            monkeypatch.setattr(owner, name, full)
        assert usage(assert_roundtrip, nn.Linear(2, 2), through) == (
            f"{said}No space left on device"
        )
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setattr(tempfile, "mkdtemp", full)
        assert usage(assert_roundtrip, nn.Linear(2, 2), through) == (
            f"{said}No space left on device"
        )

    def test_usage(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert usage(assert_roundtrip, nn.Linear(2, 2), "statedict") == (
            "through='statedict' is not a way to save a model; did you mean 'state_dict'?"
        )
        assert usage(assert_roundtrip, nn.Linear(2, 2).state_dict()) == (
            "a model is saved and loaded, not an OrderedDict; for a state_dict on disk there is "
            "assert_loaded"
        )
        assert usage(assert_roundtrip, nn.Linear(2, 2, device="meta")) == (
            "weight: on meta, where tensors have no values; there is nothing to save"
        )
        assert usage(assert_roundtrip, nn.Linear(2, 2), lambda model: 3) == (
            "through= returned int: it returns a module, or None where it works in place"
        )
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
        assert usage(assert_roundtrip, nn.Linear(2, 2), "safetensors") == (
            "this needs safetensors, which is not installed: "
            "pip install 'pytest-paramcheck[safetensors]'"
        )
