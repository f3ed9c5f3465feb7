"""What a dual encoder knows without having been told: classes by captions that name them, and which belong together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from foundation_core.data.tokens.byte_level import encode_document
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.transformer import DualEncoder
from foundation_core.objectives.masked import padded

_ROWS_AT_ONCE = 64


@torch.inference_mode()
def embed_values(model: DualEncoder, values: Tensor) -> Tensor:
    """(N, W) unit vectors of samples (N, C, H, W)."""
    return torch.cat([model.embed_values(part) for part in torch.split(values, _ROWS_AT_ONCE)])


@torch.inference_mode()
def embed_texts(model: DualEncoder, tokenizer: Tokenizer, texts: Sequence[str], most_tokens: int) -> Tensor:
    """(N, W) unit vectors of texts, each cut to so many tokens as `Samples` cuts captions: the end token stays last."""
    ids = [encode_document(tokenizer, text) for text in texts]
    rows = [torch.tensor([*of_text[:-1][: most_tokens - 1], of_text[-1]]) for of_text in ids]
    tokens, segment = padded(rows, 0), padded([torch.zeros_like(row) for row in rows], PADDING)
    place = torch.arange(tokens.shape[1]).expand_as(tokens)
    return model.embed_texts(tokens, Layout(place, segment))


def class_vectors(captions: Mapping[str, Tensor]) -> Tensor:
    """(classes, W) for each class the mean direction of its captions' vectors (n, W)."""
    return F.normalize(torch.stack([vectors.mean(dim=0) for vectors in captions.values()]), dim=-1)


def recall(queries: Tensor, candidates: Tensor, query_names: Sequence[str], names: Sequence[str], among: int) -> float:
    """The share of queries that find one of their own name among the nearest so many candidates.

    Args:
        queries: (N, W) unit vectors.
        candidates: (M, W) unit vectors.
        names: of the candidates; several may have one name.
    """
    nearest = (queries @ candidates.T).topk(min(among, len(candidates)), dim=-1).indices.tolist()
    hits = sum(
        wanted in {names[place] for place in places} for wanted, places in zip(query_names, nearest, strict=True)
    )
    return hits / len(query_names)
