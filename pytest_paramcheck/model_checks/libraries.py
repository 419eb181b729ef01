"""What the libraries that models come from say of their inputs. None of them is imported.

Each rule reads what a model of one library carries, and yields guesses: whoever asks tries them.
"""

from __future__ import annotations

import enum
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

#: Of images: a batch norm over small maps needs more than one.
BATCH = 2


@dataclass(frozen=True, slots=True)
class Guess:
    """Inputs that somebody's attribute describes: what makes them, and as an expression."""

    source: str
    make: Callable[[], Any]
    code: str = ""


def guesses(model: nn.Module) -> list[Guess]:
    """Return what can be tried, the most particular first."""
    found: list[Guess] = []
    for rule in (_example_input_array, _dummy_inputs, _input_size, _main_input, _torchvision):
        # Reading an attribute of a real model runs its code: proxies and properties raise.
        try:
            found += rule(model)
        except Exception:
            continue
    return found


def _example_input_array(model: nn.Module) -> Iterator[Guess]:
    """Lightning's: a tensor, a tuple for positions, a mapping for keywords."""
    given = getattr(model, "example_input_array", None)
    yield from _examples(given, "example_input_array")


def _dummy_inputs(model: nn.Module) -> Iterator[Guess]:
    """transformers': a mapping for keywords, token ids for most models."""
    given = getattr(model, "dummy_inputs", None)
    examples = [given]
    config = getattr(model, "config", None)
    if (
        isinstance(given, Mapping)
        and getattr(config, "is_encoder_decoder", None) is True
        and "input_ids" in given
        and "decoder_input_ids" not in given
    ):
        examples.append({**given, "decoder_input_ids": given["input_ids"]})
    for example in examples:
        yield from _longer(example)
        yield from _examples(example, "dummy_inputs")


#: Tokens that an example is repeated to: of five, nothing is left where a model pools by four,
#: or sends each token to some of many experts.
_TOKENS = 32


def _longer(given: Any) -> Iterator[Guess]:
    """Yield an example that is a few token ids, with masks like them, with more of them."""
    tensors = _tensors(given)
    if not isinstance(given, Mapping) or len(tensors) != len(given):
        return
    lengths = {tensor.shape[1] if tensor.dim() == 2 else 0 for tensor in tensors}
    if len(lengths) != 1 or not 0 < (length := lengths.pop()) < _TOKENS:
        return
    times = -(-_TOKENS // length)
    if any(tensor.is_floating_point() or tensor.is_complex() for tensor in tensors):
        return

    def make() -> Any:
        return {key: one.repeat(1, times)[:, :_TOKENS] for key, one in given.items()}

    more = f".repeat(1, {times})[:, :{_TOKENS}]"
    yield Guess("dummy_inputs", make, _written(given, more))


def _input_size(model: nn.Module) -> Iterator[Guess]:
    """timm's: the size of one image without the batch, of the weights that there are.

    A model may have been built for another: then for the channels of its first convolution, and
    the size that its patch embedding asserts.
    """
    for source in ("pretrained_cfg", "default_cfg"):
        given = getattr(model, source, None)
        size = given.get("input_size") if isinstance(given, Mapping) else None
        size = getattr(given, "input_size", None) if size is None else size
        if shape := _shape(size):
            yield _drawn(source, model, shape)
            channels, *sides = shape
            convolutions = (m for m in model.modules() if isinstance(m, nn.Conv2d))
            first = next((one.in_channels for one in convolutions), channels)
            asserted = _shape(getattr(getattr(model, "patch_embed", None), "img_size", None))
            own = (first, *(asserted or sides))
            if own != shape:
                yield _drawn(source, model, own)
            return


def _main_input(model: nn.Module) -> Iterator[Guess]:
    """transformers' models of images, and of images and text: sizes stand in their config."""
    config = getattr(model, "config", None)
    if getattr(model, "main_input_name", None) == "pixel_values":
        if shape := _pixels(config):
            yield _drawn("config.image_size", model, shape, name="pixel_values")
        return
    dummies = getattr(model, "dummy_inputs", None)
    shape = _pixels(getattr(config, "vision_config", None))
    if shape and isinstance(dummies, Mapping) and _tensors(dummies):
        pixels = _drawn("", model, shape, name="pixel_values")
        yield Guess(
            "dummy_inputs and config.vision_config.image_size",
            lambda: {**dummies, **pixels.make()},
        )


def _pixels(config: Any) -> tuple[int, ...] | None:
    """Return the shape of one image, or of the frames of one film, that a config speaks of."""
    size = getattr(config, "image_size", None)
    sides = _shape(size if isinstance(size, Sequence) else (size, size))
    frames = _shape((getattr(config, "num_frames", None),))
    return _shape((*(frames or ()), getattr(config, "num_channels", 3), *sides)) if sides else None


def _torchvision(model: nn.Module) -> Iterator[Guess]:
    """torchvision's: what the weights of a model, beside its class, are made for."""
    name = type(model).__module__
    if name.partition(".")[0] != "torchvision":
        return
    sizes: list[int] = []
    for kind in vars(sys.modules[name]).values():
        if isinstance(kind, type) and issubclass(kind, enum.Enum):
            for weights in kind:
                presets = getattr(getattr(weights.value, "transforms", None), "keywords", {})
                sizes += [side for side in [presets.get("crop_size")] if isinstance(side, int)]
    # A transformer of images is told its own; of the others each runs at several.
    own = getattr(model, "image_size", None)
    side = own if isinstance(own, int) else min(sizes, default=None)
    if shape := _shape((3, side, side)):
        yield _drawn("the weights of torchvision", model, shape)


def _shape(sizes: Any) -> tuple[int, ...] | None:
    if not isinstance(sizes, Sequence) or isinstance(sizes, str) or not sizes:
        return None
    whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sizes)
    return tuple(sizes) if whole else None


def _drawn(source: str, model: nn.Module, shape: tuple[int, ...], name: str = "") -> Guess:
    dtype = _dtype_of(model)
    given = "" if dtype is None else f", dtype={dtype}"
    tensor = f"torch.randn({', '.join(map(str, (BATCH, *shape)))}{given})"

    def make() -> Any:
        drawn = torch.randn(BATCH, *shape, dtype=dtype)
        return {name: drawn} if name else drawn

    return Guess(source, make, f'{{"{name}": {tensor}}}' if name else tensor)


def _dtype_of(model: nn.Module) -> torch.dtype | None:
    """Return what all of a model's floating parameters are, where that is not the default."""
    found = {p.dtype for p in model.parameters() if p.is_floating_point()}
    only = found.pop() if len(found) == 1 else None
    return None if only is torch.get_default_dtype() else only


def _examples(given: Any, source: str) -> Iterator[Guess]:
    """Yield an example, and once more with its first dimension doubled."""
    tensors = _tensors(given)
    if not tensors:
        return
    yield Guess(source, lambda: _each(given, _lively), _written(given))
    if all(tensor.dim() > 0 and tensor.shape[0] == 1 for tensor in tensors):
        # A batch norm over one row raises.
        yield Guess(source, lambda: _each(given, lambda one: _lively(torch.cat([one, one]))))


def _tensors(given: Any) -> list[Tensor]:
    if isinstance(given, Tensor):
        return [given]
    if isinstance(given, Mapping):
        given = tuple(given.values()) if all(isinstance(key, str) for key in given) else ()
    if isinstance(given, (tuple, list)):
        return [one for one in given if isinstance(one, Tensor)]
    return []


def _each(given: Any, change: Callable[[Tensor], Tensor]) -> Any:
    if isinstance(given, Tensor):
        return change(given)
    if isinstance(given, Mapping):
        return {
            key: change(one) if isinstance(one, Tensor) and "mask" not in key else one
            for key, one in given.items()
        }
    return tuple(change(one) if isinstance(one, Tensor) else one for one in given)


def _lively(tensor: Tensor) -> Tensor:
    """Return an example of one value everywhere with random ones: it is there for its shape.

    Of zeros no first layer gets a gradient, and a norm makes zeros of all that are equal.
    """
    if not tensor.is_floating_point() or tensor.numel() < 2 or tensor.device.type == "meta":
        return tensor
    if bool((tensor == tensor.flatten()[0]).all()):
        return torch.randn_like(tensor)
    return tensor


#: How many numbers are written out.
_MOST = 64


def _written(given: Any, more: str = "") -> str:
    """Return small whole-number examples as an expression; ``""`` for what is longer.

    ``more`` is written behind each tensor.
    """
    if isinstance(given, Tensor):
        if given.dtype is not torch.int64 or given.numel() > _MOST:
            return ""
        return f"torch.tensor({given.tolist()}){more}"
    if isinstance(given, Mapping):
        parts = {key: _written(one, more) for key, one in given.items()}
        shown = ", ".join(f'"{key}": {text}' for key, text in parts.items())
        return f"{{{shown}}}" if all(parts.values()) else ""
    return ""
