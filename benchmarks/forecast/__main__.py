"""What `foundation plan --cluster` says, held against trainings: `python -m benchmarks.forecast`.

    --memory      live tensor bytes and pages of each rank: ZeRO 0 to 3, 1 and 2 ranks, two models, both number formats
    --time        seconds of a step of three models on two ranks, by the file of this machine
    --calibrate   fits that file's figures to three other models, and prints the lines
    --published   tokens a second beside what others measured on 8 to 64 H100s

Without one of these: memory, time and published. Each line has the forecast, what was measured, the error; the bar is
15%, and 1 comes back if it is missed. The ranks are real: DeepSpeed engines over gloo in processes of their own, one
thread each. Time means something on a machine that nobody else uses.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

from benchmarks.forecast import published
from benchmarks.forecast.group import run_ranks
from benchmarks.forecast.ranks import Case
from cluster.cluster_file import load_cluster
from cluster.projection import Training, project
from foundation_core.cost.memory import memory_of
from foundation_core.specs import PretrainSpec
from foundation_core.specs.cluster import ClusterSpec

BAR = 0.15
ROOT = Path(__file__).parents[2]
NODE, HERE = ROOT / "infra/clusters/h100_node.yaml", ROOT / "infra/clusters/two_cores.yaml"
RANKS = 2


class Model(NamedTuple):
    """A decoder, and the micro-batch of a rank."""

    width: int
    depth: int
    heads: int
    vocabulary: int
    context_tokens: int
    rows: int

    def training(self, precision: str, engine: str, zero_stage: int, ranks: int) -> Training:
        """That of so many ranks."""
        trunk = {"width": self.width, "depth": self.depth, "heads": self.heads}
        body = {
            "model": {"context_tokens": self.context_tokens, "trunk": trunk}, "batch_rows": self.rows * ranks,
            "micro_batch_rows": self.rows, "workers": ranks, "precision": precision, "engine": engine,
            "zero_stage": zero_stage,
        }  # fmt: skip
        return Training.of(PretrainSpec.model_validate(body), self.vocabulary)

    def __str__(self) -> str:
        return f"{self.width} x {self.depth}, V {self.vocabulary}, {self.rows} x {self.context_tokens}"


MEASURED = (Model(256, 4, 4, 4096, 128, 4), Model(384, 6, 6, 8192, 256, 8))
FITTED = (Model(128, 6, 4, 8192, 128, 16), Model(256, 4, 4, 4096, 256, 8), Model(512, 4, 8, 4096, 256, 4))
PREDICTED = (Model(384, 6, 6, 8192, 256, 8), Model(320, 4, 5, 2048, 512, 4), Model(640, 6, 10, 8192, 256, 4))
TINY = (Model(64, 2, 2, 512, 32, 2),)


def main() -> int:
    """Measure and print; 1 if an error is larger than the bar."""
    arguments = _arguments()
    if arguments.calibrate:
        _calibrate(TINY * 2 if arguments.tiny else FITTED, arguments.steps)
        return 0
    asked = {name for name in ("memory", "time", "published") if getattr(arguments, name)}
    errors = list[float]()
    if "memory" in asked or not asked:
        errors += _memory(TINY if arguments.tiny else MEASURED)
    if "time" in asked or not asked:
        errors += _time(TINY if arguments.tiny else PREDICTED, arguments.steps)
    if "published" in asked or not asked:
        published.report(load_cluster(NODE))
    if errors:
        print(f"largest error {max(errors):.1%}; bar {BAR:.0%} {'met' if max(errors) <= BAR else 'MISSED'}")
    return int(not arguments.tiny and max(errors, default=0.0) > BAR)


def _memory(models: Sequence[Model]) -> Iterator[float]:
    """The errors of state and activations. Pages are shown alone: malloc keeps some, and libraries take some."""
    print("memory of a rank, MB                     ranks  format   engine   state  forecast   error"
          "   saved  forecast   error   pages  forecast")  # fmt: skip
    for ranks in (1, RANKS):
        # ZeRO 3 last: from then on DeepSpeed's own linear layer takes the place of torch's in the whole process
        ways = ([("torch", 0)] if ranks == 1 else []) + [("deepspeed", stage) for stage in range(4)]
        trainings = [
            (model, model.training(precision, engine, stage, ranks))
            for engine, stage in ways
            for model in models
            for precision in ("float32", "bf16")
        ]
        run = run_ranks([Case(one.spec.model_dump_json(), one.vocabulary, 0) for _, one in trainings], ranks)
        for (model, training), measured in zip(trainings, run.cases, strict=True):
            yield from _memory_line(model, training, measured)


def _memory_line(model: Model, training: Training, measured: list[dict[str, Any]]) -> Iterator[float]:
    spec = training.spec
    said = memory_of(spec, training.size, training.vocabulary, training.places, fused_attention=False)
    state = max(rank["backward"] for rank in measured)
    # what a forward pass saves does not depend on who holds the weights; under ZeRO 3 gathered ones are counted in
    saved, kept = max(rank["saved"] for rank in measured), said.activations + _saved_logits(training)
    pages = max(rank["pss"] for rank in measured)
    peak = said.weights + said.optimizer + max(said.gradients + said.buffers, said.activations + said.logits)
    engine = "torch" if spec.engine == "torch" else f"ZeRO {spec.zero_stage}"
    counts = not (spec.zero_stage == 3 and spec.engine == "deepspeed")
    print(
        f"{model!s:<40}{spec.workers:>6}  {spec.precision:<9}{engine:<7}{_line(state, said.state)}"
        f"{_line(saved, kept) if counts else ' ' * 26}{pages / 1e6:>8.1f}{peak / 1e6:>10.1f}",
        flush=True,
    )
    yield abs(said.state / state - 1)
    if counts:
        yield abs(kept / saved - 1)


def _saved_logits(training: Training) -> int:
    return 4 * training.spec.micro_batch_rows * training.places * training.vocabulary


def _line(measured: float, said: float) -> str:
    return f"{measured / 1e6:>8.1f}{said / 1e6:>10.1f}{said / measured - 1:>+8.1%}"


def _time(models: Sequence[Model], steps: int) -> Iterator[float]:
    cluster = load_cluster(HERE)
    print(f"a step of {RANKS} ranks, s                                format   engine   measured  forecast   error")
    trainings = [
        (model, model.training(precision, "deepspeed", stage, RANKS))
        for model in models
        for precision in ("bf16", "float32")
        for stage in (1, 3)
    ]
    run = run_ranks([Case(one.spec.model_dump_json(), one.vocabulary, steps) for _, one in trainings], RANKS)
    for (model, training), measured in zip(trainings, run.cases, strict=True):
        spec = training.spec
        choice = project(training, cluster, engine="deepspeed", zero_stage=spec.zero_stage, recomputed=False)
        seconds, said = median(measured[0]["seconds"]), choice.step.total
        figures = f"{seconds:>12.3f}{said:>10.3f}{said / seconds - 1:>+8.1%}"
        print(f"{model!s:<52}{spec.precision:<9}ZeRO {spec.zero_stage}{figures}", flush=True)
        yield abs(said / seconds - 1)


def _calibrate(models: Sequence[Model], steps: int) -> None:
    """Print the fitted lines of a cluster file, of plain engines side by side: they share the memory's speed."""
    fraction, speeds = dict[str, float](), dict[str, float]()
    bandwidth = list[float]()
    trainings = {name: [model.training(name, "torch", 0, 1) for model in models] for name in ("bf16", "float32")}
    cases = [Case(one.spec.model_dump_json(), one.vocabulary, steps) for row in trainings.values() for one in row]
    run = run_ranks(cases, RANKS)
    seconds = [
        median(max(step) for step in zip(*(rank["seconds"] for rank in case), strict=True)) for case in run.cases
    ]
    for number, (name, row) in enumerate(trainings.items()):
        took = seconds[number * len(models) : (number + 1) * len(models)]
        work = [_work(training) for training in row]
        speed, moved = _fit(work, took)
        speeds[name], fraction[name] = run.rates[name], speed / run.rates[name]
        bandwidth.append(moved)
        for model, (flops, size), second in zip(models, work, took, strict=True):
            print(f"# {model!s:<44}{name:<9}{second:.3f} s, fitted {flops / speed + size / moved:.3f} s")
    print("peak_flops_per_second: {" + ", ".join(f"{name}: {value:.3e}" for name, value in speeds.items()) + "}")
    print("achievable_fraction: {" + ", ".join(f"{name}: {value:.3f}" for name, value in fraction.items()) + "}")
    print(f"memory_bytes_per_second: {median(bandwidth):.2e}")
    print(f"inside.bytes_per_second: {run.rates['exchange']:.2e}")


def _work(training: Training) -> tuple[float, float]:
    """FLOPs and moved bytes of a step of one rank, as `step_time` counts them: at one of each a second."""
    body = load_cluster(HERE).model_dump()
    body |= {"cards_per_node": 1}
    body["card"] |= {
        "peak_flops_per_second": {"bf16": 1.0, "float32": 1.0},
        "achievable_fraction": {"bf16": 1.0, "float32": 1.0}, "memory_bytes_per_second": 1.0,
    }  # fmt: skip
    unit = ClusterSpec.model_validate(body)
    step = project(training, unit, engine="torch", zero_stage=0, recomputed=False).step
    return step.products, step.memory


def _fit(work: Sequence[tuple[float, float]], seconds: Sequence[float]) -> tuple[float, float]:
    """FLOP/s and bytes a second, by least squares of the relative errors; both positive."""
    rows = [(flops / second, moved / second) for (flops, moved), second in zip(work, seconds, strict=True)]
    aa, bb = sum(a * a for a, _ in rows), sum(b * b for _, b in rows)
    ab, a1, b1 = sum(a * b for a, b in rows), sum(a for a, _ in rows), sum(b for _, b in rows)
    determinant = aa * bb - ab * ab
    if determinant > 1e-9 * aa * bb:
        per_flop, per_byte = (a1 * bb - b1 * ab) / determinant, (aa * b1 - ab * a1) / determinant
        if per_flop > 0 and per_byte > 0:
            return 1 / per_flop, 1 / per_byte
    return aa / a1, float("inf")  # moving bytes explains nothing


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.forecast", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    for name in ("memory", "time", "published", "calibrate"):
        parser.add_argument(f"--{name}", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--steps", type=int, default=7, help="steps that are timed, after two that warm up")
    parser.add_argument("--tiny", action="store_true", help="sizes that only show that everything runs")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
