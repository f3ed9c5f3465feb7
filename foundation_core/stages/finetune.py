"""Finetune: trunk -> task models, pretrained and from scratch, on equal terms, with as many labels as the task says.

    corpus -> task -> one seed x every learning rate x every arm -> the rate of each arm, chosen on validation
                   -> every seed at the chosen rate, scored on the test -> scores, and the weights of each arm

A trial is a piece of work of its own, committed by a small file: an interrupted stage goes on with those not yet done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from foundation_core.adapt.tasks import ROWS_FILE, TASK_FILE, Task, TaskData, find_task, load_task, save_task
from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.adapt.trials import Arm, Trial, TrialPiece, TrialResult, arms_of, run_trial
from foundation_core.errors import Stopped
from foundation_core.evaluate.metrics import gain, spread
from foundation_core.files import sha256_file, write_json
from foundation_core.specs import FinetuneSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.store import Result, StageResult

SCORES_FILE = "scores.json"

ByArm = Mapping[Arm, list[TrialResult]]


def finetune(spec: FinetuneSpec, inputs: Inputs, context: Context) -> StageResult:
    """Task models of every arm, each at its best learning rate, and what pretraining gained.

    Raises:
        ConfigError: the corpus has too few classes for the task.
        CheckpointError: the corpus has another tokenizer than that of the trunk.
        Stopped: somebody asked; the finished trials are kept.
    """
    start = time.perf_counter()
    trunk = Pretrained.find(inputs["trunk"].folder, inputs["trunk"].outputs[WEIGHTS_FILE])
    trunk.check_tokenizer(inputs["corpus"].folder)
    task = find_task(spec.task)
    data = _data(task, spec, inputs["corpus"], context)
    arms = arms_of(task)

    piece = partial(TrialPiece, spec=spec, trunk=trunk, folder=context.folder)

    every_rate = [piece(Trial(arm, lr, spec.seeds[0]), test=False) for lr in spec.lr for arm in arms]
    tried = _run("choose learning rates", every_rate, task, context)
    rate = {arm: _best(task, tried[arm]).trial.lr for arm in arms}
    every_seed = [piece(Trial(arm, rate[arm], seed), test=True) for seed in spec.seeds for arm in arms]
    chosen = _run("train every seed", every_seed, task, context)

    _keep_best_weights(task, chosen, context.folder)
    scores = _scores(task, data, chosen)
    write_json(context.folder / SCORES_FILE, scores)
    _report(scores, context)
    every_trial = {
        result.trial.name: _described(task, result) for arm in arms for result in (*tried[arm], *chosen[arm])
    }
    return StageResult(
        outputs=_outputs(context.folder, arms),
        summary={**scores, "trials": list(every_trial.values())},
        seconds=time.perf_counter() - start,
    )


def _data(task: Task, spec: FinetuneSpec, corpus: Result, context: Context) -> TaskData:
    """The task's rows, made once and then read from the stage's folder."""
    context.events.phase("make the task")
    if not (context.folder / TASK_FILE).exists():
        save_task(context.folder, task.data(corpus.folder, spec))
    data = load_task(context.folder)
    rows = {name: len(data.split(name)) for name in ("train", "validation", "test")}
    facts = {**rows, "classes": len(data.classes), "digest": sha256_file(context.folder / ROWS_FILE)}
    context.tracker.dataset("task", facts)
    classes = f"{len(data.classes)} classes: {', '.join(data.classes)}; " if data.classes else ""
    context.events.say(f"{classes}rows {rows}")
    return data


def _run(phase: str, pieces: Sequence[TrialPiece], task: Task, context: Context) -> ByArm:
    """The results of the trials, by arm and in the order of the pieces."""
    context.events.phase(phase)
    done: dict[Trial, TrialResult] = {}
    for result in context.pool.map(run_trial, pieces, pieces[0].spec.workers):
        done[result.trial] = result
        score = task.scores(result.validation)[task.deciding]
        context.events.progress(len(done), len(pieces), "trials", f"{result.trial.name}: validation {score:.3f}")
        if context.stop.requested():
            raise Stopped(
                f"finetune stopped after {len(done)} of {len(pieces)} trials of its phase {phase!r}; they are kept",
                fix="run the same command again to continue",
            )
    ordered = [done[piece.trial] for piece in pieces]
    return {arm: [result for result in ordered if result.trial.arm == arm] for arm in arms_of(task)}


def _best(task: Task, results: Sequence[TrialResult]) -> TrialResult:
    """The result with the best deciding score on validation; of equal ones, that with the lowest loss there."""
    return max(results, key=lambda result: (task.value(result.validation), -task.scores(result.validation)["loss"]))


def _keep_best_weights(task: Task, chosen: ByArm, folder: Path) -> None:
    """Leave one model an arm, the best on validation; a run that was interrupted here finds it moved already."""
    (folder / "weights").mkdir(exist_ok=True)
    for arm, results in chosen.items():
        trained = folder / "trials" / f"{_best(task, results).trial.name}.safetensors"
        if trained.exists():
            os.replace(trained, _weights_file(folder, arm))
    for left_over in (folder / "trials").glob("*.safetensors"):
        left_over.unlink()


def _weights_file(folder: Path, arm: Arm) -> Path:
    return folder / "weights" / f"{arm.name}.safetensors"


def _scores(task: Task, data: TaskData, chosen: ByArm) -> dict[str, Any]:
    """What is known of the task and of every arm, as people and later stages read it."""
    deciding, higher = task.deciding, task.scored[task.deciding].higher_is_better
    tests = {arm: [task.scores(_test(result)) for result in results] for arm, results in chosen.items()}
    arms = {
        arm.name: {
            "lr": results[0].trial.lr,
            **{name: spread([scores[name] for scores in tests[arm]]) for name in task.scored},
            "validation": [task.scores(result.validation)[deciding] for result in results],
            "best_seed": _best(task, results).trial.seed,
        }
        for arm, results in chosen.items()
    }
    best_arm = max(
        (arm for arm in chosen if arm.pretrained),
        key=lambda arm: fmean(task.value(result.validation) for result in chosen[arm]),
    )
    gains = {
        labels: gain(
            *([scores[deciding] for scores in tests[Arm(pretrained, labels)]] for pretrained in (True, False)),
            higher_is_better=higher,
        )
        for labels in task.budgets
    }
    return {
        "task": data.facts.spec.task,
        "classes": data.classes,
        "scored": {name: score._asdict() for name, score in task.scored.items()},
        "deciding": deciding,
        "arms": arms,
        "best_arm": best_arm.name,
        "gain": gains,
    }


def _test(result: TrialResult) -> Mapping[str, Any]:
    assert result.test is not None, "the test is scored for every chosen trial"
    return result.test


def _described(task: Task, result: TrialResult) -> dict[str, Any]:
    validation = task.scores(result.validation)
    test = {} if result.test is None else {"test": task.scores(result.test)[task.deciding]}
    return {
        "arm": result.trial.arm.name,
        "lr": result.trial.lr,
        "seed": result.trial.seed,
        "last_loss": result.losses[-1],
        "validation_loss": validation["loss"],
        "validation": validation[task.deciding],
        **test,
    }


def _report(scores: Mapping[str, Any], context: Context) -> None:
    deciding, label = scores["deciding"], scores["scored"][scores["deciding"]]["label"]
    for name, arm in scores["arms"].items():
        context.tracker.metrics({f"task/{name}/{score}": arm[score]["mean"] for score in scores["scored"]})
        decides = arm[deciding]
        seeds = f"{decides['min']:.3f} to {decides['max']:.3f} over {len(decides['values'])} seeds"
        context.events.say(f"{name}: test {label} {decides['mean']:.3f} ({seeds}) at learning rate {arm['lr']:g}")
    for labels, gained in scores["gain"].items():
        context.tracker.metrics({f"task/gain-{labels}/{deciding}": gained["mean_difference"]})
        where = "beyond" if gained["beyond_spread"] else "within"
        difference = gained["mean_difference"]
        context.events.say(f"gain from pretraining, {labels} labels: {difference:+.3f} {label}, {where} the spread")


def _outputs(folder: Path, arms: Sequence[Arm]) -> dict[str, str]:
    names = [TASK_FILE, ROWS_FILE, SCORES_FILE, *(f"weights/{arm.name}.safetensors" for arm in arms)]
    return {name: sha256_file(folder / name) for name in names}
