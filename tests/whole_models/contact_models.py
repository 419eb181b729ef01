"""The models of ``docs/first_contact.md`` that are not one call of a library's own function."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pytest_paramcheck import ModelCase


def bert() -> nn.Module:
    from transformers import BertConfig, BertForMaskedLM

    model: nn.Module = BertForMaskedLM(
        BertConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=96)
    )
    return model


def llama() -> nn.Module:
    from transformers import LlamaConfig, LlamaForCausalLM

    model: nn.Module = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=1000,
            hidden_size=64,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
        )
    )
    return model


def llama_with_lora() -> nn.Module:
    from peft import LoraConfig, get_peft_model

    adapted: Any = get_peft_model(llama(), LoraConfig(target_modules=["q_proj", "v_proj"]))  # type: ignore[arg-type]
    model: nn.Module = adapted
    return model


class Block(nn.Module):
    """Two convolutions of a UNet."""

    def __init__(self, before: int, after: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(before, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
            nn.Conv2d(after, after, 3, padding=1, bias=False),
            nn.BatchNorm2d(after),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y


class UNet(nn.Module):
    """Down and up again, with what was there on the way down beside it."""

    #: What Lightning calls it.
    example_input_array = torch.zeros(1, 3, 64, 64)

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.inside, self.down = Block(3, width), Block(width, 2 * width)
        self.bottom = Block(2 * width, 4 * width)
        self.up_1 = nn.ConvTranspose2d(4 * width, 2 * width, 2, stride=2)
        self.join_1 = Block(4 * width, 2 * width)
        self.up_2 = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.join_2 = Block(2 * width, width)
        self.outside = nn.Conv2d(width, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        first = self.inside(x)
        second = self.down(nn.functional.max_pool2d(first, 2))
        y = self.bottom(nn.functional.max_pool2d(second, 2))
        y = self.join_1(torch.cat([self.up_1(y), second], dim=1))
        y = self.join_2(torch.cat([self.up_2(y), first], dim=1))
        out: Tensor = self.outside(y)
        return out


@dataclass
class GPTConfig:
    """As small as the models of one's own are."""

    block_size: int = 32
    vocab_size: int = 65
    n_layer: int = 2
    n_head: int = 4
    n_embd: int = 32


class SelfAttention(nn.Module):
    """Causal, with one matrix for queries, keys and values."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.c_attn = nn.Linear(config.n_embd, 3 * config.n_embd)
        self.c_proj = nn.Linear(config.n_embd, config.n_embd)
        self.n_head = config.n_head

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        shape = (batch, length, self.n_head, width // self.n_head)
        q, k, v = (part.view(shape).transpose(1, 2) for part in self.c_attn(x).split(width, dim=2))
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out: Tensor = self.c_proj(y.transpose(1, 2).reshape(batch, length, width))
        return out


class GPTBlock(nn.Module):
    """Attention and an MLP, each behind a norm."""

    def __init__(self, config: GPTConfig) -> None:
        super().__init__()
        self.ln_1, self.ln_2 = nn.LayerNorm(config.n_embd), nn.LayerNorm(config.n_embd)
        self.attn = SelfAttention(config)
        self.mlp = nn.Sequential(
            nn.Linear(config.n_embd, 4 * config.n_embd),
            nn.GELU(),
            nn.Linear(4 * config.n_embd, config.n_embd),
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.ln_1(x))
        y: Tensor = x + self.mlp(self.ln_2(x))
        return y


class GPT(nn.Module):
    """Tied embeddings, and an init that goes by names, as nanoGPT has them."""

    def __init__(self, config: GPTConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GPTConfig()
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.block_size, config.n_embd)
        self.h = nn.ModuleList(GPTBlock(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.wte.weight = self.lm_head.weight
        for name, parameter in self.named_parameters():
            if name.endswith("c_proj.weight"):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * config.n_layer))

    def forward(self, ids: Tensor) -> Tensor:
        x = self.wte(ids) + self.wpe(torch.arange(ids.shape[1]))
        for block in self.h:
            x = block(x)
        logits: Tensor = self.lm_head(self.ln_f(x))
        return logits


NANO_GPT = ModelCase(
    GPT,
    inputs=lambda: torch.randint(65, (2, 32)),
    ties=[{"wte.weight", "lm_head.weight"}],
    frozen=[],
    optimizer=torch.optim.AdamW,
    name="nano_gpt",
)
