"""The card of a published model, in Markdown. Every figure comes from a committed result; none is made here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from textwrap import indent
from typing import Any

from foundation_core.evaluate.badge import badge
from foundation_core.files import read_json
from foundation_core.store import Result

SAMPLES_SHOWN = 3
SAMPLES_FILE = "samples.json"
_TEST_SHOWN = ("bits_per_byte", "perplexity", "loss_nats", "loss_squares", "loss_pairs")


def model_card(name: str, alias: str, results: Mapping[str, Result], example: Mapping[str, Any], anatomy: str) -> str:
    """What the model is, what it can do and how well, how it was made, and where it comes from.

    Args:
        results: corpus, trunk, task, scores.
        example: rows that the model can be asked, as they are stored with it, and its answers by task.
        anatomy: where the page is on which people see the model read, or why there is none.
    """
    trunk, task, scores = (results[role].summary for role in ("trunk", "task", "scores"))
    spec = results["trunk"].parts["spec"]
    model, shape, precision = spec["model"], spec["model"]["trunk"], trunk["precision"]
    test = scores["test"]
    return f"""\
# Model card: {name}

A model of the family {model["family"]} with {_size(trunk)}, trained from scratch on
{results["corpus"].summary["source"]["description"]} for the objective {spec["objective"]}, and a model for the task
{task["task"]} made from it.

## Use

{_use(f"models:/{name}@{alias}", example)}

`mlflow models serve -m models:/{name}@{alias}` answers the same over HTTP (bytes as base64). The model carries the
versions of the libraries that it needs and the wheel of its own code; its weights are safetensors.

## How well it does what it was pretrained for

On {test["rows"]:,} of the {test["rows_of_split"]:,} rows of the test split, with the checkpoint that was best
on validation: step {test["checkpoint_step"]:,} of {trunk["steps"]:,}.

{_table(["measure", "value"], _pretraining_scores(scores))}

The training data was {badge(results["corpus"].summary)}.

{_samples(results["scores"].folder / SAMPLES_FILE)}

## See it read

{anatomy}

## What pretraining is worth

{_task_of(results["task"].parts["spec"], task["classes"])}
Scores on the test split, mean (smallest to largest) of the seeds. Every arm took the same number of steps, at the
learning rate that was best on validation.

{_table(["arm", *(score["label"] for score in task["scored"].values()), "learning rate"], _arms(task, scores))}

{_gains(task)}

## How it was trained

- **Shape**: width {shape["width"]}, depth {shape["depth"]}, {shape["heads"]} heads, {shape["position"]} positions,
  samples of {_shape(results["corpus"].summary["shape"]) or f"{model['context_tokens']} tokens"}
- **Length**: {_length(trunk, spec)}, {trunk["epochs"]:.2f} epochs, {trunk["workers"]} workers{_cut(trunk)}
- **Precision**: {precision["name"]} ({precision["reason"]})
- **Speed**: {_speed(trunk)}

## Limits

- It is small and has seen one corpus. What it makes looks like that corpus, and is wrong as often as the scores say.
- It can repeat what it was trained on; then the licence of that applies.
- It is made to show a pipeline at work. Nobody examined it for harm or bias.

## Where it comes from

{_table(["stage", "content", "action key", "MLflow run"], map(_origin, results.values()))}
"""


def _size(trunk: Mapping[str, Any]) -> str:
    active = trunk.get("active_parameters", trunk["parameters"])
    some = f", {active / 1e6:.2f} of them active for a token" if active < trunk["parameters"] else ""
    return f"{trunk['parameters'] / 1e6:.2f} million parameters{some}"


def _use(uri: str, example: Mapping[str, Any]) -> str:
    """Code that asks the model all that it can be asked."""
    (name, item), *_ = example["rows"][0].items()
    read, shown = "", repr(item)
    if name != "text":
        read, shown = f"item = {_how_to_read(item)}\n", "item"
    row = f'"{name}": [{shown}]'
    asked = "\n".join(
        f'model.predict(rows, params={{"task": "{task}"}})  # {", ".join(answers[0])}'
        for task, answers in example["answers"].items()
    )
    return f"""\
```python
import mlflow, pandas

model = mlflow.pyfunc.load_model("{uri}")
{read}rows = pandas.DataFrame({{{row}}})
{asked}
```"""


def _how_to_read(item: Any) -> str:
    return 'open("FILE", "rb").read()' if isinstance(item, str) else "[[0.5, 0.7, ...]]  # a list for each channel"


def _pretraining_scores(scores: Mapping[str, Any]) -> list[list[str]]:
    """Every plain figure that the examinations of the pretrained model found."""
    shown = {name: scores["test"][name] for name in _TEST_SHOWN if name in scores["test"]}
    rows = [[f"{name.replace('_', ' ')}", f"{value:.4g}"] for name, value in shown.items()]
    for part in ("samples", "zero_shot", "retrieval"):
        for name, value in scores.get(part, {}).items():
            if isinstance(value, float):
                rows.append([f"{part.replace('_', ' ')}: {name.replace('_', ' ')}", f"{value:.3f}"])
    return rows


def _samples(path: Path) -> str:
    """The first samples as indented code: nothing that a model writes can end such a block."""
    samples = read_json(path)[:SAMPLES_SHOWN]
    if not samples:
        return ""
    texts = []
    for sample in samples:
        between = "\n-> " if "reference" in sample and "statements" not in sample else ""
        reference = f"\n   (should be: {sample['reference']})" if "reference" in sample else ""
        texts.append(f"{sample['prompt']}{between}{sample['completion']}{reference}")
    blocks = "\n\n---\n\n".join(indent(text.rstrip(), "    ", lambda line: True) for text in texts)
    return f"What it writes. The first samples, as they came:\n\n{blocks}"


def _task_of(spec: Mapping[str, Any], classes: Sequence[str]) -> str:
    named = f", one of {len(classes)} classes: {', '.join(classes)}" if classes else ""
    return f"The task is {spec['task']}{named}."


def _arms(task: Mapping[str, Any], scores: Mapping[str, Any]) -> list[list[str]]:
    names = list(task["scored"])
    rows = [[name, *(_spread(arm[score]) for score in names), f"{arm['lr']:g}"] for name, arm in task["arms"].items()]
    baseline = scores["baseline"]
    for labels in task["gain"]:
        figures = [f"{baseline[labels][score]:.3f}" if score in baseline[labels] else "" for score in names]
        rows.append([f"{baseline['label']}, {labels}", *figures, ""])
    return rows


def _spread(score: Mapping[str, Any]) -> str:
    return f"{score['mean']:.3f} ({score['min']:.3f} to {score['max']:.3f})"


def _gains(task: Mapping[str, Any]) -> str:
    label = task["scored"][task["deciding"]]["label"]
    return "\n".join(
        f"- With {labels} labels, pretraining changes {label} by {gain['mean_difference']:+.3f}. The worst pretrained"
        f" seed has {gain['worst_pretrained']:.3f}, the best one from scratch {gain['best_scratch']:.3f}: the gain is"
        f" {'beyond' if gain['beyond_spread'] else 'within'} the spread of seeds."
        for labels, gain in task["gain"].items()
    )


def _length(trunk: Mapping[str, Any], spec: Mapping[str, Any]) -> str:
    if not trunk["ended_by"]:
        return f"{trunk['steps']:,} steps"
    budget = f"`{trunk['ended_by']}` = {spec[trunk['ended_by']]:,}"
    return f"{trunk['steps']:,} of {trunk['planned_steps']:,} steps (ended by its budget, {budget})"


def _cut(trunk: Mapping[str, Any]) -> str:
    if "captions_cut" not in trunk:
        return ""
    cut = trunk["captions_cut"]
    return f"\n- **Captions**: {cut['cut']:,} of {cut['of']:,} are cut to {cut['tokens']} tokens, end token included"


def _speed(trunk: Mapping[str, Any]) -> str:
    if "rows_per_second" not in trunk:
        return "not measured: the run was continued after its last step"
    if "tokens_per_second" not in trunk:
        return f"{trunk['rows_per_second']:,.0f} rows a second"
    return (
        f"{trunk['tokens_per_second']:,.0f} tokens a second; {trunk['model_flops_utilisation']:.2f} of the"
        f" {trunk['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s of a matrix product ({trunk['flops_formula']})"
    )


def _origin(result: Result) -> list[str]:
    names = (result.content[:12], result.key[:12], result.ids.get("mlflow_run", "not known"))
    return [result.stage, *(f"`{name}`" for name in names)]


def _shape(shape: Mapping[str, int]) -> str:
    return ", ".join(f"{name} {size:,}" for name, size in shape.items() if size)


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A Markdown table, figures to the right; `None.` without rows."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    rule = f"| --- |{' ---: |' * (len(header) - 1)}"
    return "\n".join([f"| {' | '.join(header)} |", rule, *lines]) if lines else "None."
