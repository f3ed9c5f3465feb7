"""Tables of models of images and sound, named as `transformers` names their weights."""

from __future__ import annotations

from foundation_core.interop.language import attention
from foundation_core.interop.mapping import ChannelsLast, Kernel, Leading, Rule, Table, WithZero, renamed

_FEED = {"mlp.fc1": "feed.branch.up", "mlp.fc2": "feed.branch.out"}


def _vit_layers(theirs: str, ours: str) -> tuple[Rule, ...]:
    names = {"layernorm_before": "mix.norm", "layernorm_after": "feed.norm"} | _FEED
    return (
        *attention(f"{theirs}.{{}}.attention.", f"{ours}.{{}}.mix.branch.", out="o_proj"),
        *renamed(f"{theirs}.{{}}.", f"{ours}.{{}}.", names),
    )


def _vit_body(channels: int, patch: tuple[int, int]) -> tuple[Rule, ...]:
    projection = "vit.embeddings.patch_embeddings.projection"
    return (
        Rule("vit.embeddings.cls_token", "stem.class_token", Leading(1)),
        Rule("vit.embeddings.position_embeddings", "stem.place.table.weight", Leading(1)),
        Rule(f"{projection}.weight", "stem.embed.weight", Kernel(channels, patch)),
        Rule(f"{projection}.bias", "stem.embed.bias"),
        *_vit_layers("vit.layers", "trunk.blocks"),
        *renamed("vit.", "trunk.", {"layernorm": "norm"}),
    )


def vit(channels: int, patch: tuple[int, int]) -> Table:
    """The table of a ViT that classifies by its class token."""
    return Table((*_vit_body(channels, patch), *renamed("", "head.", {"classifier": "out"})))


def vit_mae(channels: int, patch: tuple[int, int]) -> Table:
    """The table of a ViT-MAE; its fixed waves are looked up like learned positions."""
    return Table(
        (
            *_vit_body(channels, patch),
            Rule("decoder.mask_token", "decoder.mask_token", Leading(1)),
            Rule("decoder.decoder_pos_embed", "decoder.place.table.weight", Leading(1)),
            *renamed("decoder.", "decoder.", {"decoder_embed": "enter", "decoder_norm": "trunk.norm"}),
            *_vit_layers("decoder.decoder_layers", "decoder.trunk.blocks"),
            *renamed("decoder.", "head.", {"decoder_pred": "out"}, ChannelsLast(channels, patch)),
        )
    )


def _clip_side(theirs: str, ours: str, last_norm: str) -> tuple[Rule, ...]:
    names = {"layer_norm1": "mix.norm", "layer_norm2": "feed.norm"} | _FEED
    return (
        *attention(f"{theirs}encoder.layers.{{}}.self_attn.", f"{ours}blocks.{{}}.mix.branch."),
        *renamed(f"{theirs}encoder.layers.{{}}.", f"{ours}blocks.{{}}.", names),
        *renamed(theirs, ours, {last_norm: "norm"}),
    )


def clip(channels: int, patch: tuple[int, int]) -> Table:
    """The table of a CLIP: its image side is our values' side."""
    return Table(
        (
            Rule("vision_model.embeddings.class_embedding", "stem.class_token", Leading(-1)),
            Rule("vision_model.embeddings.patch_embedding.weight", "stem.embed.weight", Kernel(channels, patch)),
            Rule("vision_model.embeddings.position_embedding.weight", "stem.place.table.weight"),
            *renamed("vision_model.", "stem.", {"pre_layrnorm": "norm"}),
            *_clip_side("vision_model.", "trunk.", "post_layernorm"),
            Rule("text_model.embeddings.token_embedding.weight", "text.stem.embed.weight"),
            Rule("text_model.embeddings.position_embedding.weight", "text.stem.place.table.weight"),
            *_clip_side("text_model.", "text.trunk.", "final_layer_norm"),
            Rule("visual_projection.weight", "head.out.weight"),
            Rule("text_projection.weight", "text.head.out.weight"),
            Rule("logit_scale", "log_scale", Leading(-1)),
        )
    )


_WHISPER = "trunk.blocks.{}.mix.branch."

WHISPER_ENCODER = Table(
    (
        *renamed("", "stem.", {"conv1": "first", "conv2": "second", "embed_positions": "place.table"}),
        *renamed("layers.{}.self_attn.", _WHISPER, {"q_proj": "query", "out_proj": "out"}),
        Rule("layers.{}.self_attn.k_proj.weight", f"{_WHISPER}key.weight"),
        Rule("layers.{}.self_attn.v_proj.weight", f"{_WHISPER}value.weight"),
        Rule("layers.{}.self_attn.v_proj.bias", (f"{_WHISPER}value.bias", f"{_WHISPER}key.bias"), WithZero()),
        *renamed(
            "layers.{}.",
            "trunk.blocks.{}.",
            {
                "self_attn_layer_norm": "mix.norm",
                "final_layer_norm": "feed.norm",
                "fc1": "feed.branch.up",
                "fc2": "feed.branch.out",
            },
        ),
        *renamed("", "trunk.", {"layer_norm": "norm"}),
    )
)
"""With `interop.parts.ConvStem`."""
