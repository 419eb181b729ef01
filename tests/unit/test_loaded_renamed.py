"""``assert_loaded(rename=, dtypes=)``: translated keys, and the checkpoint's dtypes."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import assert_loaded, assert_same_values

from .messages import failure, failure_lines, usage, whole


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.ModuleDict({"encoder": nn.Linear(3, 2), "encoder2": nn.Linear(3, 2)})


def state_of(module: nn.Module, **renames: str) -> dict[str, Tensor]:
    state = copy.deepcopy(module.state_dict())
    for old, new in renames.items():
        state = {
            new + key[len(old) :] if key.startswith(f"{old}.") else key: v
            for key, v in state.items()
        }
    return state


class TestRename:
    def test_prefixes_end_at_dots(self) -> None:
        net = model()
        state = state_of(net, encoder="backbone")
        assert_loaded(net, state, rename={"backbone": "encoder"})
        assert_loaded(net, state, rename={"backbone.": "encoder."})

    def test_a_prefix_that_is_taken_off_and_one_that_is_put_on(self) -> None:
        net = model()
        wrapped = {f"module.{key}": value for key, value in state_of(net).items()}
        assert_loaded(net, wrapped, rename={"module": ""})
        assert_loaded(
            net["encoder"],
            {"w.weight": net["encoder"].weight.clone()},
            missing=["bias"],
            rename={"w": ""},
        )
        assert_loaded(nn.ModuleDict({"net": net}), state_of(net), rename={"": "net"})

    def test_the_longest_prefix_decides(self) -> None:
        net = model()
        state = {
            "a.b.weight": net["encoder"].weight.clone(),
            "a.b.bias": net["encoder"].bias.clone(),
        }
        state |= {f"a.{k}": v.clone() for k, v in net["encoder2"].state_dict().items()}
        assert_loaded(net, state, rename={"a": "encoder2", "a.b": "encoder"})

    def test_an_adapter_s_keys_by_a_function(self) -> None:
        net = nn.ModuleDict({"lora_A": nn.ModuleDict({"default": nn.Linear(3, 2)})})
        saved = {
            "lora_A.weight": net["lora_A"]["default"].weight.clone(),
            "lora_A.bias": net["lora_A"]["default"].bias.clone(),
        }
        rename = lambda key: key.replace("lora_A.", "lora_A.default.")  # noqa: E731
        assert_loaded(net, saved, rename=rename)
        saved["lora_A.weight"] += 1
        assert failure_lines(assert_loaded, net, saved, rename=rename)[0] == (
            "not the checkpoint's values: lora_A.default.weight (ModuleDict)"
        )

    def test_swapped_components_are_seen(self) -> None:
        """What guessing at renames would take for right: the values of the other encoder."""
        net = model()
        state = {
            "a.weight": net["encoder"].weight.clone(),
            "b.weight": net["encoder2"].weight.clone(),
        }
        options = {"missing": ["*.bias"]}
        assert_loaded(net, state, rename={"a": "encoder", "b": "encoder2"}, **options)
        assert failure_lines(
            assert_loaded, net, state, rename={"a": "encoder2", "b": "encoder"}, **options
        )[0].startswith("not the checkpoint's values: ")

    def test_the_key_in_the_file_is_named(self) -> None:
        net = nn.ModuleDict({"encoder": nn.Linear(3, 2)})
        state = state_of(net, encoder="backbone") | {"backbone.scale": torch.ones(2, 2, 2)}
        assert failure(assert_loaded, net, state, rename={"backbone": "encoder"}) == whole(r"""
            not in the model: encoder.scale (ModuleDict)

              encoder.scale  Tensor 2x2x2 float32 cpu in the checkpoint, as backbone.scale

              hint: if it belongs to the model, register it before the load; if it is meant to be \
            left out: unexpected=['encoder.scale']
            """)
        for name in ("encoder.scale", "backbone.scale"):
            assert_loaded(net, state, rename={"backbone": "encoder"}, unexpected=[name])

    def test_wrong_calls(self) -> None:
        net = model()
        state = state_of(net)
        assert usage(assert_loaded, net, state, rename={"encodr": "x"}) == (
            "rename: no key of the checkpoint is 'encodr' or begins with 'encodr.'; did you mean "
            "'encoder', 'encoder2' or 'encoder.bias'?"
        )
        assert usage(assert_loaded, net, state, rename={"encoder2": "encoder"}) == (
            "rename gives 'encoder.weight' and 'encoder2.weight' one name: 'encoder.weight'"
        )
        assert usage(assert_loaded, net, state, rename=lambda key, value: key) == (
            "rename= is called with a key: lambda key: ..."
        )
        assert usage(assert_loaded, net, state, rename=lambda key: None) == (
            "rename returned NoneType None for 'encoder.weight'; it returns a name, and "
            "unexpected= says what is left out"
        )
        assert usage(assert_loaded, net, state, rename="encoder") == (
            "rename= is a mapping of prefixes or a function on keys, not str 'encoder'"
        )
        assert usage(assert_loaded, net, state, rename={"encoder": None}) == (
            "rename= maps prefixes to prefixes, not str 'encoder' to NoneType None"
        )


class TestDtypes:
    def test_a_cast_on_loading(self) -> None:
        net = model()
        state = state_of(net)
        net.bfloat16()
        assert_loaded(net, state)  # a cast is no difference, unless it is asked
        assert failure(assert_loaded, net, state, dtypes=True) == whole(r"""
            not the checkpoint's dtype: encoder.weight, encoder.bias, encoder2.weight, \
            encoder2.bias (ModuleDict)

              encoder.weight   float32 in the checkpoint, bfloat16 in the model
              encoder.bias     float32 in the checkpoint, bfloat16 in the model
              encoder2.weight  float32 in the checkpoint, bfloat16 in the model
              encoder2.bias    float32 in the checkpoint, bfloat16 in the model

              hint: build or move the model in the checkpoint's dtype before the load, or load \
            with assign=True; if the cast is intended: leave out dtypes=True
            """)
        net.load_state_dict(state, assign=True)  # the hint repairs
        assert_loaded(net, copy.deepcopy(state), dtypes=True)

    @pytest.mark.parametrize(
        ("dtypes", "shown"),
        [(torch.bfloat16, "torch.bfloat16"), ("bfloat16", "'bfloat16'"), (1, "1"), (None, "None")],
    )
    def test_a_dtype_is_no_answer(self, dtypes: Any, shown: str) -> None:
        net = model()
        for call, other in ((assert_loaded, state_of(net)), (assert_same_values, model())):
            assert usage(call, net, other, dtypes=dtypes) == (
                f"dtypes={shown}: True or False, whether dtypes have to be the same; which they "
                f"are is for assert_dtypes"
            )

    def test_modules_kept_in_float32(self) -> None:
        net = model().bfloat16()
        net["encoder2"].float()
        assert_loaded(net, state_of(net), dtypes=True)
