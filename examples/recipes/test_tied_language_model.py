"""A language model whose output layer is its embedding.

What goes wrong: the tie is an assignment in ``__init__``, and anything that puts a new Parameter
in one of the two places undoes it without an error: resizing the vocabulary, weight_norm on the
head, a model built on meta, ``load_state_dict(assign=True)``, a move to a device of another
maker. The head then starts from the right values and drifts away, at twice the memory.

What the tests hold: one Parameter under both names, after a copy, a save, a load and a resize as
well; a gradient that adds up both uses; one place in the optimizer; no weight decay on norms.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase, ParamCheckError, init, parametrize_with_param_checks

VOCAB, WIDTH, LENGTH = 20, 16, 6

pytestmark = pytest.mark.params
reads_values = pytest.mark.params(devices=["cpu", "accelerator"])  # meta has none


class Block(nn.Module):
    """Causal attention and an MLP, each behind a LayerNorm."""

    def __init__(self) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(WIDTH)
        self.attention = nn.MultiheadAttention(WIDTH, 2, batch_first=True)
        self.ln_2 = nn.LayerNorm(WIDTH)
        self.mlp = nn.Sequential(
            nn.Linear(WIDTH, 4 * WIDTH), nn.GELU(), nn.Linear(4 * WIDTH, WIDTH)
        )

    def forward(self, x: Tensor) -> Tensor:
        mask = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool, device=x.device).triu(1)
        y = self.ln_1(x)
        x = x + self.attention(y, y, y, attn_mask=mask, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class LanguageModel(nn.Module):
    """Tokens to logits; ``head.weight`` is ``tokens.weight``."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(VOCAB, WIDTH)
        self.positions = nn.Embedding(LENGTH, WIDTH)
        self.blocks = nn.ModuleList(Block() for _ in range(2))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCAB, bias=False)
        nn.init.normal_(self.tokens.weight, std=0.02)
        nn.init.normal_(self.positions.weight, std=0.02)
        self.head.weight = self.tokens.weight

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.tokens(tokens)
        x = x + self.positions(torch.arange(tokens.shape[1], device=tokens.device))
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))

    def resize(self, vocab: int) -> None:
        """Give the vocabulary another size, keeping the rows that stay."""
        old = self.tokens.weight
        grown = nn.Embedding(vocab, WIDTH, device=old.device)
        kept = min(vocab, old.shape[0])
        with torch.no_grad():
            grown.weight[:kept] = old[:kept]
        self.tokens = grown
        self.head = nn.Linear(WIDTH, vocab, bias=False, device=old.device)
        self.head.weight = grown.weight


def next_token_loss(model: nn.Module) -> Tensor:
    tokens = torch.arange(2 * (LENGTH + 1)).reshape(2, -1) % VOCAB
    logits = model(tokens[:, :-1])
    return nn.functional.cross_entropy(logits.flatten(0, 1), tokens[:, 1:].flatten())


def make_optimizer(model: nn.Module) -> torch.optim.Optimizer:
    """AdamW that decays matrices, but neither norms nor biases."""
    matrices = [p for p in model.parameters() if p.dim() >= 2]
    vectors = [p for p in model.parameters() if p.dim() < 2]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}]
    )


@pytest.fixture
def model() -> LanguageModel:
    return LanguageModel()


@pytest.fixture
def moves_keep_ties():
    """What a training script says once, on a device where a move makes new Parameters."""
    torch.__future__.set_swap_module_params_on_conversion(True)
    yield
    torch.__future__.set_swap_module_params_on_conversion(False)


@pytest.mark.usefixtures("moves_keep_ties")
@parametrize_with_param_checks(
    ModelCase(
        LanguageModel,
        loss=next_token_loss,
        ties=[{"tokens.weight", "head.weight"}],
        frozen=[],
        shapes={
            "*": (...,),
            "tokens.weight": ("vocab", "width"),
            "positions.weight": (LENGTH, "width"),
            "blocks.*.mlp.0.weight": (4 * WIDTH, "width"),
        },
        optimizer=make_optimizer,
    )
)
def test_everything_that_holds_of_every_model(check):
    check()


def test_the_head_is_the_embedding(model, assert_tied, assert_ties):
    assert_tied(model, "tokens.weight", "head.weight")
    assert_ties(model, [{"tokens.weight", "head.weight"}])  # and nothing else is shared


def test_the_tie_survives_copies_saves_loads_and_a_resize(model, assert_ties_survive):
    def resize(model: LanguageModel) -> None:
        model.resize(VOCAB + 3)

    assert_ties_survive(model, "deepcopy", "torch.save", "load_state_dict", "to(float64)", resize)


@reads_values
def test_the_gradient_adds_up_both_uses(model, assert_tied_grads_sum):
    assert_tied_grads_sum(model, next_token_loss)


def test_the_tied_weight_counts_once(model, assert_param_count):
    block = 2 * 2 * WIDTH + 4 * (WIDTH**2 + WIDTH) + 8 * WIDTH**2 + 5 * WIDTH
    assert_param_count(model, (VOCAB + LENGTH) * WIDTH + 2 * block + 2 * WIDTH)


@reads_values
def test_the_embedding_starts_small(model, assert_init):
    assert_init(model, {"tokens": init.normal(0, 0.02), "positions": init.normal(0, 0.02)})


def test_the_optimizer_decays_matrices_only(model, assert_param_groups):
    assert_param_groups(
        make_optimizer(model),
        model,
        {
            "*": {"weight_decay": 0.1},
            "*bias": {"weight_decay": 0.0},
            nn.LayerNorm: {"weight_decay": 0.0},
        },
    )


@reads_values
def test_one_step_moves_everything(model, assert_updated):
    optimizer = make_optimizer(model)
    with assert_updated(model):
        next_token_loss(model).backward()
        optimizer.step()


def test_a_resize_that_forgets_the_head_is_caught(model, assert_ties):
    model.resize(VOCAB + 3)
    # The mistake: only the embedding gets the new rows, and the values still agree.
    model.tokens.weight = nn.Parameter(model.tokens.weight.detach().clone())

    with pytest.raises(ParamCheckError) as caught:
        assert_ties(model, [{"tokens.weight", "head.weight"}])

    first_line = str(caught.value).splitlines()[0]
    assert first_line == "not tied: tokens.weight, head.weight (LanguageModel)"
