"""The table at the end of a run: what was made, the scores, what each stage took, and how to look at it."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from cluster.settings import Settings
from foundation_core.cost.size import size_told
from foundation_core.store import Result
from foundation_core.tracking.base import METRICS, leading

if TYPE_CHECKING:
    from cluster.sweep import Outcome, Sweep


def print_summary(results: Sequence[Result], settings: Settings, *, nothing_done: bool) -> None:
    """Print the table for the stages that were asked for."""
    console = Console(highlight=False, width=110)
    table = Table(title="nothing to do: every stage was done before" if nothing_done else None, title_justify="left")
    table.add_column("stage", style="bold cyan")
    table.add_column("made")
    table.add_column("scores")
    table.add_column("took", justify="right")
    for result in results:
        table.add_row(*summary_row(result).values())
    console.print(table)
    console.print(f"results   {settings.results}")
    console.print("look      make look        (MLflow in the browser; runs, plots, cards, the registered model)")
    published = next((result for result in results if result.stage == "publish"), None)
    if published is not None:
        console.print(f"model     models:/{published.summary['model_name']}@{published.summary['alias']}")


def summary_row(result: Result) -> dict[str, str]:
    """The row of one stage, by column."""
    made, scores = _ROWS[result.stage](result.summary)
    return {"stage": result.stage, "made": made, "scores": scores, "took": f"{result.seconds:.1f} s"}


def print_sweep(sweep: Sweep, outcomes: Sequence[Outcome], again: Sequence[str], *, nothing_done: bool) -> None:
    """Print the points of a sweep, the best first, and the command that makes a model of that one.

    Args:
        again: words of that command, but for the value.
    """
    console = Console(highlight=False, width=110)
    title = "nothing to do: every point was done before" if nothing_done else None
    table = Table(title=title, title_justify="left")
    for column in (sweep.over, "validation", "step"):
        table.add_column(column, justify="right")
    table.add_column("")
    rows = sweep_rows(outcomes)
    for row in rows:
        table.add_row(*map(escape, row.values()))
    console.print(table)
    console.print(f"runs      tag foundation.sweep = {sweep.id} in MLflow (make look)")
    if rows[0]["validation"]:
        best = shlex.join(["foundation", "run", *again, f"--{sweep.over}", rows[0]["value"]])
        console.print(f"winner    {best}", soft_wrap=True)


def sweep_rows(outcomes: Sequence[Outcome]) -> list[dict[str, str]]:
    """The rows of a sweep's points by column, the best first and the failed ones last."""
    rows = []
    for number, outcome in enumerate(sorted(outcomes, key=lambda outcome: outcome.rank)):
        verdict = f"failed: {outcome.failure}" if outcome.failure else "best" if number == 0 else ""
        figure = "" if outcome.best is None else f"{outcome.best.value:.4f} {outcome.best.unit}"
        step = "" if outcome.best_step is None else str(outcome.best_step)
        rows.append({"value": outcome.value, "validation": figure, "step": step, "verdict": verdict})
    return rows


def failure_rows(events: Iterable[Mapping[str, Any]]) -> list[dict[str, str]]:
    """The rows of a stage's failures by column, in the order of time."""
    rows: list[dict[str, str]] = []
    last: dict[tuple[str, str], dict[str, str]] = {}
    for event in events:
        if event["kind"] not in ("failure", "recovered"):
            continue
        which = event["failure"], event.get("service", "")  # MLflow may come back while Prefect stays away
        if event["kind"] == "failure":
            last[which] = {
                "failure": event["failure"], "step": str(event["step"]), "what": event["what"], "went on after": ""
            }  # fmt: skip
            rows.append(last[which])
        elif which in last:
            last[which]["went on after"] = f"{event['seconds']:.0f} s"
    return rows


def _ingest(summary: Mapping[str, Any]) -> tuple[str, str]:
    documents = summary["documents"]
    made = f"{documents['kept']} of {documents['in']} documents"
    if not summary["tokens"]:
        return f"{made}, {summary['modality']}", f"{summary['bytes'] / 1e6:,.1f} MB of values"
    return f"{made}, {summary['tokens'] / 1e6:.2f} M tokens", f"{summary['bytes_per_token']:.2f} bytes a token"


def _pretrain(summary: Mapping[str, Any]) -> tuple[str, str]:
    steps = f"{summary['steps']} steps"
    if summary["ended_by"]:
        steps = f"{summary['steps']} of {summary['planned_steps']} steps ({summary['ended_by']})"
    size = size_told(summary["parameters"], summary.get("active_parameters", summary["parameters"]))
    made = f"{size} parameters, {steps}, {summary['precision']['name']}"
    best = leading(summary["best_validation"])
    score = f"{best.value:.3f} {best.unit} on validation (step {summary['best_step']})"
    used = summary.get("goodput", {})
    return made, f"{score}, goodput {used['fraction']:.0%}" if used.get("restarts") else score


def _finetune(summary: Mapping[str, Any]) -> tuple[str, str]:
    trials, arms = len(summary["trials"]), len(summary["arms"])
    labels, gained = next(iter(summary["gain"].items()))
    label = summary["scored"][summary["deciding"]]["label"]
    classes = f", {len(summary['classes'])} classes" if summary["classes"] else ""
    made = f"{trials} trials{classes}, {arms} arms"
    return made, f"transfer gain with {labels} labels {gained['mean_difference']:+.3f} {label}"


def _evaluate(summary: Mapping[str, Any]) -> tuple[str, str]:
    deciding, baseline = summary["deciding"], summary["baseline"]
    arm, (label, _) = summary["best_arm"], summary["scored"][deciding].values()
    last = list(summary["gain"])[-1]
    made = f"{label} {summary['arms'][arm][deciding]['mean']:.3f} by {arm},"
    made += f" {baseline[last][deciding]:.3f} by {baseline['label']}"
    test = summary["test"]
    known = "bits_per_byte" if "bits_per_byte" in test else f"loss_{test['unit']}"
    told = [f"{test[known]:.3f} {METRICS[f'test/{known}'].unit} on test"]
    if summary.get("samples"):
        told.append(f"{summary['samples']['parsed_fraction']:.0%} of samples parse")
    told += [f"{value:.0%} zero-shot" for name, value in summary.get("zero_shot", {}).items() if name == "templates"]
    if pairs := summary.get("retrieval"):
        both = (pairs[f"{way}_at_{among}"] for way in ("caption_of_sample", "sample_of_caption") for among in (1, 5))
        told.append("recall at 1 and 5: captions found {:.0%} and {:.0%}, samples {:.0%} and {:.0%}".format(*both))
    return made, ", ".join(told)


def _publish(summary: Mapping[str, Any]) -> tuple[str, str]:
    return f"{summary['model_name']} version {summary['version']}", f"alias {summary['alias']}"


_ROWS = {"ingest": _ingest, "pretrain": _pretrain, "finetune": _finetune, "evaluate": _evaluate, "publish": _publish}
