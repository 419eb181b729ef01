"""What a model is run on where its case declares nothing: a hook's answer, or its library's."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import CHECKS, CaseRun, ModelCase, NothingToCheck, ParamCheckError
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.inputs import inputs_asked
from pytest_paramcheck.model_checks.libraries import guesses
from pytest_paramcheck.model_checks.run import inputs_of


class Takes(nn.Module):
    """Has what is set on it, and takes images of its own size and number of channels."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 2, 3)
        for name, value in attributes.items():
            setattr(self, name, value)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.conv(x)
        return y


class Config(NamedTuple):
    image_size: Any = 8
    num_channels: Any = 3
    num_frames: Any = None
    is_encoder_decoder: bool = False


def found(model: Callable[[], nn.Module], seed: int = 0) -> tuple[str, Any, str]:
    """Whose inputs a run found, the shapes of them, and what was dropped."""
    run = CaseRun(ModelCase(model), seed)
    said = inputs_of(run)
    return run.inputs_from, shapes(run.inputs), said.dropped


def shapes(value: Any) -> Any:
    if isinstance(value, Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return {key: shapes(one) for key, one in value.items()}
    return tuple(map(shapes, value)) if isinstance(value, (tuple, list)) else value


@pytest.mark.parametrize(
    ("attributes", "source", "shape"),
    [
        ({"pretrained_cfg": {"input_size": (3, 8, 8)}}, "pretrained_cfg", (2, 3, 8, 8)),
        ({"default_cfg": {"input_size": [3, 9, 8]}}, "default_cfg", (2, 3, 9, 8)),
        ({"example_input_array": torch.rand(4, 3, 5, 5)}, "example_input_array", (4, 3, 5, 5)),
        ({"example_input_array": {"x": torch.rand(1, 3, 5, 5)}}, "example_input_array", None),
        ({"dummy_inputs": (torch.rand(1, 3, 5, 5),)}, "dummy_inputs", ((1, 3, 5, 5),)),
    ],
    ids=lambda value: "" if isinstance(value, dict) else str(value),
)
def test_what_a_library_says(attributes: dict[str, Any], source: str, shape: Any) -> None:
    said, shown, dropped = found(lambda: Takes(**attributes))

    assert said == f"inputs from {source}"
    assert shown == ({"x": (1, 3, 5, 5)} if shape is None else shape)
    assert dropped == ""


class Pixels(Takes):
    """A model of images as transformers has them."""

    main_input_name = "pixel_values"
    dummy_inputs = {"input_ids": torch.tensor([[1, 2]])}

    def forward(self, pixel_values: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(pixel_values.flatten(0, -4))


@pytest.mark.parametrize(
    ("config", "shape"),
    [
        (Config(8), (2, 3, 8, 8)),
        (Config((8, 6)), (2, 3, 8, 6)),
        (Config([6, 8], num_frames=4), (2, 4, 3, 6, 8)),
    ],
)
def test_the_config_of_a_model_of_images(config: Config, shape: tuple[int, ...]) -> None:
    source, shown, _ = found(lambda: Pixels(config=config))

    assert source == "inputs from config.image_size"
    assert shown == {"pixel_values": shape}


class Both(Takes):
    """A model of images and text, as transformers has them: sizes are in a config of a config."""

    main_input_name = "input_ids"
    dummy_inputs = {"input_ids": torch.tensor([[1, 2]])}

    config = SimpleNamespace(vision_config=Config((4, 5)))

    def forward(self, input_ids: Tensor, pixel_values: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(pixel_values).mean() * input_ids


def test_a_model_of_images_and_text() -> None:
    assert found(Both) == (
        "inputs from dummy_inputs and config.vision_config.image_size",
        {"input_ids": (1, 2), "pixel_values": (2, 3, 4, 5)},
        "",
    )


class Ids(nn.Module):
    """An encoder and a decoder that share an embedding; the decoder's ids are asked for."""

    config = Config(is_encoder_decoder=True)
    dummy_inputs = {"input_ids": torch.tensor([[1, 2, 3]])}

    def __init__(self) -> None:
        super().__init__()
        self.emb = nn.Embedding(5, 2)

    def forward(self, input_ids: Tensor, decoder_input_ids: Tensor) -> Tensor:
        y: Tensor = self.emb(input_ids) * self.emb(decoder_input_ids)
        return y


def test_a_decoder_gets_the_ids_of_the_encoder_and_both_are_made_longer() -> None:
    assert found(Ids) == (
        "inputs from dummy_inputs",
        {"input_ids": (1, 32), "decoder_input_ids": (1, 32)},
        "",
    )


class Short(nn.Module):
    """Pools its tokens by four, and takes no more than ``most`` of them."""

    def __init__(self, most: int, **dummies: Tensor) -> None:
        super().__init__()
        self.emb, self.most, self.dummy_inputs = nn.Embedding(5, 2), most, dummies
        self.pooled = nn.Linear(2, 2)

    def forward(self, ids: Tensor, mask: Tensor | None = None) -> Tensor:
        if ids.shape[1] > self.most:
            raise IndexError(f"{ids.shape[1]} tokens")
        y: Tensor = self.pooled(self.emb(ids)[:, 3::4])
        return y


def test_a_few_tokens_are_repeated_where_the_model_takes_more() -> None:
    """Of three tokens a model that pools by four would be said to train nothing."""
    ids = torch.tensor([[1, 2, 3]])
    mask = torch.ones_like(ids, dtype=torch.bool)

    assert found(lambda: Short(40, ids=ids))[1] == {"ids": (1, 32)}
    assert found(lambda: Short(40, ids=ids, mask=mask))[1] == {"ids": (1, 32), "mask": (1, 32)}
    assert found(lambda: Short(8, ids=ids))[1] == {"ids": (1, 3)}
    assert found(lambda: Short(40, ids=ids.repeat(1, 12)))[1] == {"ids": (1, 36)}
    run_check(CHECKS["check_grads_reach"], CaseRun(ModelCase(lambda: Short(40, ids=ids))))


class Normed(nn.Module):
    """Raises for a batch of one, and gives no gradient for zeros."""

    example_input_array = torch.zeros(1, 3)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Linear(3, 3, bias=False), nn.BatchNorm1d(3)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.norm(self.first(x)) + self.first(x)
        return y


def test_an_example_is_there_for_its_shape() -> None:
    """Zeros are drawn, a batch of one is doubled: nothing is wrong with the model."""
    assert found(Normed) == ("inputs from example_input_array", (2, 3), "")
    run_check(CHECKS["check_grads_reach"], CaseRun(ModelCase(Normed)))


def test_a_guess_that_raises_is_dropped_and_named() -> None:
    run = CaseRun(ModelCase(lambda: Takes(example_input_array=torch.rand(2, 1, 8, 8))))
    with pytest.raises(NothingToCheck) as skipped:
        run_check(CHECKS["check_grads_reach"], run)

    said = str(skipped.value)
    assert said.startswith(
        "no inputs to run it on: ModelCase(inputs=...); those from example_input_array raise "
        "RuntimeError: Given groups=1, weight of size [2, 3, 3, 3]"
    )
    assert run.inputs is None
    assert run.inputs_from == ""


def test_a_guess_that_raises_in_eval_mode_is_no_failure() -> None:
    class InTraining(Takes):
        pretrained_cfg = {"input_size": (3, 8, 8)}

        def forward(self, x: Tensor) -> Tensor:
            if not self.training:
                raise ValueError("targets are for training")
            return super().forward(x)

    with pytest.raises(NothingToCheck) as skipped:
        run_check(CHECKS["check_eval_unchanged"], CaseRun(ModelCase(InTraining)))
    declared = CaseRun(ModelCase(InTraining, inputs=torch.rand(2, 3, 8, 8)))
    with pytest.raises(ValueError, match="targets are for training"):
        run_check(CHECKS["check_eval_unchanged"], declared)

    assert str(skipped.value) == (
        "the inputs from pretrained_cfg raise ValueError: targets are for training"
    )


class Hostile(nn.Linear):
    """Says yes to everything, or raises for it."""

    def __init__(self, answer: Any) -> None:
        super().__init__(2, 2)
        self.__dict__["answer"] = answer

    def __getattr__(self, name: str) -> Any:
        if name in ("dummy_inputs", "example_input_array", "pretrained_cfg", "config"):
            answer = self.__dict__["answer"]
            if isinstance(answer, Exception):
                raise answer
            return answer
        return super().__getattr__(name)


@pytest.mark.parametrize(
    "answer",
    [
        *(ZeroDivisionError("mine"), lambda: 1, "text", 3, [], {}, {"a": 1}, ("a", None), object),
        {"input_size": "332"},
        {"input_size": (3, -1, 8)},
        {"input_size": (3, True, 8)},
        {"input_size": ()},
    ],
    ids=lambda answer: "function" if callable(answer) else repr(answer),
)
def test_what_is_no_answer_is_no_guess(answer: Any) -> None:
    assert guesses(Hostile(answer)) == []
    assert found(lambda: Hostile(answer)) == ("", None, "")


def test_nothing_is_left_behind() -> None:
    def wild() -> nn.Module:
        class Wild(Takes):
            @property
            def example_input_array(self) -> Tensor:
                torch.manual_seed(1)
                torch.set_grad_enabled(False)
                return torch.rand(1, 3, 4, 4)

        return Wild()

    before = torch.get_rng_state()
    source, _, _ = found(wild)

    assert source == "inputs from example_input_array"
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.is_grad_enabled()


def test_inputs_follow_the_seed_and_the_dtype() -> None:
    class Half(Takes):
        pretrained_cfg = {"input_size": (3, 4, 4)}

        def __init__(self) -> None:
            super().__init__()
            self.to(torch.bfloat16)

    first, again, other = (CaseRun(ModelCase(Half), seed).inputs for seed in (0, 0, 1))

    assert first.dtype is torch.bfloat16
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def answer(value: Any) -> Any:
    return inputs_asked(lambda model: value)


@pytest.mark.parametrize(
    ("declared", "asked", "source"),
    [
        ({"inputs": torch.rand(1, 3, 4, 4)}, torch.rand(1, 3, 6, 6), "declared inputs"),
        ({}, torch.rand(1, 3, 6, 6), "inputs from pytest_paramcheck_inputs"),
        ({}, lambda: torch.rand(1, 3, 6, 6), "inputs from pytest_paramcheck_inputs"),
        ({}, None, "inputs from pretrained_cfg"),
        ({"loss": lambda model: model.conv.weight.sum()}, torch.rand(1, 3, 6, 6), ""),
    ],
)
def test_who_comes_first(declared: Any, asked: Any, source: str) -> None:
    with answer(asked):
        run = CaseRun(
            ModelCase(lambda: Takes(pretrained_cfg={"input_size": (3, 8, 8)}), **declared)
        )
        assert run.inputs_from == source


def test_inputs_of_a_hook_that_raise_are_a_failure() -> None:
    with answer(torch.rand(1, 1)), pytest.raises(RuntimeError):
        run_check(CHECKS["check_grads_reach"], CaseRun(ModelCase(Takes)))
    with pytest.raises(NothingToCheck):
        run_check(CHECKS["check_grads_reach"], CaseRun(ModelCase(Takes)))


def test_a_model_that_was_built_for_other_images_than_its_weights() -> None:
    """timm says the size of the weights, whatever channels and size a model was asked for."""

    def built(channels: int, side: int) -> nn.Module:
        model = Takes(pretrained_cfg={"input_size": (3, 8, 8)}, patch_embed=nn.Identity())
        model.conv = nn.Conv2d(channels, 2, side)
        model.patch_embed.img_size = (side, side)
        model.head = nn.Linear(1, 2)
        model.forward = lambda x: model.head(model.conv(x))  # type: ignore[method-assign]
        return model

    assert found(lambda: built(1, 5)) == ("inputs from pretrained_cfg", (2, 1, 5, 5), "")
    assert found(lambda: built(3, 8)) == ("inputs from pretrained_cfg", (2, 3, 8, 8), "")


class Branch(Takes):
    """Has a layer that these inputs do not run through."""

    pretrained_cfg = {"input_size": (3, 4, 4)}

    def __init__(self) -> None:
        super().__init__()
        self.masked = nn.Linear(1, 1, bias=False)


def test_a_finding_on_guessed_inputs_says_so() -> None:
    """Others may reach more: the line to write comes before the one that silences."""
    with pytest.raises(ParamCheckError) as guessed:
        run_check(CHECKS["check_grads_reach"], CaseRun(ModelCase(Branch)))
    declared = ModelCase(Branch, inputs=torch.rand(2, 3, 4, 4))
    with pytest.raises(ParamCheckError) as said:
        run_check(CHECKS["check_grads_reach"], CaseRun(declared))

    unreached = 'if this loss is not supposed to reach it: ModelCase(unreached=["masked"])'
    assert guessed.value.findings[0].hint == (
        "where others than the inputs from pretrained_cfg reach it: ModelCase(inputs=...); "
        + unreached
    )
    assert said.value.findings[0].hint == unreached


def test_a_guess_is_tried_on_the_cpu_before_the_device_of_the_case() -> None:
    """What raises there never gets to a device that an index out of range leaves unusable."""
    seen: list[str] = []

    class Seen(Takes):
        def __init__(self, side: int) -> None:
            super().__init__(example_input_array=torch.rand(2, 3, side, side, device="cpu"))

        def forward(self, x: Tensor) -> Tensor:
            seen.append(f"{x.device.type} {self.conv.weight.device.type}")
            return super().forward(x)

    with torch.device("meta"):
        right, wrong = (CaseRun(ModelCase(lambda side=side: Seen(side))) for side in (4, 2))  # type: ignore[misc]
        assert right.inputs_from == "inputs from example_input_array"
        assert seen == ["cpu cpu", "meta meta"]
        assert right.inputs.device.type == "meta"
        seen.clear()
        assert wrong.inputs_from == ""
        assert seen == ["cpu cpu"]


def test_tokens_without_a_batch_are_not_repeated() -> None:
    def shapes(ids: Tensor) -> list[tuple[int, ...]]:
        model = nn.Linear(3, 2)
        model.dummy_inputs = {"ids": ids}
        dummies = [guess for guess in guesses(model) if guess.source == "dummy_inputs"]
        return [tuple(guess.make()["ids"].shape) for guess in dummies]

    assert shapes(torch.tensor([1, 2, 3])) == [(3,)]
    assert shapes(torch.tensor([[1, 2, 3]])) == [(1, 32), (1, 3), (2, 3)]
