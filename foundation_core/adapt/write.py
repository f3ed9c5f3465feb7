"""Tasks whose answers are texts: the model's own decoder goes on, and what it writes is set beside a reference.

Legend: N rows, S tokens that are read, L tokens that are written.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, ClassVar, cast

import torch
from tokenizers import Tokenizer
from torch import Tensor, nn

from foundation_core.adapt.scores import chrf, letter_counts, word_errors
from foundation_core.adapt.tasks import Facts, Tally, Task, TaskRows, summed_loss
from foundation_core.adapt.transfer import Pretrained, load_whole, whole_model
from foundation_core.data.tokens.byte_level import END_ID, start_id
from foundation_core.generation.generate import remember
from foundation_core.generation.texts import Begun, Ending, in_parts, texts_of
from foundation_core.model.layout import PADDING, Layout
from foundation_core.model.stems import TokenStem
from foundation_core.model.transformer import EncoderDecoder, Model
from foundation_core.objectives.base import Example, Objective
from foundation_core.objectives.masked import padded, place_in_segment
from foundation_core.objectives.pairs import Captioning
from foundation_core.specs import WritingSpec


class WritingTask(Task):
    """A task whose answers are texts. It has one budget: every row there is."""

    budgets = ("all",)
    ability = "write"
    columns: ClassVar[Mapping[str, str]] = {"answer": "string"}

    @abstractmethod
    def asked(self, facts: Facts) -> Objective:
        """What is minimised."""

    @abstractmethod
    def questions(self, items: Sequence[str | Tensor], facts: Facts) -> TaskRows:
        """A row for each item, without an answer."""

    @abstractmethod
    def begun(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Begun:
        """The rows up to where their answers begin."""

    def usual(self, facts: Facts) -> WritingSpec:
        """How answers are written when they are scored: nothing is drawn."""
        return WritingSpec(temperature=0.0, beams=facts.spec.beams)

    def objective(self, trunk: Pretrained, facts: Facts) -> Objective:
        """The loss of the tokens of the answer."""
        return self.asked(facts)

    def model(self, trunk: Pretrained, facts: Facts, seed: int) -> nn.Module:
        """The family's own model."""
        return whole_model(trunk, seed)

    def take_over(self, model: nn.Module, weights: Mapping[str, Tensor]) -> None:
        """All of it."""
        load_whole(model, weights)

    def answer(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Tally:
        """What the texts have in common with the references, and what the references cost the model."""
        nats, labels = summed_loss(model, self.asked(facts), rows)
        return {**self.compared(self.written(model, rows, facts), rows, facts), "nats": nats, "labels": labels}

    def compared(self, texts: Sequence[str], rows: TaskRows, facts: Facts) -> dict[str, Any]:
        """What texts that were written for rows have in common with the references, as sums."""
        return compared(texts, rows.references)

    def scores(self, tally: Tally) -> dict[str, float]:
        """Every score of `scored` that the tally holds."""
        found = {
            "chrf": chrf(tally["letters"]),
            "exact_match": tally["exact"] / tally["rows"],
            "word_error_rate": tally["word_errors"] / max(1, tally["words"]),
        }
        if "named" in tally:
            found["class_named"] = tally["named"] / tally["rows"]
        if "nats" in tally:
            found["bits_per_byte"] = tally["nats"] / torch.tensor(2.0).log().item() / tally["bytes"]
            found["loss"] = tally["nats"] / tally["labels"]
        return {name: value for name, value in found.items() if name in self.scored or name == "loss"}

    def written(self, model: nn.Module, rows: TaskRows, facts: Facts) -> list[str]:
        """The answers, as they are scored."""
        texts: list[str] = []
        for part, how in in_parts(len(rows), self.usual(facts)):
            begun = self.begun(model, rows.select(torch.tensor(part)), facts)
            texts += texts_of(begun, room_for(begun.model, facts.spec.answer_tokens), how, ending(facts))
        return texts


class ContinuingTask(WritingTask):
    """A task whose answers stand behind what was asked, in one row: tokens (N, T), of which `prefix` (N,) are asked."""

    reads = "text"
    reads_prefix_whole: ClassVar[bool]
    """Whether the tokens that are asked read each other both ways, as a prefix language model's do."""

    def questions(self, items: Sequence[str | Tensor], facts: Facts) -> TaskRows:
        """Texts to go on with."""
        rows = [facts.text.encode(cast(str, item)).ids or [END_ID] for item in items]
        tokens, segment = padded_rows(rows)
        prefix = torch.tensor([len(row) for row in rows])
        return TaskRows({"tokens": tokens, "segment": segment, "prefix": prefix}, ["asked"] * len(rows))

    def begun(self, model: nn.Module, rows: TaskRows, facts: Facts) -> Begun:
        """The prefixes."""
        lengths = rows.tensors["prefix"].tolist()
        prompts = [row[:length] for row, length in zip(rows.tensors["tokens"].tolist(), lengths, strict=True)]
        return Begun(cast(Model, model), prompts, prefix=self.reads_prefix_whole)


class Answering(Captioning):
    """Write the text that belongs to another one, token by token."""

    def prepare(self, batch: Mapping[str, Tensor], seed: int) -> Example:
        """The other text as source; the answer, moved by one, as input and label.

        Args:
            batch: source and source_segment (N, S), tokens and segment (N, L), sample (N,).
        """
        example = super().prepare({**batch, "values": batch["source"]}, seed)
        inputs = {**example.inputs, "source_layout": source_layout(batch)}
        return replace(example, inputs=inputs)


def compared(texts: Sequence[str], references: Sequence[str]) -> dict[str, Any]:
    """What texts have in common with their references, as sums."""
    pairs = list(zip(texts, references, strict=True))
    letters = torch.tensor([letter_counts(text, reference) for text, reference in pairs]).sum(dim=0)
    return {
        "letters": letters.tolist(),
        "exact": sum(text.strip() == reference.strip() for text, reference in pairs),
        "rows": len(pairs),
        "word_errors": sum(word_errors(text, reference) for text, reference in pairs),
        "words": sum(len(reference.split()) for reference in references),
        "bytes": sum(len(reference.encode()) for reference in references),
    }


def begun_beside(model: nn.Module, sources: Any, layout: Layout | None, tokenizer: Tokenizer) -> Begun:
    """Texts that an encoder-decoder begins beside a batch of sources, which are encoded here."""
    both = cast(EncoderDecoder, model)
    prompts = [[start_id(tokenizer)]] * len(sources)
    return Begun(both.decoder, prompts, remember(both, sources, layout))


def room_for(model: Model, tokens: int) -> int:
    """So many tokens, or as many as a model can write behind one."""
    return min(tokens, cast(TokenStem, model.stem).context_tokens - 1)


def ending(facts: Facts) -> Ending:
    """How tokens of a task's answers become texts."""
    return Ending(END_ID, facts.text.decode)


def source_layout(batch: Mapping[str, Tensor]) -> Layout:
    """Where the tokens of sources stand, side by side and padded behind."""
    segment = batch["source_segment"]
    return Layout(place_in_segment(segment), segment)


def padded_rows(rows: Sequence[Sequence[int]]) -> tuple[Tensor, Tensor]:
    """(N, T) tokens and segments of rows of unequal length."""
    tensors = [torch.tensor(row, dtype=torch.int64) for row in rows]
    return padded(tensors, 0), padded([torch.zeros_like(row) for row in tensors], PADDING)
