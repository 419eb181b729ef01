"""The whole-model checks on torch's own modules: no false alarm, and every finding a known one.

What a case declares beyond its inputs (``alike``, ``unreached``, ``expected_failures``) is
something true of the module that a check reports, with the reason beside it.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
import torch.nn.utils.parametrizations as parametrizations
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from pytest_paramcheck import (
    CHECKS,
    ModelCase,
    NothingToCheck,
    parametrize_with_param_checks,
)
from pytest_paramcheck.model_checks.check import run_check
from pytest_paramcheck.model_checks.run import CaseRun


def randn(*shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Inputs drawn from the seed of the run."""
    return lambda: tuple(torch.randn(shape) for shape in shapes)


def ids(high: int, *shapes: tuple[int, ...]) -> Callable[[], tuple[Tensor, ...]]:
    """Token ids drawn from the seed of the run."""
    return lambda: tuple(torch.randint(high, shape) for shape in shapes)


def case(name: str, factory: Callable[[], nn.Module], inputs: Any, **declared: Any) -> ModelCase:
    return ModelCase(factory, inputs=inputs, name=name, **declared)


def seen(factory: Callable[[], nn.Module], *shape: int) -> Callable[[], nn.Module]:
    """A factory of lazy modules as it should be: one forward pass gives them their shapes."""

    def build() -> nn.Module:
        model = factory()
        model(torch.zeros(shape))
        return model

    return build


class Residual(nn.Module):
    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        self.body = body

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Checkpointed(nn.Module):
    """Blocks whose activations are computed again in the backward pass."""

    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 4)
        self.blocks = nn.ModuleList(nn.Sequential(nn.Linear(4, 4), nn.Tanh()) for _ in range(3))
        self.reentrant = reentrant

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = checkpoint(block, x, use_reentrant=self.reentrant)
        return x


class TiedLM(nn.Module):
    def __init__(self, tied: bool = True) -> None:
        super().__init__()
        self.emb = nn.Embedding(11, 6)
        self.rnn = nn.GRU(6, 6, batch_first=True)
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.emb.weight

    def forward(self, tokens: Tensor) -> Tensor:
        return self.head(self.rnn(self.emb(tokens))[0])


class CellLoop(nn.Module):
    """A cell called once per time step: one module, several uses."""

    def __init__(self, cell: nn.Module) -> None:
        super().__init__()
        self.cell = cell

    def forward(self, x: Tensor) -> Any:
        state = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return state


class Routed(nn.Module):
    """Two heads in a ModuleDict, chosen by a flag: the loss of a case takes one path."""

    def __init__(self) -> None:
        super().__init__()
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 2), "b": nn.Linear(4, 2)})

    def forward(self, x: Tensor, head: str) -> Tensor:
        return self.heads[head](x)


class Scaled(nn.Module):
    """Bare parameters in a ParameterList and a ParameterDict, and one that is 0-dim."""

    def __init__(self) -> None:
        super().__init__()
        self.scales = nn.ParameterList(nn.Parameter(torch.randn(4)) for _ in range(3))
        self.shifts = nn.ParameterDict({"in": nn.Parameter(torch.randn(4))})
        self.temperature = nn.Parameter(torch.tensor(0.5))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.shifts["in"]
        for scale in self.scales:
            x = torch.tanh(x * scale)
        return x / self.temperature


class Widened(nn.Module):
    """Adds ``extra`` columns, which may be none: then a parameter has no elements."""

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.lin = nn.Linear(4, 4)
        self.spare = nn.ParameterDict({"columns": nn.Parameter(torch.zeros(6, extra))})

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.lin(x), self.spare["columns"]], dim=1)


class Encoder(nn.Module):
    """``nn.TransformerEncoder`` with layers of their own, as one should build it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(8, 2, 16, batch_first=True) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)
        return x


def frozen_backbone() -> nn.Module:
    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    model[0].requires_grad_(False)
    return model


def shared_twice() -> nn.Module:
    layer = nn.Linear(4, 4)
    return nn.Sequential(layer, nn.Tanh(), layer)


def from_meta() -> nn.Module:
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 2))
    model.to_empty(device=torch.empty(0).device)
    for module in model:
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    return model


def zero_branch() -> nn.Module:
    branch = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    nn.init.zeros_(branch[2].weight)
    nn.init.zeros_(branch[2].bias)
    return nn.Sequential(Residual(branch))


def decay_split(model: nn.Module) -> torch.optim.Optimizer:
    named = list(model.named_parameters())
    return torch.optim.AdamW(
        [
            {"params": [p for _, p in named if p.ndim > 1]},
            {"params": [p for _, p in named if p.ndim < 2], "weight_decay": 0.0},
        ],
        lr=0.01,
    )


def encoder(layers: int = 2, **options: Any) -> Callable[[], nn.Module]:
    layer = {"d_model": 8, "nhead": 2, "dim_feedforward": 16, "batch_first": True, **options}
    # The nested-tensor path warns where it cannot be used, and no case has a padding mask.
    return lambda: nn.TransformerEncoder(
        nn.TransformerEncoderLayer(**layer), layers, enable_nested_tensor=False
    )


def decoder() -> nn.Module:
    return nn.TransformerDecoder(nn.TransformerDecoderLayer(8, 2, 16, batch_first=True), 2)


#: torch's encoders and decoders deep-copy the layer they are given, so that all layers start
#: from the same values. (`nn.Transformer` draws its matrices again; only biases stay equal.)
STACKED: Mapping[str, Any] = {"alike": ["layers"]}

TRANSFORMERS = [
    case(
        "transformer",
        lambda: nn.Transformer(8, 2, 2, 2, 16, batch_first=True),
        randn((2, 4, 8), (2, 3, 8)),
        alike=["*.linear?.bias"],
    ),
    case(
        "transformer-norm-first",
        lambda: nn.Transformer(
            8,
            2,
            custom_encoder=encoder(1, norm_first=True, batch_first=False)(),
            custom_decoder=nn.TransformerDecoder(
                nn.TransformerDecoderLayer(8, 2, 16, norm_first=True), 1
            ),
        ),
        randn((4, 2, 8), (3, 2, 8)),
    ),
    case(
        "encoder-layer",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, batch_first=True),
        randn((2, 4, 8)),
    ),
    case(
        "encoder-layer-gelu",
        lambda: nn.TransformerEncoderLayer(8, 2, 16, 0.0, "gelu", norm_first=True),
        randn((4, 2, 8)),
    ),
    case(
        "decoder-layer", lambda: nn.TransformerDecoderLayer(8, 2, 16), randn((4, 2, 8), (3, 2, 8))
    ),
    case("encoder", encoder(), randn((2, 4, 8)), **STACKED),
    case("encoder-one-layer", encoder(1), randn((2, 4, 8))),
    case("encoder-no-bias", encoder(bias=False), randn((2, 4, 8)), **STACKED),
    case("encoder-own-layers", Encoder, randn((2, 4, 8))),
    case("decoder", decoder, randn((2, 4, 8), (2, 3, 8)), **STACKED),
]


def same(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    """Query, key and value in one."""

    def draw() -> tuple[Tensor, ...]:
        x = torch.randn(shape)
        return x, x, x

    return draw


ATTENTION = [
    case("attention", lambda: nn.MultiheadAttention(8, 2), same(4, 2, 8)),
    case(
        "attention-batch-first",
        lambda: nn.MultiheadAttention(8, 2, batch_first=True),
        same(2, 4, 8),
    ),
    case("attention-no-bias", lambda: nn.MultiheadAttention(8, 2, bias=False), same(4, 2, 8)),
    case(
        "attention-bias-kv",
        lambda: nn.MultiheadAttention(8, 2, add_bias_kv=True, add_zero_attn=True),
        same(4, 2, 8),
    ),
    case(
        "attention-kdim-vdim",
        lambda: nn.MultiheadAttention(8, 2, kdim=5, vdim=3),
        randn((4, 2, 8), (6, 2, 5), (6, 2, 3)),
    ),
    case(
        "attention-one-key",
        lambda: nn.MultiheadAttention(8, 2, kdim=5, vdim=3),
        randn((4, 2, 8), (1, 2, 5), (1, 2, 3)),
        # The softmax over a single key is 1 whatever the score: no signal for who computes it.
        unreached=["q_proj_weight", "k_proj_weight"],
    ),
]

RECURRENT = [
    case("rnn", lambda: nn.RNN(4, 3), randn((5, 2, 4))),
    case("rnn-relu-layers", lambda: nn.RNN(4, 3, 2, nonlinearity="relu"), randn((5, 2, 4))),
    case("lstm", lambda: nn.LSTM(4, 3, batch_first=True), randn((2, 5, 4))),
    case("lstm-bidirectional", lambda: nn.LSTM(4, 3, 2, bidirectional=True), randn((5, 2, 4))),
    case("lstm-projected", lambda: nn.LSTM(4, 6, 2, proj_size=3), randn((5, 2, 4))),
    case("lstm-no-bias", lambda: nn.LSTM(4, 3, bias=False), randn((5, 2, 4))),
    case("gru", lambda: nn.GRU(4, 3, 2, dropout=0.1), randn((5, 2, 4))),
    case("gru-bidirectional", lambda: nn.GRU(4, 3, bidirectional=True), randn((5, 2, 4))),
    case("rnn-cell", lambda: CellLoop(nn.RNNCell(4, 3)), randn((2, 5, 4))),
    case("lstm-cell", lambda: CellLoop(nn.LSTMCell(4, 3)), randn((2, 5, 4))),
    case("gru-cell", lambda: CellLoop(nn.GRUCell(4, 3)), randn((2, 5, 4))),
    case(
        "rnn-cell-one-step",
        lambda: nn.RNNCell(4, 3),
        randn((2, 4)),
        # The state starts as zeros, and one step multiplies it once.
        unreached=["weight_hh"],
    ),
]

NORMS = [
    case("batchnorm1d", lambda: nn.BatchNorm1d(4), randn((6, 4))),
    case("batchnorm2d", lambda: nn.BatchNorm2d(4), randn((3, 4, 5, 5))),
    case("batchnorm3d", lambda: nn.BatchNorm3d(4), randn((2, 4, 3, 3, 3))),
    case(
        "batchnorm-no-statistics",
        lambda: nn.BatchNorm1d(4, track_running_stats=False),
        randn((6, 4)),
    ),
    case("batchnorm-plain", lambda: nn.BatchNorm1d(4, affine=False), randn((6, 4))),
    case("layernorm", lambda: nn.LayerNorm(4), randn((3, 4))),
    case("layernorm-no-bias", lambda: nn.LayerNorm((3, 4), bias=False), randn((2, 3, 4))),
    case("groupnorm", lambda: nn.GroupNorm(2, 4), randn((2, 4, 5))),
    case("instancenorm", lambda: nn.InstanceNorm2d(4, affine=True), randn((2, 4, 5, 5))),
    case(
        "instancenorm-statistics",
        lambda: nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
        randn((2, 4, 5)),
    ),
    case("rmsnorm", lambda: nn.RMSNorm(4), randn((3, 4))),
    # Neither parameters nor buffers: every check says that it has nothing to look at.
    case("local-response-norm", lambda: nn.LocalResponseNorm(2), randn((2, 4, 5))),
]

EMBEDDINGS = [
    case("embedding", lambda: nn.Embedding(7, 4), ids(7, (2, 5))),
    case("embedding-padding", lambda: nn.Embedding(7, 4, padding_idx=0), ids(7, (2, 5))),
    case(
        "embedding-only-padding",
        lambda: nn.Embedding(7, 4, padding_idx=0),
        lambda: torch.zeros(2, 5, dtype=torch.long),
        # The padding row takes no gradient, and no other row is used.
        unreached=["weight"],
    ),
    case(
        "embedding-max-norm",
        lambda: nn.Embedding(7, 4, max_norm=0.5),
        ids(7, (2, 5)),
        expected_failures={
            "check_eval_unchanged": "with max_norm, forward shortens the rows it reads, in eval too"
        },
    ),
    case(
        "embedding-sparse",
        lambda: nn.Embedding(7, 4, sparse=True),
        ids(7, (2, 5)),
        optimizer=torch.optim.SparseAdam,
    ),
    case("embedding-scaled", lambda: nn.Embedding(7, 4, scale_grad_by_freq=True), ids(7, (2, 5))),
    *(
        case(
            f"embedding-bag-{mode}",
            lambda mode=mode: nn.EmbeddingBag(7, 4, mode=mode),
            ids(7, (2, 5)),
        )
        for mode in ("sum", "mean", "max")
    ),
    case(
        "embedding-frozen",
        lambda: nn.Sequential(
            nn.Embedding.from_pretrained(torch.randn(7, 4), freeze=True), nn.Linear(4, 2)
        ),
        ids(7, (2, 5)),
        frozen=["0"],
    ),
]

LINEAR = [
    case("linear", lambda: nn.Linear(4, 3), randn((2, 4)), shapes={"weight": (3, 4), "bias": (3,)}),
    case("linear-no-bias", lambda: nn.Linear(4, 3, bias=False), randn((2, 4)), ties=[], frozen=[]),
    case(
        "linear-double",
        lambda: nn.Linear(4, 3, dtype=torch.float64),
        lambda: torch.randn(2, 4, dtype=torch.float64),
    ),
    case(
        "linear-bfloat16",
        lambda: nn.Linear(4, 3, dtype=torch.bfloat16),
        lambda: torch.randn(2, 4, dtype=torch.bfloat16),
    ),
    case(
        "linear-complex",
        lambda: nn.Linear(4, 3, dtype=torch.complex64),
        lambda: torch.randn(2, 4, dtype=torch.complex64),
    ),
    case("bilinear", lambda: nn.Bilinear(4, 3, 2), randn((2, 4), (2, 3))),
    case("lazy-linear-seen", seen(lambda: nn.LazyLinear(3), 2, 4), randn((2, 4))),
    case("lazy-conv-seen", seen(lambda: nn.LazyConv2d(3, 3), 1, 2, 5, 5), randn((2, 2, 5, 5))),
    case(
        "lazy-batchnorm-seen",
        seen(lambda: nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d()), 3, 4),
        randn((5, 4)),
    ),
    case(
        "lazy-linear",
        lambda: nn.LazyLinear(3),
        randn((2, 4)),
        expected_failures={"check_materialized": "lazy until its first forward pass"},
    ),
    case("prelu", lambda: nn.PReLU(4), randn((6, 4))),
    case("identity", nn.Identity, randn((2, 4))),
]

CONVOLUTIONS = [
    case("conv1d", lambda: nn.Conv1d(4, 6, 3), randn((2, 4, 7))),
    case("conv2d-depthwise", lambda: nn.Conv2d(4, 8, 3, groups=4), randn((2, 4, 5, 5))),
    case("conv2d-dilated", lambda: nn.Conv2d(2, 3, 3, dilation=2), randn((2, 2, 7, 7))),
    case(
        "conv2d-reflect",
        lambda: nn.Conv2d(2, 3, 3, padding=1, padding_mode="reflect", bias=False),
        randn((2, 2, 5, 5)),
    ),
    case("conv3d", lambda: nn.Conv3d(2, 3, 2), randn((1, 2, 3, 3, 3))),
    case("conv-transpose1d", lambda: nn.ConvTranspose1d(4, 2, 3, stride=2), randn((2, 4, 5))),
    case(
        "conv-transpose2d-groups",
        lambda: nn.ConvTranspose2d(4, 4, 3, groups=2, output_padding=1, stride=2),
        randn((1, 4, 3, 3)),
    ),
    case(
        "conv2d-channels-last",
        lambda: nn.Conv2d(4, 3, 3).to(memory_format=torch.channels_last),
        randn((2, 4, 5, 5)),
    ),
    case(
        "convnet",
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4, 3),
        ),
        randn((4, 2, 6, 6)),
        optimizer=decay_split,
    ),
]

PARAMETRIZED = [
    case("weight-norm", lambda: parametrizations.weight_norm(nn.Linear(4, 3)), randn((2, 4))),
    case(
        "spectral-norm",
        lambda: parametrizations.spectral_norm(nn.Linear(4, 3)),
        randn((2, 4)),
    ),
    case("orthogonal", lambda: parametrizations.orthogonal(nn.Linear(4, 4)), randn((2, 4))),
    case(
        "weight-norm-conv",
        lambda: parametrizations.weight_norm(nn.Conv1d(4, 3, 2)),
        randn((2, 4, 5)),
    ),
]

COMBINED = [
    case(
        "mlp",
        lambda: nn.Sequential(nn.Linear(4, 6), nn.GELU(), nn.Linear(6, 2)),
        randn((3, 4)),
        optimizer=torch.optim.AdamW,
    ),
    case(
        "residual",
        lambda: nn.Sequential(
            Residual(nn.Linear(4, 4)), Residual(nn.Sequential(nn.LayerNorm(4), nn.Linear(4, 4)))
        ),
        randn((3, 4)),
    ),
    case(
        "dropout",
        lambda: nn.Sequential(nn.Linear(4, 16), nn.Dropout(0.5), nn.Linear(16, 2)),
        randn((3, 4)),
    ),
    case("checkpointed", lambda: Checkpointed(reentrant=False), randn((3, 4))),
    case("checkpointed-reentrant", lambda: Checkpointed(reentrant=True), randn((3, 4))),
    case("tied-lm", TiedLM, ids(11, (2, 5)), ties=[{"emb.weight", "head.weight"}]),
    case("tied-lm-undeclared", TiedLM, ids(11, (2, 5))),
    case("untied-lm", lambda: TiedLM(tied=False), ids(11, (2, 5)), ties=[]),
    case("shared-layer", shared_twice, randn((3, 4)), ties=[{"0", "2"}]),
    case(
        "frozen-backbone",
        frozen_backbone,
        randn((3, 4)),
        frozen=["0"],
        optimizer=lambda m: torch.optim.SGD(m[2].parameters(), lr=0.1),
    ),
    case("parameter-without-elements", lambda: Widened(0), randn((6, 4))),
    case(
        "declared-unreached-without-elements",
        lambda: nn.ModuleDict({"used": Widened(0), "spare": Widened(0)}),
        None,
        loss=lambda model: model["used"](torch.ones(6, 4)).sin().sum(),
        unreached=["spare"],
    ),
    case("parameter-list-dict", Scaled, randn((3, 4))),
    case(
        "module-dict-one-path",
        Routed,
        lambda: {"x": torch.randn(3, 4), "head": "a"},
        unreached=["heads.b"],  # this loss takes the other path
    ),
    case("materialized-from-meta", from_meta, randn((3, 4))),
    case(
        "copied",
        lambda: copy.deepcopy(nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2))),
        randn((3, 4)),
    ),
    case("compiled", lambda: torch.compile(nn.Linear(4, 3), backend="eager"), randn((2, 4))),
    case(
        "zero-initialized-branch",
        zero_branch,
        randn((3, 4)),
        # The last layer of the branch starts as zeros on purpose: nothing before it gets signal
        # until it has moved.
        unreached=["0.body.0"],
        steps=2,
    ),
]


CASES = [
    *TRANSFORMERS,
    *ATTENTION,
    *RECURRENT,
    *NORMS,
    *EMBEDDINGS,
    *LINEAR,
    *CONVOLUTIONS,
    *PARAMETRIZED,
    *COMBINED,
]

#: The cases with a trainable parameter that has several names.
TIED = {"tied-lm", "tied-lm-undeclared", "shared-layer"}
#: No parameter and no buffer.
EMPTY = {"local-response-norm", "identity"}
#: What there is nothing to look at in: a module with buffers only, and one without values yet.
NOTHING = {
    "batchnorm-plain": {
        *("check_finite", "check_distinct", "check_grads_none", "check_grads_reach"),
        *("check_grads_finite", "check_training_step", "check_dtype_move"),
    },
    "linear-complex": {"check_dtype_move"},
    "lazy-linear": {
        *("check_init_complete", "check_finite", "check_distinct", "check_deterministic"),
        *("check_grads_reach", "check_grads_finite", "check_eval_unchanged"),
        *("check_training_step", "check_state_dict_roundtrip", "check_torch_save_roundtrip"),
    },
}


def finds_nothing(model: str, check: str) -> bool:
    """Say whether a check is known to have nothing to look at in a model: it makes no item."""
    return (
        model in EMPTY
        or check in NOTHING.get(model, ())
        or (check == "check_tied_grads_sum" and model not in TIED)
        or check == "check_reset_parameters"  # these are all torch's own
    )


#: Siblings of others, which run with the slow tests and on the second device.
SIBLINGS = {
    *("attention-batch-first", "attention-kdim-vdim", "attention-no-bias", "batchnorm1d"),
    *("batchnorm3d", "conv-transpose1d", "conv1d", "conv2d-dilated", "conv2d-reflect", "conv3d"),
    *("dropout", "embedding-bag-max", "embedding-bag-sum", "encoder-layer-gelu"),
    *("encoder-no-bias", "encoder-one-layer", "gru-bidirectional", "gru-cell"),
    *("layernorm-no-bias", "lazy-batchnorm-seen", "linear-double", "linear-no-bias"),
    *("lstm-bidirectional", "lstm-cell", "lstm-no-bias", "rnn-cell", "rnn-cell-one-step"),
    *("rnn-relu-layers", "transformer-norm-first", "weight-norm-conv"),
}


# torch's own notes on how it runs a correct module.
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@pytest.mark.filterwarnings("ignore:None of the inputs have requires_grad=True")
@parametrize_with_param_checks([case for case in CASES if case.name not in SIBLINGS])
def test_torch_modules(check: Callable[[], None]) -> None:
    check()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")
@parametrize_with_param_checks([case for case in CASES if case.name in SIBLINGS])
def test_their_siblings(check: Callable[[], None]) -> None:
    check()


def test_what_is_known_to_find_nothing_finds_nothing() -> None:
    looked = []
    for one in CASES:
        run = CaseRun(one)
        for check in CHECKS.values():
            if check.applies(one) and finds_nothing(one.name, check.name):
                try:
                    run_check(check, run)
                except NothingToCheck:
                    continue
                looked.append(f"{one.name}: {check.name}")
    assert looked == []
