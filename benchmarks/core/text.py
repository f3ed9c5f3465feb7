"""The families that read and write text, each beside the model of `transformers` or torch that has the same layers."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.core.torch_models import TorchEncoderDecoder, torch_encoder_decoder
from benchmarks.core.train import Pair, Size
from foundation_core.interop.language import BART, BERT, GPT2, LLAMA, mixtral
from foundation_core.interop.parts import LearnedAndType
from foundation_core.model.block import PostNorm
from foundation_core.model.families import build
from foundation_core.model.heads import TiedHead
from foundation_core.model.positions import Learned
from foundation_core.model.stems import Borrowed, TokenStem
from foundation_core.model.transformer import EncoderDecoder, Model, Reader
from foundation_core.objectives.base import IGNORE, Example, SpecialTokens
from foundation_core.objectives.experts import BALANCE, BalancedNextToken, Z
from foundation_core.objectives.language import NextToken, Prefix
from foundation_core.objectives.masked import MaskedToken, SpanCorruption
from foundation_core.shape import SampleShape
from foundation_core.specs import ModelSpec, TrunkSpec
from tests.support.parity import plain_feed, stack

LAYER = {"norm": "layer", "bias": True, "position": "learned"}


def text_pairs(size: Size) -> dict[str, partial[Pair]]:
    """How each pair is made, by its name."""
    makers = {
        "decoder / GPT-2": gpt2,
        "decoder / Llama": llama,
        "encoder / BERT": bert,
        "encoder-decoder / BART": bart,
        "encoder-decoder / nn.Transformer": torch_transformer,
        "prefix LM / GPT-2 with a mask": prefix,
        "mixture / Mixtral": experts,
    }
    return {name: partial(make, name, size) for name, make in makers.items()}


def batch(size: Size) -> dict[str, Tensor]:
    """Rows of one document each, of random tokens; the last few ids of the vocabulary are special."""
    generator = torch.Generator().manual_seed(0)
    tokens = torch.randint(1, size.vocabulary - 32, (size.rows, size.tokens + 1), generator=generator)
    position = torch.arange(size.tokens + 1).expand_as(tokens).contiguous()
    return {
        "tokens": tokens,
        "segment": torch.zeros_like(tokens),
        "position": position,
        "sample": torch.arange(size.rows),
    }


def special(size: Size) -> SpecialTokens:
    """The last 32 ids of the vocabulary."""
    first = size.vocabulary - 32
    return SpecialTokens(
        size.vocabulary, end=0, start=first, mask=first + 1, sentinels=tuple(range(first + 2, first + 32))
    )


def our_model(size: Size, family: str = "decoder", tied: bool = True, **trunk: Any) -> Reader:
    """A model as a recipe builds it."""
    sides = TrunkSpec(width=size.width, depth=size.depth, heads=size.heads, **trunk)
    spec = ModelSpec(family=family, trunk=sides, context_tokens=size.tokens, tie_embeddings=tied)
    return build(spec, SampleShape(vocabulary=size.vocabulary))


def cross_entropy(logits_BTV: Tensor, labels_BT: Tensor) -> Tensor:
    """The mean loss of a label, by the shortest way that there is: no copies in another format, no shifts."""
    return F.cross_entropy(logits_BTV.flatten(0, 1), labels_BT.flatten(), ignore_index=IGNORE)


def causal_loss(model: Any, example: Example) -> Tensor:
    """The loss of a language model of theirs."""
    return cross_entropy(model(example.inputs["inputs"], use_cache=False).logits, example.labels)


def gpt2_config(size: Size) -> Any:
    """GPT-2 with the activation that torch has a kernel for."""
    return transformers.GPT2Config(
        vocab_size=size.vocabulary, n_positions=size.tokens, n_embd=size.width, n_layer=size.depth, n_head=size.heads,
        bos_token_id=0, eos_token_id=0, activation_function="gelu", resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0,
        attn_implementation="sdpa",
    )  # fmt: skip


def llama_sizes(size: Size) -> dict[str, Any]:
    """What Llama and Mixtral share."""
    return {
        "vocab_size": size.vocabulary, "hidden_size": size.width, "intermediate_size": 8 * round(size.width / 3),
        "num_hidden_layers": size.depth, "num_attention_heads": size.heads, "num_key_value_heads": size.heads,
        "max_position_embeddings": size.tokens, "rms_norm_eps": 1e-6, "tie_word_embeddings": False,
        "attn_implementation": "sdpa",
    }  # fmt: skip


def gpt2(name: str, size: Size) -> Pair:
    """The usual decoder of 2019."""
    return Pair(
        name, transformers.GPT2LMHeadModel(gpt2_config(size)), our_model(size, **LAYER), GPT2, NextToken(), batch(size),
        causal_loss,
        lambda model, example: model.transformer(example.inputs["inputs"], use_cache=False).last_hidden_state,
    )  # fmt: skip


def llama(name: str, size: Size) -> Pair:
    """The usual decoder of 2023."""
    theirs = transformers.LlamaForCausalLM(transformers.LlamaConfig(**llama_sizes(size)))
    return Pair(
        name, theirs, our_model(size, tied=False, feed="swiglu"), LLAMA, NextToken(), batch(size), causal_loss,
        lambda model, example: model.model(example.inputs["inputs"], use_cache=False).last_hidden_state,
    )  # fmt: skip


def balanced_loss(model: Any, example: Example) -> Tensor:
    """(3,) the loss of Mixtral, and what it takes for experts that are visited evenly by routers of small logits."""
    seen = model.model(example.inputs["inputs"], use_cache=False, output_router_logits=True)
    logits_LMN = torch.stack(seen.router_logits).float()
    chosen_LMC = logits_LMN.topk(model.num_experts_per_tok, dim=-1).indices
    visits_LN = F.one_hot(chosen_LMC, model.num_experts).sum(dim=(1, 2))
    share_LN = visits_LN / visits_LN.sum(dim=1, keepdim=True)
    balance = model.num_experts * (share_LN * logits_LMN.softmax(dim=-1).mean(dim=1)).sum() / len(logits_LMN)
    z = logits_LMN.logsumexp(dim=-1).square().mean()
    loss = cross_entropy(model.lm_head(seen.last_hidden_state), example.labels)
    return torch.stack([loss, BALANCE * balance, Z * z])


def experts(name: str, size: Size) -> Pair:
    """Four experts, two of them for each token."""
    config = transformers.MixtralConfig(
        **llama_sizes(size), num_local_experts=4, num_experts_per_tok=2, rope_theta=10_000.0
    )
    ours = our_model(size, "mixture", tied=False, feed="swiglu", experts=4)
    return Pair(
        name, transformers.MixtralForCausalLM(config), ours, mixtral(4), BalancedNextToken(), batch(size),
        balanced_loss, lambda model, example: model.model(example.inputs["inputs"], use_cache=False).last_hidden_state,
    )  # fmt: skip


def prefix(name: str, size: Size) -> Pair:
    """A decoder whose prompts are read both ways."""

    def asked(example: Example) -> dict[str, Any]:
        order = example.inputs["layout"].order
        allowed = order[:, None, None, :] <= order[:, None, :, None]
        return {"input_ids": example.inputs["inputs"], "attention_mask": allowed, "use_cache": False}

    return Pair(
        name, transformers.GPT2LMHeadModel(gpt2_config(size)), our_model(size, **LAYER), GPT2, Prefix(), batch(size),
        lambda model, example: cross_entropy(model(**asked(example)).logits, example.labels),
        lambda model, example: model.transformer(**asked(example)).last_hidden_state,
    )  # fmt: skip


def bert(name: str, size: Size) -> Pair:
    """An encoder with a norm behind each sum."""
    D, exact = size.width, partial(nn.LayerNorm, size.width, eps=1e-12)
    config = transformers.BertConfig(
        vocab_size=size.vocabulary, hidden_size=D, num_hidden_layers=size.depth, num_attention_heads=size.heads,
        intermediate_size=4 * D, max_position_embeddings=size.tokens, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0, attn_implementation="sdpa",
    )  # fmt: skip
    stem = TokenStem(nn.Embedding(size.vocabulary, D), size.tokens, LearnedAndType(size.tokens, D), exact())
    feed = plain_feed(D, 4 * D, nn.GELU)
    trunk = stack(D, size.heads, size.depth, feed, exact, residual=PostNorm, end=nn.Identity)
    ours = Model(stem, trunk, TiedHead(stem.embed, nn.Sequential(nn.Linear(D, D), nn.GELU(), exact()), bias=True))
    return Pair(
        name, transformers.BertForMaskedLM(config), ours, BERT, MaskedToken(special(size)), batch(size),
        lambda model, example: cross_entropy(model(example.inputs["inputs"]).logits, example.labels),
        lambda model, example: model.bert(example.inputs["inputs"]).last_hidden_state,
    )  # fmt: skip


def bart(name: str, size: Size) -> Pair:
    """An encoder-decoder with a norm behind each sum."""
    D, norm = size.width, partial(nn.LayerNorm, size.width)
    config = transformers.BartConfig(
        vocab_size=size.vocabulary, d_model=D, encoder_layers=size.depth, decoder_layers=size.depth,
        encoder_attention_heads=size.heads, decoder_attention_heads=size.heads, encoder_ffn_dim=4 * D,
        decoder_ffn_dim=4 * D, max_position_embeddings=size.tokens, dropout=0.0, attn_implementation="sdpa",
    )  # fmt: skip
    side = partial(stack, D, size.heads, size.depth, plain_feed(D, 4 * D, nn.GELU), norm, residual=PostNorm)
    stem = TokenStem(nn.Embedding(size.vocabulary, D), size.tokens, Learned(size.tokens, D), norm())
    target = TokenStem(Borrowed(stem.embed), size.tokens, Learned(size.tokens, D), norm())
    head = TiedHead(target.embed, bias=True)
    ours = EncoderDecoder(
        stem, side(end=nn.Identity), Model(target, side(end=nn.Identity, causal=True, reads=True), head)
    )
    head.requires_grad_(False)  # theirs is a buffer

    def asked(example: Example) -> dict[str, Any]:
        return {
            "input_ids": example.inputs["source"],
            "decoder_input_ids": example.inputs["inputs"],
            "use_cache": False,
        }

    return Pair(
        name, transformers.BartForConditionalGeneration(config), ours, BART, SpanCorruption(special(size)), batch(size),
        lambda model, example: cross_entropy(model(**asked(example)).logits, example.labels),
        lambda model, example: model.model(**asked(example)).last_hidden_state,
    )  # fmt: skip


def torch_transformer(name: str, size: Size) -> Pair:
    """The encoder-decoder that torch itself has, between embeddings and a head."""
    embed = nn.Embedding(size.vocabulary, size.width)
    theirs = TorchEncoderDecoder(embed, embed, torch_encoder_decoder(size), (size.tokens, size.tokens))

    def layers(model: Any, example: Example) -> Tensor:
        output: Tensor = model(example.inputs["source"], example.inputs["inputs"])
        return output

    return Pair(
        name, theirs, our_model(size, "encoder_decoder", **LAYER), theirs.table(), SpanCorruption(special(size)),
        batch(size),
        lambda model, example: cross_entropy(model.head(layers(model, example)), example.labels),
        layers,
    )  # fmt: skip
