"""``assert_loaded`` of modules that save and load in their own way: they are asked."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import assert_loaded

from .messages import failure_lines, usage
from .state import difference, state_of


class Scaled(nn.Linear):
    """Saves a key that is not a name, and takes it from the state_dict that it is given."""

    def __init__(self, scale: float = 1.0) -> None:
        super().__init__(3, 2)
        self.scale = torch.tensor([scale])

    def _save_to_state_dict(self, out: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(out, prefix, keep_vars)
        out[prefix + "scale"] = self.scale

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        self.scale = state.pop(prefix + "scale").clone()
        super()._load_from_state_dict(state, prefix, *rest)


class Packed(nn.Linear):
    """Saves its weight transposed, and a tuple and a dtype beside it."""

    def _save_to_state_dict(self, out: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(out, prefix, keep_vars)
        out[prefix + "weight"] = self.weight.detach().t().contiguous()
        out[prefix + "packed"] = (self.bias.detach() * 2, {"dtype": torch.qint8, "axis": None})

    def _load_from_state_dict(self, state: Any, prefix: str, *rest: Any) -> None:
        state[prefix + "weight"] = state[prefix + "weight"].t()
        state.pop(prefix + "packed", None)
        super()._load_from_state_dict(state, prefix, *rest)


def post_hooked() -> nn.Module:
    """A hook adds a key to what is saved, which only ``strict=False`` loads."""
    model = nn.Linear(3, 2)
    model.register_state_dict_post_hook(
        lambda module, state, prefix, meta: state.update({prefix + "version": torch.tensor(2)})
    )
    return model


class RenamesOnLoad(nn.Module):
    """Takes the names of an older version, of itself and of the layer below it."""

    def __init__(self) -> None:
        super().__init__()
        self.gamma = nn.Parameter(torch.rand(3))
        self.body = nn.Linear(3, 2)
        self.register_load_state_dict_pre_hook(self._older)

    @staticmethod
    def _older(module: nn.Module, state: Any, prefix: str, *rest: Any) -> None:
        for old, new in (("old_scale", "gamma"), ("w_and_b", None)):
            if prefix + old in state:
                value = state.pop(prefix + old)
                if new:
                    state[prefix + new] = value
                else:  # one tensor becomes two
                    state[prefix + "body.weight"] = value[:, :3].clone()
                    state[prefix + "body.bias"] = value[:, 3].clone()

    def older(self) -> dict[str, Tensor]:
        both = torch.cat([self.body.weight, self.body.bias[:, None]], 1).detach().clone()
        return {"old_scale": self.gamma.detach().clone(), "w_and_b": both}


def saved(model: nn.Module) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch about its own storages of quantized tensors
        return copy.deepcopy(model.state_dict())


def nested(build: Callable[[], nn.Module]) -> nn.Module:
    return nn.Sequential(OrderedDict(first=nn.Linear(3, 3), inner=nn.Sequential(build())))


def quantized() -> nn.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = nn.Sequential(nn.Linear(3, 2))
        return torch.ao.quantization.quantize_dynamic(model, {nn.Linear})


OWN: dict[str, Callable[[], nn.Module]] = {
    "scaled": Scaled,
    "packed": lambda: Packed(3, 2),
    "post hook": post_hooked,
}


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
class TestOwnWays:
    @pytest.mark.parametrize("own", OWN)
    def test_its_own_checkpoint(self, own: str) -> None:
        model = nested(OWN[own])
        assert_loaded(model, saved(model))
        other = nested(OWN[own])
        other.load_state_dict(saved(model), strict=False)
        assert_loaded(other, saved(model))
        assert_loaded(nn.DataParallel(other), saved(model))
        assert_loaded(nn.DataParallel(other), saved(nn.DataParallel(model)))

    @pytest.mark.parametrize("own", OWN)
    def test_a_layer_that_was_not_loaded_is_still_found(self, own: str) -> None:
        model, state = nested(OWN[own]), saved(nested(OWN[own]))
        model.first.load_state_dict({"weight": state["first.weight"], "bias": state["first.bias"]})
        lines = failure_lines(assert_loaded, model, state)
        assert lines[0].startswith("not the checkpoint's values: inner.0.") or lines[0].startswith(
            "wrong shape: inner.0.weight; not the checkpoint's values: "
        )
        del state["inner.0.bias"]
        assert (
            "not in the checkpoint: inner.0.bias" in failure_lines(assert_loaded, model, state)[0]
        )

    def test_what_the_module_saves_under_its_own_key_is_compared(self) -> None:
        model = Scaled(2.0)
        state = saved(model)
        model.scale = torch.tensor([3.0])
        assert failure_lines(assert_loaded, model, state) == [
            "not the checkpoint's values: scale (Scaled)",
            "",
            "  scale  1 of 1 value: max abs 1 at [0], max rel 0.5",
        ]
        packed = Packed(3, 2)
        state = saved(packed)
        state["packed"] = (state["packed"][0] + 1, {"dtype": torch.quint8, "axis": None})
        lines = failure_lines(assert_loaded, packed, state)
        assert lines[0] == "not the checkpoint's values: packed[0], packed[1]['dtype'] (Packed)"
        assert lines[3] == "  packed[1]['dtype']  expected torch.quint8, found torch.qint8"

    def test_a_key_that_nobody_takes_is_still_unknown(self) -> None:
        model = nested(Scaled)
        state = {**saved(model), "inner.0.zero_point": torch.tensor(3)}
        assert failure_lines(assert_loaded, model, state)[0] == (
            "not in the model: inner.0.zero_point (Sequential)"
        )
        assert usage(assert_loaded, model, {**saved(model), "epoch": 3}) == (
            "checkpoint['epoch'] is not a tensor but int 3; pass the tensors only: "
            "{k: v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}"
        )

    def test_quantized_layers(self) -> None:
        model = quantized()
        assert_loaded(model, saved(model))
        lines = failure_lines(assert_loaded, model, saved(quantized()))
        assert lines[0] == (
            "not the checkpoint's values: 0._packed_params._packed_params[{0,1}] (Sequential)"
        )
        empty = torch.ao.nn.quantized.Quantize(0.5, 1, torch.quint8)
        assert_loaded(empty, saved(empty))

    def test_hooks_that_take_older_names(self) -> None:
        for model in (RenamesOnLoad(), nn.Sequential(RenamesOnLoad())):
            inner = model if isinstance(model, RenamesOnLoad) else model[0]
            prefix = "" if inner is model else "0."
            state = {prefix + key: value for key, value in inner.older().items()}
            assert_loaded(model, state)
            with torch.no_grad():
                inner.body.bias.add_(1)
            lines = failure_lines(assert_loaded, model, state)
            assert lines[0].startswith(f"not the checkpoint's values: {prefix}body.bias (")
            del state[prefix + "old_scale"]
            assert (
                "not in the checkpoint: " + prefix + "gamma"
                in failure_lines(assert_loaded, model, state)[0]
            )

    def test_an_old_weight_norm(self) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            old = nn.utils.weight_norm(nn.Linear(3, 2))
        new = nn.utils.parametrizations.weight_norm(nn.Linear(3, 2))
        state = {key: value.detach().clone() for key, value in old.state_dict().items()}
        lines = failure_lines(assert_loaded, new, state)
        assert lines[0].startswith("not the checkpoint's values: ")
        new.load_state_dict(dict(state))
        assert_loaded(new, state)

    def test_a_batch_norm_of_the_time_when_it_did_not_count(self) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        state = {key: value for key, value in saved(model).items() if "tracked" not in key}
        assert_loaded(model, state)
        newer = saved(model)
        del newer["1.num_batches_tracked"]  # its metadata say that it should be there
        assert failure_lines(assert_loaded, model, newer)[0] == (
            "not in the checkpoint: 1.num_batches_tracked (Sequential)"
        )
        del state["1.running_mean"]
        assert failure_lines(assert_loaded, model, state)[0] == (
            "not in the checkpoint: 1.running_mean (Sequential)"
        )

    def test_a_new_head_beside_modules_with_a_way_of_their_own(self) -> None:
        model = nn.ModuleDict(
            {"body": Scaled(), "norm": nn.BatchNorm1d(2), "head": nn.Linear(2, 5)}
        )
        state = {k: v for k, v in saved(model).items() if not k.endswith("tracked")}
        state["head.weight"], state["head.bias"] = torch.ones(9, 2), torch.ones(9)
        assert_loaded(model, state, missing=["head"], unexpected=["head"])
        assert failure_lines(assert_loaded, model, state)[0] == (
            "wrong shape: head.weight, head.bias (ModuleDict)"
        )

    @pytest.mark.parametrize("own", OWN)
    def test_a_model_that_cannot_be_copied_is_asked_what_it_saves(self, own: str) -> None:
        model = nested(OWN[own])
        model.generator = (number for number in range(3))
        assert_loaded(model, saved(model))
        assert failure_lines(assert_loaded, model, {**saved(model), "x": torch.ones(1)})[0] == (
            "not in the model: x (Sequential)"
        )

    def test_code_of_the_model_that_raises_is_not_asked(self) -> None:
        class Raises(nn.Linear):
            def _save_to_state_dict(self, *args: Any) -> None:
                raise KeyError("mine")

        model = Raises(3, 2)
        state = {key: value.detach().clone() for key, value in model.named_parameters()}
        assert_loaded(model, state)
        assert failure_lines(assert_loaded, model, {**state, "x": torch.ones(1)})[0] == (
            "not in the model: x (Raises)"
        )

    @pytest.mark.parametrize("own", OWN)
    def test_model_and_checkpoint_are_left_as_they_were(self, own: str) -> None:
        def in_place(module: nn.Module, state: Any, prefix: str, *rest: Any) -> None:
            torch.rand(1)
            torch.set_grad_enabled(False)
            for value in state.values():
                if isinstance(value, Tensor):
                    value.zero_()

        model = nested(OWN[own])
        model.register_load_state_dict_pre_hook(in_place)
        model.first(torch.ones(1, 3)).sum().backward()
        state = {**saved(model), "more": torch.ones(2)}
        before, kept = state_of(model), copy.deepcopy(state)
        assert failure_lines(assert_loaded, model, state)
        assert difference(before, state_of(model)) == []
        assert torch.is_grad_enabled()
        assert all(
            torch.equal(value, kept[key])
            for key, value in state.items()
            if isinstance(value, Tensor)
        )
