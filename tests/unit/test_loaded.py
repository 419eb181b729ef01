"""``assert_loaded``: what came out of a checkpoint, what did not, loads that only look right."""

from __future__ import annotations

import copy
import errno
import gc
import os
import pickle
import re
import socket
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import (
    ParamCheckError,
    assert_loaded,
    assert_manifest,
    assert_same_values,
)
from pytest_paramcheck.messages.wording import printable
from pytest_paramcheck.parameters.saving.state_dicts import tensors_of_state
from pytest_paramcheck.parameters.subject.reading import take_inventory

from ..models import IgnoresLoads, lm
from .messages import failure_lines, usage
from .tensor_kinds import WITH_VALUES, WITHOUT_VALUES, Wrapper

posix = pytest.mark.skipif(os.name != "posix", reason="pipes, links and reasons are POSIX's")


def saved(model: nn.Module) -> dict[str, Tensor]:
    return copy.deepcopy(model.state_dict())


class TestLoaded:
    def test_all_of_it(self) -> None:
        model = lm()
        assert_loaded(model, saved(model))

    def test_a_tied_model_needs_one_of_the_names(self) -> None:
        model = lm()
        state = saved(model)
        del state["head.weight"]
        assert_loaded(model, state)

    def test_a_cast_is_no_difference(self) -> None:
        model = lm()
        state = saved(model)
        assert_loaded(model.to(torch.bfloat16), state)

    def test_torch_s_own_rule_for_scalars(self) -> None:
        model = nn.Module()
        model.scale = nn.Parameter(torch.tensor(2.0))
        assert_loaded(model, {"scale": torch.tensor([2.0])})

    def test_a_wrapped_model_and_its_own_keys(self) -> None:
        wrapped = nn.DataParallel(nn.Linear(3, 2))
        assert_loaded(wrapped, saved(wrapped))
        assert_loaded(wrapped, saved(wrapped.module))

    def test_a_child_really_called_module(self) -> None:
        model = nn.ModuleDict({"module": nn.Linear(3, 2)})
        assert_loaded(model, saved(model))

    def test_a_prefix_on_all_keys(self) -> None:
        model = nn.Linear(3, 2)
        state = {f"module.{key}": value for key, value in saved(nn.Linear(3, 2)).items()}
        assert failure_lines(assert_loaded, model, state) == [
            "not loaded: module.weight, module.bias (Linear)",
            "",
            "  module.weight, module.bias  all keys of the checkpoint carry the prefix 'module.'",
            "",
            "  hint: strip it: key.removeprefix('module.')",
        ]

    def test_a_prefix_beside_what_was_declared(self) -> None:
        model = nn.ModuleDict({"net": nn.Linear(3, 2), "head": nn.Linear(2, 4)})
        state = {f"module.net.{k}": v for k, v in saved(nn.Linear(3, 2)).items()}
        state["step"] = torch.tensor(7)
        assert failure_lines(
            assert_loaded, model, state, missing=["head"], unexpected=["step"]
        ) == [
            "not loaded: module.net.weight, module.net.bias (ModuleDict)",
            "",
            "  module.net.weight, module.net.bias  all keys of the checkpoint carry the prefix "
            "'module.'",
            "",
            "  hint: strip it: key.removeprefix('module.')",
        ]

    def test_a_prefix_on_none(self) -> None:
        model = nn.ModuleDict({"net": nn.Linear(3, 2)})
        state = saved(nn.Linear(3, 2))
        assert failure_lines(assert_loaded, model, state) == [
            "not loaded: net.weight, net.bias (ModuleDict)",
            "",
            "  net.weight, net.bias  all keys of the checkpoint lack the prefix 'net.'",
            "",
            "  hint: add it: 'net.' + key",
        ]

    def test_a_renamed_component(self) -> None:
        model = nn.ModuleDict({"emb": nn.Linear(3, 2), "head": nn.Linear(2, 4)})
        state = {key.replace("head.", "lm_head."): v for key, v in saved(model).items()}
        nn.init.zeros_(model["head"].weight)  # the zeros of the bias are there in any case
        assert failure_lines(assert_loaded, model, state) == [
            "probably renamed: lm_head.weight, lm_head.bias (ModuleDict)",
            "",
            "  lm_head.weight  'lm_head' became 'head'",
            "  lm_head.bias    'lm_head' became 'head'",
            "",
            "  hint: rename the key before loading, or load what was saved from this model",
        ]

    def test_missing_and_unexpected(self) -> None:
        model = lm()
        state = saved(model)
        del state["norm.weight"]
        state["old"] = torch.ones(2, 2)
        assert failure_lines(assert_loaded, model, state) == [
            "not in the model: old; not in the checkpoint: norm.weight (LM)",
            "",
            "  not in the model:",
            "    old  Tensor 2x2 float32 cpu in the checkpoint",
            "  not in the checkpoint:",
            "    norm.weight  Parameter 3 float32 cpu as the model was built",
            "",
            "  hint: if it belongs to the model, register it before the load; if it is meant to be "
            "left out: unexpected=['old']",
            "  hint: if it is meant to be new: missing=['norm.weight']",
        ]
        assert_loaded(model, state, missing=["norm.weight"], unexpected=["old"])
        model.register_buffer("old", state["old"].clone())
        assert_loaded(model, state, missing=["norm.weight"])

    def test_a_new_head_on_a_loaded_backbone(self) -> None:
        backbone = nn.Linear(3, 3)
        state = {f"backbone.{key}": value for key, value in saved(backbone).items()}
        model = nn.ModuleDict({"backbone": backbone, "head": nn.Linear(3, 2)})
        assert_loaded(model, state, missing=["head"])

    def test_a_buffer_that_is_no_longer_persistent(self) -> None:
        model = lm()
        state = {**saved(model), "mask": torch.ones(2)}
        assert failure_lines(assert_loaded, model, state)[2] == (
            "  mask  Tensor 2 float32 cpu in the checkpoint: the model's buffer of this name is "
            "not persistent, so nothing is loaded into it"
        )

    def test_values_that_are_not_the_checkpoint_s(self) -> None:
        model = nn.Linear(3, 2)
        state = saved(model)
        with torch.no_grad():
            model.bias[1] += 0.5
        lines = failure_lines(assert_loaded, model, state)
        assert lines[0] == "not the checkpoint's values: bias (Linear)"
        assert lines[2].startswith("  bias  1 of 2 values: max abs 0.5 at [1]")

    def test_one_parameter_with_two_values_in_the_checkpoint(self) -> None:
        """An untied checkpoint in a tied model: the key that was loaded last is the one it has."""
        model = lm()
        state = saved(lm(tied=False))
        state["emb.weight"] = torch.zeros(5, 3)
        state["head.weight"] = torch.ones(5, 3)
        model.load_state_dict(state)
        assert failure_lines(assert_loaded, model, state) == [
            "not the checkpoint's values: emb.weight (LM)",
            "",
            "  emb.weight  15 of 15 values: max abs 1 at [0, 0], max rel inf: tied to head.weight, "
            "of which the checkpoint has another value: the last one loaded stays",
        ]
        assert_loaded(model, {**state, "emb.weight": torch.ones(5, 3)})
        with torch.no_grad():
            model.emb.weight.fill_(3)  # trained since: both keys agree, and both are told
        assert failure_lines(assert_loaded, model, {**state, "emb.weight": torch.ones(5, 3)}) == [
            "not the checkpoint's values: emb.weight, head.weight (LM)",
            "",
            "  emb.weight   15 of 15 values: max abs 2 at [0, 0], max rel 2",
            "  head.weight  15 of 15 values: max abs 2 at [0, 0], max rel 2",
        ]

    def test_a_broadcast_match_is_no_match(self) -> None:
        model = nn.Linear(3, 2)
        with torch.no_grad():
            model.weight.copy_(torch.ones(2, 3))
        state = {**saved(model), "weight": torch.ones(1, 3)}
        assert failure_lines(assert_loaded, model, state) == [
            "wrong shape: weight (Linear)",
            "",
            "  weight  expected 1x3 as in the checkpoint, found 2x3: equal after broadcasting, "
            "which is not a match",
        ]

    def test_another_kind_of_dtype(self) -> None:
        model = nn.Linear(3, 2)
        state = {**saved(model), "bias": torch.zeros(2, dtype=torch.int64)}
        assert failure_lines(assert_loaded, model, state) == [
            "wrong dtype: bias (Linear)",
            "",
            "  bias  expected int64, found float32",
        ]

    def test_dtypes_are_asked_of_all_that_are_of_one_kind(self) -> None:
        """What is of another kind hides no cast behind it."""
        model = nn.ParameterDict({"a": torch.zeros(2), "b": torch.zeros(2)})
        state = {
            "a": torch.zeros(2, dtype=torch.int64),
            "b": torch.zeros(2, dtype=torch.float64),
        }
        assert failure_lines(assert_loaded, model, state, dtypes=True)[0] == (
            "wrong dtype: a; not the checkpoint's dtype: b (ParameterDict)"
        )

    def test_a_mapping_that_shares_memory_with_the_model(self) -> None:
        """What every loader leaves that does not copy."""
        state = {**saved(nn.Linear(3, 2)), "scale": torch.ones(())}
        model = nn.Linear(3, 2, device="meta")
        model.scale = nn.Parameter(torch.empty((), device="meta"))
        model.load_state_dict(state, assign=True)
        assert_loaded(model, state)

        table = torch.rand(5, 3)
        assert_loaded(nn.Embedding.from_pretrained(table), {"weight": table})
        model = nn.Module()
        model.a = nn.Parameter(table[:2])
        model.register_buffer("b", table[2])
        assert_loaded(model, {"a": table[:2], "b": table[2]})
        assert_loaded(model, model.state_dict())  # it proves nothing, and cannot be told apart

    def test_a_mapping_that_shares_memory_with_another_name_of_the_model(self) -> None:
        model = nn.Linear(3, 2, bias=False)
        state = {**model.state_dict(), "ema.weight": model.weight.detach()[:1]}
        assert_loaded(model, state, unexpected=["ema"])
        state = {"weight": torch.zeros(2, 3)}
        state["weight"][:1] = model.weight.detach()[:1]
        lines = failure_lines(assert_loaded, model, state)
        assert lines[2].startswith("  weight  3 of 6 values: ")

    def test_the_model_s_own_parameters_are_no_checkpoint(self) -> None:
        model = nn.Sequential(*[nn.Linear(3, 3) for _ in range(3)])
        said = (
            "the checkpoint holds the model's own Parameter objects ({}), as named_parameters() "
            "gives them and load_state_dict(assign=True) takes them over: the model would be "
            "compared with itself; pass the file, or a copy made before"
        )
        assert usage(assert_loaded, model, model.state_dict(keep_vars=True)) == said.format(
            "{0..2}.weight, {0..2}.bias"
        )
        state = {**saved(model), "0.bias": model[0].bias}
        assert usage(assert_loaded, model, state) == said.format("0.bias")
        assert_loaded(model, {key: nn.Parameter(value) for key, value in saved(model).items()})

    def test_a_tie_that_the_model_does_not_have(self) -> None:
        tied = lm()
        untied = lm(tied=False)
        state = saved(tied)
        untied.load_state_dict(state)
        assert failure_lines(assert_loaded, untied, state) == [
            "tie of the checkpoint lost: emb.weight, head.weight (LM)",
            "",
            "  emb.weight, head.weight  one tensor in the checkpoint, several parameters in the "
            "model: they will diverge at the first optimizer step",
            "",
            "  hint: tie them in the model before loading",
        ]

    @pytest.mark.parametrize("through", ["mapping", "file"])
    def test_extra_state_is_no_parameter(self, through: str, tmp_path: Path) -> None:
        """A tensor (fp8 recipes are bytes in one) or not, at any depth."""

        class Extra(nn.Linear):
            def get_extra_state(self) -> Any:
                return torch.ones(3, dtype=torch.uint8)

            def set_extra_state(self, state: Any) -> None: ...

        model = nn.Sequential(Extra(3, 2), nn.Sequential(Extra(3, 2)))
        state: Any = saved(model)
        assert "1.0._extra_state" in state
        if through == "file":
            torch.save(state, tmp_path / "m.pt")
            state = tmp_path / "m.pt"
        assert_loaded(model, state)
        assert_same_values(model, saved(model))
        assert usage(assert_loaded, model, {"_extra_state": torch.ones(3)}) == (
            "the checkpoint holds no tensors: there is nothing to check"
        )

    @pytest.mark.parametrize("prefix", ["module.", "model.", "_orig_mod.", "net.encoder."])
    def test_a_loader_that_takes_a_prefix_off(self, prefix: str) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        state = {prefix + key: value for key, value in saved(model).items()}
        assert_loaded(model, state)
        lacking = nn.ModuleDict({"net": model})
        assert_loaded(lacking, saved(model))

    def test_a_loader_that_takes_a_prefix_off_and_loses_a_layer(self) -> None:
        """It was loaded under the other names; what was initialized again was not."""
        model = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 2))
        state = {f"model.{key}": value for key, value in saved(model).items()}
        nn.init.zeros_(model[1].weight)
        lines = failure_lines(assert_loaded, model, state)
        assert lines[0] == "not the checkpoint's values: model.1.weight (Sequential)"

    def test_equal_constants_are_no_proof_that_a_prefix_was_taken_off(self) -> None:
        model, trained = nn.LayerNorm(3), nn.LayerNorm(3)
        nn.init.normal_(trained.weight)
        state = {f"model.{key}": value for key, value in saved(trained).items()}
        assert failure_lines(assert_loaded, model, state)[0] == (
            "not loaded: model.weight, model.bias (LayerNorm)"
        )

    def test_a_loader_that_renames(self) -> None:
        model = nn.ModuleDict({"emb": nn.Linear(3, 2), "head": nn.Linear(2, 4)})
        state = {key.replace("head.", "lm_head."): v for key, v in saved(model).items()}
        assert_loaded(model, state)
        inserted = {key.replace("head.", "head.inner."): v for key, v in saved(model).items()}
        assert_loaded(model, inserted)

    def test_nothing_was_loaded(self) -> None:
        def build() -> nn.Module:
            return nn.Sequential(nn.Linear(8, 8), nn.LayerNorm(8), nn.BatchNorm1d(8))

        model, state = build(), saved(build())
        assert failure_lines(assert_loaded, model, state) == [
            "nothing loaded: 0.weight, 0.bias (Sequential)",
            "",
            "  0.weight, 0.bias  none of their values is the checkpoint's",
            "",
            "  hint: load it first, from the level of the file that has these names: "
            "model.load_state_dict(state)",
        ]
        model.load_state_dict(state)
        assert_loaded(model, state)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(torch.randn(parameter.shape) * 0.05)
        assert failure_lines(assert_loaded, model, state)[0] == (  # trained since
            "not the checkpoint's values: {0..2}.weight, {0..2}.bias (Sequential)"
        )

    def test_values_under_each_other_s_names(self) -> None:
        """A conversion that took query for key: all is there, and nothing is in its place."""
        model = nn.ModuleDict({"q": nn.Linear(3, 3, bias=False), "k": nn.Linear(3, 3, bias=False)})
        state = saved(model)
        state["q.weight"], state["k.weight"] = state["k.weight"], state["q.weight"]
        lines = failure_lines(assert_loaded, model.bfloat16(), state)
        assert lines[0] == "not the checkpoint's values: q.weight, k.weight (ModuleDict)"
        assert lines[2].endswith(": it holds what the checkpoint has as k.weight")
        assert lines[3].endswith(": it holds what the checkpoint has as q.weight")

    def test_a_half_loaded_model_is_not_an_unloaded_one(self) -> None:
        model, state = lm(), saved(lm())
        model.emb.load_state_dict({"weight": state["emb.weight"]})
        nn.init.normal_(model.norm.weight)
        nn.init.normal_(model.norm.bias)
        lines = failure_lines(assert_loaded, model, state)
        assert lines[0] == "not the checkpoint's values: norm.weight, norm.bias (LM)"

    def test_no_key_is_a_name_of_the_model(self) -> None:
        state = {"enc.k": torch.ones(9, 4), "enc.q": torch.ones(9, 4), "dec.k": torch.ones(4)}
        assert failure_lines(assert_loaded, nn.Linear(3, 2), state) == [
            "nothing loaded: enc.k, enc.q, dec.k (Linear)",
            "",
            "  enc.k, enc.q, dec.k  no key of the checkpoint is a name of the model: "
            "it has weight, bias",
            "",
            "  hint: load what was saved from this model, or the level of the file that has its "
            "names",
        ]

    def test_a_missing_parameter_that_may_be_tied(self) -> None:
        model = lm(tied=False)
        state = saved(model)
        del state["head.weight"]
        said = failure_lines(assert_loaded, model, state)
        assert said == [
            "not in the checkpoint: head.weight (LM)",
            "",
            "  head.weight  Parameter 5x3 float32 cpu as the model was built",
            "",
            "  hint: if it is tied to emb.weight, tie before the load: model.head.weight = "
            "model.emb.weight; if it is meant to be new: missing=['head.weight']",
        ]
        model.head.weight = model.emb.weight
        assert_loaded(model, state)
        stack = nn.Sequential(*[nn.Linear(3, 3) for _ in range(3)])
        state = saved(stack)
        del state["1.weight"]
        assert failure_lines(assert_loaded, stack, state)[-1] == (
            "  hint: if it is meant to be new: missing=['1.weight']"
        )

    def test_a_missing_buffer_that_may_be_computed(self) -> None:
        model = nn.Linear(3, 2)
        state = saved(model)
        model.register_buffer("mask", torch.ones(2))
        assert failure_lines(assert_loaded, model, state)[-1] == (
            "  hint: if it can be computed: register_buffer(..., persistent=False); if it is "
            "meant to be new: missing=['mask']"
        )
        assert_loaded(model, state, missing=["mask"])
        model.gain = nn.Parameter(torch.ones(2))
        assert failure_lines(assert_loaded, model, state)[-2:] == [
            "  hint: if it is meant to be new: missing=['gain']",
            "  hint: if it can be computed: register_buffer(..., persistent=False); if it is "
            "meant to be new: missing=['mask']",
        ]
        del model.gain
        model.register_buffer("mask", torch.ones(2), persistent=False)
        assert_loaded(model, state)

    def test_a_dtype_that_cannot_hold_the_checkpoint_s_values(self) -> None:
        """Rounding is no difference, and a few tiny values are lost in any cast."""
        model = nn.Linear(3, 2)
        with torch.no_grad():
            model.weight.copy_(torch.tensor([[1.0, 1e-9, -7e4], [2.0, 3.0, 4e5]]))
            model.bias.copy_(torch.tensor([1e-9, -3e-9]))
        state = saved(model)
        assert_loaded(model.bfloat16(), state)
        model.load_state_dict(state)
        assert failure_lines(assert_loaded, model.half(), state) == [
            "values lost in the cast: weight, bias (Linear)",
            "",
            "  weight  2 of 6 values overflowed, first at [0, 2]: float16 cannot hold what the "
            "checkpoint has in float32",
            "  bias    2 of 2 values underflowed to zero, first at [0]: float16 cannot hold what "
            "the checkpoint has in float32",
            "",
            "  hint: keep in float32 what float16 cannot hold",
        ]
        state["weight"].clamp_(-1, 1)
        state["bias"][0] = 1.0
        model = nn.Linear(3, 2, dtype=torch.float16)
        model.load_state_dict(state)
        assert_loaded(model, state)
        wide = {"a": torch.tensor([1e300]), "b": torch.tensor(1e39, dtype=torch.complex128)}
        narrow = {"a": wide["a"].float(), "b": wide["b"].to(torch.complex64)}
        wide["a"] = wide["a"].double() * 1e300
        assert failure_lines(assert_loaded, narrow, wide)[0] == (
            "values lost in the cast: b (a dict of tensors)"
        )

    @pytest.mark.parametrize(
        "dtype", [torch.float16, torch.bfloat16, torch.float8_e4m3fn, torch.float8_e5m2]
    )
    def test_the_largest_number_of_a_dtype_is_rounded_to_and_no_more(
        self, dtype: torch.dtype
    ) -> None:
        largest = torch.finfo(dtype).max
        for factor, lost in ((1.0, False), (1.0 + torch.finfo(dtype).eps / 8, False), (3.0, True)):
            wide = {"w": torch.tensor([1.0, largest * factor], dtype=torch.float64)}
            narrow = {"w": wide["w"].to(dtype)}
            if lost:
                assert failure_lines(assert_loaded, narrow, wide)[0] == (
                    "values lost in the cast: w (a dict of tensors)"
                )
            else:
                assert_loaded(narrow, wide)

    def test_integers_beyond_the_signed_range(self) -> None:
        """A cast wraps them round to the same bits."""
        large = torch.tensor([2**64 - 1, 3], dtype=torch.uint64)
        for model, state in (
            (large.view(torch.int64), large),
            (large, large.view(torch.int64)),
        ):
            assert failure_lines(assert_loaded, {"n": model}, {"n": state})[2] == (
                "  n  1 of 2 values beyond the range of int64"
            )
        assert_loaded({"n": large[1:].to(torch.int64)}, {"n": large[1:]})

    def test_a_complex_match_in_the_real_part_is_no_match(self) -> None:
        lines = failure_lines(
            assert_loaded,
            {"kept": torch.ones(2, 3)},
            {"kept": torch.full((1, 3), 1 + 1j)},
        )
        assert lines[2] == "  kept  expected 1x3 as in the checkpoint, found 2x3"

    def test_slices_of_one_buffer_share_nothing(self) -> None:
        """One storage, no cell in common: comparing storages would flag it."""
        flat = torch.ones(4)
        model = nn.Module()
        model.weight = nn.Parameter(flat[:2])
        assert_loaded(model, {"weight": flat[2:]})

    def test_a_tie_by_memory_that_both_have(self) -> None:
        """Two Parameters on one memory: the state_dict holds one memory twice, and so it should."""
        model = nn.Module()
        model.a = nn.Parameter(torch.ones(3))
        model.b = nn.Parameter(model.a.data)
        assert_loaded(model, saved(model))

    def test_a_new_head_in_the_place_of_the_old_one(self) -> None:
        model = nn.ModuleDict({"body": nn.Linear(3, 3), "head": nn.Linear(3, 2)})
        state = {**saved(model), "head.weight": torch.ones(9, 3), "head.bias": torch.ones(9)}
        assert failure_lines(assert_loaded, model, state, missing=["head"]) == [
            "wrong shape: head.weight, head.bias (ModuleDict)",
            "",
            "  head.weight  expected 9x3 as in the checkpoint, found 2x3",
            "  head.bias    expected (9,) as in the checkpoint, found (2,)",
            "",
            "  hint: if it is meant to be new: missing=[...], unexpected=[...]",
        ]
        assert failure_lines(assert_loaded, model, state, unexpected=["head"]) == [
            "not in the checkpoint: head.weight, head.bias (ModuleDict)",
            "",
            "  head.weight  Parameter 2x3 float32 cpu as the model was built",
            "  head.bias    Parameter 2 float32 cpu as the model was built",
            "",
            "  hint: if it is meant to be new: missing=['head.weight', 'head.bias']",
        ]
        assert_loaded(model, state, missing=["head"], unexpected=["head"])

    def test_a_tied_name_that_was_renamed(self) -> None:
        model = lm()
        state = saved(model)
        state["lm_head.weight"] = state.pop("head.weight") + 1
        assert failure_lines(assert_loaded, model, state) == [
            "probably renamed: lm_head.weight (LM)",
            "",
            "  lm_head.weight  'lm_head' became 'head'",
            "",
            "  hint: rename the key before loading, or load what was saved from this model",
        ]

    def test_integers_of_another_width(self) -> None:
        model = nn.BatchNorm1d(2)
        with torch.no_grad():
            model.num_batches_tracked.fill_(3)
        state = {**saved(model), "num_batches_tracked": torch.tensor(3, dtype=torch.int32)}
        assert_loaded(model, state)
        model.num_batches_tracked = model.num_batches_tracked.to(torch.int8)
        assert failure_lines(
            assert_loaded, model, {**state, "num_batches_tracked": torch.tensor(259)}
        ) == [
            "not the checkpoint's values: num_batches_tracked (BatchNorm1d)",
            "",
            "  num_batches_tracked  3 in the model, 259 in the checkpoint",
        ]

    @pytest.mark.parametrize("kind", WITH_VALUES)
    def test_every_kind_of_tensor(self, kind: str) -> None:
        model = IgnoresLoads(WITH_VALUES[kind]())
        assert_loaded(model, {"kept": WITH_VALUES[kind]()})
        assert_loaded({"kept": WITH_VALUES[kind]()}, {"kept": WITH_VALUES[kind]()})

    @pytest.mark.parametrize("kind", WITH_VALUES)
    def test_every_kind_of_tensor_with_other_values(self, kind: str) -> None:
        held, other = WITH_VALUES[kind](), WITH_VALUES[kind].of(torch.eye(2, 3) * 5)
        lines = failure_lines(assert_loaded, IgnoresLoads(held), {"kept": other})
        assert lines[0] == "not the checkpoint's values: kept (IgnoresLoads)"

    @pytest.mark.parametrize("kind", WITHOUT_VALUES)
    def test_what_has_no_values_is_named(self, kind: str) -> None:
        build, why = WITHOUT_VALUES[kind]
        ones = torch.ones(2, 3)
        for model, state, where in (
            (build(), ones, "of the model"),
            (ones, build(), "of the checkpoint"),
        ):
            assert usage(assert_loaded, {"kept": model}, {"kept": state}) == (
                f"kept {where}: {why}; its values cannot be compared"
            )

    @pytest.mark.parametrize("saved_on", ["meta", "cpu"])
    def test_keys_that_do_not_fit_are_named_on_meta_too(self, saved_on: str) -> None:
        """Whether they came under another name only values tell: nothing is asked of them."""
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to("meta")
        state = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2)).to(saved_on).state_dict()
        first, *_ = failure_lines(
            assert_loaded, model, {f"module.{key}": value for key, value in state.items()}
        )
        assert first == (
            "not loaded: module.{0,1}.weight, module.{0,1}.bias, module.1.running_mean and 2 more "
            "(Sequential)"
        )

    def test_a_subclass_against_a_plain_tensor(self) -> None:
        assert usage(
            assert_loaded, {"kept": Wrapper(torch.ones(2, 3))}, {"kept": torch.zeros(2, 3)}
        ) == (
            "kept is Tensor 2x3 float32 cpu in the checkpoint and Wrapper 2x3 float32 cpu in the "
            "model: they do not hold their values in the same way and cannot be compared"
        )
        assert usage(
            assert_loaded,
            {"kept": Wrapper(torch.ones(2, 3))},
            {"kept": Wrapper(torch.ones(2, 3).double())},
        ) == (
            "kept: Wrapper 2x3 float64 cpu of the checkpoint and Wrapper 2x3 float32 cpu of the "
            "model cannot be compared (NotImplementedError: Wrapper does not know "
            "aten._to_copy.default)"
        )

    def test_a_complex_broadcast_match_is_no_match(self) -> None:
        lines = failure_lines(
            assert_loaded,
            {"kept": torch.ones(2, 3, dtype=torch.complex64)},
            {"kept": torch.ones(1, 3, dtype=torch.complex64)},
        )
        assert lines[2] == (
            "  kept  expected 1x3 as in the checkpoint, found 2x3: equal after broadcasting, "
            "which is not a match"
        )

    def test_a_name_without_a_tensor(self) -> None:
        model = {"kept": None, "other": torch.ones(3)}
        checkpoint = {"kept": torch.ones(2), "other": torch.ones(3)}
        assert failure_lines(assert_loaded, model, checkpoint) == [
            "not the checkpoint's values: kept (a dict of tensors)",
            "",
            "  kept  None",
        ]

    @pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
    def test_from_disk(self, tmp_path: Path, suffix: str) -> None:
        model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
        file = tmp_path / f"model{suffix}"
        if suffix == ".pt":
            torch.save(model.state_dict(), file)
        else:
            from safetensors.torch import save_file

            save_file(model.state_dict(), file)
        before = file.read_bytes()
        assert_loaded(model, file)
        assert_loaded(model, str(file))
        assert file.read_bytes() == before

    def test_usage(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        state = saved(model)
        assert usage(assert_loaded, model, {"model": state, "epoch": 3}) == (
            "checkpoint['model'] is not a tensor but OrderedDict; did you mean checkpoint['model']?"
        )
        assert usage(assert_loaded, model, {"epoch": 3, "model": state}) == (
            "checkpoint['epoch'] is not a tensor but int 3; did you mean checkpoint['model']?"
        )
        torch.save({"run": {"model": state}}, tmp_path / "run.pt")
        assert usage(assert_loaded, model, tmp_path / "run.pt", key="run") == (
            "checkpoint['model'] is not a tensor but OrderedDict; did you mean key='run.model'?"
        )
        assert usage(assert_loaded, model, {**state, "epoch": 3}) == (
            "checkpoint['epoch'] is not a tensor but int 3; pass the tensors only: "
            "{k: v for k, v in checkpoint.items() if isinstance(v, torch.Tensor)}"
        )
        assert usage(assert_loaded, model, model) == (
            "the checkpoint is a Linear; pass its state_dict()"
        )
        assert usage(assert_loaded, model, {}) == (
            "the checkpoint holds no tensors: there is nothing to check"
        )
        assert usage(assert_loaded, model, state, missing="bias") == (
            "missing is a list of patterns, got the string 'bias'; did you mean ['bias']?"
        )
        assert usage(assert_loaded, model, state, missing=nn.Linear) == (
            "missing is a list of patterns, got the class Linear; did you mean [Linear]?"
        )
        assert usage(assert_loaded, model, state, unexpected=["old"]) == (
            "pattern 'old' matches nothing in checkpoint; it has weight, bias"
        )
        assert usage(assert_loaded, nn.Linear(3, 2, device="meta"), state) == (
            "weight of the model: on meta, where tensors have no values; its values cannot be "
            "compared"
        )

    @pytest.mark.parametrize(
        ("name", "content", "said"),
        [
            ("model.pt", b"", "torch.save file: it is empty"),
            ("model.safetensors", b"", "safetensors file: it is empty"),
            (
                "model.pt",
                b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
                "torch.save file: it is a Git LFS pointer, not the file; run git lfs pull",
            ),
            (
                "model.pt",
                b"\x02\0\0\0\0\0\0\0{}",
                "torch.save file: it looks like safetensors; name it model.safetensors",
            ),
            (
                "model.safetensors",
                b"PK\x03\x04 and more",
                "safetensors file: it is a zip file, as torch.save writes",
            ),
        ],
    )
    def test_files_of_another_kind(
        self, tmp_path: Path, name: str, content: bytes, said: str
    ) -> None:
        file = tmp_path / name
        file.write_bytes(content)
        assert usage(assert_loaded, nn.Linear(3, 2), file) == f"{file} cannot be read as a {said}"
        assert file.read_bytes() == content

    @posix
    def test_what_is_not_a_regular_file(self, tmp_path: Path) -> None:
        """To open a pipe waits for whoever writes into it, and a device may never end."""
        model = nn.Linear(3, 2)
        pipe, address = tmp_path / "pipe.pt", tmp_path / "s"
        os.mkfifo(pipe)
        with socket.socket(socket.AF_UNIX) as opened:
            opened.bind(os.path.relpath(address))
            for path, kind in (
                (pipe, "named pipe"),
                (Path("/dev/zero"), "device"),
                (address, "socket"),
            ):
                said = f"{path} is not a regular file: it is a {kind}"
                assert usage(assert_loaded, model, path) == said
                assert usage(assert_manifest, model, path=path, update=True).endswith(
                    f"{path.name} is not a regular file: it is a {kind}"
                )
        link = tmp_path / "link.pt"
        link.symlink_to(pipe)
        assert usage(assert_loaded, model, link).endswith("it is a named pipe")

    @posix
    def test_paths_that_the_system_refuses(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        for path, reason in (
            ("x" * 300 + ".pt", "File name too long"),
            (str(tmp_path / "a\0b"), "embedded null"),
            (str(tmp_path / "file" / "model.pt"), "Not a directory"),
            (str(tmp_path / "loop"), "Too many levels of symbolic links"),
        ):
            (tmp_path / "file").touch()
            if not (tmp_path / "loop").is_symlink():
                (tmp_path / "loop").symlink_to("loop")
            # Python 3.13 names the call as well: "stat: embedded null character in path".
            said = re.escape(f"{printable(path)} cannot be read: ") + r"(\w+: )?" + reason
            assert re.match(said, usage(assert_loaded, model, path))
        assert usage(assert_loaded, model, str(tmp_path / "no" / "model.pt")) == (
            f"{tmp_path / 'no' / 'model.pt'} does not exist"
        )

    def test_a_file_that_may_not_be_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        file = tmp_path / "model.pt"
        torch.save(nn.Linear(3, 2).state_dict(), file)

        def refuse(*args: Any, **options: Any) -> Any:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(file))

        # Whoever runs the tests may be allowed to read every file.
        monkeypatch.setattr(Path, "open", refuse)
        monkeypatch.setattr(Path, "read_bytes", refuse)
        said = f"{file} cannot be read: Permission denied"
        assert usage(assert_loaded, nn.Linear(3, 2), file) == said
        assert usage(assert_manifest, nn.Linear(3, 2), path=file) == said

    def test_without_safetensors(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        file = tmp_path / "model.safetensors"
        model = nn.Linear(3, 2)
        from safetensors.torch import save_file

        save_file(saved(model), file)
        monkeypatch.setitem(sys.modules, "safetensors.torch", None)
        assert_loaded(model, file)  # to read the format, nobody needs the library

    def test_a_scripted_module(self, tmp_path: Path) -> None:
        model, file = nn.Linear(3, 2), tmp_path / "model.pt"
        torch.jit.trace(model, torch.ones(1, 3)).save(str(file))  # type: ignore[no-untyped-call]
        assert usage(assert_loaded, model, file) == (
            f"{file} cannot be read as a torch.save file: it is a TorchScript archive, code and "
            f"all; save its state_dict() with torch.save"
        )

    def test_a_header_as_long_as_its_file_is_none(self, tmp_path: Path) -> None:
        """What looks like safetensors must have room for the header that it announces."""
        file = tmp_path / "model.pt"
        header = b"{" + b" " * 98 + b"}"
        for length, said in (
            (100, f"it looks like safetensors; name it {file.stem}.safetensors"),
            (108, "it is damaged or another kind of file"),
        ):
            file.write_bytes(length.to_bytes(8, "little") + header)  # 108 bytes
            assert usage(assert_loaded, nn.Linear(3, 2), file).startswith(
                f"{file} cannot be read as a torch.save file: {said}"
            )

    @pytest.mark.parametrize("protocol", [3, 4, 5])
    def test_a_pickle_is_not_run(self, tmp_path: Path, protocol: int) -> None:
        file = tmp_path / "model.pt"
        file.write_bytes(pickle.dumps({"weight": [1.0]}, protocol))

        assert usage(assert_loaded, nn.Linear(3, 2), file) == (
            f"{file} cannot be read as a torch.save file: it is a pickle, which runs code as it is "
            f"read; write its tensors with torch.save"
        )

    def test_files_that_are_none(self, tmp_path: Path) -> None:
        model = nn.Linear(3, 2)
        damaged = tmp_path / "model.pt"
        torch.save(model.state_dict(), damaged)
        content = damaged.read_bytes()[:-200]
        damaged.write_bytes(content)
        assert usage(assert_loaded, model, damaged).startswith(
            f"{damaged} cannot be read as a torch.save file: it is damaged or another kind of file"
        )
        assert damaged.read_bytes() == content
        assert usage(assert_loaded, model, tmp_path / "model.pth") == (
            f"{tmp_path / 'model.pth'} does not exist; did you mean 'model.pt'?"
        )
        (tmp_path / "last.pt").touch()
        assert usage(assert_loaded, model, tmp_path) == (
            f"{tmp_path} is a folder; name the checkpoint file in it: last.pt, model.pt"
        )
        whole = tmp_path / "whole.pt"
        torch.save(model, whole)
        assert usage(assert_loaded, model, whole).startswith(
            f"{whole} holds more than tensors and plain values, and reading it would run code "
        )


def test_what_a_wrapped_model_saves_has_the_names_of_the_model() -> None:
    model = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    names = list(model.state_dict())
    assert list(tensors_of_state(take_inventory(model))) == names
    wrapped = nn.DataParallel(model)
    assert list(wrapped.state_dict()) == [f"module.{name}" for name in names]
    assert list(tensors_of_state(take_inventory(wrapped))) == names
    assert tensors_of_state(take_inventory(model.state_dict())) == {}


@pytest.mark.parametrize("zipped", [True, pytest.param(False, marks=pytest.mark.slow)])
def test_an_error_keeps_nothing_of_the_file(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "model.pt"
    torch.save(nn.Linear(30, 70).state_dict(), path, _use_new_zipfile_serialization=zipped)
    model = nn.Linear(30, 70)
    with pytest.raises(ParamCheckError) as caught:
        assert_loaded(model, path)
    gc.collect()
    alive = [t for t in gc.get_objects() if type(t) is Tensor and t.shape == (70, 30)]
    own = model.weight.data_ptr()
    assert not [t for t in alive if t.data_ptr() != own]
    assert caught.value.findings
