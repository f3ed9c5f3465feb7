"""Tables of language models, named as `transformers` names their weights."""

from __future__ import annotations

from math import sqrt

from foundation_core.interop.mapping import (
    Joined,
    Leading,
    Rule,
    Scaled,
    Stacked,
    Table,
    Transposed,
    WithoutFirst,
    renamed,
)

_OWN, _READ, _FEED = "mix.branch.", "read.branch.", "feed.branch."


def attention(theirs: str, ours: str, out: str = "out_proj") -> tuple[Rule, ...]:
    """The four layers of an attention, by the names that most give them."""
    names = {"q_proj": "query", "k_proj": "key", "v_proj": "value", out: "out"}
    return renamed(theirs, ours, names)


GPT2 = Table(
    (
        Rule("transformer.wte.weight", "stem.embed.weight", also=("lm_head.weight",)),
        Rule("transformer.wpe.weight", "stem.place.table.weight"),
        *renamed("transformer.h.{}.", "trunk.blocks.{}.", {"ln_1": "mix.norm", "ln_2": "feed.norm"}),
        Rule(
            "transformer.h.{}.attn.c_attn.{}",
            tuple(f"trunk.blocks.{{}}.mix.branch.{part}.{{}}" for part in ("query", "key", "value")),
            Joined(3, transposed=True),
        ),
        *renamed(
            "transformer.h.{}.",
            "trunk.blocks.{}.",
            {"attn.c_proj": f"{_OWN}out", "mlp.c_fc": f"{_FEED}up", "mlp.c_proj": f"{_FEED}out"},
            Transposed(),
        ),
        *renamed("transformer.", "trunk.", {"ln_f": "norm"}),
    )
)

_LLAMA_RULES = (
    Rule("model.embed_tokens.weight", "stem.embed.weight"),
    *attention("model.layers.{}.self_attn.", f"trunk.blocks.{{}}.{_OWN}", out="o_proj"),
    *renamed(
        "model.layers.{}.",
        "trunk.blocks.{}.",
        {"input_layernorm": "mix.norm", "post_attention_layernorm": "feed.norm"},
    ),
    *renamed("model.", "trunk.", {"norm": "norm"}),
    Rule("lm_head.weight", "head.out.weight"),
)

LLAMA = Table(
    (
        *_LLAMA_RULES,
        *renamed(
            "model.layers.{}.mlp.",
            f"trunk.blocks.{{}}.{_FEED}",
            {"gate_proj": "gate", "up_proj": "up", "down_proj": "out"},
        ),
    )
)
"""With a head of its own (tie_word_embeddings off)."""


def mixtral(experts: int) -> Table:
    """The table of a Mixtral with so many experts."""
    feeds = [f"trunk.blocks.{{}}.{_FEED}experts.{number}." for number in range(experts)]
    halves = tuple(f"{feed}{part}.weight" for feed in feeds for part in ("gate", "up"))
    return Table(
        (
            *_LLAMA_RULES,
            Rule("model.layers.{}.mlp.gate.weight", f"trunk.blocks.{{}}.{_FEED}router.weight"),
            Rule("model.layers.{}.mlp.experts.gate_up_proj", halves, Stacked(2)),
            Rule("model.layers.{}.mlp.experts.down_proj", tuple(f"{feed}out.weight" for feed in feeds), Stacked()),
        )
    )


BERT = Table(
    (
        Rule("bert.embeddings.word_embeddings.weight", "stem.embed.weight", also=("cls.predictions.decoder.weight",)),
        *renamed(
            "bert.embeddings.",
            "stem.",
            {"position_embeddings": "place.table", "token_type_embeddings": "place.kind", "LayerNorm": "norm"},
        ),
        *renamed(
            "bert.encoder.layer.{}.",
            "trunk.blocks.{}.",
            {
                "attention.self.query": f"{_OWN}query",
                "attention.self.key": f"{_OWN}key",
                "attention.self.value": f"{_OWN}value",
                "attention.output.dense": f"{_OWN}out",
                "attention.output.LayerNorm": "mix.norm",
                "intermediate.dense": f"{_FEED}up",
                "output.dense": f"{_FEED}out",
                "output.LayerNorm": "feed.norm",
            },
        ),
        *renamed("cls.predictions.transform.", "head.transform.", {"dense": "0", "LayerNorm": "2"}),
        Rule("cls.predictions.bias", "head.bias", also=("cls.predictions.decoder.bias",)),
    )
)
"""With `interop.parts.LearnedAndType` for positions, and a head with a transform (linear, GELU, norm) and a bias."""


def _t5_stack(theirs: str, ours: str, last: int, head_width: int, gated: bool) -> tuple[Rule, ...]:
    attentions = {"layer.0.SelfAttention.": _OWN, "layer.1.EncDecAttention.": _READ}
    queries = {f"{name}q": f"{new}query" for name, new in attentions.items()}
    others = {
        f"{name}{part}": f"{new}{our}"
        for name, new in attentions.items()
        for part, our in (("k", "key"), ("v", "value"), ("o", "out"))
    }
    feed = {"wi_0": "gate", "wi_1": "up", "wo": "out"} if gated else {"wi": "up", "wo": "out"}
    others |= {f"layer.{last}.DenseReluDense.{name}": f"{_FEED}{new}" for name, new in feed.items()}
    norms = {0: "mix.norm", 1: "read.norm"} | {last: "feed.norm"}
    others |= {f"layer.{number}.layer_norm": norm for number, norm in norms.items()}
    bias = f"{theirs}block.0.layer.0.SelfAttention.relative_attention_bias.weight"
    return (
        # Their scores are not divided by the root of the head's width.
        *renamed(f"{theirs}block.{{}}.", f"{ours}blocks.{{}}.", queries, Scaled(sqrt(head_width))),
        *renamed(f"{theirs}block.{{}}.", f"{ours}blocks.{{}}.", others),
        Rule(bias, f"{ours}score_bias.table.weight"),
    )


def t5(width: int, head_width: int, *, gated: bool = False, tied: bool = True) -> Table:
    """The table of a T5: relative positions, RMS norms, no biases.

    Args:
        gated: whether its feed-forward layer has a gate, as in T5 1.1.
        tied: whether its head is its embedding; it then multiplies the output by width ** -0.5, and we the last norm.
    """
    embeds = ("encoder.embed_tokens.weight", "decoder.embed_tokens.weight")
    last_norm, decoder_norm = Scaled(width**-0.5 if tied else 1.0), "decoder.trunk.norm.weight"
    rules = (
        Rule("shared.weight", "stem.embed.weight", also=(*embeds, "lm_head.weight") if tied else embeds),
        *_t5_stack("encoder.", "trunk.", 1, head_width, gated),
        *_t5_stack("decoder.", "decoder.trunk.", 2, head_width, gated),
        Rule("encoder.final_layer_norm.weight", "trunk.norm.weight"),
        Rule("decoder.final_layer_norm.weight", decoder_norm, last_norm),
        *(() if tied else (Rule("lm_head.weight", "decoder.head.out.weight"),)),
    )
    return Table(rules)


def _bart_side(theirs: str, side: str) -> tuple[Rule, ...]:
    trunk, names = f"{side}trunk.blocks.{{}}.", {"fc1": f"{_FEED}up", "fc2": f"{_FEED}out"}
    names |= {
        "self_attn_layer_norm": "mix.norm",
        "encoder_attn_layer_norm": "read.norm",
        "final_layer_norm": "feed.norm",
    }
    return (
        Rule(f"{theirs}embed_positions.weight", f"{side}stem.place.table.weight", WithoutFirst(2)),
        *renamed(theirs, f"{side}stem.", {"layernorm_embedding": "norm"}),
        *attention(f"{theirs}layers.{{}}.self_attn.", f"{trunk}{_OWN}"),
        *attention(f"{theirs}layers.{{}}.encoder_attn.", f"{trunk}{_READ}"),
        *renamed(f"{theirs}layers.{{}}.", trunk, names),
    )


BART = Table(
    (
        Rule(
            "model.shared.weight",
            "stem.embed.weight",
            also=("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight"),
        ),
        *_bart_side("model.encoder.", ""),
        *_bart_side("model.decoder.", "decoder."),
        Rule("final_logits_bias", "decoder.head.bias", Leading(1)),
    )
)
"""With a norm in each stem, and a bias in the head."""
