"""Shuffling the encoder's output: what destroys a translation, and what does not.

Claim: shuffle the encoder's output, and the translation is destroyed. It depends on what is shuffled. In which order
the vectors lie means nothing to the decoder, for attention over a memory sees a set; the order of the words is inside
the vectors, put there by the encoder's positions. What the vectors say is everything.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from experiments.record import BLUE, GREY, ORANGE, keep, picture
from experiments.translator import (
    END,
    PAD,
    Pairs,
    Words,
    layout_of,
    numbers_of_split,
    pairs_of,
    summed_loss,
    trained,
    translate,
)
from foundation_core.model.attention import Memory
from foundation_core.model.transformer import EncoderDecoder

SEEDS = (0, 1, 2)
Change = Callable[[EncoderDecoder, Pairs], Memory]


def plain(model: EncoderDecoder, pairs: Pairs) -> Memory:
    """The encoder's output as it is."""
    return model.encode(pairs.source, layout_of(pairs.source))


def vectors_in_another_order(model: EncoderDecoder, pairs: Pairs) -> Memory:
    """The vectors of each sentence, exchanged among themselves: the same set."""
    memory = plain(model, pairs)
    shuffled = memory.x.take_along_dim(_shuffle_of_words(pairs.source)[..., None], dim=1)
    return Memory(shuffled, memory.layout)


def words_in_another_order(model: EncoderDecoder, pairs: Pairs) -> Memory:
    """The words of each sentence exchanged before the encoder reads them."""
    shuffled = pairs.source.take_along_dim(_shuffle_of_words(pairs.source), dim=1)
    return model.encode(shuffled, layout_of(pairs.source))


def vectors_of_other_sentences(model: EncoderDecoder, pairs: Pairs) -> Memory:
    """Each place gets the vector that some other sentence has there."""
    memory = plain(model, pairs)
    draw = torch.Generator().manual_seed(1)
    lengths = (pairs.source != PAD).sum(dim=1)
    x_BSD = memory.x.clone()
    for length in lengths.unique():  # among sentences of one length, so that no vector of padding comes in
        rows = (lengths == length).nonzero()[:, 0]
        for place in range(int(length)):
            x_BSD[rows, place] = memory.x[rows[torch.randperm(len(rows), generator=draw)], place]
    return Memory(x_BSD, memory.layout)


def features_in_another_order(model: EncoderDecoder, pairs: Pairs) -> Memory:
    """Each vector's numbers, exchanged among themselves, in all vectors alike."""
    memory = plain(model, pairs)
    order = torch.randperm(memory.x.shape[-1], generator=torch.Generator().manual_seed(1))
    return Memory(memory.x[..., order], memory.layout)


def nothing(model: EncoderDecoder, pairs: Pairs) -> Memory:
    """Zeros."""
    memory = plain(model, pairs)
    return Memory(torch.zeros_like(memory.x), memory.layout)


CHANGES: dict[str, Change] = {
    "nothing is changed": plain,
    "vectors of a sentence in another order": vectors_in_another_order,
    "words of a sentence in another order": words_in_another_order,
    "vectors of other sentences": vectors_of_other_sentences,
    "features in another order": features_in_another_order,
    "zeros": nothing,
}


@torch.no_grad()
def scores(model: EncoderDecoder, words: Words, pairs: Pairs, change: Change) -> dict[str, float]:
    """The share of translations that are right in every word, and the loss of the right ones."""
    memory = change(model, pairs)
    written = translate(model, memory, pairs.labels.shape[1])
    expected = [words.decode(row) for row in pairs.labels.tolist()]
    exact = sum(words.decode(row) == right for row, right in zip(written.tolist(), expected, strict=True))
    total, count = summed_loss(model, pairs, memory)
    return {"exact_fraction": exact / len(expected), "nats_per_word": total.item() / count}


def run() -> None:
    """Train three translators, spoil what their decoders read, draw and keep what is left."""
    _, held_out = numbers_of_split()
    found: dict[str, list[dict[str, float]]] = {name: [] for name in CHANGES}
    moved = []
    for seed in SEEDS:
        model, words, _ = trained(seed)
        pairs = pairs_of(held_out, words)
        for name, change in CHANGES.items():
            found[name].append(scores(model, words, pairs, change))
        moved.append(_largest_difference(model, pairs))
    figures = {
        name: {key: {"mean": _mean(runs, key), "spread": _spread(runs, key)} for key in runs[0]}
        for name, runs in found.items()
    }
    keep(
        "translation",
        {
            "held_out_numbers": len(held_out),
            "seeds": len(SEEDS),
            "changes": figures,
            "largest_change_of_a_logit_by_the_order_of_vectors": max(moved),
        },
    )
    with picture("translation", size=(8, 3.6)) as axes:
        names = list(reversed(CHANGES))
        values = [100 * figures[name]["exact_fraction"]["mean"] for name in names]
        axes.barh(names, values, color=[BLUE if value > 50 else ORANGE for value in values], height=0.6)
        for place, name in enumerate(names):
            seeds = [100 * run["exact_fraction"] for run in found[name]]
            axes.plot(seeds, [place] * len(seeds), "o", color="white", mec=GREY, markersize=5)
            axes.annotate(f"{values[place]:.1f}%", (max(seeds), place), (8, -4), textcoords="offset points")
        axes.set(title="Held-out numbers translated without a fault", xlabel="% (bar: mean of 3 seeds; dots: each)")
        axes.set_xlim(0, 112)
        axes.grid(visible=False, axis="y")


@torch.no_grad()
def _largest_difference(model: EncoderDecoder, pairs: Pairs) -> float:
    layout = layout_of(pairs.inputs)
    logits = [
        model.decoder(pairs.inputs, layout, memory=change(model, pairs)) for change in (plain, vectors_in_another_order)
    ]
    return (logits[0] - logits[1]).abs()[pairs.labels != PAD].max().item()


def _shuffle_of_words(source: Tensor) -> Tensor:
    """(B, S) a shuffled order of each row's words; the end token and the padding stay where they are."""
    draw = torch.rand(source.shape, generator=torch.Generator().manual_seed(1))
    place = torch.arange(source.shape[1]).expand_as(source)
    word = (source != PAD) & (source != END)
    return torch.where(word, draw, 1.0 + place).argsort(dim=1)


def _mean(runs: list[dict[str, float]], key: str) -> float:
    return sum(run[key] for run in runs) / len(runs)


def _spread(runs: list[dict[str, float]], key: str) -> float:
    values = [run[key] for run in runs]
    return max(values) - min(values)


if __name__ == "__main__":
    run()
