"""A model built on meta, without memory, and materialized afterwards.

What goes wrong: ``to_empty()`` gives every name memory of its own, so that tied weights part;
``reset_parameters()`` is called on the layers that have it, and a parameter of a module without
one, or a buffer that ``__init__`` computes, keeps whatever the memory held; a tensor in a plain
attribute stays on meta. On a fresh machine that memory is often zero, and the tests pass.

What the tests hold: what can be asked on meta (names, shapes, sizes, ties) is as it should be;
after materializing nothing is on meta, everything was written by somebody, ties are ties again,
and the values are those that the model has when it is built in the ordinary way.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase, ParamCheckError, init, parametrize_with_param_checks

VOCAB, WIDTH = 30, 8

pytestmark = pytest.mark.params
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])  # meta has none


class Scale(nn.Module):
    """A gain for each channel, and decays computed once."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.empty(WIDTH))
        self.register_buffer("decays", torch.empty(WIDTH), persistent=False)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.gain, 0.1)
        with torch.no_grad():
            torch.pow(2.0, -torch.arange(WIDTH, device=self.decays.device), out=self.decays)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gain * self.decays


class TiedModel(nn.Module):
    """Tokens to logits, the head tied to the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.hidden = nn.Linear(WIDTH, WIDTH)
        self.scale = Scale()
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        self.tie_weights()

    def tie_weights(self) -> None:
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        return self.head(x + self.scale(self.hidden(x).tanh()))


def on_meta() -> TiedModel:
    with torch.device("meta"):
        return TiedModel()


def materialized(device: torch.device | None = None) -> TiedModel:
    """Build on meta, get memory, initialize, tie: in this order."""
    model = on_meta()
    model.to_empty(device=device or torch.empty(0).device)  # torch's default, whoever set it
    model.tie_weights()  # before the reset, so that the embedding's values are the ones
    for module in model.modules():
        if module is not model.head and hasattr(module, "reset_parameters"):
            module.reset_parameters()
    return model


def tokens() -> Tensor:
    return torch.arange(6).reshape(2, 3)


@pytest.fixture
def moves_keep_ties():
    """What a training script says once, on a device where a move makes new Parameters."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("moves_keep_ties")
@parametrize_with_param_checks(
    [
        ModelCase(
            build,
            inputs=tokens,
            ties=[{"tokens.weight", "head.weight"}],
            frozen=[],
            shapes={
                "tokens.weight": ("vocab", "width"),
                "hidden.weight": ("width", "width"),
                "hidden.bias": ("width",),
                "scale": ("width",),
            },
            name=name,
        )
        for build, name in ((TiedModel, "ordinary"), (materialized, "materialized"))
    ]
)
def test_everything_that_holds_of_every_model(check):
    check()


def test_what_can_be_asked_on_meta(assert_devices, assert_tied, assert_param_count, assert_shapes):
    model = on_meta()
    assert_devices(model, "meta")
    assert_tied(model, "tokens.weight", "head.weight")
    assert_param_count(model, VOCAB * WIDTH + WIDTH * WIDTH + 2 * WIDTH)
    assert_shapes(model, {"scale": ("width",), "hidden": (..., "width")}, partial=True)


@reads_values
def test_nothing_is_left_on_meta(param_device, assert_materialized, assert_devices):
    model = materialized(param_device)
    assert_materialized(model)
    assert_devices(model, param_device)


@reads_values
def test_everything_is_initialized(assert_init_complete):
    assert_init_complete(materialized)


def test_the_tie_is_redone(assert_ties, assert_same_ties):
    model = materialized()
    assert_ties(model, [{"tokens.weight", "head.weight"}])
    assert_same_ties(on_meta(), model)


@reads_values
def test_the_values_are_those_of_an_ordinary_model(assert_init, assert_same_values):
    model = materialized()
    # std 1 as nn.Embedding has it, and not the small uniform one of the head's nn.Linear
    assert_init(
        model,
        {
            "tokens.weight": init.normal(0, 1),
            "hidden.*": init.uniform(-(WIDTH**-0.5), WIDTH**-0.5),
            "scale.gain": init.constant(0.1),
        },
    )
    assert_same_values(TiedModel().scale, model.scale)


@reads_values
def test_a_tie_that_is_not_redone_is_caught(param_device, assert_tied):
    model = on_meta().to_empty(device=param_device)
    model.apply(lambda m: m.reset_parameters() if hasattr(m, "reset_parameters") else None)
    # the mistake: no model.tie_weights()

    with pytest.raises(ParamCheckError) as caught:
        assert_tied(model, "tokens.weight", "head.weight")

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "not tied: tokens.weight, head.weight (TiedModel)"


@reads_values
def test_memory_that_nobody_wrote_is_caught(param_device, assert_init_complete):
    def build() -> TiedModel:
        model = on_meta().to_empty(device=param_device)
        model.tie_weights()
        for module in model.modules():
            if isinstance(module, (nn.Embedding, nn.Linear)):  # the mistake: Scale is neither
                module.reset_parameters()
        return model

    with pytest.raises(ParamCheckError) as caught:
        assert_init_complete(build)

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "never initialized: scale.gain, scale.decays (TiedModel)"


@reads_values
def test_a_tensor_left_on_meta_is_caught(param_device, assert_materialized):
    class WithMask(TiedModel):
        def __init__(self) -> None:
            super().__init__()
            self.mask = torch.ones(3, 3).tril()  # the mistake: no buffer

    with torch.device("meta"):
        model = WithMask()
    model.to_empty(device=param_device)

    with pytest.raises(ParamCheckError) as caught:
        assert_materialized(model)

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "not materialized: mask (WithMask)"
