"""What a tensor was, kept small, to prove later that it is unchanged.

The content is proven by its bits: xxh3_128 over the bytes, whatever kind of tensor they belong
to. Sums are no proof (negating every element of a float64 tensor flips top bits, and an even
number of flips cancels), and neither is ``_version``, which misses fused optimizers, ``.data``,
numpy and dlpack views. Beside the 16 bytes of the digest a few values are kept, spread over
the tensor, so that a message can say by how much it changed.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import chain
from typing import Any, TypeAlias

import torch
import xxhash
from torch import Tensor
from torch.nn.parameter import is_lazy

from .content import INTEGER_OF_SIZE, bits, is_ordinary, no_values
from .context import facts_of
from .memory import PLAIN_TYPES, inner_tensors

#: Bytes hashed at a time. Large tensors are hashed in pieces, several pieces at once, and what
#: is not in host memory is copied there piece by piece.
PIECE = 8 << 20
#: Values kept of each tensor, for messages only (a multiple of 8). Tensors up to this size are
#: kept whole.
SAMPLE = 64
#: Below this many bytes a second thread costs more than it saves.
_WORTH_THREADS = 4 * PIECE
#: Up to this many bytes are copied: it costs less than making an array over them.
_SMALL = 16 << 10


_Bytes: TypeAlias = "ctypes.Array[ctypes.c_char] | bytes"


@dataclass(frozen=True, slots=True)
class Content:
    """The digest of a tensor's bits, and up to :data:`SAMPLE` of its ``size`` values.

    What stands beside the bits is digested with them. Two contents of tensors of one shape,
    dtype and layout are equal exactly where their bits are (but for the 2**-128 of the hash).
    """

    digest: bytes
    kept: Tensor | bytes | None
    dtype: torch.dtype
    size: int

    @property
    def sample(self) -> Tensor | None:
        """The kept bits, to be viewed as ``dtype``; None where it is not a plain strided tensor."""
        if isinstance(self.kept, bytes):
            return torch.frombuffer(
                bytearray(self.kept), dtype=INTEGER_OF_SIZE[self.dtype.itemsize]
            )
        return self.kept

    @property
    def whole(self) -> bool:
        """Whether all values are kept."""
        return self.sample is not None and self.sample.numel() == self.size


def read_contents(tensors: Sequence[Tensor]) -> list[Content]:
    """Return the content of each tensor, reading each byte once.

    Raises ValueError with the reason for a tensor without values (meta, fake, lazy).
    """
    read: dict[int, Content] = {}
    batch: list[tuple[int, Tensor, list[Tensor]]] = []
    waiting = 0
    headers: dict[tuple[torch.dtype, torch.Size], bytes] = {}
    scratch = torch.empty(0, dtype=torch.uint8, device="cpu")
    threads = min(8, torch.get_num_threads())
    at_most = min(PIECE, _SMALL) if threads > 1 else PIECE  # larger ones are for the threads
    with torch.no_grad(), ThreadPoolExecutor(threads) as pool:  # starts threads when needed

        def digest(batch: Sequence[tuple[int, Tensor, list[Tensor]]], waiting: int) -> None:
            worth = threads > 1 and waiting >= _WORTH_THREADS
            read.update(_digest_batch(batch, pool if worth else None))

        for number, tensor in enumerate(tensors):
            if (content := _at_once(tensor, at_most, headers)) is not None:
                read[number] = content
                continue
            if _fits_scratch(tensor):
                # Its bits are a copy. All copies are made in one place, one after the other: many
                # in places of their own fragment the memory even where each is freed at once.
                size = tensor.numel() * tensor.element_size()
                if scratch.numel() < size:
                    scratch = torch.empty(size, dtype=torch.uint8, device="cpu")
                copied = scratch[:size].view(tensor.dtype).view(tensor.shape).copy_(tensor)
                digest(batch, waiting)
                digest([(number, tensor, bits(copied))], size)
                batch, waiting = [], 0
                continue
            flats = bits(tensor)
            batch.append((number, tensor, flats))
            waiting += sum(flat.numel() * flat.element_size() for flat in flats)
            if waiting >= 32 * PIECE:
                digest(batch, waiting)
                batch, flats, waiting = [], [], 0
        digest(batch, waiting)
    return [read[number] for number in range(len(tensors))]


def _at_once(
    tensor: Tensor, at_most: int, headers: dict[tuple[torch.dtype, torch.Size], bytes]
) -> Content | None:
    """Return the content of an ordinary tensor of one piece, the same as through views; else None.

    Models have thousands of them, and what is asked of each is most of what they cost.
    """
    if type(tensor) not in PLAIN_TYPES or is_lazy(tensor):
        return None
    dtype, count = tensor.dtype, tensor.numel()
    itemsize = dtype.itemsize
    size = count * itemsize
    if size > at_most or not is_ordinary(tensor):
        return None
    start = tensor.data_ptr()
    small = size <= _SMALL
    data: Any = ctypes.string_at(start, size) if small else _bytes_at(start, size)
    kind = (dtype, tensor.shape)
    header = headers.get(kind)
    if header is None:
        header = headers[kind] = _header(tensor) + b"1"  # one piece
    total = xxhash.xxh3_128_digest(header + xxhash.xxh3_128_digest(data))
    kept = data if count <= SAMPLE else b""
    if count > SAMPLE:
        step, width = count // 8 * itemsize, SAMPLE // 8 * itemsize
        kept = b"".join([data[i : i + width] for i in range(0, 8 * step, step)])
    return Content(total, kept, dtype, count)


def _fits_scratch(tensor: Tensor) -> bool:
    return (
        type(tensor) in PLAIN_TYPES
        and tensor.layout is torch.strided
        and not tensor.is_nested
        and not tensor.is_contiguous()
        and tensor.device.type == "cpu"
        and not tensor.is_quantized
        and not no_values(tensor)
        and "float4" not in str(tensor.dtype)
    )


def _digest_batch(
    batch: Sequence[tuple[int, Tensor, list[Tensor]]], pool: ThreadPoolExecutor | None
) -> dict[int, Content]:
    pieces = [[list(_pieces(flat)) for flat in flats] for _, _, flats in batch]
    flattened = [piece for of_tensor in pieces for of_flat in of_tensor for piece in of_flat]
    digests: Iterator[bytes]
    if pool is not None and all(piece.device.type == "cpu" for piece in flattened):
        # xxhash lets other threads run. One task has a piece's worth of bytes: handing over
        # each small tensor by itself would cost more than hashing it.
        # All are waited for before this thread goes on: it would hold Python's lock meanwhile.
        digests = chain.from_iterable(list(pool.map(_digests, _tasks(flattened))))
    else:
        digests = map(_digest, flattened)
    contents = {}
    for (number, tensor, flats), of_tensor in zip(batch, pieces, strict=True):
        total = xxhash.xxh3_128(_header(tensor))
        for of_flat in of_tensor:
            total.update(str(len(of_flat)).encode())
            for _ in of_flat:
                total.update(next(digests))
        sample = _sample(tensor, flats)
        size = sum(flat.numel() for flat in flats)
        contents[number] = Content(total.digest(), sample, _sample_dtype(tensor), size)
    return contents


def _tasks(pieces: Iterable[Tensor]) -> Iterator[list[_Bytes]]:
    task: list[_Bytes] = []
    size = 0
    for piece in pieces:
        task.append(bytes_of(piece))
        size += piece.numel() * piece.element_size()
        if size >= PIECE:
            yield task
            task, size = [], 0
    if task:
        yield task


def _digests(task: Sequence[_Bytes]) -> list[bytes]:
    return list(map(xxhash.xxh3_128_digest, task))


def _pieces(flat: Tensor) -> Iterator[Tensor]:
    size = PIECE // flat.element_size()
    if flat.numel() <= size:
        yield flat
        return
    for start in range(0, flat.numel(), size):
        yield flat[start : start + size]


def _digest(piece: Tensor) -> bytes:
    host = piece if piece.device.type == "cpu" else piece.to("cpu")
    return xxhash.xxh3_128_digest(bytes_of(host))


def bytes_of(host: Tensor) -> _Bytes:
    """Return the bytes where they are: no copy, and no numpy, which torch works without.

    They are there as long as ``host`` is: whoever asks keeps it in a name until they are read.
    """
    size = host.numel() * host.element_size()
    return _bytes_at(host.data_ptr(), size) if size else b""


def _bytes_at(start: int, size: int) -> ctypes.Array[ctypes.c_char]:
    return (ctypes.c_char * size).from_address(start)


def _header(tensor: Tensor) -> bytes:
    said = [str(tensor.dtype), str(tuple(tensor.shape)), str(tensor.layout)]
    said += [repr(fact.key) for fact in facts_of(tensor)]
    return "|".join(said).encode()


def _sample_dtype(tensor: Tensor) -> torch.dtype:
    return tensor.dtype.to_real() if tensor.dtype.is_complex else tensor.dtype


def _sample(tensor: Tensor, flats: list[Tensor]) -> Tensor | None:
    if inner_tensors(tensor) is not None or tensor.layout is not torch.strided:
        return None
    if tensor.is_quantized or "float4" in str(tensor.dtype) or not tensor.numel():
        return None
    (flat,) = flats
    if flat.numel() <= SAMPLE:
        return flat.to("cpu", copy=True)
    # Eight places of neighbors: each lone value would be a cache line read for itself.
    step = flat.numel() // 8
    if flat.device.type == "cpu":  # eight copies of bytes cost a third of three tensor calls
        start, size = flat.data_ptr(), flat.element_size()
        places = [ctypes.string_at(start + i * step * size, SAMPLE // 8 * size) for i in range(8)]
        return torch.frombuffer(bytearray(b"".join(places)), dtype=flat.dtype)
    return flat[: step * 8].view(8, -1)[:, : SAMPLE // 8].reshape(-1).to("cpu", copy=True)


def content_difference(before: Content, after: Content) -> str:
    """Say by how much a content changed; shape and dtype are those it had."""
    if before.sample is None or after.sample is None or before.dtype != after.dtype:
        return "other content"
    with torch.no_grad():
        changed = before.sample.ne(after.sample)
        old, new = (
            kept.view(before.dtype).to(torch.float64)[changed]
            for kept in (before.sample, after.sample)
        )
        count = int(changed.sum())
        if not count:
            sampled = f"{before.sample.numel()} values sampled from {before.size:,}"
            return f"changed, but in none of the {sampled}"
        if before.whole and before.sample.numel() == 1:
            return f"{old.item():.6g} before, {new.item():.6g} after"
        of = f"{before.sample.numel()} values"
        if not before.whole:
            of = f"the {of} sampled from {before.size:,}"
        what = f"{count} of {of} changed"
        gap = (new - old).abs()
        largest = float(gap[gap.isfinite()].max()) if bool(gap.isfinite().any()) else 0.0
        broken = int((~new.isfinite()).sum())
        by = f", by at most {largest:.3g}" if largest else ""
        if not by and bool((old == new).all()):
            by = ", only the sign of zero"
        parts = [what + by]
        if broken:
            parts.append(f"{broken} of them to NaN or infinity")
        return ", ".join(parts)
