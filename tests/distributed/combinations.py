"""Every pair of choices in a few short trainings, and the record that the table in docs/engines.md is made of.

the product of the choices -> allowed by cluster/compatibility.py -> covering set -> two ranks -> docs/engines.json

python -m tests.distributed.combinations            run the set, record it, write the table into docs/engines.md
python -m tests.distributed.combinations compiled   what needs a compiler alone

A training that ends with an error is recorded with it, counted as failed in the table, and has the command end with 1.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import combinations, product
from pathlib import Path
from typing import Any

from cluster.compatibility import RULES, conflicts
from cluster.embedded import free_port
from foundation_core.specs import OptimizerSpec, PretrainSpec
from foundation_core.train.engine import TorchEngine
from tests.distributed.engines import SAVED_AFTER, STEPS, Case
from tests.golden.test_decoder_losses import ROWS

REPOSITORY = Path(__file__).parents[2]
RECORD = REPOSITORY / "docs" / "engines.json"
PAGE = REPOSITORY / "docs" / "engines.md"
BEGIN, END = "<!-- made by tests/distributed/combinations.py -->", "<!-- end -->"

ENGINES = ("torch", "deepspeed 0", "deepspeed 1", "deepspeed 2", "deepspeed 3")
CHOICES: Mapping[str, Sequence[Any]] = {
    "engine": ENGINES,
    "resumed_by": ENGINES,
    "optimizer": ("adamw", "muon", "cpu_adam"),
    "precision": ("float32", "bf16"),
    "family": ("prefix", "mixture", "dual_encoder", "encoder", "encoder_decoder", "vision", "captioner"),
    "offload_optimizer": (False, True),
    "activation_checkpointing": (False, True),
    "compile": (False, True),
    "accumulation": (False, True),
}
Combination = dict[str, Any]
"""A choice for each name of `CHOICES`."""
NEEDS_COMPILER = {"compile": True, "optimizer": "cpu_adam"}
ROWS_OF_A_RANK = 4
_LR = 5e-3


def spec_of(combination: Combination, role: str = "engine") -> dict[str, Any]:
    """The fields of a PretrainSpec.

    Args:
        role: of whose: engine, which trains first, or resumed_by, which takes its state over.
    """
    engine, _, stage = combination[role].partition(" ")
    return {
        "engine": engine,
        "zero_stage": int(stage or 0),
        "optimizer": {"kind": combination["optimizer"], "lr": _LR},
        "micro_batch_rows": 1 if combination["accumulation"] else ROWS_OF_A_RANK,
        **{
            name: combination[name]
            for name in ("precision", "offload_optimizer", "activation_checkpointing", "compile")
        },
    }


def name_of(combination: Combination) -> str:
    """A name that tells the choices."""
    return "-".join(f"{name}" if value is True else str(value) for name, value in combination.items() if value).replace(
        " ", ""
    )


def allowed() -> Iterator[Combination]:
    """Every combination of two engines that differ, neither of which a rule forbids."""
    for values in product(*CHOICES.values()):
        combination = dict(zip(CHOICES, values, strict=True))
        engines = (spec_of(combination, role) for role in ("engine", "resumed_by"))
        if values[0] != values[1] and not any(_refused(json.dumps(spec)) for spec in engines):
            yield combination


@cache
def _refused(spec: str) -> bool:
    return bool(conflicts(PretrainSpec.model_validate_json(spec)))


def needs_compiler(combination: Combination) -> bool:
    """Whether something in it is made into machine code on the machine."""
    return any(combination[name] == value for name, value in NEEDS_COMPILER.items())


def pairs_of(combination: Combination) -> set[tuple[Any, ...]]:
    """Every two choices of a combination."""
    return {(one, combination[one], other, combination[other]) for one, other in combinations(combination, 2)}


def covering_set(candidates: Sequence[Combination], before: Sequence[Combination] = ()) -> list[Combination]:
    """Candidates that together have every pair of choices that any of them has; the one with most new pairs first.

    Args:
        before: combinations whose pairs need not come again.
    """
    pairs = [(candidate, pairs_of(candidate)) for candidate in candidates]
    missing = set().union(*(found for _, found in pairs)).difference(*(pairs_of(each) for each in before))
    chosen = []
    while missing:
        best, covered = max(pairs, key=lambda pair: len(pair[1] & missing))
        chosen.append(best)
        missing -= covered
    return chosen


def run(chosen: Sequence[Combination], folder: Path, **environment: str) -> dict[str, Any]:
    """What two ranks made of each combination, by its name."""
    cases = {
        name_of(each): {**spec_of(each), **{key: each[key] for key in ("family", "resumed_by")}} for each in chosen
    }
    (folder / "cases.json").write_text(json.dumps(cases))
    common = {**os.environ, "WORLD_SIZE": "2", "LOCAL_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "OMP_NUM_THREADS": "1"}
    common |= {"MASTER_PORT": str(free_port()), **environment}
    command = [sys.executable, "-m", "tests.distributed.engines", str(folder), str(folder / "cases.json")]
    logs = [folder / f"rank-{rank}.log" for rank in range(2)]
    ranks = []
    for rank, log in enumerate(logs):
        with open(log, "wb") as sink:
            own = {**common, "RANK": str(rank), "LOCAL_RANK": str(rank)}
            ranks.append(subprocess.Popen(command, env=own, cwd=REPOSITORY, stdout=sink, stderr=subprocess.STDOUT))
    try:
        status = [rank.wait() for rank in ranks]
    finally:
        for rank in ranks:
            rank.kill()
    assert status == [0, 0], "\n".join(log.read_text()[-4000:] for log in logs)
    found: dict[str, Any] = json.loads((folder / "outcomes.json").read_text())
    return found


def reference(combination: Combination, known: dict[tuple[str, str], list[float]]) -> list[float]:
    """The losses of the plain engine, alone and in float32, with the same optimizer.

    Args:
        known: those that were computed before, by optimizer and family.
    """
    kind = "adamw" if combination["optimizer"] == "cpu_adam" else combination["optimizer"]
    key = (kind, combination["family"])
    if key not in known:
        spec = PretrainSpec(
            engine="torch", optimizer=OptimizerSpec(kind=kind, lr=_LR), precision="float32", micro_batch_rows=ROWS
        )
        case = Case(spec, combination["family"])
        known[key] = case.losses(case.engine(TorchEngine), 0, STEPS)
    return known[key]


def relative(found: Sequence[float], expected: Sequence[float]) -> float:
    """The largest relative difference."""
    return max(abs(one - other) / abs(other) for one, other in zip(found, expected, strict=True))


def record(chosen: Sequence[Combination], outcomes: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A line for each combination: its choices, and how far its losses and those after both resumes are off.

    One that did not run to its end has the error in their place.
    """
    known: dict[tuple[str, str], list[float]] = {}
    lines = []
    for combination in chosen:
        outcome = outcomes.get(name_of(combination), {"error": "it was not reached"})
        if "error" in outcome:
            lines.append({**combination, "error": outcome["error"]})
            continue
        rest = outcome["losses"][SAVED_AFTER:]
        off = {
            "losses_off": relative(outcome["losses"], reference(combination, known)),
            "resumed_off": relative(outcome["resumed"], rest),
            "taken_over_off": relative(outcome["taken_over"], rest),
        }
        lines.append({**combination, **{name: float(f"{value:.2g}") for name, value in off.items()}})
    return lines


def failed(lines: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """The lines of what did not run to its end."""
    return [line for line in lines if "error" in line]


def tables(lines: Sequence[Mapping[str, Any]]) -> str:
    """The part of the page that is made of a record and of the rules."""
    rows = [f"| | {' | '.join(ENGINES)} |", f"| --- |{' --- |' * len(ENGINES)}"]
    for name, values in CHOICES.items():
        for value in values if name != "engine" else ():
            if value is not False:
                cells = [_cell(lines, engine, name, value) for engine in ENGINES]
                rows.append(f"| {_label(name, value)} | {' | '.join(cells)} |")
    rules = [f"{number}. {' with '.join(rule.choices)}: {rule.reason}." for number, rule in enumerate(RULES, start=1)]
    return "\n".join([*rows, "", _figures(lines), "", *rules])


def _figures(lines: Sequence[Mapping[str, Any]]) -> str:
    ran = [line for line in lines if "error" not in line]

    def most(name: str, precision: str) -> float:
        return max((line[name] for line in ran if line["precision"] == precision and name in line), default=0.0)

    exact = sum(line["resumed_off"] == 0 for line in ran)
    taken = sum("taken_over_off" in line for line in ran)
    same = max((line["resumed_off"] for line in ran), default=0.0)
    return (
        f"{len(ran)} trainings ran and {len(failed(lines))} failed. Losses against those of plain torch in one process"
        f" and in float32: off by at most {most('losses_off', 'float32'):.1e} in float32, and by at most"
        f" {most('losses_off', 'bf16'):.1e} in bf16. Resumed by a new engine of the same kind, losses were equal to the"
        f" last bit in {exact} of {len(ran)}, and off by at most {same:.1e}; {taken} of them were taken over by another"
        f" one too: off by at most {most('taken_over_off', 'float32'):.1e} in float32, and by at most"
        f" {most('taken_over_off', 'bf16'):.1e} in bf16."
    )


def _label(name: str, value: Any) -> str:
    if name == "resumed_by":
        return f"taken over by {value}"
    return f"`{name}`" if value is True else f"{name} `{value}`"


def _cell(lines: Sequence[Mapping[str, Any]], engine: str, name: str, value: Any) -> str:
    both = [line for line in lines if line["engine"] == engine]
    if name != "resumed_by" or value != engine:  # each is resumed by its own kind too
        both = [line for line in both if line.get(name) == value]
    if failures := len(failed(both)):
        return f"{len(both) - failures}, {failures} failed"
    if both:
        return str(len(both))
    usual = {each: values[0] for each, values in CHOICES.items()}
    broken = conflicts(PretrainSpec(**spec_of({**usual, "engine": engine, name: value})))
    return f"refused ({RULES.index(broken[0]) + 1})" if broken else "not run"


def main(part: str = "") -> int:
    """Run the set or a part of it, record it and write the page's tables; 1 if anything failed.

    Args:
        part: plain (no compiler), or compiled; of the other one what is recorded stays. Empty: both.
    """
    everything, recorded = list(allowed()), json.loads(RECORD.read_text())
    chosen = {"plain": covering_set([each for each in everything if not needs_compiler(each)])}
    chosen["compiled"] = covering_set([each for each in everything if needs_compiler(each)], chosen["plain"])
    lines = {
        name: [line for line in recorded if {key: line.get(key) for key in CHOICES} in those]
        for name, those in chosen.items()
    }
    for name in [part] if part else chosen:
        with tempfile.TemporaryDirectory() as folder:
            lines[name] = record(chosen[name], run(chosen[name], Path(folder)))
        write([*lines["plain"], *lines["compiled"]])
        for line in failed(lines[name]):
            print(f"failed: {name_of({key: line[key] for key in CHOICES})}: {line['error']}")
        print(f"{name}: {len(lines[name])} trainings, {len(failed(lines[name]))} failed", flush=True)
    return 1 if failed([*lines["plain"], *lines["compiled"]]) else 0


def write(lines: Sequence[Mapping[str, Any]]) -> None:
    """Put a record and its tables into the docs."""
    RECORD.write_text("[\n" + ",\n".join(json.dumps(line) for line in lines) + "\n]\n")
    before, _, rest = PAGE.read_text().partition(BEGIN)
    PAGE.write_text(f"{before}{BEGIN}\n{tables(lines)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
