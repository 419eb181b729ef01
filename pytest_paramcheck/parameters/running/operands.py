"""What torch's operations take: their names, their tensors, and which of these they multiply."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor


def operation_name(func: Any) -> str | None:
    """Return the name a user knows an operation by; None for what is no use of a value."""
    name = getattr(func, "__name__", str(func))
    if name == "__get__":
        name = getattr(getattr(func, "__self__", None), "__name__", "")
        return name if name in _VALUE_PROPERTIES else None
    if name == "__set__" or name in _NO_USE or name.endswith("_like"):
        return None
    return str(name)


def in_place(operation: str) -> bool:
    """Whether an operation of this name writes into its first argument."""
    if operation.startswith("__"):
        return operation == "__setitem__" or (operation[2] == "i" and operation in _IN_PLACE)
    return operation.endswith("_")


def tensors_in(value: Any, depth: int = 4) -> Iterator[Tensor]:
    """Yield the tensors among arguments or results, in containers too."""
    if isinstance(value, Tensor):
        yield value
    elif depth and isinstance(value, (tuple, list)):
        for item in value:
            yield from tensors_in(item, depth - 1)
    elif depth and isinstance(value, dict):
        for item in value.values():
            yield from tensors_in(item, depth - 1)


@dataclass(frozen=True, slots=True)
class Operand:
    """A factor that leaves no gradient to the others: it is all zero, or has no elements.

    ``source`` is the set of parameters it descends from; ``parameter`` names the one all-zero
    parameter it is made of, if it is.
    """

    source: int
    empty: bool
    parameter: str


def multiplied(
    func: Any, operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> list[Tensor]:
    """Return the tensors that an operation multiplies; none of one that is not known."""
    if operation in _ARGUMENTS:
        given = _named(func, operation, args, kwargs)
        factors: list[Any] = [given.get(name) for name in _ARGUMENTS[operation]]
    elif operation in _FACTORS:
        first, count = _FACTORS[operation]
        factors = [*args, *kwargs.values()][first : first + count]
    elif operation in _ALL:
        factors = [*args, *kwargs.values()]
        factors = [one for f in factors for one in (f if isinstance(f, (list, tuple)) else [f])]
    else:
        return []
    return [factor for factor in factors if isinstance(factor, Tensor)]


def _named(
    func: Any, operation: str, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> Mapping[str, Any]:
    """Return the arguments by name: of torch.nn.functional's by its signature."""
    try:
        return inspect.signature(func).bind(*args, **kwargs).arguments
    except (ValueError, TypeError):  # built in: it has no signature
        return {**dict(zip(_POSITIONS.get(operation, ()), args, strict=False)), **kwargs}


_VALUE_PROPERTIES = frozenset({"data", "T", "mT", "H", "mH", "real", "imag"})
_NO_USE = frozenset(
    {"requires_grad_", "register_hook", "retain_grad", "backward", "__repr__"}
    | {f"new_{name}" for name in ("empty", "zeros", "ones", "full")}
)
_IN_PLACE = frozenset(
    f"__i{name}__" for name in ("add", "sub", "mul", "truediv", "div", "floordiv", "mod", "pow")
)
#: Operations that make a Python number or an array of a tensor.
LEAVING = frozenset(
    {"item", "tolist", "numpy", "__array__", "__float__", "__int__", "__complex__", "__dlpack__"}
)
#: Operations that scale what they are given, or mix it with weights: the arguments that do so.
_ARGUMENTS: Mapping[str, tuple[str, ...]] = {
    **dict.fromkeys(
        (
            *("batch_norm", "layer_norm", "group_norm", "instance_norm", "rms_norm", "prelu"),
            *("native_batch_norm", "native_layer_norm", "native_group_norm"),
        ),
        ("weight",),
    ),
    "multi_head_attention_forward": (
        *("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight"),
        "out_proj_weight",
    ),
    "scaled_dot_product_attention": ("query", "key", "value"),
}
#: How torch's own, built-in ones name their arguments.
_POSITIONS: Mapping[str, tuple[str, ...]] = {
    "batch_norm": ("input", "weight"),
    "instance_norm": ("input", "weight"),
    "native_batch_norm": ("input", "weight"),
    "native_group_norm": ("input", "weight"),
    "prelu": ("input", "weight"),
    "layer_norm": ("input", "normalized_shape", "weight"),
    "native_layer_norm": ("input", "normalized_shape", "weight"),
    "rms_norm": ("input", "normalized_shape", "weight"),
    "group_norm": ("input", "num_groups", "weight"),
    "scaled_dot_product_attention": ("query", "key", "value"),
}
#: Products of some of their arguments: the first of them, and how many (others are added).
_FACTORS: Mapping[str, tuple[int, int]] = {
    "linear": (0, 2),
    "bilinear": (0, 3),
    **{f"conv{n}d": (0, 2) for n in (1, 2, 3)},
    **{f"conv_transpose{n}d": (0, 2) for n in (1, 2, 3)},
    **dict.fromkeys(("addmm", "baddbmm", "addbmm", "addmv", "addr", "addcmul"), (1, 2)),
}
#: Products of all that they are given.
_ALL = frozenset(
    {
        *("mul", "multiply", "__mul__", "__rmul__", "mul_", "__imul__", "einsum"),
        *("matmul", "__matmul__", "__rmatmul__", "mm", "bmm", "mv", "dot", "vdot", "inner"),
        *("outer", "ger", "kron", "tensordot", "chain_matmul", "multi_dot"),
    }
)


def is_added(node: Any, argument: int) -> bool:
    """Whether a node of the graph adds this argument of its operation to every row of a result.

    The gradient of such a one is the sum over the rows, which a norm behind it cancels: exactly
    where there are two, and to what rounding leaves where there are more.
    """
    name = node.name()
    return name in _SUMS or _ADDED.get(name) == argument


_SUMS = frozenset({"AddBackward0", "SubBackward0"})
#: Node -> which of its operation's arguments is the bias.
_ADDED = {
    **dict.fromkeys(("AddmmBackward0", "BaddbmmBackward0"), 0),
    **dict.fromkeys(("ConvolutionBackward0", "NativeBatchNormBackward0"), 2),
    **dict.fromkeys(("CudnnBatchNormBackward0", "MiopenBatchNormBackward0"), 2),
    **dict.fromkeys(("NativeLayerNormBackward0", "NativeGroupNormBackward0"), 2),
}
