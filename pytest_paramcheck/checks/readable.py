"""Values as one plain tensor, whatever kind of tensor holds them."""

from __future__ import annotations

import torch
from torch import Tensor

from ..messages.errors import ParamCheckUsageError
from ..messages.wording import a_or_an
from ..parameters.tensors.call import gathered
from ..parameters.tensors.describe import kind_of
from ..parameters.tensors.memory import inner_tensors


def plain_values(name: str, tensor: Tensor, *, keep_dtype: bool = False) -> Tensor:
    """Return the values of a tensor that has them, dense and without a graph.

    float8 has next to no arithmetic: widened, but with ``keep_dtype``.
    """
    values = gathered(tensor)
    if values.layout is not torch.strided:
        values = values.to_dense()
    elif inner_tensors(values) is not None:
        raise ParamCheckUsageError(
            f"{name}: the values of {a_or_an(kind_of(tensor))} are spread over other tensors; "
            f"check the module before it is sharded, quantized or wrapped"
        )
    if values.is_quantized:
        values = values.dequantize()
    values = values.resolve_conj().resolve_neg()
    if values.element_size() == 1 and values.is_floating_point() and not keep_dtype:
        return values.float()
    return values
