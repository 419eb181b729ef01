"""Shapes, dtypes, devices, counts, materialized: whole messages."""

# ruff: noqa: E501  (whole messages, as they are printed)

from __future__ import annotations

import copy
from textwrap import dedent
from typing import Any

import pytest
import torch
from torch import nn

from pytest_paramcheck import (
    assert_devices,
    assert_dtypes,
    assert_materialized,
    assert_param_count,
    assert_shapes,
)

from .messages import failure, usage


class LM(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.norm = nn.BatchNorm1d(6)
        self.head = nn.Linear(6, 11)
        self.head.weight = self.emb.weight


class Rope(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.proj = nn.Linear(2, 2)
        self.inv_freq = torch.ones(2)
        self.layers = [nn.Linear(1, 1, bias=False)]
        self.cache = {"steps": torch.zeros(1, dtype=torch.int64)}


class TestShapes:
    def test_right_ones(self) -> None:
        assert_shapes(
            LM(),
            {
                "emb": ("vocab", "d"),
                "norm": (...,),
                "norm.num_batches_tracked": (),
                "head.bias": ("vocab",),
            },
        )
        assert_shapes(torch.zeros(2, 3, 4), (2, ...))
        assert_shapes(torch.zeros(2, 3, 4), (2, None, 4))
        assert_shapes(torch.zeros(()), (...,))

    def test_the_one_that_disagrees_is_named(self) -> None:
        tensors = {"a": torch.zeros(3, 4), "b": torch.zeros(5, 4), "c": torch.zeros(4, 7)}
        expected = {"a": ("n", "d"), "b": (None, "d"), "c": ("d", "d")}
        assert failure(assert_shapes, tensors, expected) == dedent("""\
            wrong shape: c (a dict of tensors)

              c  expected (d, d), found (4, 7): d is 7 here and 4 in a""")

    def test_ranks_and_sizes(self) -> None:
        tensors = {
            "a": torch.zeros(1),
            "b": torch.zeros(2, 3),
            "c": torch.zeros(3),
            "d": torch.zeros(()),
        }
        assert failure(
            assert_shapes, tensors, {"a": (), "b": (3, 2), "c": (1, ..., 3), "d": (1,)}
        ) == dedent("""\
            wrong shape: a, b, c, d (a dict of tensors)

              a  expected (), found (1,): 1 dimension, not 0
              b  expected (3, 2), found (2, 3): dimension 0 is 2, not 3, dimension 1 is 3, not 2, as if it were transposed
              c  expected (1, ..., 3), found (3,): 1 dimension, not at least 2
              d  expected (1,), found (): 0 dimensions, not 1""")

    def test_a_broadcast_match_is_none(self) -> None:
        assert failure(assert_shapes, torch.zeros(1, 3), (2, 3)) == dedent("""\
            wrong shape: tensor

              tensor  expected (2, 3), found (1, 3): dimension 0 is 1, not 2""")

    def test_undeclared_lazy_and_none(self) -> None:
        assert failure(assert_shapes, LM(), {"emb": (11, 6)}) == dedent("""\
            shape not declared: norm.weight, norm.bias, head.bias (LM)

              norm.weight  6
              norm.bias    6
              head.bias    11

              hint: declare it, or pass partial=True if the others do not matter here""")
        assert failure(
            assert_shapes, nn.LazyLinear(2), {"weight": (2, None), "bias": ("d",)}
        ) == dedent("""\
            shape not known: weight, bias (LazyLinear)

              weight  expected (2, None), found UninitializedParameter uninitialized float32 cpu
              bias    expected (d,), found UninitializedParameter uninitialized float32 cpu

              hint: run a forward pass first: it gives a lazy parameter its shape""")
        assert failure(assert_shapes, {"a": None}, {"a": (2,)}) == dedent("""\
            no tensor: a (a dict of tensors)

              a  expected (2,), found None""")

    @pytest.mark.parametrize(
        ("spec", "message"),
        [
            (
                "d",
                "'weight': a shape is a tuple of sizes, symbols, None and ..., not str 'd'; did you mean ('d',)?",
            ),
            (
                3,
                "'weight': a shape is a tuple of sizes, symbols, None and ..., not int 3; did you mean (3,)?",
            ),
            (
                (2.0, 3),
                "'weight': 2.0 in (2.0, 3) is not a dimension: use a size, a symbol like 'd', None for any size, or ...",
            ),
            ((-1, 3), "'weight': size -1 in (-1, 3) is negative; None is any size"),
            (
                ("2*d", 3),
                "'weight': symbol '2*d' in (2*d, 3) is not a name: write 'd', no expression",
            ),
            ((..., 1, ...), "'weight': (..., 1, ...) has more than one ..."),
        ],
    )
    def test_specs_that_are_none(self, spec: Any, message: str) -> None:
        assert usage(assert_shapes, nn.Linear(3, 2), {"weight": spec}, partial=True) == message

    def test_wrong_calls(self) -> None:
        assert usage(assert_shapes, LM(), {}, partial=True) == (
            "an empty mapping expects nothing: there is nothing to check"
        )
        assert usage(assert_shapes, LM(), (3,)) == (
            "expected shapes must map patterns to shapes, not tuple (3,); "
            "assert_shapes(tensor, shape) takes a single shape"
        )


class TestDtypes:
    def test_integers_are_not_forced(self) -> None:
        assert_dtypes(LM().bfloat16(), torch.bfloat16)
        assert_dtypes(
            LM().bfloat16(), {"*": torch.bfloat16, "norm.num_batches_tracked": torch.int64}
        )

    def test_what_to_leaves_behind(self) -> None:
        assert failure(assert_dtypes, Rope().to(torch.bfloat16), torch.bfloat16) == dedent("""\
            wrong dtype: inv_freq, layers[0].weight (Rope)

              inv_freq          expected bfloat16, found float32: in a plain attribute: .to() leaves it behind
              layers[0].weight  expected bfloat16, found float32: its Linear is not registered: .to() leaves it behind

              hint: self.register_buffer('inv_freq', ...), persistent=False if not saved
              hint: assert_registered(model) says how to register what .to() leaves behind""")
        assert_dtypes(
            Rope().to(torch.bfloat16),
            {"*": torch.bfloat16, "inv_freq": torch.float32, "layers[0].weight": torch.float32},
        )

    def test_a_second_reference_to_a_buffer(self) -> None:
        class Caches(nn.Linear):
            def __init__(self) -> None:
                super().__init__(3, 2)
                self.register_buffer("scale", torch.tensor([0.5, 2.0]))
                self.register_buffer("other", torch.tensor([0.5]))
                self.cached = [self.scale]
                self.plain = torch.ones(2)

        assert_dtypes(Caches(), torch.float32)
        text = failure(assert_dtypes, Caches().double(), torch.float64)
        assert text == dedent("""\
            wrong dtype: cached[0], plain (Caches)

              cached[0]  expected float64, found float32: in a list: .to() leaves it behind; it holds what the buffer scale holds
              plain      expected float64, found float32: in a plain attribute: .to() leaves it behind

              hint: keep no second reference to scale: look it up where it is used
              hint: self.register_buffer('plain', ...), persistent=False if not saved""")
        odd = Caches()
        odd.plain = torch.tensor([0.5 + 1j, 2.0])  # whose real parts are those of a buffer
        assert "second reference" not in failure(assert_dtypes, odd, {"plain": torch.float32})
        alike = Caches()
        alike.register_buffer("third", alike.scale.clone())  # which of the two it was is not known
        assert "second reference" not in failure(assert_dtypes, alike.double(), torch.float64)

    def test_a_tied_parameter_once_with_all_names(self) -> None:
        assert failure(assert_dtypes, LM(), {"emb": torch.float16}) == dedent("""\
            wrong dtype: emb.weight, head.weight (LM)

              emb.weight, head.weight  expected float16, found float32""")

    def test_an_exact_name_holds_an_integer_to_it(self) -> None:
        assert failure(assert_dtypes, LM(), {"norm.num_batches_tracked": torch.float32}) == dedent("""\
            wrong dtype: norm.num_batches_tracked (LM)

              norm.num_batches_tracked  expected float32, found int64""")
        assert usage(assert_dtypes, LM(), {"*num_batches*": torch.float32}) == (
            "pattern '*num_batches*' matches only integer, bool or quantized tensors "
            "(norm.num_batches_tracked), which .to(dtype) does not cast: write an exact name to "
            "check one anyway"
        )

    def test_wrong_calls(self) -> None:
        assert usage(assert_dtypes, LM(), "bfloat16") == (
            "dtype: expected a torch.dtype, not 'bfloat16': did you mean torch.bfloat16?"
        )
        assert usage(assert_dtypes, LM(), {"emb": 3}) == (
            "'emb': expected a torch.dtype, not 3, like torch.float32"
        )
        assert usage(assert_dtypes, LM(), torch.int8) == (
            "torch.int8 for a whole model: .to() casts to floating and complex dtypes only; "
            "map patterns to dtypes instead"
        )
        assert usage(assert_dtypes, {"a": torch.ones(1, dtype=torch.int64)}, torch.float32) == (
            "a dict of tensors has no floating and no complex entries: there is nothing to check; "
            "map patterns to dtypes for the others"
        )
        assert (
            usage(assert_dtypes, LM(), {})
            == "an empty mapping expects nothing: there is nothing to check"
        )


class TestDevices:
    def test_what_to_leaves_behind(self) -> None:
        assert failure(assert_devices, Rope().to("meta"), "meta") == dedent("""\
            wrong device: inv_freq, layers[0].weight, cache['steps'] (Rope)

              inv_freq          expected meta, found cpu: in a plain attribute: .to() leaves it behind
              layers[0].weight  expected meta, found cpu: its Linear is not registered: .to() leaves it behind
              cache['steps']    expected meta, found cpu: in a dict: .to() leaves it behind

              hint: self.register_buffer('inv_freq', ...), persistent=False if not saved
              hint: assert_registered(model) says how to register what .to() leaves behind
              hint: assert_registered(model, tensors=True) says how to register it""")

    def test_patterns(self) -> None:
        model = LM()
        model.head.bias = nn.Parameter(torch.empty(11, device="meta"))
        assert_devices(model, {"*": "cpu", "head.bias": torch.device("meta")})
        assert failure(assert_devices, model, "cpu") == dedent("""\
            wrong device: head.bias (LM)

              head.bias  expected cpu, found meta""")

    def test_an_index_is_any_where_none_is_asked_for(self) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            tensors = {"a": torch.empty(1, device="cuda:1")}
        assert_devices(tensors, "cuda")
        assert_devices(tensors, "cuda:1")
        assert failure(assert_devices, tensors, "cuda:0") == dedent("""\
            wrong device: a (a dict of tensors)

              a  expected cuda:0, found cuda:1""")

    def test_wrong_calls(self) -> None:
        assert usage(assert_devices, LM(), "gpu").startswith("device: 'gpu' is not a device: ")
        assert usage(assert_devices, LM(), 0) == (
            "device: expected a device like 'cuda' or torch.device('cpu'), not 0"
        )


class TestCount:
    def test_a_tied_parameter_counts_once(self) -> None:
        model = LM()
        model.norm.requires_grad_(False)
        assert_param_count(model, 11 * 6 + 11 + 12, trainable=11 * 6 + 11)
        assert_param_count(LM().to("meta"), 11 * 6 * 2 + 11 + 12)  # .to("meta") breaks the tie
        assert_param_count({"a": (w := torch.ones(3)).detach(), "b": w.detach()}, 3)

    def test_the_difference_is_explained(self) -> None:
        assert failure(assert_param_count, LM(), 155) == dedent("""\
            89 parameters, not 155 (LM)

              emb   66
              norm  12
              head  11
              66 fewer than expected: emb.weight = head.weight is one parameter and counts once""")
        assert failure(assert_param_count, LM(), 102) == dedent("""\
            89 parameters, not 102 (LM)

              emb   66
              norm  12
              head  11
              13 fewer than expected: buffers are not counted""")
        frozen = LM()
        frozen.norm.requires_grad_(False)
        assert failure(assert_param_count, frozen, 90, trainable=89) == dedent("""\
            89 parameters, not 90; 77 trainable parameters, not 89 (LM)

              89 parameters, not 90:
                emb   66
                norm  12
                head  11
                1 fewer than expected
              77 trainable parameters, not 89:
                emb   66
                head  11
                12 fewer than expected: the frozen parameters make the difference""")

    def test_the_largest_modules_are_shown_folded(self) -> None:
        model = nn.Sequential(
            *[nn.Linear(4, 4) for _ in range(20)], *[nn.Linear(2, n) for n in range(1, 12)]
        )
        assert failure(assert_param_count, model, trainable=1) == dedent("""\
            598 trainable parameters, not 1 (Sequential)

              {0..19}          20 x 20 = 400
              30               33
              29               30
              28               27
              27               24
              26               21
              25               18
              24               15
              4 other modules  30
              597 more than expected""")

    def test_lazy(self) -> None:
        assert failure(assert_param_count, nn.LazyLinear(2), 3) == dedent("""\
            number of elements not known: weight, bias (LazyLinear)

              weight  lazy: no shape yet
              bias    lazy: no shape yet

              hint: run one forward pass first: it gives lazy parameters their shape""")

    def test_wrong_calls(self) -> None:
        assert usage(assert_param_count, LM().state_dict(), trainable=0) == (
            "a state_dict holds values, detached from the model: who is frozen cannot be asked of "
            "them; pass the model, or its named_parameters()"
        )
        assert usage(assert_param_count, LM()) == (
            "assert_param_count needs a number: total=, trainable= or both; nothing to check"
        )
        for wrong in (7e9, True, -1, "7"):
            assert usage(assert_param_count, LM(), wrong) == (
                f"total={wrong!r} is not a number of elements: pass an int"
            )


class TestMaterialized:
    def test_lazy_meta_and_left_behind(self) -> None:
        with torch.device("meta"):
            model = Rope()
        model.to_empty(device="cpu")
        model.lazy = nn.LazyLinear(2)
        model.norm = nn.BatchNorm1d(2, device="meta", affine=False)
        assert failure(assert_materialized, model) == dedent("""\
            not materialized: lazy.weight, lazy.bias, norm.running_mean, norm.running_var and 4 more (Rope)

              lazy.weight               lazy
              lazy.bias                 lazy
              norm.running_mean         on meta, where tensors have no values
              norm.running_var          on meta, where tensors have no values
              norm.num_batches_tracked  on meta, where tensors have no values
              inv_freq                  on meta, where tensors have no values; in a plain attribute that to_empty() does not see
              layers[0].weight          on meta, where tensors have no values; in a plain attribute that to_empty() does not see
              cache['steps']            on meta, where tensors have no values; in a plain attribute that to_empty() does not see

              hint: run one forward pass: it gives lazy parameters their shape and values
              hint: model.get_submodule('norm').to_empty(device=..., recurse=False), then initialize or load it; model.to_empty() would erase 2 tensors with values
              hint: to_empty() and .to() do not see plain attributes: register_buffer it""")

    def test_what_is_loaded_is_not_erased(self) -> None:
        model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2), nn.BatchNorm1d(2))
        model[1].to("meta")
        model[2].running_mean = torch.zeros(2, device="meta")
        model[2].weight = nn.Parameter(torch.ones(2, device="meta"))
        assert (
            failure(assert_materialized, model)
            == dedent("""\
            not materialized: {1,2}.weight, 1.bias, 2.running_mean (Sequential)

              {1,2}.weight    on meta, where tensors have no values
              1.bias          on meta, where tensors have no values
              2.running_mean  on meta, where tensors have no values

              hint: model.get_submodule('1').to_empty(device=..., recurse=False), then initialize or load it; model.to_empty() would erase 5 tensors with values
              hint: module = model.get_submodule('2'); module.weight = nn.Parameter(torch.empty_like(module.weight, device=...)), then initialize or load it; model.to_empty() would erase 5 tensors with values
              hint: module = model.get_submodule('2'); module.running_mean = torch.empty_like(module.running_mean, device=...), then initialize or load it; model.to_empty() would erase 5 tensors with values""")
        )
        before = copy.deepcopy({k: v for k, v in model.state_dict().items() if not v.is_meta})
        model.get_submodule("1").to_empty(device="cpu", recurse=False)
        module = model.get_submodule("2")
        module.weight = nn.Parameter(torch.empty_like(module.weight, device="cpu"))
        module.running_mean = torch.empty_like(module.running_mean, device="cpu")
        assert_materialized(model)
        after = model.state_dict()
        assert all(torch.equal(after[name], value) for name, value in before.items())

    def test_where_everything_is_on_meta_or_nothing_is_a_model(self) -> None:
        model = nn.Linear(2, 2, device="meta")
        lines = failure(assert_materialized, model).splitlines()
        assert lines[-1] == (
            "  hint: model.to_empty(device=...), then initialize or load every parameter"
        )
        assert "hint" not in failure(assert_materialized, model.state_dict())
        model.to_empty(device="cpu")
        assert_materialized(model)

    def test_after_the_first_forward(self) -> None:
        model = nn.Sequential(nn.LazyLinear(2), nn.LazyBatchNorm1d())
        model(torch.ones(3, 4))
        assert_materialized(model)

    def test_fake(self) -> None:
        from torch._subclasses.fake_tensor import FakeTensorMode

        with FakeTensorMode():
            model = nn.Linear(2, 2, bias=False)
        assert (
            failure(assert_materialized, model).splitlines()[2]
            == "  weight  a FakeTensor has no values"
        )
