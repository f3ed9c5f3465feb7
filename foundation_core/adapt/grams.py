"""A language model by counting: what a text costs, and how it goes on, by the bytes that came together before.

Legend: a context is 0 to `CONTEXT_BYTES` bytes, a gram is a context and the byte behind it.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

from foundation_core.adapt.tasks import Tally, Task, TaskData, TaskRows
from foundation_core.adapt.transfer import Pretrained
from foundation_core.adapt.write import compared

CONTEXT_BYTES = 5


class GramModel:
    """Counts of grams of some texts, interpolated from the longest context to none.

    p(b | c) = (count(cb) + kinds(c) p(b | c without its first byte)) / (count(c) + kinds(c)), where kinds(c) is how
    many different bytes came behind c, and 1 / 256 stands below the empty context. Source: Witten and Bell 1991, method
    C, as Chen and Goodman 1999 interpolate it, section 2.6.
    """

    def __init__(self, texts: Iterable[bytes], context_bytes: int = CONTEXT_BYTES) -> None:
        self.context_bytes = context_bytes
        self._grams = Counter[bytes]()
        for text in texts:
            for size in range(1, context_bytes + 2):
                self._grams.update(text[start : start + size] for start in range(len(text) - size + 1))
        self._counts, self._kinds, self._usual = Counter[bytes](), Counter[bytes](), dict[bytes, bytes]()
        for gram, count in sorted(self._grams.items()):
            context = gram[:-1]
            self._counts[context] += count
            self._kinds[context] += 1
            if context not in self._usual or count > self._grams[self._usual[context]]:
                self._usual[context] = gram

    def probability(self, context: bytes, byte: bytes) -> float:
        """Of a byte behind a context."""
        probability = 1 / 256
        longest = min(self.context_bytes, len(context))
        for size in range(longest + 1):
            seen = context[len(context) - size :]
            kinds = self._kinds[seen]
            if not kinds:
                break  # nor has any longer one come
            probability = (self._grams[seen + byte] + kinds * probability) / (self._counts[seen] + kinds)
        return probability

    def nats(self, text: bytes, before: bytes) -> float:
        """What a text costs behind another one."""
        whole, first = before + text, len(before)
        return -math.fsum(
            math.log(self.probability(whole[max(0, place - self.context_bytes) : place], whole[place : place + 1]))
            for place in range(first, len(whole))
        )

    def continued(self, before: bytes, most_bytes: int) -> bytes:
        """What comes behind a text: each time the byte that came most often behind the longest known context."""
        text = bytearray(before)
        for _ in range(most_bytes):
            contexts = (bytes(text[len(text) - size :]) for size in range(min(self.context_bytes, len(text)), -1, -1))
            usual = next((self._usual[context] for context in contexts if context in self._usual), b"")
            text += usual[-1:]
        return bytes(text[len(before) :])


class ByteGrams:
    """A model of grams, of the same training rows."""

    label = f"{CONTEXT_BYTES + 1}-grams of bytes"

    def answer(self, task: Task, data: TaskData, train: TaskRows, trunk: Pretrained) -> Tally:
        """What the test's texts cost, and what they have in common with those that counting writes, as long as they."""
        model = GramModel(
            (prompt + reference).encode() for prompt, reference in zip(train.prompts, train.references, strict=True)
        )
        pairs = [
            (prompt.encode(), reference.encode())
            for prompt, reference in zip(data.test.prompts, data.test.references, strict=True)
        ]
        nats = math.fsum(model.nats(reference, prompt) for prompt, reference in pairs)
        written = [model.continued(prompt, len(reference)).decode(errors="replace") for prompt, reference in pairs]
        tally = compared(written, data.test.references)
        return {**tally, "nats": nats, "labels": tally["bytes"]}
