"""Evaluate: models -> scores, on the test split alone.

    trunk -> the loss of its best checkpoint, and whatever model and data allow: samples, classes by captions, pictures
    task  -> the scores of every arm beside those of the baseline, which learns from the same rows

scores.json and samples.json hold what the same inputs give again; speeds are in the summary alone.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from foundation_core.adapt.tasks import find_task, load_task
from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.errors import Stopped
from foundation_core.evaluate.badge import badge
from foundation_core.evaluate.pictures import PICTURES_FILE
from foundation_core.files import sha256_file, write_json
from foundation_core.specs import EvaluateSpec, PretrainSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.examinations import EXAMINATIONS, Subject
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import Result, StageResult

SCORES_FILE, SAMPLES_FILE = "scores.json", "samples.json"
SPEEDS = (
    "rows_per_second", "tokens_per_second", "matmul_flops_per_second", "model_flops_utilisation", "flops_per_token",
    "flops_formula",
)  # fmt: skip
"""What pretraining measured of itself."""


def evaluate(spec: EvaluateSpec, inputs: Inputs, context: Context) -> StageResult:
    """Every score of the pipeline, and the samples.

    Raises:
        Stopped: somebody asked; the stage begins anew the next time.
    """
    start = time.perf_counter()
    torch.set_num_threads(spec.threads)
    subject = _subject(spec, inputs, context)
    task = inputs["task"].summary
    scores: dict[str, Any] = {name: task[name] for name in ("scored", "deciding", "arms", "best_arm", "gain")}
    scores["contamination"] = badge(inputs["corpus"].summary)
    samples: list[Any] = []
    speed = {name: inputs["trunk"].summary[name] for name in SPEEDS if name in inputs["trunk"].summary}
    for examination in EXAMINATIONS:
        if not examination.fits(subject):
            continue
        if context.stop.requested():
            raise Stopped(f"evaluate stopped before its phase {examination.phase!r}", fix="run the same command again")
        context.events.phase(examination.phase)
        found = examination.hold(subject)
        scores[examination.name] = dict(found.scores)
        samples += found.samples
        speed |= found.speed
        context.tracker.metrics(found.metrics)
        for sentence in found.sentences:
            context.events.say(sentence)
    write_json(context.folder / SCORES_FILE, scores)
    write_json(context.folder / SAMPLES_FILE, samples)
    _tell_speed(speed, context)
    context.events.say(f"the training data was {scores['contamination']}")
    left = [name for name in (SCORES_FILE, SAMPLES_FILE, PICTURES_FILE) if (context.folder / name).exists()]
    return StageResult(
        outputs={name: sha256_file(context.folder / name) for name in left},
        summary={**scores, "speed": speed},
        seconds=time.perf_counter() - start,
    )


def _subject(spec: EvaluateSpec, inputs: Inputs, context: Context) -> Subject:
    trunk: Result = inputs["trunk"]
    pretrained = Pretrained.find(trunk.folder, trunk.outputs[WEIGHTS_FILE])
    pretrained.check_tokenizer(inputs["corpus"].folder)
    data = TrainingData.open(inputs["corpus"], pretrained.spec.context_tokens)
    task_data = load_task(inputs["task"].folder)
    return Subject(
        spec=spec,
        corpus=inputs["corpus"],
        trunk=trunk,
        finetuned=inputs["task"],
        pretrained=pretrained,
        model=pretrained.model(),
        objective=data.objective(PretrainSpec.model_validate(trunk.parts["spec"])),
        data=data,
        task=find_task(task_data.facts.spec.task),
        task_data=task_data,
        folder=context.folder,
    )


def _tell_speed(speed: dict[str, Any], context: Context) -> None:
    if "model_flops_utilisation" in speed:
        context.events.say(
            f"training: {speed['tokens_per_second']:,.0f} tokens/s, {speed['model_flops_utilisation']:.0%} of the"
            f" {speed['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s of a 2048-square product; {speed['flops_formula']}"
        )
