"""The families that read images, spectrograms and series, each beside a model that has the same layers."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from math import isqrt
from typing import Any

import torch
import transformers
from torch import Tensor, nn

from benchmarks.core.text import LAYER, cross_entropy
from benchmarks.core.torch_models import TorchEncoderDecoder, torch_encoder_decoder
from benchmarks.core.train import Pair, Size
from foundation_core.interop.grids import clip, vit_mae
from foundation_core.model.families import build
from foundation_core.model.heads import PatchHead, PooledHead, first_token, last_token
from foundation_core.model.positions import Learned
from foundation_core.model.stems import PatchStem, TokenStem, patches_of
from foundation_core.model.transformer import DualEncoder, MaskedAutoencoder, Model, PatchDecoder
from foundation_core.objectives.base import Example
from foundation_core.objectives.pairs import Captioning, Contrastive
from foundation_core.objectives.patches import MaskedPatches
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec
from tests.support.parity import plain_feed, stack

EXACT = partial(nn.LayerNorm, eps=1e-12)
GRID = 8
"""Patches on a side of an image; a spectrogram and a series have as many in all."""
CAPTION_TOKENS = 32


def grid_pairs(size: Size) -> dict[str, partial[Pair]]:
    """How each pair is made, by its name."""
    shapes = {"image": (64, 64), "audio": (32, 128), "series": (1, 1024)}
    found = {
        f"masked autoencoder, {name} / ViT-MAE": partial(masked_autoencoder, shape=SampleShape(0, 1, *shape))
        for name, shape in shapes.items()
    }
    found |= {"dual encoder / CLIP": partial(dual_encoder), "captioner / nn.Transformer": partial(captioner)}
    return {name: partial(make, name, size) for name, make in found.items()}


def values(size: Size, shape: SampleShape) -> dict[str, Tensor]:
    """Rows of noise, numbered."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(size.rows, shape.channels, shape.height, shape.width, generator=generator)
    return {"values": noise, "sample": torch.arange(size.rows)}


def captioned(size: Size, shape: SampleShape) -> dict[str, Tensor]:
    """The same with a text of random tokens beside each, whose last one ends it."""
    generator, ends = torch.Generator().manual_seed(1), torch.full((size.rows, 1), size.vocabulary - 1)
    words = torch.randint(1, size.vocabulary - 1, (size.rows, CAPTION_TOKENS - 1), generator=generator)
    tokens = torch.cat([words, ends], dim=1)
    return {**values(size, shape), "tokens": tokens, "segment": torch.zeros_like(tokens)}


def patch_of(shape: SampleShape) -> tuple[int, int]:
    """The patch that makes 64 of a sample."""
    return (1, shape.width // GRID**2) if shape.height == 1 else (8, 8)


def as_image(values_BCHW: Tensor) -> Tensor:
    """A series as an image whose square patches hold the same values: theirs has no others."""
    B, _, H, W = values_BCHW.shape
    if H > 1:
        return values_BCHW
    side = isqrt(W) // GRID
    return values_BCHW.view(B, GRID, GRID, side, side).transpose(2, 3).reshape(B, 1, GRID * side, GRID * side)


class BehindClassToken(MaskedPatches):
    """Masked patches of a model that answers for its class token too, which nobody asked."""

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """No labels for the first place."""
        example = super().prepare(batch, seed)
        nothing = torch.full_like(example.labels[:, :1], torch.nan)
        return Example(example.inputs, torch.cat([nothing, example.labels], dim=1), example.count)


def masked_autoencoder(name: str, size: Size, shape: SampleShape) -> Pair:
    """A quarter of the patches through the trunk, all of them through a light decoder of half its width."""
    D, half, patch, places = size.width, size.width // 2, patch_of(shape), GRID**2 + 1
    side, seen = isqrt(patch[0] * patch[1]), as_image(torch.empty(1, 1, shape.height, shape.width)).shape[2:]
    config = transformers.ViTMAEConfig(
        hidden_size=D, num_hidden_layers=size.depth, num_attention_heads=size.heads, intermediate_size=4 * D,
        num_channels=1, image_size=tuple(seen), patch_size=side, mask_ratio=0.75,
        decoder_hidden_size=half, decoder_num_hidden_layers=2, decoder_num_attention_heads=size.heads,
        decoder_intermediate_size=4 * half, attn_implementation="sdpa",
    )  # fmt: skip
    stem = PatchStem(shape, patch, D, Learned(places, D), class_token=True)
    trunk = stack(D, size.heads, size.depth, plain_feed(D, 4 * D, nn.GELU), partial(EXACT, D))
    light = stack(half, size.heads, 2, plain_feed(half, 4 * half, nn.GELU), partial(EXACT, half))
    decoder = PatchDecoder(D, half, places, light, Learned(places, half))
    for place in (stem.place, decoder.place):
        place.requires_grad_(False)  # theirs are fixed waves

    def layers(model: Any, example: Example) -> Tensor:
        visible = example.inputs["visible_BP"]
        rank = torch.arange(visible.shape[1], dtype=torch.float32).expand_as(visible)
        noise = torch.full((len(visible), GRID**2), torch.inf).scatter(1, visible, rank)
        found = model.vit(as_image(example.inputs["values"]), noise=noise)
        logits: Tensor = model.decoder(found.last_hidden_state, found.ids_restore).logits
        return logits

    def loss(model: Any, example: Example) -> Tensor:
        labels = example.labels[:, 1:]
        error = layers(model, example) - labels.nan_to_num()
        return (error.square() * labels.isfinite()).sum() / example.count

    return Pair(
        name, transformers.ViTMAEForPreTraining(config),
        MaskedAutoencoder(stem, trunk, decoder, PatchHead(half, stem.embed.in_features)), vit_mae(1, (side, side)),
        BehindClassToken(patch), values(size, shape), loss, layers,
        lambda model, example: model(**example.inputs)[:, 1:],
    )  # fmt: skip


def dual_encoder(name: str, size: Size) -> Pair:
    """Images and texts in one space."""
    D, patch, joint, shape = size.width, (8, 8), 64, SampleShape(size.vocabulary, 3, 64, 64)
    side = {
        "hidden_size": D, "num_hidden_layers": size.depth, "num_attention_heads": size.heads,
        "intermediate_size": 4 * D, "hidden_act": "gelu",
    }  # fmt: skip
    text = {"vocab_size": size.vocabulary, "max_position_embeddings": CAPTION_TOKENS, "bos_token_id": 0}
    config = transformers.CLIPConfig(
        text_config={**side, **text, "eos_token_id": size.vocabulary - 1},
        vision_config={**side, "image_size": 64, "patch_size": 8},
        projection_dim=joint, attn_implementation="sdpa",
    )  # fmt: skip
    norm, feed = partial(nn.LayerNorm, D), plain_feed(D, 4 * D, nn.GELU)
    trunk = partial(stack, D, size.heads, size.depth, feed, norm)
    stem = PatchStem(shape, patch, D, Learned(GRID**2 + 1, D), class_token=True, norm=norm(), bias=False)
    reader = TokenStem(nn.Embedding(size.vocabulary, D), CAPTION_TOKENS, Learned(CAPTION_TOKENS, D))
    ours = DualEncoder(
        stem, trunk(), PooledHead(D, joint, first_token, bias=False),
        Model(reader, trunk(causal=True), PooledHead(D, joint, last_token, bias=False)),
    )  # fmt: skip

    def asked(model: Any, example: Example) -> Any:
        return model(input_ids=example.inputs["tokens"], pixel_values=example.inputs["values"])

    def loss(model: Any, example: Example) -> Tensor:
        match, answer = asked(model, example).logits_per_image, torch.arange(size.rows)
        return (nn.functional.cross_entropy(match, answer) + nn.functional.cross_entropy(match.T, answer)) / 2

    def their_layers(model: Any, example: Example) -> Tensor:
        found = asked(model, example)
        return torch.cat([found.image_embeds, found.text_embeds])

    return Pair(
        name, transformers.CLIPModel(config), ours, clip(3, patch), Contrastive(), captioned(size, shape), loss,
        their_layers, lambda model, example: torch.cat(model(**example.inputs)[:2]),
    )  # fmt: skip


class PatchEmbedding(nn.Linear):
    """Patches -> vectors, by the shortest way."""

    def __init__(self, shape: SampleShape, patch: tuple[int, int], width: int) -> None:
        super().__init__(shape.channels * patch[0] * patch[1], width)
        self.patch = patch

    def forward(self, values_BCHW: Tensor) -> Tensor:
        """(B, P, D)."""
        return super().forward(patches_of(values_BCHW, self.patch))


def captioner(name: str, size: Size) -> Pair:
    """An image read by torch's encoder, a caption written by its decoder."""
    shape, patch = SampleShape(size.vocabulary, 3, 64, 64), (8, 8)
    trunk = TrunkSpec(width=size.width, depth=size.depth, heads=size.heads, **LAYER)
    spec = ModelSpec(family="captioner", trunk=trunk, context_tokens=CAPTION_TOKENS, patch=patch)
    theirs = TorchEncoderDecoder(
        PatchEmbedding(shape, patch, size.width), nn.Embedding(size.vocabulary, size.width),
        torch_encoder_decoder(size), (GRID**2, CAPTION_TOKENS),
    )  # fmt: skip

    def layers(model: Any, example: Example) -> Tensor:
        output: Tensor = model(example.inputs["source"], example.inputs["inputs"])
        return output

    return Pair(
        name, theirs, build(spec, shape), theirs.table(), Captioning(start=0), captioned(size, shape),
        lambda model, example: cross_entropy(model.head(layers(model, example)), example.labels), layers,
    )  # fmt: skip
