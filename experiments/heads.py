"""What single heads look at, and what it costs to lose one.

Claim: heads attend to different things, and each is needed. The maps are those of one held-out number. A head is
removed by setting to zero the columns of `out` that read it: what it found reaches nobody. Beside single heads, all
heads of an attention are removed together, which tells an idle layer from one whose heads stand in for each other.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch

from experiments.attention_seen import attention_seen
from experiments.record import GREY, INK, keep, picture
from experiments.translator import (
    Pairs,
    Words,
    layout_of,
    numbers_of_split,
    pairs_of,
    summed_loss,
    trained,
    translate,
)
from foundation_core.model.attention import Attention
from foundation_core.model.transformer import EncoderDecoder

SHOWN_LETTERS = 12


def attentions(model: EncoderDecoder) -> dict[str, Attention]:
    """Every attention of a translator by its place, in the order in which they run."""
    found = {f"encoder {number}": block.mix.branch for number, block in enumerate(model.trunk.blocks, 1)}
    for number, block in enumerate(model.decoder.trunk.blocks, 1):
        found[f"decoder {number}"] = block.mix.branch
        found[f"decoder {number} reads"] = block.read.branch
    return found


@contextmanager
def without_heads(attention: Attention, heads: Iterable[int]) -> Iterator[None]:
    """Inside, nothing of what these heads find reaches the stream."""
    kept = attention.out.weight.detach().clone()
    try:
        with torch.no_grad():
            for head in heads:
                attention.out.weight[:, head * attention.head_width : (head + 1) * attention.head_width] = 0
        yield
    finally:
        with torch.no_grad():
            attention.out.weight.copy_(kept)


@torch.no_grad()
def nats_and_faults(model: EncoderDecoder, words: Words, pairs: Pairs) -> tuple[float, float]:
    """Nats per word, and the share of translations with a fault."""
    memory = model.encode(pairs.source, layout_of(pairs.source))
    total, count = summed_loss(model, pairs, memory)
    written = translate(model, memory, pairs.labels.shape[1]).tolist()
    rows = zip(written, pairs.labels.tolist(), strict=True)
    faults = sum(words.decode(row) != words.decode(right) for row, right in rows)
    return total.item() / count, faults / len(written)


def run() -> None:
    """Draw the maps of one sentence and the loss without each head; keep the figures."""
    model, words, _ = trained(0)
    _, held_out = numbers_of_split()
    pairs = pairs_of(held_out, words)
    whole, faults = nats_and_faults(model, words, pairs)
    lost: dict[str, list[dict[str, float]]] = {}
    for name, attention in attentions(model).items():
        lost[name] = []
        heads = range(attention.query.out_features // attention.head_width)
        for removed in (*([head] for head in heads), heads):
            with without_heads(attention, removed):
                nats, faulty = nats_and_faults(model, words, pairs)
            lost[name].append({"added_nats": nats - whole, "faulty_fraction": faulty})
    every = [head["faulty_fraction"] for heads in lost.values() for head in heads[:-1]]
    keep(
        "heads",
        {
            "nats_per_word": whole,
            "faulty_fraction": faults,
            "removed_head_by_head_then_all": lost,
            "heads": len(every),
            "heads_whose_loss_costs_less_than_1_percent_of_translations": sum(share < 0.01 for share in every),
            "heads_whose_loss_costs_more_than_half_of_translations": sum(share > 0.5 for share in every),
            "similarity_of_maps": _similarity(model, pairs),
        },
    )
    _draw_losses(lost)
    _draw_maps(model, words, next(number for number in held_out if len(str(number)) == 5))


@torch.no_grad()
def _similarity(model: EncoderDecoder, pairs: Pairs) -> dict[str, float]:
    """Share of attention that two heads of one layer have in common, in the mean over their pairs and the tokens."""
    with attention_seen() as seen:
        model.decoder(pairs.inputs, layout_of(pairs.inputs), memory=model.encode(pairs.source, layout_of(pairs.source)))
    # the blocks of the encoder run first, then mix and read of each block of the decoder: as `attentions` has them
    shared = {}
    for name, weight_BHTS in zip(attentions(model), seen, strict=True):
        there_BT = (pairs.source if name.startswith("encoder") else pairs.labels) != 0
        H = weight_BHTS.shape[1]
        common = [
            torch.minimum(weight_BHTS[:, a], weight_BHTS[:, b]).sum(dim=-1)[there_BT].mean().item()
            for a in range(H)
            for b in range(a)
        ]
        shared[name] = sum(common) / len(common)
    return shared


def _draw_losses(lost: dict[str, list[dict[str, float]]]) -> None:
    faulty = [[100 * head["faulty_fraction"] for head in heads] for heads in lost.values()]
    nats = [[head["added_nats"] for head in heads] for heads in lost.values()]
    shown = {"nats per word that are added without these heads": (nats, 0.1, ".3f"),
             "% of faulty translations without these heads": (faulty, 100.0, ".1f")}  # fmt: skip
    with picture("heads_removed", columns=2, size=(14, 4)) as grid:
        for axes, (title, (rows, most, digits)) in zip(grid, shown.items(), strict=True):
            axes.imshow(rows, cmap="Blues", vmin=0, vmax=most, aspect="auto")
            for y, row in enumerate(rows):
                for x, cost in enumerate(row):
                    color = "white" if cost > most / 2 else INK
                    axes.text(x, y, format(cost, digits), ha="center", va="center", color=color)
            axes.set_xticks(range(len(rows[0])), [*(f"head {head}" for head in range(1, len(rows[0]))), "all four"])
            axes.set_yticks(range(len(rows)), list(lost))
            axes.set(title=title)
            axes.grid(visible=False)


@torch.no_grad()
def _draw_maps(model: EncoderDecoder, words: Words, number: int) -> None:
    pairs = pairs_of([number], words)
    source = [*words.decode(pairs.source[0].tolist()), "<end>"]
    inputs = [words.words[token] for token in pairs.inputs[0].tolist()]
    with attention_seen() as seen:
        model.decoder(pairs.inputs, memory=model.encode(pairs.source))
    by_name = dict(zip(attentions(model), seen, strict=True))
    shown = {"encoder 2": (source, source), "decoder 2": (inputs, inputs), "decoder 2 reads": (inputs, source)}
    with picture("heads", rows=3, columns=4, size=(13, 10)) as grid:
        for row, (name, (queries, keys)) in zip(grid, shown.items(), strict=True):
            for head, axes in enumerate(row):
                axes.imshow(by_name[name][0, head], cmap="Blues", vmin=0, vmax=1)
                axes.set_title(f"{name}, head {head + 1}", fontsize=10)
                axes.set_xticks(range(len(keys)), [key[:SHOWN_LETTERS] for key in keys], rotation=60, ha="right")
                axes.set_yticks(range(len(queries)), [query[:SHOWN_LETTERS] for query in queries] if not head else [])
                axes.tick_params(labelsize=8, color=GREY)
                axes.grid(visible=False)


if __name__ == "__main__":
    run()
