"""Greedy generation through the cache, ours beside `transformers`' `generate` with its default cache: same weights.

A compiled step is made in the warm-up if the machine has none yet: that is done once, and takes its time then.

A row is void unless both sides write what their logits say: each token must be the best by the same model without a
cache in float32, or so close to it that rounding decides.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, NamedTuple
from unittest import mock

import torch
import transformers
from torch import Tensor, nn

from benchmarks.core.text import LAYER, gpt2_config, llama_sizes, our_model
from benchmarks.core.timing import Clock, Comparison, compare
from benchmarks.core.train import Size
from foundation_core.generation import packed, writers
from foundation_core.generation.generate import generate
from foundation_core.generation.sampling import Sampling
from foundation_core.interop.language import GPT2, LLAMA
from foundation_core.interop.mapping import Table, to_ours
from foundation_core.model.transformer import Model

BAR = 2.0
LOSSES = {torch.float32: 1e-3, torch.bfloat16: 0.1}
"""How much worse than the best logit a chosen one may be, in standard deviations of the logits. Measured with GPT-2's
layers: 0 and 0.021."""
GREEDY = Sampling(temperature=0)


class Case(NamedTuple):
    """What is asked.

    Args:
        prompt: tokens of it.
        new: tokens that are written.
    """

    size: Size = Size(width=384, depth=6, heads=6)
    prompt: int = 64
    new: int = 256


TINY = Case(Size(width=32, depth=1, heads=2, vocabulary=64), prompt=4, new=6)


class Row(NamedTuple):
    """A line of the table.

    Args:
        lost: how far the worst choice of either side is from the best, in standard deviations of the logits.
    """

    name: str
    dtype: torch.dtype
    rows: int
    new: int
    times: Comparison
    lost: float

    @property
    def void(self) -> bool:
        """Whether a side writes something else than its logits say."""
        return not self.lost <= LOSSES[self.dtype]

    @property
    def ratio(self) -> float:
        """Tokens a second, ours over theirs."""
        return 1 / self.times.ratio

    @property
    def met(self) -> bool:
        """Whether it is fast enough, and right."""
        return self.ratio >= BAR and not self.void

    def line(self) -> str:
        """As it is printed."""
        high, low = (1 / quartile for quartile in self.times.quartiles)
        verdict = "VOID" if self.void else "met" if self.met else "MISSED"
        speeds = "".join(f"{self.rows * self.new / sorted(side)[len(side) // 2]:10,.0f}" for side in self.times)
        name = f"{self.name}, {str(self.dtype).removeprefix('torch.')}, batch {self.rows}"
        return f"{name:<34} {speeds} {self.ratio:8.2f} ({low:.2f} to {high:.2f})  {self.lost:8.1e}  {verdict}"


HEADER = (
    f"{'cached generation, tokens/s':<34} {'ours':>10}{'theirs':>10} {'ratio':>8} {'(quartiles)':<15}  {'lost':>8}"
    f"  bar {BAR}"
)


def sides(case: Case) -> dict[str, Callable[[], tuple[nn.Module, Model, Table]]]:
    """Theirs, ours and the table between them, by name."""
    size = replace(case.size, tokens=case.prompt + case.new)
    llama = transformers.LlamaConfig(**llama_sizes(size))
    return {
        "GPT-2": lambda: (transformers.GPT2LMHeadModel(gpt2_config(size)), our_model(size, **LAYER), GPT2),
        "Llama": lambda: (
            transformers.LlamaForCausalLM(llama),
            our_model(size, tied=False, feed="swiglu"),
            LLAMA,
        ),
    }


def measure(name: str, case: Case, dtype: torch.dtype, rows: int, pairs: int, clock: Clock) -> Row:
    """The line of a pair of models."""
    theirs, ours, table = sides(case)[name]()
    ours.load_state_dict(to_ours(theirs.state_dict(), table))
    exact = to_ours(theirs.to(dtype).float().state_dict(), table)
    theirs, ours = theirs.to(dtype).eval(), ours.to(dtype).eval()
    theirs.generation_config.eos_token_id = None  # neither side ends early
    generator = torch.Generator().manual_seed(0)
    prompt = torch.randint(1, case.size.vocabulary, (rows, case.prompt), generator=generator)

    def by_us() -> list[list[int]]:
        return generate(ours, prompt.tolist(), case.new, GREEDY)

    def by_them() -> list[list[int]]:
        whole: Any = theirs.generate(
            prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=case.new, do_sample=False, pad_token_id=0
        )  # fmt: skip
        written: list[list[int]] = whole[:, case.prompt :].tolist()
        return written

    with written_by(compiled=True):
        times = compare(by_us, by_them, pairs, clock)
        written = [by_us(), by_them()]
    ours = ours.float()
    ours.load_state_dict(exact)
    return Row(name, dtype, rows, case.new, times, max(lost(ours, prompt, torch.tensor(side)) for side in written))


@contextmanager
def written_by(compiled: bool) -> Iterator[None]:
    """A compiled step however little is written, or never."""
    worth = 0 if compiled else sys.maxsize
    with mock.patch.multiple(writers, WORTH_LOADING=worth, WORTH_COMPILING=worth):
        yield


class Profile(NamedTuple):
    """Milliseconds of a step of ours, the reading of the prompt shared out among the steps.

    Args:
        compiled: of a compiled step.
        plain: of a step by the model itself.
        products: of its products alone, one after the other.
        rest: of a step whose products are replaced by zeros that are there already.
    """

    compiled: float
    plain: float
    products: float
    rest: float

    def line(self) -> str:
        """As it is printed."""
        alone = f"its products alone {self.products:.2f}, all else alone {self.rest:.2f}"
        return f"    a step takes {self.compiled:.2f} ms; by the model itself {self.plain:.2f}: {alone}"


def profile(name: str, case: Case, dtype: torch.dtype, rows: int, clock: Clock) -> Profile:
    """Where the time of a step goes."""
    _, ours, _ = sides(case)[name]()
    ours = ours.to(dtype).eval()
    prompt = torch.ones(rows, case.prompt, dtype=torch.int64).tolist()
    asked = list[tuple[packed.Joint, Tensor]]()
    zeros = dict[tuple[int, ...], Tensor]()
    product = packed.Joint.__call__

    def note(self: packed.Joint, x: Tensor) -> Tensor:
        asked.append((self, x))
        return product(self, x)

    def nothing(self: packed.Joint, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], sum(self.features))
        if shape not in zeros:
            zeros[shape] = torch.zeros(shape, dtype=x.dtype)
        return zeros[shape]

    def seconds(call: Callable[[], Any]) -> float:
        return min(_timed(call, clock) for _ in range(3))

    def write() -> None:
        generate(ours, prompt, case.new, GREEDY)

    with written_by(compiled=True):
        compiled = seconds(write)
    with written_by(compiled=False):
        plain = seconds(write)
        with mock.patch.object(packed.Joint, "__call__", note):
            generate(ours, prompt, 2, GREEDY)
        last_step = asked[len(asked) // 2 :]
        with torch.inference_mode():
            products = seconds(lambda: [product(joint, x) for _ in range(case.new) for joint, x in last_step])
        with mock.patch.object(packed.Joint, "__call__", nothing):
            rest = seconds(write)
    return Profile(*(1e3 * of / case.new for of in (compiled, plain, products, rest)))


def _timed(call: Callable[[], Any], clock: Clock) -> float:
    start = clock()
    call()
    return clock() - start


@torch.no_grad()
def lost(model: Model, prompt_BT: Tensor, written_BN: Tensor) -> float:
    """How far the worst of the written tokens is from the best one, in standard deviations of the logits."""
    logits_BNV = model(torch.cat([prompt_BT, written_BN[:, :-1]], dim=1))[:, prompt_BT.shape[1] - 1 :]
    chosen_BN = logits_BNV.take_along_dim(written_BN[..., None], dim=-1)[..., 0]
    return ((logits_BNV.amax(dim=-1) - chosen_BN).max() / logits_BNV.std()).item()
