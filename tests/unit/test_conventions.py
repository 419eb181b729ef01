"""Padding rows, norms, heads that a config ties, repeated layers, devices."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun
from pytest_paramcheck.parameters.subject.conventions import padded_rows
from pytest_paramcheck.parameters.subject.reading import take_inventory

from .messages import failure, whole

Factory = Callable[[], nn.Module]


def outcome(name: str, factory: Factory, **given: Any) -> str:
    try:
        run_check(CHECKS[name], CaseRun(ModelCase(factory, **{"name": "model", **given})))
    except NothingToCheck as nothing:
        return f"skip: {nothing}"
    except ParamCheckError as error:
        return str(error).partition("\n")[0]
    return "ok"


def message(name: str, factory: Factory, **given: Any) -> str:
    return failure(run_check, CHECKS[name], CaseRun(ModelCase(factory, name="model", **given)))


# -- padding rows, scales of norms ----------------------------------------------------------------


def padded(*, drawn: bool, again: bool = False) -> nn.Module:
    emb = nn.Embedding(5, 4, padding_idx=1)
    if drawn:
        nn.init.normal_(emb.weight)
    if again:
        with torch.no_grad():
            emb.weight[1].zero_()
    return nn.Sequential(emb)


def test_a_padding_row_that_an_initializer_wrote_is_named() -> None:
    assert message("check_init_values", lambda: padded(drawn=True)) == whole(
        r"""
        padding row is not zero: 0.weight (model)

          0.weight  row 1 (padding_idx): largest value 0.573: an initializer drew it; it gets no \
        gradient and stays so

          hint: zero it after the initialization: weight[1].zero_()
        """
    )
    assert outcome("check_init_values", lambda: padded(drawn=False)) == "ok"
    assert outcome("check_init_values", lambda: padded(drawn=True, again=True)) == "ok"


def test_a_padding_row_that_was_loaded_or_is_frozen_is_no_finding() -> None:
    vectors = torch.linspace(-1, 1, 12).reshape(3, 4)

    def loaded() -> nn.Module:
        return nn.Embedding.from_pretrained(vectors.clone(), freeze=False, padding_idx=0)

    def frozen() -> nn.Module:
        return padded(drawn=True).requires_grad_(False)

    assert outcome("check_init_values", loaded) == "ok"
    assert outcome("check_init_values", frozen).startswith("skip: ")


def test_a_padding_row_that_no_output_sees_or_a_head_trains_is_no_finding() -> None:
    class Masked(nn.Module):
        """Attends to what is no padding, wherever it comes from."""

        def __init__(self) -> None:
            super().__init__()
            self.emb = padded(drawn=True)
            self.blocks = nn.TransformerEncoderLayer(4, 1)

    class Packed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.emb, self.rnn = padded(drawn=True), nn.GRU(4, 4)

        def forward(self, ids: Tensor, lengths: Tensor) -> Tensor: ...

    def tied() -> nn.Module:
        model = nn.ModuleDict({"emb": padded(drawn=True), "head": nn.Linear(4, 5)})
        model["head"].weight = model["emb"][0].weight
        return model

    def bag() -> nn.Module:
        model = nn.ModuleDict(
            {"bag": nn.EmbeddingBag(5, 4, padding_idx=1), "norm": nn.LayerNorm(4)}
        )
        nn.init.normal_(model["bag"].weight)
        return model

    def twice() -> nn.Module:
        emb = padded(drawn=True)[0]  # type: ignore[index]
        return nn.ModuleDict({"encoder": emb, "decoder": emb})

    nothing = "skip: the model has no padding row and no scale of a norm"
    for model, said in ((Masked, "ok"), (bag, "ok"), (Packed, nothing), (tied, nothing)):
        assert outcome("check_init_values", model) == said
    assert outcome("check_init_values", twice) == (
        "padding row is not zero: encoder.weight, decoder.weight (model)"
    )


def normed(start: Callable[[Tensor], object]) -> Factory:
    def build() -> nn.Module:
        model = nn.Sequential(nn.Linear(4, 32), nn.LayerNorm(32), nn.Linear(32, 4))
        start(model[1].weight)
        return model

    return build


def test_a_scale_that_an_initializer_drew_around_zero_is_named() -> None:
    assert message("check_init_values", normed(lambda w: nn.init.normal_(w, 0, 0.02))) == whole(
        r"""
        scale of a norm drawn around zero: 1.weight (model)

          1.weight  23 of 32 values negative

          hint: leave norms out where weights are initialized: they start as ones
        """
    )


def test_other_starts_of_scales_are_right() -> None:
    starts: list[Callable[[Tensor], object]] = [
        nn.init.ones_,
        nn.init.zeros_,  # the last norm of a branch
        lambda w: nn.init.normal_(w, 1.0, 0.02),  # GANs
        lambda w: nn.init.normal_(w, 0.1, 0.1),  # RepVGG
        lambda w: nn.init.uniform_(w),  # torch before 1.0
        lambda w: w.data.copy_(torch.linspace(-1, 1, 32)),  # a table: no build has another
    ]
    for start in starts:
        assert outcome("check_init_values", normed(start)) == "ok"


def test_a_norm_is_what_is_called_one() -> None:
    class RMSNorm(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.randn(64))

    class Gate(RMSNorm):
        pass

    assert outcome("check_init_values", RMSNorm).startswith("scale of a norm")
    assert outcome("check_init_values", Gate) == (
        "skip: the model has no padding row and no scale of a norm"
    )


# -- heads that a config ties ---------------------------------------------------------------------


class Configured(nn.Module):
    """An embedding and a head in transformers' way."""

    def __init__(self, *, says: Any, tied: bool, rows: int = 7) -> None:
        super().__init__()
        self.config = SimpleNamespace(tie_word_embeddings=says)
        self.emb, self.head = nn.Embedding(7, 4), nn.Linear(4, rows, bias=False)
        if tied:
            self.head.weight = self.emb.weight

    def get_input_embeddings(self) -> Any:
        return self.emb

    def get_output_embeddings(self) -> Any:
        return self.head


def test_a_head_is_tied_where_the_config_says_so_and_only_there() -> None:
    assert message("check_ties", lambda: Configured(says=True, tied=False)) == whole(
        r"""
        not tied as the config says: emb.weight, head.weight (model)

          emb.weight   Parameter 7x4 float32 cpu
          head.weight  Parameter 7x4 float32 cpu
          DISTINCT: neither the memory nor the values are shared; \
        config.tie_word_embeddings is True.

          hint: tie by assignment: model.head.weight = model.emb.weight
        """
    )
    assert message("check_ties", lambda: Configured(says=False, tied=True)) == whole(
        r"""
        tied though the config says not: emb.weight, head.weight (model)

          emb.weight, head.weight  one Parameter: config.tie_word_embeddings is False

          hint: give the head a weight of its own, or set config.tie_word_embeddings = True
        """
    )
    for same in (True, False):
        assert outcome("check_ties", lambda same=same: Configured(says=same, tied=same)) == "ok"


def test_a_config_that_promises_nothing_is_no_finding() -> None:
    class NoHead(Configured):
        def get_output_embeddings(self) -> Any:
            return None

    class Raises(Configured):
        def get_output_embeddings(self) -> Any:
            raise NotImplementedError

    class Parts(Configured):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.config.text_config = SimpleNamespace(tie_word_embeddings=False)

    class OfTheDecoder(Configured):
        def __init__(self, **given: Any) -> None:
            super().__init__(**given)
            self.decoder = nn.Embedding(7, 4)
            self.head.weight = self.decoder.weight

    for model in (NoHead, Raises, Parts, OfTheDecoder):
        assert outcome("check_ties", lambda model=model: model(says=True, tied=False)) == "ok"
    assert outcome("check_ties", lambda: Configured(says=None, tied=False)) == "ok"
    # Of other sizes they cannot be tied.
    assert outcome("check_ties", lambda: Configured(says=True, tied=False, rows=9)) == "ok"


def test_what_is_declared_of_ties_goes_before_the_config() -> None:
    declared = {"ties": [{"emb.weight", "head.weight"}]}
    assert outcome("check_ties", lambda: Configured(says=False, tied=True), **declared) == "ok"


# -- one layer at several places ------------------------------------------------------------------


def test_a_layer_that_is_repeated_is_said_once() -> None:
    def repeated() -> nn.Module:
        return nn.ModuleDict({"layers": nn.ModuleList([nn.Linear(4, 4)] * 3)})

    assert message("check_ties", repeated) == whole(
        r"""
        one module in several places: layers.{0..2} (model)

          layers.0, layers.1, layers.2  one Linear, trained as one

          hint: build each anew, [Layer() for _ in range(n)]; if one layer is intended: \
                ModelCase(ties=[...])
        """
    )
    weights, biases = ([{f"layers.{n}.{key}" for n in range(3)}] for key in ("weight", "bias"))
    assert outcome("check_ties", repeated, ties=[*weights, *biases]) == "ok"


def test_what_may_stand_at_several_places() -> None:
    def activations() -> nn.Module:
        act, pool = nn.PReLU(), nn.MaxPool2d(2)
        return nn.Sequential(nn.Conv2d(1, 1, 1), act, pool, nn.Conv2d(1, 1, 1), act, pool)

    def fixed() -> nn.Module:
        layer = nn.Linear(2, 2).requires_grad_(False)
        return nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(2, 2))

    def named() -> nn.Module:
        return nn.ModuleDict(dict.fromkeys("ab", nn.Linear(2, 2)))  # two names, and no list

    for model in (activations, fixed, named):
        assert outcome("check_ties", model) == "ok"


# -- the default device ---------------------------------------------------------------------------


class Fixed(nn.Linear):
    def __init__(self) -> None:
        super().__init__(3, 2)
        self.fixed = nn.Parameter(torch.ones(1, device="meta"))


def test_what_ignores_the_default_device_is_named() -> None:
    assert message("check_default_device", Fixed) == whole(
        r"""
        not on the default device: fixed (model)

          fixed  expected cpu, found meta

          hint: make it with a function that follows the default device (torch.ones, torch.empty; \
                not torch.Tensor(n)), and without device=
        """
    )
    assert outcome("check_default_device", lambda: nn.Linear(3, 2)) == "ok"


def test_on_meta_it_is_a_note() -> None:
    class Mixed(nn.Linear):
        def __init__(self) -> None:
            super().__init__(3, 2)
            self.fixed = nn.Parameter(torch.ones(1, device="cpu"))

    with torch.device("meta"):
        assert outcome("check_default_device", Mixed) == (
            "skip: on meta, but built elsewhere: fixed (cpu)"
        )
        assert outcome("check_default_device", lambda: nn.Linear(3, 2)) == "ok"


def test_a_padding_row_is_found_behind_an_embedding_that_is_frozen() -> None:
    frozen = nn.Embedding(5, 4, padding_idx=0).requires_grad_(False)
    model = nn.ModuleDict({"old": frozen, "new": nn.Embedding(5, 4, padding_idx=2)})
    (found,) = padded_rows(take_inventory(model))
    assert (found.name, found.row) == ("new.weight", 2)
