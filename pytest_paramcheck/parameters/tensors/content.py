"""What a tensor holds, bit for bit, for every kind of tensor that holds something.

``torch.equal`` is False on NaN and not implemented on meta, float8 and sparse tensors, and
``isfinite`` is missing on some of them too. Bits have none of these exceptions: a tensor is
read as flat integer tensors, and those can be compared, hashed and searched.

Tests: ``tests/unit/test_content.py``, ``test_finite.py`` and ``test_same_values.py``.
"""

from __future__ import annotations

import cmath

import torch
from torch import Tensor
from torch.nn.parameter import is_lazy

from ...messages.errors import ParamCheckUsageError
from .context import context_tensors, facts_of, same_facts
from .memory import (
    ADDRESSED,
    PLAIN_TYPES,
    has_address,
    in_storage,
    in_transform,
    inner_tensors,
    is_fake,
    raised_by,
)

_ORDINARY = frozenset({torch.float32, torch.float64, torch.bfloat16, torch.float16, torch.int64})
INTEGER_OF_SIZE = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def no_values(tensor: Tensor) -> str:
    """Return why a tensor's values cannot be read, or ``""`` where they can.

    What a subclass's own code raises is the reason; only a hook's wrong answer (a usage error)
    is raised. Every reading of values asks here first, or reads plain tensors and asks here what
    went wrong.
    """
    try:
        return _why_none(tensor)
    except ParamCheckUsageError:
        raise
    except Exception as error:
        return raised_by(tensor, error)


def _why_none(tensor: Tensor) -> str:
    if type(tensor) in PLAIN_TYPES and not is_lazy(tensor) and is_ordinary(tensor):
        return ""
    if in_transform(tensor):
        return "inside torch.func.vmap or grad, where a tensor represents others: ask outside"
    if is_lazy(tensor):
        return "uninitialized: a lazy parameter gets its values in the first forward"
    if is_fake(tensor):
        return "a FakeTensor has no values"
    if tensor.device.type == "meta":
        return "on meta, where tensors have no values"
    if tensor.is_nested:
        return "a nested tensor has no one shape to read it by"
    parts = _parts(tensor)
    if parts is not None:
        return next((reason for part in parts if (reason := no_values(part))), "")
    addressed = tensor.layout is torch.strided and tensor.device.type in ADDRESSED
    if not addressed or tensor.numel() == 0 or has_address(tensor):
        if type(tensor) not in PLAIN_TYPES:
            _plain(tensor)  # what its class raises there, it raises here
        if addressed and not in_storage(tensor):
            return "its memory was shrunk: the storage behind it ends before it does"
        return ""
    if type(tensor) in PLAIN_TYPES:
        return "its memory was freed: the storage behind it is empty"
    return f"{type(tensor).__name__} does not say which tensors hold its values"


def _plain(tensor: Tensor) -> Tensor:
    """Return a tensor without its graph and class, so that reading it runs no code but torch's."""
    detached = tensor.detach()
    return detached if type(detached) is Tensor else detached.as_subclass(Tensor)


def bits(tensor: Tensor) -> list[Tensor]:
    """Return the content as flat integer tensors on its device; views where that is possible.

    Two tensors of one dtype and shape have equal content exactly where these and what stands
    beside them (:func:`~.context.facts_of`) are equal.
    A sparse tensor is read as it is held: an uncoalesced one differs from its coalesced twin.
    Raises ValueError with the reason where there are no values.
    """
    plain = _plain_bits(tensor)
    if plain is not None:
        return [plain]
    if reason := no_values(tensor):
        raise ValueError(reason)
    with torch.no_grad():
        parts = _parts(tensor)
        if parts is not None:
            return [flat for part in parts for flat in bits(part)]
        plain = _plain(tensor)
        if plain.layout is not torch.strided:
            plain = plain.to_dense()  # mkldnn and other opaque layouts
        scales = _quantizer(plain) if plain.is_quantized else []
        if plain.is_quantized:
            plain = plain.int_repr()
        if plain.is_complex():
            plain = torch.view_as_real(plain.resolve_conj())
        if plain.is_neg():
            plain = plain.resolve_neg()
        flat = plain.contiguous().reshape(-1)
        return [flat.view(INTEGER_OF_SIZE[flat.element_size()]), *scales]


def _parts(tensor: Tensor) -> list[Tensor] | None:
    """The tensors whose content is a tensor's own; None where it holds its values itself."""
    parts = inner_tensors(tensor)
    return None if parts is None else [*parts, *context_tensors(tensor)]


def _plain_bits(tensor: Tensor) -> Tensor | None:
    """Return the bits of an ordinary tensor in host memory; None for every other kind."""
    if not is_ordinary(tensor):
        return None
    return tensor.detach().view(-1).view(INTEGER_OF_SIZE[tensor.element_size()])


def is_ordinary(tensor: Tensor) -> bool:
    """Whether its bytes lie in host memory one after the other, and are all there is to it.

    What nearly all parameters are, at a third of the cost of asking for each other kind.
    """
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.is_cpu
        and tensor.layout is torch.strided
        and tensor.dtype in _ORDINARY
        and not tensor.is_nested
        and tensor.is_contiguous()
        and not tensor.is_neg()
        and tensor.numel() > 0
        and not in_transform(tensor)
        and in_storage(tensor)  # else it was freed or shrunk
    )


def _quantizer(tensor: Tensor) -> list[Tensor]:
    """Return what turns a quantized tensor's integers into values, as flat integer tensors."""
    scheme = _scheme(tensor)
    if scheme is None:
        return []
    if scheme not in _PER_CHANNEL:
        scale = torch.tensor([tensor.q_scale()], dtype=torch.float64, device=tensor.device)
        zero = torch.tensor([tensor.q_zero_point()], dtype=torch.int64, device=tensor.device)
        return [scale.view(torch.int64), zero]
    axis = torch.tensor([tensor.q_per_channel_axis()], dtype=torch.int64, device=tensor.device)
    return [
        *bits(tensor.q_per_channel_scales()),
        *bits(tensor.q_per_channel_zero_points()),
        axis,
    ]


def _scheme(tensor: Tensor) -> torch.qscheme | None:
    """How a quantized tensor scales; None for what torch.empty made, which nobody gave one."""
    try:
        return tensor.qscheme()
    except RuntimeError:
        return None


def same_bits(a: Tensor, b: Tensor) -> bool | None:
    """Whether two tensors have one shape, dtype and content; None where values cannot be read.

    NaN equals NaN of the same bits, and 0.0 differs from -0.0. What stands beside the bits (the
    scale in a subclass's flatten context) has to be the same too, the kind included. Tensors on
    two devices are compared on the first one's.
    """
    if is_lazy(a) or is_lazy(b):
        return None
    if a.is_nested or b.is_nested:
        return None
    if a.shape != b.shape or a.dtype != b.dtype or a.layout != b.layout:
        return False
    if no_values(a) or no_values(b):
        return None
    flat_a, flat_b = bits(a), bits(b)
    if len(flat_a) != len(flat_b) or not same_facts(a, b):
        return False
    return all(
        x.shape == y.shape and x.dtype == y.dtype and _equal(x, y.to(x.device))
        for x, y in zip(flat_a, flat_b, strict=True)
    )


#: Below this many elements the views cost more than comparing wide integers saves.
_WORTH_WIDE = 4096


def _equal(x: Tensor, y: Tensor) -> bool:
    """Compare flat integer tensors; long ones as int64: narrower ones take up to three times as
    long per byte."""
    ratio = 8 // x.element_size()
    whole = x.numel() // ratio * ratio
    offsets = (x.storage_offset(), y.storage_offset())
    if ratio == 1 or whole < _WORTH_WIDE or any(offset % ratio for offset in offsets):
        return torch.equal(x, y)
    wide = torch.equal(x[:whole].view(torch.int64), y[:whole].view(torch.int64))
    return wide and torch.equal(x[whole:], y[whole:])


def value_parts(tensor: Tensor) -> list[Tensor]:
    """Return the strided floating or complex tensors that hold a tensor's values; views.

    Integer parts (indices, codes) are left out, and so is float4, which has neither NaN nor
    infinity. Of a sparse tensor these are the stored values, of a DTensor the local shard, of
    a quantized one its scales. Call it only where :func:`no_values` says ``""``.
    """
    with torch.no_grad():
        parts = _parts(tensor)
        if parts is not None:
            return [value for part in parts for value in value_parts(part)]
        plain = _plain(tensor)
        if plain.layout is not torch.strided:
            plain = plain.to_dense()
        if plain.is_quantized:
            return _scales(plain)
        if not (plain.is_floating_point() or plain.is_complex()) or plain.numel() == 0:
            return []
        return [] if "float4" in str(plain.dtype) else [plain]


def _scales(tensor: Tensor) -> list[Tensor]:
    scheme = _scheme(tensor)
    if scheme is None:
        return []
    if scheme in _PER_CHANNEL:
        parts = [tensor.q_per_channel_scales(), tensor.q_per_channel_zero_points()]
        return [part for part in parts if part.is_floating_point()]
    return [torch.tensor([tensor.q_scale()], dtype=torch.float64, device=tensor.device)]


def broken_numbers(tensor: Tensor) -> list[str]:
    """Return the numbers beside a tensor's bits that are not finite, each with where it stands."""
    return [
        f"{fact.path} is {str(fact.value).replace('nan', 'NaN')}"
        for fact in facts_of(tensor)
        if isinstance(fact.value, (float, complex)) and not cmath.isfinite(fact.value)
    ]


def version_of(tensor: Tensor) -> int | None:
    """Return how often autograd saw a tensor written; None for inference and lazy tensors."""
    return None if is_lazy(tensor) or tensor.is_inference() else tensor._version


_PER_CHANNEL = (torch.per_channel_affine, torch.per_channel_affine_float_qparams)
