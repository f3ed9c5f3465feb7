"""Whole models around `torch.nn.Transformer`, which is layers alone."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from benchmarks.core.train import Size
from foundation_core.interop.mapping import Rule, Table, renamed
from tests.support.parity import torch_layers


def torch_encoder_decoder(size: Size) -> nn.Transformer:
    """Torch's own, with the norms in front of the branches and at both ends."""
    settings = {"dropout": 0.0, "activation": "gelu", "batch_first": True, "norm_first": True}
    layer = nn.TransformerEncoderLayer(size.width, size.heads, 4 * size.width, **settings)
    encoder = nn.TransformerEncoder(layer, size.depth, nn.LayerNorm(size.width), enable_nested_tensor=False)
    return nn.Transformer(
        size.width,
        size.heads,
        0,
        size.depth,
        4 * size.width,
        custom_encoder=encoder,
        **settings,
    )


class TorchEncoderDecoder(nn.Module):
    """Source and target embedded, with learned positions; torch's layers; a head that is the target's embedding.

    Args:
        read: source -> vectors.
        written: of the target's tokens.
        lengths: places of source and target.
    """

    def __init__(
        self, read: nn.Module, written: nn.Embedding, layers: nn.Transformer, lengths: tuple[int, int]
    ) -> None:
        super().__init__()
        self.read, self.written, self.layers = read, written, layers
        self.read_place, self.written_place = (nn.Embedding(length, written.embedding_dim) for length in lengths)
        self.register_buffer("later", layers.generate_square_subsequent_mask(lengths[1]), persistent=False)
        for place in (written, self.read_place, self.written_place):
            nn.init.normal_(place.weight, std=0.05)

    def forward(self, source: Tensor, target_BT: Tensor) -> Tensor:
        """(B, T, D)."""
        x_BSD, T = self.read(source), target_BT.shape[1]
        x_BSD = x_BSD + self.read_place.weight[: x_BSD.shape[1]]
        y_BTD = self.written(target_BT) + self.written_place.weight[:T]
        output: Tensor = self.layers(x_BSD, y_BTD, tgt_mask=self.later[:T, :T], tgt_is_causal=True)
        return output

    def head(self, x_BTD: Tensor) -> Tensor:
        """(B, T, V) logits."""
        return F.linear(x_BTD, self.written.weight)

    def table(self) -> Table:
        """Its weights under our names."""
        shared = self.read is self.written
        written = "stem.embed.weight" if shared else "decoder.stem.embed.weight"
        stem = () if shared else renamed("", "", {"read": "stem.embed"})
        return Table(
            (
                *stem,
                Rule("written.weight", written, also=("read.weight",) if shared else ()),
                *renamed("", "", {"read_place": "stem.place.table", "written_place": "decoder.stem.place.table"}),
                *torch_layers("layers.encoder.layers", "trunk.blocks", feed_norm=2),
                *torch_layers("layers.decoder.layers", "decoder.trunk.blocks", feed_norm=3),
                *renamed("layers.", "", {"encoder.norm": "trunk.norm", "decoder.norm": "decoder.trunk.norm"}),
            )
        )
