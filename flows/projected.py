"""What a recipe takes on a cluster, as people read it, and for a script."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict

from cluster.projection import Choice, Training
from flows.planned import duration
from foundation_core.cost.size import size_told
from foundation_core.specs.cluster import ClusterSpec

PARTS = ("weights", "gradients", "optimizer", "activations", "logits", "buffers")


def choice_lines(found: Sequence[Choice], best: Choice) -> list[str]:
    """The table of all ways to train; the best is marked."""
    unit, name = (1e9, "GB") if max(choice.memory.total for choice in found) >= 1e9 else (1e6, "MB")
    parts = "".join(f"{part:>12}" for part in PARTS)
    head = f"  {'a card, in ' + name:<19}{parts}{'needed':>9}{'free':>9}"
    head += f"{'step':>10}{'tokens/s':>13}{'utilised':>10}{'time':>9}"
    lines = [head, *(_line(choice, choice is best, unit) for choice in found)]
    if any(choice.recomputed for choice in found):
        lines.append("  recomputed: --pretrain.activation_checkpointing true; blocks keep their inputs alone")
    return lines


def fact_rows(training: Training, cluster: ClusterSpec, best: Choice) -> list[tuple[str, str]]:
    """What the best way takes as a whole."""
    spec, step = training.spec, best.step
    hidden = f", {step.exchange - step.waiting:.3g} s of them hidden" if step.waiting < step.exchange else ""
    notice, save = cluster.preemption_notice_seconds, best.checkpoint_seconds
    verdict = "no notice of preemption to save in" if not notice else f"notice of preemption: {duration(notice)}"
    if notice:
        enough = "enough" if best.leaving_seconds <= notice else "TOO SHORT"
        verdict += f", {enough} for the rest of a step and the save, up to {best.leaving_seconds:.3g} s"
        verdict += "" if enough == "enough" else ": what was done since the last save is lost"
    tokens, rows_each = best.steps * spec.batch_rows * training.places, spec.batch_rows / cluster.ranks
    ended = f" of {spec.steps:,}, until a budget is used up," if best.steps < spec.steps else ""
    offloaded = (
        f"{best.host_bytes / 1e9:,.3g} GB of a card's optimizer state in its host's memory; the time to move it is"
    )
    offloaded += " not in the step's"
    return [
        ("cluster", f"{cluster.name}: {cluster.ranks:,} x {cluster.card.name}"),
        ("parameters", size_told(best.parameters, best.active_parameters)),
        ("trained on", f"{tokens:,} tokens: {best.steps:,} steps{ended} of {spec.batch_rows:,} rows,"
         f" {rows_each:.4g} a card"),
        ("recommended", f"{best.name}: the fastest that fits"),
        ("step", f"{step.products:.3g} s products + {step.memory:.3g} s memory + {step.waiting:.3g} s waiting for the"
         f" exchange ({step.exchange:.3g} s{hidden})"),
        ("time", f"{_time(best.days)}, {best.days * 24 * cluster.ranks:,.1f} card hours; no saves, no interruptions"),
        *([("offloaded", offloaded)] if best.host_bytes else []),
        ("checkpoint", f"{best.checkpoint_bytes / 1e9:,.3g} GB in {save:.3g} s; {verdict}"),
        ("basis", "arithmetic alone; `python -m benchmarks.forecast` holds it to trainings"),
    ]  # fmt: skip


def projection_json(found: Sequence[Choice], best: Choice, cluster: ClusterSpec) -> str:
    """All ways to train, for a script; sizes in bytes, times in seconds."""

    def body(choice: Choice) -> dict[str, object]:
        names = {"name": choice.name, "fits": choice.fits, "leaving_seconds": choice.leaving_seconds}
        return names | asdict(choice) | {"memory": choice.memory._asdict(), "step": choice.step._asdict()}

    return json.dumps({"cluster": cluster.model_dump(), "recommended": best.name, "ways": [body(one) for one in found]})


def _line(choice: Choice, best: bool, unit: float) -> str:
    sizes = "".join(f"{getattr(choice.memory, part) / unit:>12,.2f}" for part in PARTS)
    line = f"{'>' if best else ' '} {choice.name:<19}{sizes}"
    line += f"{choice.memory.total / unit:>9,.1f}{choice.free_bytes / unit:>9,.1f}"
    if not choice.fits:
        return f"{line}   does not fit"
    step = f"{choice.step.total:.3g} s"
    return f"{line}{step:>10}{choice.tokens_per_second:>13,.0f}{choice.utilisation:>10.1%}{_time(choice.days):>9}"


def _time(days: float) -> str:
    return f"{days:,.1f} d" if days >= 2 else duration(days * 86_400)
