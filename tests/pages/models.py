"""The models that are looked at: the book's MLP, a transformer and a ResNet with faults."""

from __future__ import annotations

import torch
from torch import Tensor, nn


def book_mlp() -> nn.Module:
    """The MLP of the book's chapter, after its first forward pass."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.LazyLinear(8), nn.ReLU(), nn.LazyLinear(1))
    net(torch.rand(2, 4))
    return net


class Block(nn.Module):
    """A layer of a transformer; a ``dead`` one adds to what it gets without a gradient."""

    def __init__(self, width: int, *, dead: bool = False) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(width)
        self.attn = nn.MultiheadAttention(width, 4, batch_first=True)
        self.ln_2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.dead = dead

    def forward(self, x: Tensor) -> Tensor:
        if self.dead:
            with torch.no_grad():
                return x + 0 * self.layer(x)
        return self.layer(x)

    def layer(self, x: Tensor) -> Tensor:
        h = self.ln_1(x)
        x = x + self.attn(h, h, h, need_weights=False)[0]
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    """Twelve layers, the head tied to the embedding; layer 7 is dead, as if left out."""

    def __init__(self, layers: int = 12, width: int = 64, vocab: int = 500, dead: int = 7) -> None:
        super().__init__()
        self.wte = nn.Embedding(vocab, width)
        self.wpe = nn.Embedding(64, width)
        self.h = nn.ModuleList(Block(width, dead=n == dead) for n in range(layers))
        self.ln_f = nn.LayerNorm(width)
        self.lm_head = nn.Linear(width, vocab, bias=False)
        self.lm_head.weight = self.wte.weight
        self.register_buffer("mask", torch.ones(64, 64).tril(), persistent=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.wte(tokens) + self.wpe(torch.arange(tokens.shape[1]))
        for number, block in enumerate(self.h):
            # The output of a dead layer is thrown away, and so is its gradient.
            x = x + 0 * block(x.detach()).detach() if block.dead else self.h[number](x)
        return self.lm_head(self.ln_f(x))


class Bottleneck(nn.Module):
    """A block of a ResNet-50."""

    def __init__(self, inputs: int, middle: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * middle
        self.conv1 = nn.Conv2d(inputs, middle, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = nn.Conv2d(middle, middle, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = (
            nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        out = self.bn1(self.conv1(x)).relu()
        out = self.bn3(self.conv3(self.bn2(self.conv2(out)).relu()))
        return (out + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet50(nn.Module):
    """The modules of a ResNet-50, a quarter as wide."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        inputs = width
        for number, count in enumerate((3, 4, 6, 3)):
            blocks = []
            for block in range(count):
                stride = 2 if number and not block else 1
                blocks.append(Bottleneck(inputs, width << number, stride))
                inputs = 4 * (width << number)
            self.add_module(f"layer{number + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(inputs, 100)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn1(self.conv1(x)).relu()
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
        return self.fc(x.mean((2, 3)))


class Deep(nn.Module):
    """20,000 parameters in modules of modules."""

    def __init__(self) -> None:
        super().__init__()
        self.stages = nn.ModuleList(
            nn.ModuleList(
                nn.ModuleDict(
                    {
                        "norm": nn.LayerNorm(8),
                        "up": nn.Linear(8, 16),
                        "down": nn.Linear(16, 8),
                        "gate": nn.Linear(8, 8),
                        "out": nn.LayerNorm(8),
                    }
                )
                for _ in range(50)
            )
            for _ in range(40)
        )
