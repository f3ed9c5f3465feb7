"""The plots of a published model, one style, PNG. Each function returns the path of what it drew."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from foundation_core.evaluate.pictures import PICTURES_FILE
from foundation_core.evaluate.style import BLUE, GREEN, GREY, INK, ORANGE, STYLE
from foundation_core.events import read_events
from foundation_core.store import Result
from foundation_core.tracking.base import METRICS
from foundation_core.weights import load_weights

STEP = "optimizer step"
PICTURES_SHOWN = 8
SMOOTHING_PARTS = 40
"""The smoothed loss averages over a twentieth of the curve: so many parts to each side."""

Series = dict[int, float]
"""Values of one metric by step."""


def series(folder: Path) -> dict[str, Series]:
    """The metrics by name that a stage wrote into its event log; of a step that was done twice, the last."""
    found: dict[str, Series] = {}
    for _, event in read_events(folder):
        if event["kind"] == "metrics" and event["step"] is not None:
            for name, value in event["values"].items():
                found.setdefault(name, {})[event["step"]] = value
    return {name: dict(sorted(points.items())) for name, points in found.items()}


def draw_plots(results: Mapping[str, Result], folder: Path) -> list[Path]:
    """Every plot of a published model.

    Args:
        results: trunk, task, scores.
    """
    trunk, scores = results["trunk"], results["scores"]
    metrics = series(trunk.folder)
    plots = [
        plot_loss(metrics, folder / "loss.png"),
        plot_learning_rate(metrics, folder / "learning_rate.png"),
        plot_throughput(metrics, folder / "throughput.png"),
        plot_gradient_norm(metrics, trunk.parts["spec"]["optimizer"]["clip_norm"], folder / "gradient_norm.png"),
        plot_transfer(results["task"].summary, scores.summary["baseline"], folder / "transfer.png"),
    ]
    if PICTURES_FILE in scores.outputs:
        pictures = load_weights(scores.folder / PICTURES_FILE, scores.outputs[PICTURES_FILE])["pictures"]
        plots.append(plot_pictures(pictures, folder / "pictures.png"))
    return plots


def plot_loss(metrics: Mapping[str, Series], path: Path) -> Path:
    """Training loss, raw and smoothed, and validation loss with its best point."""
    name = next(name for name in metrics if name.startswith("validation/loss_")).removeprefix("validation/")
    train, validation = metrics[f"train/{name}"], metrics[f"validation/{name}"]
    with _axes(path, "Loss", STEP, METRICS[f"validation/{name}"].unit) as axes:
        axes.plot(*_points(train), color=BLUE, alpha=0.3, linewidth=1)
        axes.plot(*_points(_smoothed(train)), color=BLUE, linewidth=2, label="training (smoothed)")
        best = min(validation, key=lambda step: validation[step])
        label = f"validation (best: {validation[best]:.3f} at step {best})"
        axes.plot(*_points(validation), color=ORANGE, linewidth=1.5, marker="o", markersize=4, label=label)
        axes.plot(best, validation[best], color=ORANGE, marker="o", markersize=9, mec="white", mew=1.5)
        axes.legend()
    return path


def plot_learning_rate(metrics: Mapping[str, Series], path: Path) -> Path:
    """The learning rate of each step."""
    with _axes(path, "Learning rate", STEP, "learning rate") as axes:
        axes.plot(*_points(metrics["train/lr"]), color=BLUE, linewidth=2)
        axes.set_ylim(bottom=0)
        axes.ticklabel_format(axis="y", scilimits=(-2, 2), useMathText=True)
    return path


def plot_throughput(metrics: Mapping[str, Series], path: Path) -> Path:
    """Labels a second at each step, with the median."""
    points = metrics["train/tokens_per_second"]
    median = statistics.median(points.values())
    with _axes(path, "Throughput", STEP, "labels per second, all workers") as axes:
        axes.plot(*_points(points), color=BLUE, linewidth=1.2)
        axes.axhline(median, color=ORANGE, linestyle="--", linewidth=1.5, label=f"median: {median:,.0f}")
        axes.set_ylim(bottom=0)
        axes.legend(loc="lower right")
        axes.yaxis.set_major_formatter("{x:,.0f}")
    return path


def plot_gradient_norm(metrics: Mapping[str, Series], clip_norm: float, path: Path) -> Path:
    """The global gradient norm of each step before clipping, with the norm above which it is clipped."""
    from matplotlib.ticker import LogLocator, NullLocator

    with _axes(path, "Gradient norm", STEP, "global norm before clipping (log scale)") as axes:
        axes.plot(*_points(metrics["train/grad_norm"]), color=BLUE, linewidth=1.2)
        axes.axhline(clip_norm, color=ORANGE, linestyle="--", linewidth=1.5, label=f"clipped above {clip_norm:g}")
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_locator(NullLocator())
        axes.legend()
    return path


def plot_transfer(task: Mapping[str, Any], baselines: Mapping[str, Any], path: Path) -> Path:
    """The deciding score of the pretrained and the fresh model, by how many labels they learned from.

    Args:
        task: what finetune found.
        baselines: the baseline's label, and its scores by "few" and "all".
    """
    deciding, budgets = task["deciding"], list(task["gain"])
    score, arms = task["scored"][deciding], {name: arm[deciding]["values"] for name, arm in task["arms"].items()}
    better = "" if score["higher_is_better"] else ", less is better"
    with _axes(path, "What pretraining is worth", "", f"{score['label']} on the test rows{better}") as axes:
        for place, labels in enumerate(budgets):
            for side, (kind, color) in enumerate((("pretrained", BLUE), ("scratch", ORANGE))):
                _bar(axes, place + 0.36 * (side - 0.5), arms[f"{kind}-{labels}"], color, kind if not place else "")
            axes.hlines(
                baselines[labels][deciding], place - 0.42, place + 0.42, color=GREEN, linestyles="--", linewidth=2,
                label="" if place else baselines["label"],
            )  # fmt: skip
        axes.set_xticks(range(len(budgets)), [f"{labels} labels" for labels in budgets])
        axes.set_xlim(-0.6, len(budgets) - 0.4)
        axes.grid(visible=False, axis="x")
        highest = max([*(baselines[labels][deciding] for labels in budgets), *(max(of) for of in arms.values())])
        axes.set_ylim(0, 1.25 * highest or 1)
        if highest <= 1:  # above is room for the legend, no score
            axes.set_yticks([tick for tick in axes.get_yticks() if tick <= 1])
        axes.legend(loc="upper left", ncols=3, handlelength=1.5, columnspacing=1.2)
        axes.text(1, -0.12, "bar: mean of the seeds; dots: the seeds", transform=axes.transAxes, ha="right", color=GREY)
    return path


def plot_pictures(pictures: Tensor, path: Path) -> Path:
    """Samples as they are, as the model sees them and as it draws them, one a column; several channels as their mean.

    Args:
        pictures: (N, 3, C, H, W), NaN where nothing is seen.
    """
    import matplotlib
    from matplotlib.figure import Figure

    pictures = pictures[:PICTURES_SHOWN].mean(dim=2)
    with matplotlib.rc_context({**STYLE, "axes.grid": False}):
        figure = Figure(figsize=(1.2 * len(pictures) + 1, 4), layout="constrained")
        grid = figure.subplots(3, len(pictures), squeeze=False)
        for row, name in enumerate(("original", "visible", "drawn")):
            for column, axes in enumerate(grid[row]):
                shown, whole = pictures[column, row], pictures[column, 0]
                if shown.shape[0] == 1:
                    axes.plot(shown[0].numpy(), color=BLUE, linewidth=1)
                    axes.set_ylim(whole.min().item() - 0.2, whole.max().item() + 0.2)
                else:
                    limits = {"vmin": whole.min().item(), "vmax": whole.max().item()}
                    axes.imshow(shown.numpy(), cmap="gray", aspect="auto", interpolation="nearest", **limits)
                axes.set(xticks=[], yticks=[])
            grid[row][0].set_ylabel(name)
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
    return path


def _bar(axes: Any, place: float, scores: Sequence[float], color: str, label: str) -> None:
    mean = statistics.fmean(scores)
    axes.bar(place, mean, width=0.32, color=color, alpha=0.85, label=label)
    axes.plot([place] * len(scores), scores, linestyle="", marker="o", markersize=5, color="white", mec=INK, mew=1)
    axes.annotate(f"{mean:.2f}", (place, 0), xytext=(0, 6), textcoords="offset points", ha="center", color="white")


def _points(points: Series) -> tuple[list[int], list[float]]:
    return list(points), list(points.values())


def _smoothed(points: Series) -> Series:
    """The mean of each step's neighbourhood, itself in the middle: a running mean would lag behind a steep curve."""
    steps, values = _points(points)
    reach = len(values) // SMOOTHING_PARTS
    around = [values[max(0, place - reach) : place + reach + 1] for place in range(len(values))]
    return {step: statistics.fmean(near) for step, near in zip(steps, around, strict=True)}


@contextmanager
def _axes(path: Path, title: str, x_label: str, y_label: str) -> Iterator[Any]:
    """Axes in the common style, saved when the block ends. No pyplot: it keeps figures alive, and asks for a screen."""
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(8, 4.5), layout="constrained")
        axes = figure.subplots()
        axes.set(title=title, xlabel=x_label, ylabel=y_label)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        yield axes
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path)
