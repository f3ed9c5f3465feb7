"""Our parts, put together as others put theirs, against `transformers` with the same tiny random weights, float32.

Each case says the worst difference that was measured, with AVX2 or without, of outputs of size 0.3 (CLIP) to 6; the
tolerance is four times that. Every damage must move the outputs by more than a thousand times as much. T5's scores are
not divided by the root of the width: with weights as large as here its softmax is steep, and rounding counts for more.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from foundation_core.interop.grids import WHISPER_ENCODER, clip, vit, vit_mae
from foundation_core.interop.language import BART, BERT, mixtral, t5
from foundation_core.interop.mapping import Table, to_ours, to_theirs
from foundation_core.interop.parts import ConvStem, LearnedAndType, QuickGELU
from foundation_core.model.block import GatedFeedForward, PostNorm
from foundation_core.model.experts import Experts
from foundation_core.model.heads import PatchHead, PooledHead, TiedHead, VocabularyHead, first_token, last_token
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.positions import Learned, RelativeBias, Rotary
from foundation_core.model.stems import Borrowed, PatchStem, TokenStem
from foundation_core.model.transformer import DualEncoder, EncoderDecoder, MaskedAutoencoder, Model, PatchDecoder
from foundation_core.shape import SampleShape
from tests.support.parity import plain_feed, stack, with_weights_that_matter

transformers = pytest.importorskip("transformers")

V, D, HIDDEN, DEPTH, HEADS, T = 97, 32, 48, 2, 4, 16
GENERATOR = torch.Generator().manual_seed(0)
TOKENS, TARGETS = (torch.randint(3, V - 1, (2, length), generator=GENERATOR) for length in (T, 9))
THERE = torch.arange(T) < torch.tensor([[T], [11]])
PADDED = Layout(torch.arange(T).expand(2, -1), torch.where(THERE, 0, PADDING))
IMAGE, PATCH = SampleShape(channels=3, height=8, width=8), (2, 4)
IMAGES = torch.randn(2, 3, 8, 8, generator=GENERATOR)
NOISE = torch.rand(2, 16, generator=GENERATOR)
MELS = torch.randn(2, 10, 2 * T, generator=GENERATOR)
LAYER = partial(nn.LayerNorm, D)
EXACT = partial(nn.LayerNorm, eps=1e-12)
Damage = Callable[[Any], None]


@dataclass(frozen=True)
class Case:
    """A model of theirs, ours, and how both are asked the same."""

    theirs: Callable[[], nn.Module]
    ours: Callable[[], nn.Module]
    table: Table
    ask_theirs: Callable[[Any], Tensor]
    ask_ours: Callable[[Any], Tensor]
    measured: float
    damages: Mapping[str, Damage] = field(default_factory=dict)


def seeded(make: Callable[[Any], nn.Module], config: Callable[..., Any], **sizes: Any) -> Callable[[], nn.Module]:
    return lambda: with_weights_that_matter(make(config(**sizes, attn_implementation="eager")))


def activation(trunk: str, other: Callable[[], nn.Module]) -> Damage:
    def damage(model: Any) -> None:
        for block in model.get_submodule(trunk).blocks:
            block.feed.branch.activation = other()

    return damage


def setting(part: str, name: str, value: Any) -> Damage:
    return lambda model: setattr(model.get_submodule(part), name, value)


# ------------------------------------------------------------------------------------------------------------- text


def our_bert() -> Model:
    stem = TokenStem(nn.Embedding(V, D), T, LearnedAndType(T, D), EXACT(D))
    trunk = stack(
        D, HEADS, DEPTH, plain_feed(D, HIDDEN, nn.GELU), partial(EXACT, D), residual=PostNorm, end=nn.Identity
    )
    transform = nn.Sequential(nn.Linear(D, D), nn.GELU(), EXACT(D))
    return Model(stem, trunk, TiedHead(stem.embed, transform, bias=True))


BERT_CASE = Case(
    seeded(
        transformers.BertForMaskedLM, transformers.BertConfig, vocab_size=V, hidden_size=D, num_hidden_layers=DEPTH,
        num_attention_heads=HEADS, intermediate_size=HIDDEN, max_position_embeddings=T,
    ),
    our_bert, BERT,
    lambda model: model(TOKENS, attention_mask=THERE.long()).logits[THERE],
    lambda model: model(TOKENS, PADDED)[THERE],
    measured=3.6e-6,
    damages={"activation": activation("trunk", nn.ReLU), "order": setting("trunk", "causal", True),
             "no positions": setting("stem", "place", None)},
)  # fmt: skip


def our_t5(gated: bool, tied: bool) -> EncoderDecoder:
    norm, width = partial(nn.RMSNorm, D, eps=1e-6), D
    feed = plain_feed(width, HIDDEN, nn.ReLU, bias=False)
    if gated:
        feed = lambda: GatedFeedForward(width, HIDDEN, nn.GELU(approximate="tanh"))  # noqa: E731
    stem = TokenStem(nn.Embedding(V, D), T)
    bias = partial(RelativeBias, HEADS, buckets=8, farthest=12)
    encoder = stack(D, HEADS, DEPTH, feed, norm, bias=False, score_bias=bias(both_ways=True))
    decoder = stack(D, HEADS, DEPTH, feed, norm, bias=False, score_bias=bias(both_ways=False), causal=True, reads=True)
    target = TokenStem(Borrowed(stem.embed), T)
    head = TiedHead(target.embed) if tied else VocabularyHead(D, V)
    return EncoderDecoder(stem, encoder, Model(target, decoder, head))


def t5_case(gated: bool, tied: bool, measured: float) -> Case:
    return Case(
        seeded(
            transformers.T5ForConditionalGeneration, transformers.T5Config, vocab_size=V, d_model=D, d_kv=D // HEADS,
            d_ff=HIDDEN, num_layers=DEPTH, num_heads=HEADS, relative_attention_num_buckets=8,
            relative_attention_max_distance=12, feed_forward_proj="gated-gelu" if gated else "relu",
            tie_word_embeddings=tied, decoder_start_token_id=0,
        ),
        partial(our_t5, gated, tied), t5(D, D // HEADS, gated=gated, tied=tied),
        lambda model: model(input_ids=TOKENS, attention_mask=THERE.long(), decoder_input_ids=TARGETS).logits,
        lambda model: model(TOKENS, TARGETS, PADDED),
        measured,
        {"padding": lambda model: setattr(model, "encode", partial(blind, model)),
         "no distances": setting("decoder.trunk", "score_bias", None),
         "order": setting("decoder.trunk", "causal", False)},
    )  # fmt: skip


def blind(model: EncoderDecoder, source: Tensor, layout: Layout) -> Any:
    return EncoderDecoder.encode(model, source, Layout(layout.position))


def our_bart() -> EncoderDecoder:
    side = partial(stack, D, HEADS, DEPTH, plain_feed(D, HIDDEN, nn.GELU), LAYER, residual=PostNorm, end=nn.Identity)
    stem = TokenStem(nn.Embedding(V, D), T, Learned(T, D), LAYER())
    target = TokenStem(Borrowed(stem.embed), T, Learned(T, D), LAYER())
    decoder = Model(target, side(causal=True, reads=True), TiedHead(target.embed, bias=True))
    return EncoderDecoder(stem, side(), decoder)


BART_CASE = Case(
    seeded(
        transformers.BartForConditionalGeneration, transformers.BartConfig, vocab_size=V, d_model=D,
        encoder_layers=DEPTH, decoder_layers=DEPTH, encoder_attention_heads=HEADS, decoder_attention_heads=HEADS,
        encoder_ffn_dim=HIDDEN, decoder_ffn_dim=HIDDEN, max_position_embeddings=T,
    ),
    our_bart, BART,
    lambda model: model(input_ids=TOKENS, attention_mask=THERE.long(), decoder_input_ids=TARGETS).logits,
    lambda model: model(TOKENS, TARGETS, PADDED),
    measured=2.5e-6,
    damages={"padding": lambda model: setattr(model, "encode", partial(blind, model)),
             "no norm in the stem": setting("decoder.stem", "norm", None),
             "order": setting("decoder.trunk", "causal", False)},
)  # fmt: skip


def our_mixtral() -> Model:
    norm = partial(nn.RMSNorm, D, eps=1e-5)
    feed = lambda: Experts(D, (GatedFeedForward(D, HIDDEN, nn.SiLU()) for _ in range(4)), chosen=2)  # noqa: E731
    rotary = Rotary(D // HEADS)
    trunk = stack(D, HEADS, DEPTH, feed, norm, bias=False, kv_heads=2, causal=True, rotary=rotary)
    return Model(TokenStem(nn.Embedding(V, D), T), trunk, VocabularyHead(D, V))


def one_expert_a_token(model: Any) -> None:
    for block in model.trunk.blocks:
        block.feed.branch.chosen = 1


MIXTRAL_CASE = Case(
    seeded(
        transformers.MixtralForCausalLM, transformers.MixtralConfig, vocab_size=V, hidden_size=D, num_local_experts=4,
        intermediate_size=HIDDEN, num_hidden_layers=DEPTH, num_attention_heads=HEADS, num_key_value_heads=2,
        num_experts_per_tok=2, rms_norm_eps=1e-5, rope_theta=10_000.0, tie_word_embeddings=False,
    ),
    our_mixtral, mixtral(4),
    lambda model: model(TOKENS).logits,
    lambda model: model(TOKENS),
    measured=6.8e-6,
    damages={"one expert": one_expert_a_token, "no positions": setting("trunk", "rotary", None)},
)  # fmt: skip


# ------------------------------------------------------------------------------------------------ images and sound


VIT_SIZES = {
    "hidden_size": D, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": HIDDEN,
    "num_channels": 3,
}  # fmt: skip


def our_vit_side(patch: tuple[int, int], places: int) -> tuple[PatchStem, Any]:
    stem = PatchStem(IMAGE, patch, D, Learned(places, D), class_token=True)
    return stem, stack(D, HEADS, DEPTH, plain_feed(D, HIDDEN, nn.GELU), partial(EXACT, D))


VIT_CASE = Case(
    seeded(transformers.ViTForImageClassification, transformers.ViTConfig, **VIT_SIZES, image_size=8, patch_size=PATCH,
           num_labels=5),
    lambda: Model(*our_vit_side(PATCH, 9), PooledHead(D, 5, first_token)), vit(3, PATCH),
    lambda model: model(IMAGES).logits,
    lambda model: model(IMAGES),
    measured=1.5e-6,
    damages={"no class token's answer": setting("head", "pool", last_token),
             "no positions": setting("stem", "place", None)},
)  # fmt: skip


def our_mae() -> MaskedAutoencoder:
    stem, trunk = our_vit_side((2, 2), 17)
    light = stack(16, 2, 1, plain_feed(16, 24, nn.GELU), partial(EXACT, 16))
    return MaskedAutoencoder(stem, trunk, PatchDecoder(D, 16, 17, light, Learned(17, 16)), PatchHead(16, 12))


def theirs_by_our_order(model: Any) -> Tensor:
    """Their answer for each patch, its values ordered as ours."""
    answer = model(IMAGES, noise=NOISE).logits
    return answer.view(2, 16, 2, 2, 3).permute(0, 1, 4, 2, 3).flatten(2)


MAE_CASE = Case(
    seeded(transformers.ViTMAEForPreTraining, transformers.ViTMAEConfig, **VIT_SIZES, image_size=8, patch_size=2,
           mask_ratio=0.75, decoder_hidden_size=16, decoder_num_hidden_layers=1, decoder_num_attention_heads=2,
           decoder_intermediate_size=24),
    our_mae, vit_mae(3, (2, 2)),
    theirs_by_our_order,
    lambda model: model(IMAGES, NOISE.argsort(dim=1)[:, :4])[:, 1:],
    measured=2e-6,
    damages={"no positions of the decoder": setting("decoder", "place", None),
             "no mask token": lambda model: nn.init.zeros_(model.decoder.mask_token)},
)  # fmt: skip


def our_clip() -> DualEncoder:
    norm, feed = LAYER, plain_feed(D, HIDDEN, QuickGELU)
    stem = PatchStem(IMAGE, (4, 4), D, Learned(5, D), class_token=True, norm=LAYER(), bias=False)
    text = Model(
        TokenStem(nn.Embedding(V, D), T, Learned(T, D)), stack(D, HEADS, DEPTH, feed, norm, causal=True),
        PooledHead(D, 12, last_token, bias=False),
    )  # fmt: skip
    return DualEncoder(stem, stack(D, HEADS, DEPTH, feed, norm), PooledHead(D, 12, first_token, bias=False), text)


CAPTIONS = torch.cat([TOKENS[:, :-1], torch.full((2, 1), V - 1)], dim=1)
"""Ended by the token that their text side reads its answer from."""
CLIP_SIDE = {"hidden_size": D, "num_hidden_layers": DEPTH, "num_attention_heads": HEADS, "intermediate_size": HIDDEN}


def clip_config(**settings: Any) -> Any:
    text = {**CLIP_SIDE, "vocab_size": V, "max_position_embeddings": T, "eos_token_id": V - 1, "bos_token_id": 0}
    vision = {**CLIP_SIDE, "image_size": 8, "patch_size": 4}
    return transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12, **settings)


def products(left: Tensor, right: Tensor, scale: Tensor) -> Tensor:
    return scale * left @ right.T


CLIP_CASE = Case(
    seeded(transformers.CLIPModel, clip_config),
    our_clip, clip(3, (4, 4)),
    lambda model: model(input_ids=CAPTIONS, pixel_values=IMAGES).logits_per_image,
    lambda model: products(*model(IMAGES, CAPTIONS)),
    measured=2.4e-7,
    damages={"activation": activation("text.trunk", nn.ReLU), "order": setting("text.trunk", "causal", False),
             "no norm in the stem": setting("stem", "norm", None)},
)  # fmt: skip


def their_whisper(config: Any) -> nn.Module:
    from transformers.models.whisper.modeling_whisper import WhisperEncoder

    return WhisperEncoder(config)


WHISPER_CASE = Case(
    seeded(their_whisper, transformers.WhisperConfig, d_model=D, encoder_layers=DEPTH, encoder_attention_heads=HEADS,
           encoder_ffn_dim=HIDDEN, num_mel_bins=10, max_source_positions=T, vocab_size=V, pad_token_id=0),
    lambda: Model(ConvStem(10, D, Learned(T, D)), stack(D, HEADS, DEPTH, plain_feed(D, HIDDEN, nn.GELU), LAYER),
                  nn.Identity()),
    WHISPER_ENCODER,
    lambda model: model(MELS).last_hidden_state,
    lambda model: model(MELS[:, None], finish=lambda head, x, layout: x),
    measured=1.7e-6,
    damages={"activation": activation("trunk", nn.ReLU), "order": setting("trunk", "causal", True)},
)  # fmt: skip


CASES = {
    "BERT": BERT_CASE,
    "T5": t5_case(gated=False, tied=True, measured=6.1e-6),
    "T5 1.1": t5_case(gated=True, tied=False, measured=5.2e-5),
    "BART": BART_CASE,
    "Mixtral": MIXTRAL_CASE,
    "ViT": VIT_CASE,
    "ViT-MAE": MAE_CASE,
    "CLIP": CLIP_CASE,
    "Whisper's encoder": WHISPER_CASE,
}
every_model = pytest.mark.parametrize("name", CASES)


def both(name: str) -> tuple[nn.Module, Any]:
    case = CASES[name]
    theirs, ours = case.theirs(), case.ours()
    ours.load_state_dict(to_ours(theirs.state_dict(), case.table))
    return theirs, ours.eval()


@torch.no_grad()
def difference(name: str, theirs: nn.Module, ours: nn.Module) -> float:
    return (CASES[name].ask_theirs(theirs) - CASES[name].ask_ours(ours)).abs().max().item()


@every_model
def test_outputs_equal_those_of_transformers(name: str):
    assert difference(name, *both(name)) < 4 * CASES[name].measured


@pytest.mark.parametrize(("name", "damage"), [(name, damage) for name in CASES for damage in CASES[name].damages])
def test_the_comparison_notices(name: str, damage: str):
    theirs, ours = both(name)
    CASES[name].damages[damage](ours)
    assert difference(name, theirs, ours) > 1000 * CASES[name].measured


@every_model
def test_the_comparison_notices_keys_and_values_of_one_block_exchanged(name: str):
    theirs, ours = both(name)
    attention = ours.trunk.blocks[-1].mix.branch
    attention.key, attention.value = attention.value, attention.key
    assert difference(name, theirs, ours) > 1000 * CASES[name].measured


@every_model
def test_weights_come_back_to_the_bit_under_their_names(name: str):
    theirs = CASES[name].theirs()
    state = theirs.state_dict()
    back = to_theirs(to_ours(state, CASES[name].table), CASES[name].table)
    assert back.keys() == state.keys()
    rounded = {"T5": ("q.weight", "decoder.final_layer_norm.weight"), "T5 1.1": ("q.weight",)}.get(name, ())
    for key, tensor in state.items():
        if "embed_positions" in key and name == "BART":  # two rows in front are never looked up, and come back as zeros
            assert torch.equal(back[key][2:], tensor[2:])
        elif key.endswith(rounded):  # multiplied by a root and divided again
            torch.testing.assert_close(back[key], tensor, rtol=2e-7, atol=0)
        else:
            assert torch.equal(back[key], tensor), key
