"""Ties: the broken model, the correct one, and the correct one a naive check would flag."""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrizations, parametrize, prune

from pytest_paramcheck import (
    ModelCase,
    ParamCheckError,
    assert_distinct,
    assert_same_ties,
    assert_tied,
    assert_ties,
    assert_untied,
)
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.registry import CHECKS
from pytest_paramcheck.model_checks.run import CaseRun
from pytest_paramcheck.parameters.subject.reading import take_inventory
from pytest_paramcheck.parameters.subject.ties import Ties, expand, merge_groups

from ..models import LM
from .messages import failure, failure_lines, usage, whole

TIE = {"emb.weight", "head.weight"}
ALIASED = (
    "ALIASED: two tensors on the same memory: each gets part of the gradient, an optimizer "
    "updates the memory twice, and deepcopy() or .to(dtype) separates them."
)
EQUAL = (
    "EQUAL: the values are equal but the memory is not shared: they will diverge at the first "
    "optimizer step."
)
TWO_ROWS = [
    "  emb.weight   Parameter 11x6 float32 cpu",
    "  head.weight  Parameter 11x6 float32 cpu",
]
OWN_MEMORY = (
    "  hint: give each its own memory with .clone(), or make it one Parameter by assignment"
)
ASSIGN = "  hint: tie by assignment: model.head.weight = model.emb.weight"


def aliased() -> LM:
    model = LM(tied=False)
    model.head.weight = nn.Parameter(model.emb.weight.data)
    return model


ONE_SHAPE = "cannot be one parameter: build both in one shape, or leave the tie out"


class TestTied:
    def test_tied(self) -> None:
        assert_tied(LM(tied=True), "emb.weight", "head.weight")

    def test_distinct_values(self) -> None:
        assert failure_lines(assert_tied, LM(tied=False), "emb.weight", "head.weight") == [
            "not tied: emb.weight, head.weight (LM)",
            "",
            *TWO_ROWS,
            "  DISTINCT: neither the memory nor the values are shared.",
            "",
            ASSIGN,
        ]

    def test_equal_values_are_not_tied(self) -> None:
        model = LM(tied=False)
        with torch.no_grad():
            model.head.weight.copy_(model.emb.weight)
        assert failure_lines(assert_tied, model, "emb.weight", "head.weight") == [
            "not tied: emb.weight, head.weight (LM)",
            "",
            *TWO_ROWS,
            f"  {EQUAL}",
            "",
            ASSIGN,
        ]

    def test_two_parameters_on_one_memory_are_not_tied(self) -> None:
        assert failure_lines(assert_tied, aliased(), "emb.weight", "head.weight") == [
            "not tied: emb.weight, head.weight (LM)",
            "",
            *TWO_ROWS,
            f"  {ALIASED}",
            "",
            ASSIGN,
        ]

    def test_a_view_is_not_tied(self) -> None:
        weight = nn.Parameter(torch.ones(4, 4))
        view = weight.t()
        assert failure_lines(assert_tied, weight=weight, transposed=view) == [
            "not tied: weight, transposed",
            "",
            "  weight      Parameter 4x4 float32 cpu",
            "  transposed  Tensor 4x4 float32 cpu",
            "  OVERLAPPING: they overlap in memory (another offset, shape or strides): updating "
            "one changes part of the other.",
            "",
            "  hint: tie by assignment: assign one Parameter to both modules",
        ]

    def test_untied_on_meta(self) -> None:
        """data_ptr() is 0 on meta: comparing it calls everything tied."""
        with torch.device("meta"):
            model = LM(tied=False)
        assert failure_lines(assert_tied, model, "emb.weight", "head.weight")[4] == (
            "  DISTINCT: each has its own memory (on meta, where tensors have no values)."
        )

    def test_tied_on_meta(self) -> None:
        with torch.device("meta"):
            assert_tied(LM(tied=True), "emb.weight", "head.weight")

    def test_of_three_the_odd_one_is_named(self) -> None:
        layer = nn.Linear(2, 2)
        model = nn.Sequential(layer, nn.Linear(2, 2), layer)
        assert failure_lines(assert_tied, model, "0.weight", "1.weight", "2.weight")[2:5] == [
            "  {0,2}.weight  Parameter 2x2 float32 cpu",
            "  1.weight      Parameter 2x2 float32 cpu",
            "  DISTINCT: neither the memory nor the values are shared.",
        ]

    def test_modules_by_namesake(self) -> None:
        encoder = nn.Linear(2, 2)
        decoder = nn.Linear(2, 2)
        decoder.weight = encoder.weight
        assert failure_lines(assert_tied, enc=encoder, dec=decoder) == [
            "not tied: enc.bias, dec.bias (Linear)",
            "",
            "  enc.bias  Parameter 2 float32 cpu",
            "  dec.bias  Parameter 2 float32 cpu",
            "  DISTINCT: neither the memory nor the values are shared.",
            "",
            "  hint: tie by assignment: dec.bias = enc.bias",
        ]
        decoder.bias = encoder.bias
        assert_tied(encoder, decoder)

    def test_modules_by_name(self) -> None:
        layer = nn.Linear(2, 2)
        model = nn.ModuleDict({"a": layer, "b": layer, "c": nn.Linear(2, 2)})
        assert_tied(model, "a", "b")
        assert failure_lines(assert_tied, model, "a", "c")[0] == (
            "not tied: a.weight, c.weight, a.bias, c.bias (ModuleDict)"
        )

    def test_glob_over_names(self) -> None:
        layer = nn.Linear(2, 2, bias=False)
        assert_tied(nn.Sequential(layer, layer, layer), "*.weight")

    def test_a_head_that_is_no_parameter(self) -> None:
        """forward calls F.linear with the embedding's weight: there is one name and no tie."""

        class Head(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.emb = nn.Embedding(5, 3)

        assert usage(assert_tied, Head(), "emb.weight", "head.weight") == (
            "pattern 'head.weight' matches nothing in Head; did you mean 'emb.weight'?"
        )

    def test_a_child_really_called_module(self) -> None:
        layer = nn.Linear(2, 2)
        model = nn.ModuleDict({"module": layer, "other": layer})
        assert_tied(model, "module.weight", "other.weight")

    def test_usage(self) -> None:
        model = LM(tied=True)
        assert usage(assert_tied, model, "emb.weight") == (
            "a tie takes two names or more, got 'emb.weight'"
        )
        assert usage(assert_tied, model.emb.weight) == (
            "assert_tied takes two things or more to compare"
        )
        assert usage(assert_tied, model, "emb", "head.weight") == (
            "'emb' is a module and 'head.weight' a parameter: name parameters or modules, not both"
        )
        assert usage(assert_tied, model.emb.weight, model) == (
            "assert_tied compares tensors with tensors and subjects with subjects; #2 is LM"
        )
        assert usage(assert_tied, model, "emb.weight", "head.weight", x=1) == (
            "assert_tied(model, names) takes no keywords, got x"
        )
        assert usage(assert_tied, nn.Linear(2, 2), nn.Linear(2, 2, bias=False)) == (
            "'#2' has no 'bias' to be tied to '#1.bias': the modules differ"
        )


def test_a_wrappers_own_name_for_all_of_the_model_names_its_parameters() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    assert failure_lines(assert_tied, nn.DataParallel(model), "module")[0] == (
        "not tied: {0,1}.weight, {0,1}.bias (Sequential)"
    )


class TestComputedWeights:
    """A tie of which one side is parametrized is broken, whatever the objects say."""

    def test_weight_norm_on_one_side(self) -> None:
        model = LM(tied=True)
        parametrizations.weight_norm(model.head)
        assert failure_lines(assert_tied, model, "emb.weight", "head.weight") == [
            "not tied: emb.weight, head.weight (LM)",
            "",
            "  emb.weight   Parameter 11x6 float32 cpu",
            "  head.weight  computed by WeightNorm from original0, original1",
            f"  {related(model)}: head.weight is computed by WeightNorm and the other side is not.",
            "",
            "  hint: parametrize both sides through one module, or remove WeightNorm from "
            "head.weight",
        ]

    def test_half_of_the_names_of_weight_norm_are_names_like_others(self) -> None:
        model = nn.ParameterDict({"weight_g": torch.ones(1), "weight_u": torch.ones(1)})
        assert failure_lines(assert_tied, model, "weight_g", "weight_u")[0] == (
            "not tied: weight_g, weight_u (ParameterDict)"
        )

    def test_spectral_norm_keeps_the_object_and_breaks_the_tie(self) -> None:
        model = LM(tied=True)
        parametrizations.spectral_norm(model.head)
        leaf = model.head.parametrizations.weight.original
        assert leaf is model.emb.weight, "torch changed: the object is no longer kept"
        assert failure_lines(assert_tied, model, "emb.weight", "head.weight")[4] == (
            "  SAME: head.weight is computed by SpectralNorm and the other side is not: one "
            "Parameter, but the two sides compute different weights from it."
        )
        assert failure_lines(assert_ties, model, [])[0] == (
            "shared but not tied: emb.weight, head.weight (LM)"
        )

    def test_pruning_on_one_side(self) -> None:
        model = LM(tied=True)
        prune.l1_unstructured(model.head, "weight", amount=0.5)
        assert failure_lines(assert_tied, model, "emb.weight", "head.weight")[3] == (
            "  head.weight  computed by pruning from weight_orig"
        )

    def test_old_weight_norm_on_one_side(self) -> None:
        model = LM(tied=True)
        with pytest.warns(FutureWarning):
            nn.utils.weight_norm(model.head)
        assert failure_lines(assert_tied, model, "emb.weight", "head.weight")[3] == (
            "  head.weight  computed by weight_norm from weight_g, weight_v"
        )

    def test_one_parametrized_module_in_two_places_is_tied(self) -> None:
        layer = parametrizations.orthogonal(nn.Linear(4, 4))
        model = nn.Sequential(layer, layer)
        assert_tied(model, "0.weight", "1.weight")
        assert_ties(model, [{"0.weight", "1.weight"}, {"0.bias", "1.bias"}])


def related(model: LM) -> str:
    from pytest_paramcheck.parameters.tensors.identity import Relation, relate

    relations = [
        relate(model.emb.weight, leaf).relation
        for leaf in (
            model.head.parametrizations.weight.original0,
            model.head.parametrizations.weight.original1,
        )
    ]
    return min(relations, key=list(Relation).index).value


class TestTies:
    def test_declared_is_actual(self) -> None:
        assert_ties(LM(tied=True), [TIE])
        assert_ties(LM(tied=False), [])

    def test_missing(self) -> None:
        assert failure_lines(assert_ties, LM(tied=False), [("emb.weight", "head.weight")])[0] == (
            "not tied: emb.weight, head.weight (LM)"
        )

    def test_a_set_is_shown_in_the_order_of_registration(self) -> None:
        tables = {name: nn.Embedding(4, 2) for name in "hgfedcba"}
        with pytest.raises(ParamCheckError) as caught:
            assert_ties(nn.ModuleDict(tables), [{f"{name}.weight" for name in tables}])
        assert [finding.names for finding in caught.value.findings] == [
            ("h.weight", f"{name}.weight") for name in "gfedcba"
        ]

    def test_undeclared(self) -> None:
        assert failure_lines(assert_ties, LM(tied=True), []) == [
            "tied but not declared: emb.weight, head.weight (LM)",
            "",
            "  emb.weight, head.weight  SAME: one Parameter under these names, and no group "
            "declares it",
            "",
            "  hint: give each a tensor of its own where they are made; if this is intended, "
            "declare it: {'emb.weight', 'head.weight'}",
        ]

    def test_one_name_more_than_declared(self) -> None:
        layer = nn.Linear(2, 2, bias=False)
        model = nn.Sequential(layer, layer, layer)
        assert failure_lines(assert_ties, model, [("0.weight", "1.weight")]) == [
            "tied but not declared: 2.weight (Sequential)",
            "",
            "  2.weight  SAME: also tied to the declared group 0.weight, 1.weight",
            "",
            "  hint: give each a tensor of its own where they are made; if this is intended, "
            "declare it: {'0.weight', '1.weight', '2.weight'}",
        ]

    def test_memory_without_a_tie(self) -> None:
        assert failure_lines(assert_ties, aliased(), []) == [
            "shares memory: emb.weight, head.weight (LM)",
            "",
            *TWO_ROWS,
            f"  {ALIASED}",
            "",
            OWN_MEMORY,
        ]

    def test_a_shared_relu_is_no_tie(self) -> None:
        act = nn.ReLU()
        assert_ties(nn.Sequential(nn.Linear(2, 2), act, nn.Linear(2, 2), act), [])

    def test_disjoint_slices_of_one_buffer_are_no_tie(self) -> None:
        flat = torch.zeros(20)
        model = nn.ParameterList([flat[:10], flat[10:]])
        assert model[0].untyped_storage().data_ptr() == model[1].untyped_storage().data_ptr()
        assert_ties(model, [])

    def test_a_shared_batch_norm_needs_its_parameters_declared_only(self) -> None:
        norm = nn.BatchNorm1d(3)
        model = nn.Sequential(norm, norm)
        assert_ties(model, [{"0.weight", "1.weight"}, {"0.bias", "1.bias"}])
        assert_ties(model, [{"0", "1"}])

    def test_usage(self) -> None:
        model = LM(tied=True)
        assert usage(assert_ties, model, ("emb.weight", "head.weight")) == (
            "a tie group is a set of names, got 'emb.weight'; "
            "did you mean [{'emb.weight', 'head.weight'}]?"
        )
        assert usage(assert_ties, model, "emb.weight") == (
            "groups is a list of sets of names, got 'emb.weight'"
        )
        assert usage(assert_ties, model, [("emb.weight",)]) == (
            "a tie takes two names or more, got 'emb.weight'"
        )
        assert usage(assert_ties, model, [("emb.weight", 3)]) == (
            "a pattern is a name, a glob, a class, (class, name), a state, a part or a function, "
            "not int 3"
        )
        assert usage(assert_ties, model, [("nothing.*", "emb.weight")]) == (
            "pattern 'nothing.*' matches nothing in LM; it has emb.weight, head.weight"
        )


class TestPatternsOfTies:
    """The same patterns as everywhere, a tie's names and modules."""

    @staticmethod
    def layers() -> nn.ModuleDict:
        layer = nn.Linear(3, 3)
        return nn.ModuleDict({"a": layer, "b": layer, "c": nn.Linear(3, 3), "n": nn.LayerNorm(3)})

    @pytest.mark.parametrize(
        ("patterns", "groups"),
        [
            (["[ab].weight"], [("a.weight", "b.weight")]),
            (["?.bias", "!n.bias", "!c"], [("a.bias", "b.bias")]),
            (["[ab]"], [("a.weight", "b.weight"), ("a.bias", "b.bias")]),
            (["a", "b", "!*.bias"], [("a.weight", "b.weight")]),
            (["a", "b", "c", "!c"], [("a.weight", "b.weight"), ("a.bias", "b.bias")]),
            ([nn.Linear], [("a.weight", "b.weight", "c.weight"), ("a.bias", "b.bias", "c.bias")]),
            ([(nn.Linear, "bias")], [("a.bias", "b.bias", "c.bias")]),
            ([(nn.Linear, "bias"), (nn.Module, "!c.*")], [("a.bias", "b.bias")]),
        ],
    )
    def test_one_language(self, patterns: list[Any], groups: list[tuple[str, ...]]) -> None:
        ties = Ties(take_inventory(self.layers()))

        assert expand(ties, patterns) == groups

    def test_the_assertions_speak_it(self) -> None:
        model = self.layers()

        assert_tied(model, "[ab].weight")
        assert_tied(model, (nn.Linear, "bias"), "!c.bias")
        assert_ties(model, [{"[ab]"}])
        assert failure_lines(assert_tied, model, nn.Linear)[0] == (
            "not tied: a.weight, b.weight, c.weight, a.bias and 2 more (ModuleDict)"
        )

    def test_names_as_a_wrapper_prints_them(self) -> None:
        model = nn.DataParallel(self.layers())

        assert_tied(model, "module.a.weight", "b.weight")
        assert_ties(model, [{"module.a", "module.b"}])
        assert_ties(nn.DataParallel(model), [{"module.module.a", "b"}])

    @pytest.mark.parametrize(
        ("patterns", "message"),
        [
            (
                ["a.weight", "!b.weight"],
                "a tie takes two names or more, got 'a.weight', '!b.weight'",
            ),
            (["[ab].weight", "!a"], "a tie takes two names or more, got '[ab].weight', '!a'"),
            ([nn.LayerNorm], "a tie takes two names or more, got 'n'"),
            (
                [nn.Conv1d],
                "pattern Conv1d matches nothing in ModuleDict; it has modules of Linear, LayerNorm",
            ),
            (["a"], "a tie takes two names or more, got 'a'"),
            (
                ["a", "!q"],
                "pattern '!q' matches nothing in ModuleDict; it has a.weight, a.bias, "
                "b.weight, b.bias, c.weight and 3 more",
            ),
        ],
    )
    def test_usage(self, patterns: list[Any], message: str) -> None:
        assert usage(assert_tied, self.layers(), *patterns) == message

    def test_a_set_is_read_in_registration_order(self) -> None:
        model = nn.ModuleDict({"z": nn.Linear(2, 2), "a": nn.Linear(2, 2)})
        ties = Ties(take_inventory(model))

        assert expand(ties, {"a.weight", "z.weight"}) == [("z.weight", "a.weight")]
        assert expand(ties, frozenset({"a", "z"}))[0] == ("z.weight", "a.weight")
        assert expand(ties, ["a.weight", "z.weight"]) == [("a.weight", "z.weight")]

    def test_names_are_walked_once_however_many_groups_are_declared(self) -> None:
        """All names numbered anew for each of 4,000 groups took 1.9 s."""

        class Named(dict[str, Any]):
            walks = 0

            def __iter__(self) -> Iterator[str]:
                Named.walks += 1
                return super().__iter__()

        inventory = take_inventory({f"{a}.p{i}": torch.ones(1) for a in "ab" for i in range(50)})
        inventory.named = Named(inventory.named)
        ties = Ties(inventory)

        for i in range(50):
            assert expand(ties, {f"b.p{i}", f"a.p{i}"}) == [(f"a.p{i}", f"b.p{i}")]
        assert expand(ties, {"a", "b"})[49] == ("a.p49", "b.p49")
        assert Named.walks <= 4

    def test_groups_with_a_name_in_common_are_one(self) -> None:
        groups = [("a", "b"), ("c", "d"), ("e", "f"), ("b", "c"), ("g", "g")]

        assert merge_groups(groups) == [("e", "f"), ("a", "b", "c", "d"), ("g",)]


class TestSeveralPlaces:
    """One module in several places: said once, first how to part it, then how to declare it."""

    REPAIR = "build one per place: [Linear(...) for _ in range(3)], not [layer] * 3"

    @staticmethod
    def stacked() -> nn.ModuleList:
        return nn.ModuleList([nn.Linear(3, 3)] * 3)

    def test_untied(self) -> None:
        assert failure_lines(assert_untied, self.stacked()) == [
            "one module in several places: {0..2} (ModuleList)",
            "",
            "  0, 1, 2  one Linear",
            "",
            f"  hint: {self.REPAIR}; if this is intended, leave out '!1', '!2'",
        ]
        assert_untied(self.stacked(), "!1", "!2")
        assert_untied(nn.ModuleList([nn.Linear(3, 3) for _ in range(3)]))

    def test_exact_ties(self) -> None:
        assert failure_lines(assert_ties, self.stacked(), []) == [
            "tied but not declared: {0..2} (ModuleList)",
            "",
            "  0, 1, 2  SAME: one Linear under these names, and no group declares it",
            "",
            f"  hint: {self.REPAIR}; if this is intended, declare it: {{'0', '1', '2'}}",
        ]
        assert_ties(self.stacked(), [{"0", "1", "2"}])

    def test_the_outermost_module_is_named(self) -> None:
        block = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        model = nn.ModuleDict({"enc": block, "dec": nn.Sequential(block), "n": nn.LayerNorm(2)})

        assert failure_lines(assert_untied, model)[::2] == [
            "one module in several places: enc, dec.0 (ModuleDict)",
            "  enc, dec.0  one Sequential",
            "  hint: build one Sequential per place; if this is intended, leave out '!dec.0'",
        ]
        assert_untied(model, "!dec.0")

    def test_a_parameter_in_several_places(self) -> None:
        assert failure_lines(assert_untied, LM(tied=True)) == [
            "one Parameter under several names: emb.weight, head.weight (LM)",
            "",
            "  emb.weight, head.weight  one Parameter 11x6 float32 cpu",
            "",
            "  hint: give each a tensor of its own where they are made; if this is intended, "
            "leave out "
            "'!head.weight'",
        ]
        assert_untied(LM(tied=True), "!head.weight")

    def test_buffers_tied_by_hand_are_ties_and_those_of_a_shared_module_come_with_it(self) -> None:
        a, b = nn.BatchNorm1d(2), nn.BatchNorm1d(2)
        shared = nn.Module()
        shared.register_buffer("freqs", torch.ones(2))
        assert_ties(nn.ModuleList([shared, shared]), [])
        assert_ties(nn.Sequential(a, b), [])
        b.running_mean = a.running_mean

        assert failure_lines(assert_ties, nn.Sequential(a, b), [])[0] == (
            "tied but not declared: {0,1}.running_mean (Sequential)"
        )
        assert_ties(nn.Sequential(a, b), [{"0.running_mean", "1.running_mean"}])
        assert_ties(nn.Sequential(a, a), [{"0", "1"}])


class LookingBack(nn.Module):
    """A head that reads the embedding through a function, in one way or another."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 3)
        weight = self.emb.weight
        if how == "closure":
            self.head: Any = lambda x: x @ self.emb.weight.t()
        elif how == "default":
            self.head = lambda x, w=weight: x @ w.t()
        elif how == "keyword default":
            self.head = lambda x, *, w=weight: x @ w.t()
        elif how == "in a list":
            self.head = [lambda x: x @ weight.t()]
        elif how == "in a partial":
            self.head = functools.partial(lambda x, _: x @ weight.t(), 0)
        elif how == "hook":
            self.emb.register_forward_hook(lambda *_: self.emb.weight.sum() and None)
        elif how == "partial":
            self.head = functools.partial(torch.matmul, weight)
        elif how == "method":
            self.head = self.project
        elif how == "object":
            self.head = [{"table": self.emb}]

    def project(self, x: Any) -> Any:
        return x @ self.emb.weight.t()


class TestCopies:
    @pytest.mark.parametrize(
        "how", ["closure", "default", "keyword default", "in a list", "in a partial", "hook"]
    )
    def test_a_copy_that_reads_its_original_through_a_function(self, how: str) -> None:
        model = LookingBack(how)
        copied = copy.deepcopy(model)

        lines = failure_lines(assert_untied, model=model, copy=copied)
        assert lines[0].startswith("refers to another: copy.")
        assert lines[2].endswith("is model.emb.weight")
        assert "is a function or holds one, and a copy takes functions over as they are" in lines[3]
        case = ModelCase(lambda: LookingBack(how))
        said = failure_lines(run_check, CHECKS["check_deepcopy"], CaseRun(case))
        assert said[0].startswith("refers to another: copy.")

    @pytest.mark.parametrize("how", ["partial", "method", "object", "none"])
    def test_what_is_copied_is_no_reference(self, how: str) -> None:
        model = LookingBack(how)
        assert_untied(model, copy.deepcopy(model))
        run_check(CHECKS["check_deepcopy"], CaseRun(ModelCase(lambda: LookingBack(how))))

    def test_the_message(self) -> None:
        model = LookingBack("closure")
        assert failure_lines(assert_untied, model=model, copy=copy.deepcopy(model)) == [
            "refers to another: copy.head.self.emb.weight (LookingBack)",
            "",
            "  copy.head.self.emb.weight  is model.emb.weight",
            "  copy.head is a function or holds one, and a copy takes functions over as they are, "
            "with what they refer to",
            "",
            "  hint: make head a method: self is then the copy's own",
        ]

    def test_a_teacher_kept_in_a_list_and_a_constant_of_both_are_no_sharing(self) -> None:
        table = torch.ones(3)
        teacher, student = nn.Linear(2, 2), nn.Linear(2, 2)
        for one in (teacher, student):
            one.scale = lambda: table  # type: ignore[assignment]
        student.teacher = [teacher]  # type: ignore[assignment]
        assert_untied(student, teacher)

    def test_something_made_once_is_named_under_all_its_names(self) -> None:
        act = nn.PReLU()
        one, two = (nn.Sequential(nn.Linear(3, 3), act, nn.Linear(3, 3), act) for _ in "ab")
        assert failure_lines(assert_untied, one, two) == [
            "shared: #1.{1,3}.weight, #2.{1,3}.weight (#1 and #2: Sequential)",
            "",
            "  #1.1.weight, #1.3.weight, #2.1.weight, #2.3.weight  one Parameter 1 float32 cpu in "
            "both",
            "",
            "  hint: make it anew for each: what is made once (a default argument, a registry) is "
            "in all that use it",
        ]
        assert_untied(one, copy.deepcopy(two))
        assert failure_lines(assert_untied, student=one, ema=two)[0] == (
            "shared: student.{1,3}.weight, ema.{1,3}.weight (Sequential)"
        )

    def test_one_paragraph_for_all_pairs_on_one_memory(self) -> None:
        model = nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3))
        target = copy.deepcopy(model).to("meta")
        target.load_state_dict(model.state_dict(), assign=True)
        assert failure_lines(assert_untied, model, nn.Linear(1, 1), target)[1:] == [
            "",
            "  {0,1}.weight  Parameter 3x3 float32 cpu in #1 and #3",
            "  {0,1}.bias    Parameter 3 float32 cpu in #1 and #3",
            "  ALIASED: two tensors on the same memory: a write to one changes the other",
            "",
            "  hint: give each its own memory: copy.deepcopy(), or load_state_dict() without "
            "assign=True",
        ]
        assert_untied(model, copy.deepcopy(target))
        target = copy.deepcopy(model)
        target.load_state_dict(model.state_dict())
        assert_untied(model, target)

    def test_patterns_select_within_one_subject(self) -> None:
        model = nn.Linear(2, 2)
        assert usage(assert_untied, model, copy.deepcopy(model), "!bias") == (
            "'!bias' is a pattern, and patterns select within one subject: "
            "assert_untied(model, *patterns)"
        )
        assert usage(assert_untied, model, model, nn.Linear) == (
            "Linear is a pattern, and patterns select within one subject: "
            "assert_untied(model, *patterns)"
        )


class TestHints:
    """Each can be followed, and what cannot be tied is not told to."""

    def test_of_vectors_that_differ_in_their_size_one_may_have_been_resized(self) -> None:
        model = nn.ModuleDict({"a": nn.LayerNorm(3), "b": nn.LayerNorm(4)})
        assert failure_lines(assert_tied, model, "a.weight", "b.weight")[-1] == (
            "  hint: 3 and 4 cannot be one parameter: if one was resized, resize the other, "
            "then tie"
        )

    @pytest.mark.parametrize(
        ("other", "hint"),
        [
            (
                nn.Embedding(7, 4),
                "5x4 and 7x4 cannot be one parameter: if one was resized, resize "
                "the other, then tie",
            ),
            (nn.Embedding(7, 3), f"5x4 and 7x3 {ONE_SHAPE}"),
            (nn.LayerNorm(5), f"5x4 and 5 {ONE_SHAPE}"),
            (nn.Conv1d(4, 5, 1), f"5x4 and 5x4x1 {ONE_SHAPE}"),
            (nn.Linear(4, 5), "tie by assignment: model.b.weight = model.a.weight"),
            (
                nn.Linear(4, 5, dtype=torch.float64),
                "tie by assignment: model.b.weight = "
                "model.a.weight (one parameter cannot be float32 and float64)",
            ),
            (
                nn.Linear(4, 5, device="meta"),
                "tie by assignment: model.b.weight = "
                "model.a.weight (one parameter cannot be cpu and meta)",
            ),
        ],
    )
    def test_how_to_tie(self, other: nn.Module, hint: str) -> None:
        model: Any = nn.ModuleDict({"a": nn.Embedding(5, 4, device="cpu"), "b": other})
        for call in (
            lambda: assert_tied(model, "a.weight", "b.weight"),
            lambda: assert_ties(model, [{"a.weight", "b.weight"}]),
        ):
            assert failure_lines(call)[-1] == f"  hint: {hint}"
        if "tie by" in hint:
            model.b.weight = model.a.weight
            assert_tied(model, "a.weight", "b.weight")

    def test_the_tie_of_a_declared_set_keeps_the_embedding(self) -> None:
        case = ModelCase(
            lambda: nn.ModuleDict({"wte": nn.Embedding(5, 4), "head": nn.Linear(4, 5)}),
            ties=[{"wte.weight", "head.weight"}],
        )
        said = failure_lines(run_check, CHECKS["check_ties"], CaseRun(case))
        assert said[-1] == "  hint: tie by assignment: model.head.weight = model.wte.weight"

    def test_a_head_that_starts_as_its_embedding_may_be_meant_tied(self) -> None:
        model = LM(tied=False)
        model.head.weight.data.copy_(model.emb.weight)
        assert failure_lines(assert_distinct, model)[-1] == (
            "  hint: if they are meant to be one, tie them: model.head.weight = model.emb.weight, "
            "and leave out '!head.weight'; if not, create each layer separately, with no "
            "manual_seed() between, or re-initialize the copies"
        )
        model.head.weight = model.emb.weight
        assert_distinct(model, "emb")

    def test_names_in_an_order_that_stays(self) -> None:
        model = nn.Sequential(*(nn.Linear(2, 2) for _ in range(12)))
        names = {f"{i}.weight" for i in range(12)}
        shown = ", ".join(repr(f"{i}.weight") for i in range(12))
        said = usage(assert_ties, model, names)
        assert said.endswith(f"did you mean [{{{shown}}}]?")

    def test_a_list_of_modules(self) -> None:
        assert usage(assert_untied, [nn.Linear(2, 2)]) == (
            "expected (name, tensor) pairs, got Linear: nn.ModuleList(...) of the modules is a "
            "subject"
        )
        assert_untied(nn.ModuleList([nn.Linear(2, 2)]))


class TestEqualVectors:
    """Equal biases beside matrices that differ are no copies of one another."""

    @staticmethod
    def two() -> nn.Sequential:
        a, b = nn.Linear(3, 3), nn.Linear(3, 3)
        b.bias.data.copy_(a.bias)
        return nn.Sequential(a, b)

    def test_left_out_unless_named(self) -> None:
        assert_distinct(self.two())
        assert_distinct(self.two(), "!1.weight")
        assert failure_lines(assert_distinct, self.two(), "*.bias")[0] == (
            "equal values: {0,1}.bias (Sequential)"
        )

    def test_a_copy_of_the_whole_layer_is_a_finding(self) -> None:
        layer = nn.Linear(3, 3)
        assert failure_lines(assert_distinct, nn.Sequential(layer, copy.deepcopy(layer)))[0] == (
            "equal values: {0,1}.weight, {0,1}.bias (Sequential)"
        )

    def test_vectors_without_a_matrix_count(self) -> None:
        model = nn.ParameterDict({"a": torch.rand(3)})
        model["b"] = model["a"].detach().clone()
        assert failure_lines(assert_distinct, model)[0] == "equal values: a, b (ParameterDict)"

    def test_declared_alike_they_are_not_stale(self) -> None:
        run_check(CHECKS["check_distinct"], CaseRun(ModelCase(self.two, alike=["*.bias"])))
        run_check(CHECKS["check_distinct"], CaseRun(ModelCase(self.two)))


class TestUntied:
    def test_a_copy_shares_nothing(self) -> None:
        model = LM(tied=True)
        assert_untied(model, copy.deepcopy(model))

    def test_target_network_that_shares_one_layer(self) -> None:
        online = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
        target = copy.deepcopy(online)
        target[1].weight.data = online[1].weight.data
        assert failure_lines(assert_untied, online=online, target=target) == [
            "shares memory: online.1.weight, target.1.weight (Sequential)",
            "",
            "  1.weight  Parameter 2x2 float32 cpu in online and target",
            "  ALIASED: two tensors on the same memory: a write to one changes the other",
            "",
            "  hint: give each its own memory: copy.deepcopy(), or load_state_dict() without "
            "assign=True",
        ]

    def test_the_same_object_twice(self) -> None:
        layer = nn.Linear(2, 2, bias=False)
        assert failure_lines(assert_untied, layer, layer) == [
            "the same object: #1, #2 (#1 and #2: Linear)",
            "",
            "  #1, #2  one Linear",
            "",
            "  hint: compare it with a copy: copy.deepcopy(model)",
        ]

    def test_pairs_have_no_title_but_a_mapping_called_pairs_has(self) -> None:
        pairs = type("pairs", (dict,), {})
        shared = torch.ones(2)
        tied = "shared: #1.w, #2.w"
        assert failure_lines(assert_untied, [("w", shared)], [("w", shared)])[0] == tied
        said = failure_lines(assert_untied, pairs(w=shared), [("w", shared)])[0]
        assert said == f"{tied} (#1 and #2: a pairs of tensors)"

    def test_buffers_count(self) -> None:
        a, b = nn.BatchNorm1d(3), nn.BatchNorm1d(3)
        b.running_mean = a.running_mean
        assert failure_lines(assert_untied, a, b)[0] == (
            "shared: #1.running_mean, #2.running_mean (#1 and #2: BatchNorm1d)"
        )

    def test_a_checkpoint_that_is_still_the_model(self) -> None:
        model = nn.Linear(2, 2)
        assert failure_lines(assert_untied, model=model, saved=model.state_dict())[0].startswith(
            "shares memory: model.weight, saved.weight"
        )

    def test_equal_values_are_untied(self) -> None:
        assert_untied(torch.zeros(3), torch.zeros(3))

    def test_interleaved_columns_are_untied(self) -> None:
        matrix = torch.zeros(6, 4)
        assert_untied(*matrix.unbind(1))

    def test_within_a_selection(self) -> None:
        model = LM(tied=True)
        assert failure_lines(assert_untied, model)[0] == (
            "one Parameter under several names: emb.weight, head.weight (LM)"
        )
        assert_untied(model, "emb.weight")
        assert_untied(model, "!head.weight")

    def test_overlapping_itself(self) -> None:
        model = nn.Module()
        model.register_buffer("mask", torch.zeros(1).expand(5))
        assert failure_lines(assert_untied, model) == [
            "overlaps itself: mask (Module)",
            "",
            "  mask  Tensor 5 float32 cpu, strides (0,): several of its elements are one memory "
            "cell, and a write to one changes the others",
            "",
            "  hint: give every element its own memory: .contiguous() or .clone()",
        ]

    def test_a_layout_that_hides_its_memory_is_named(self) -> None:
        opaque = torch.ones(2, 2).to_mkldnn()
        assert failure_lines(assert_untied, opaque, torch.ones(2))[0] == "not checked: #1"

    def test_untied_on_meta(self) -> None:
        with torch.device("meta"):
            assert_untied(LM(tied=False), LM(tied=False))


class TestDistinct:
    def test_layers_built_one_by_one(self) -> None:
        assert_distinct(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)))

    def test_what_is_none_hides_nothing_behind_it(self) -> None:
        weight = torch.rand(2, 2)
        subject = {"none": None, "a": weight, "b": weight.clone()}
        assert failure_lines(assert_distinct, subject)[0] == (
            "equal values: a, b (a dict of tensors)"
        )

    def test_stacked_copies(self) -> None:
        layer = nn.Linear(4, 4)
        model = nn.Sequential(*[copy.deepcopy(layer) for _ in range(3)])
        assert failure_lines(assert_distinct, model) == [
            "equal values: {0..2}.weight, {0..2}.bias (Sequential)",
            "",
            "  {0..2}.weight  Parameter 4x4 float32 cpu",
            "  EQUAL: own memory but the same bits: copied from one another, or drawn from the "
            "same seed.",
            "",
            "  {0..2}.bias  Parameter 4 float32 cpu",
            "  EQUAL: own memory but the same bits: copied from one another, or drawn from the "
            "same seed.",
            "",
            "  hint: create each layer separately, with no manual_seed() between, or "
            "re-initialize the copies",
        ]

    def test_constants_are_not_compared(self) -> None:
        """Every LayerNorm starts with the same ones and zeros."""
        assert_distinct(nn.Sequential(nn.LayerNorm(4), nn.LayerNorm(4), nn.BatchNorm1d(4)))

    def test_a_permutation_is_distinct(self) -> None:
        """Equal sums are candidates only; the bits decide."""
        values = torch.arange(6.0)
        assert_distinct(nn.ParameterList([values.clone(), values.flip(0).clone()]))

    def test_a_tie_is_not_distinct(self) -> None:
        model = LM(tied=True)
        assert failure_lines(assert_distinct, model)[0] == (
            "one Parameter under several names: emb.weight, head.weight (LM)"
        )
        assert_distinct(model, "!head.weight")

    def test_meta_has_no_values(self) -> None:
        with torch.device("meta"):
            model = nn.Linear(2, 2)
        assert usage(assert_distinct, model) == (
            "weight: on meta, where tensors have no values; its values cannot be compared"
        )


class TestSameTies:
    def test_a_compiled_model_has_the_same_ties(self) -> None:
        model = LM(tied=True)
        assert_same_ties(model, torch.compile(model, backend="eager"))

    def test_lost(self) -> None:
        assert failure_lines(assert_same_ties, LM(tied=True), LM(tied=False))[0] == (
            "tie lost: emb.weight, head.weight (LM)"
        )

    def test_gained(self) -> None:
        assert failure_lines(assert_same_ties, LM(tied=False), LM(tied=True)) == [
            "tie gained: emb.weight, head.weight (LM)",
            "",
            "  emb.weight, head.weight  SAME: not so before",
        ]

    def test_shared_memory_is_lost_by_deepcopy(self) -> None:
        model = aliased()
        assert_same_ties(model, model)
        assert failure_lines(assert_same_ties, model, copy.deepcopy(model))[0] == (
            "shared memory lost: emb.weight, head.weight (LM)"
        )

    def test_shared_memory_gained(self) -> None:
        assert failure_lines(assert_same_ties, LM(tied=False), aliased())[0] == (
            "shared memory gained: emb.weight, head.weight (LM)"
        )

    def test_a_name_that_is_gone(self) -> None:
        model = LM(tied=True)
        after = copy.deepcopy(model)
        del after.head
        assert failure_lines(assert_same_ties, model, after) == [
            "name is gone: head.weight (LM)",
            "",
            "  head.weight  its tie cannot be checked",
        ]


SCRIPTED = {
    "scripted": torch.jit.script,
    "traced": lambda model: torch.jit.trace(model, torch.tensor([1, 2])),
}


@pytest.mark.parametrize("how", SCRIPTED)
def test_a_scripted_module_has_the_ties_of_the_module_before(how: str) -> None:
    """Its registries are no dicts."""
    tied, untied = (SCRIPTED[how](LM(tied=flag)) for flag in (True, False))
    names = ("emb.weight", "head.weight")
    assert_tied(tied, *names)
    assert_ties(tied, [TIE])
    assert_ties(untied, [])
    assert_untied(untied)
    assert_distinct(untied)
    assert_same_ties(tied, LM(tied=True))
    assert failure_lines(assert_tied, untied, *names)[0].startswith("not tied: emb.weight, head.w")
    assert failure_lines(assert_ties, tied, [])[0].startswith("tied but not declared: emb.weight")
    assert failure_lines(assert_untied, tied)[0].startswith(
        "one Parameter under several names: emb.weight, head.weight ("
    )
    assert failure_lines(assert_same_ties, tied, untied)[0].startswith("tie")


class TestTiedByMemory:
    """by="memory": cells in common, whatever the objects."""

    def test_a_fused_weight_and_its_slices(self) -> None:
        fused = nn.Parameter(torch.zeros(6, 2))
        q, k, v = (nn.Parameter(some) for some in fused.detach().chunk(3))

        assert_tied(fused=fused, q=q, k=k, v=v, by="memory")
        assert "OVERLAPPING" in failure(assert_tied, fused=fused, q=q)
        assert failure(assert_tied, q=q, k=k, by="memory") == whole(r"""
            no memory in common: q, k

              q  Parameter 2x2 float32 cpu
              k  Parameter 2x2 float32 cpu
              EQUAL: the values are equal but the memory is not shared: \
            they will diverge at the first optimizer step.

              hint: tie by assignment: assign one Parameter to both modules
            """)

    def test_what_is_apart_from_all_others(self) -> None:
        flat = nn.Parameter(torch.zeros(6))
        own, apart = nn.Parameter(flat.detach()[:2]), nn.Parameter(torch.ones(3))

        assert failure(assert_tied, flat=flat, own=own, apart=apart, by="memory") == whole("""
            no memory in common: flat, own, apart

              flat   Parameter 6 float32 cpu
              own    Parameter 2 float32 cpu
              apart  Parameter 3 float32 cpu
              DISTINCT: neither the memory nor the values are shared.
            """)

    def test_names_and_modules_of_a_model(self) -> None:
        model = aliased()
        assert_tied(model, "emb.weight", "head.weight", by="memory")
        assert_tied(LM(tied=True), "emb", "head", by="memory")
        one, other = nn.Linear(2, 2), nn.Linear(2, 2)
        other.weight.data = one.weight.data

        message = failure(assert_tied, one, other, by="memory")
        assert message.startswith("no memory in common: #1.bias, #2.bias")

    def test_one_object_without_memory_is_one(self) -> None:
        meta = nn.Parameter(torch.empty(2, device="meta"))
        empty = nn.Parameter(torch.empty(0))

        assert_tied(meta, meta, by="memory")
        assert_tied(empty, empty, by="memory")
        with pytest.raises(ParamCheckError):
            assert_tied(empty, nn.Parameter(torch.empty(0)), by="memory")
        model = nn.ModuleDict({"a": nn.Linear(1, 1), "b": nn.Linear(1, 1)})
        for linear, computed in (model["a"], nn.Tanh()), (model["b"], nn.ReLU()):
            linear.weight = empty
            parametrize.register_parametrization(linear, "weight", computed, unsafe=True)
            linear.parametrizations.weight.original = empty
        assert_tied(model, "a.weight", "b.weight", by="memory")

    def test_another_by_is_a_wrong_call(self) -> None:
        a = nn.Parameter(torch.zeros(1))

        assert usage(assert_tied, a, a, by="value") == "by= is 'object' or 'memory', not 'value'"
        assert usage(assert_tied, a, by=a) == "by= is 'object' or 'memory', not a tensor"
