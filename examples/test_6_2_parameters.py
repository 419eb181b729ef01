"""Section 6.2: a multilayer perceptron with one hidden layer, and when its parameters exist."""

from __future__ import annotations

import pytest
from torch.nn.parameter import is_lazy

from pytest_paramcheck import ParamCheckError

pytestmark = pytest.mark.params


def test_the_output_has_one_value_per_example(lazy_net, batch, assert_shapes):
    assert_shapes(lazy_net(batch), (2, 1))


def test_before_the_forward_pass_the_parameters_are_uninitialized(lazy_net):
    assert [name for name, p in lazy_net.named_parameters() if is_lazy(p)] == [
        "0.weight",
        "0.bias",
        "2.weight",
        "2.bias",
    ]


def test_the_forward_pass_makes_them_real(lazy_net, batch):
    lazy_net(batch)

    assert not any(is_lazy(parameter) for parameter in lazy_net.parameters())


def test_asking_for_the_shape_too_early_is_answered_with_the_remedy(lazy_net, assert_shapes):
    with pytest.raises(ParamCheckError, match="run a forward pass first"):
        assert_shapes(lazy_net, {"*": (...,)})
