"""Finetune: trunk -> task models, pretrained and from scratch, with few labels and with all, on equal terms.

    corpus -> task -> one seed x every learning rate x 4 arms -> the rate of each arm, chosen on validation
                   -> every seed at the chosen rate, scored on the test -> scores, and the weights of each arm

A trial is a piece of work of its own, committed by a small file: an interrupted stage goes on with those not yet done.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch

from foundation_core import plugins
from foundation_core.adapt.classify import Answers
from foundation_core.adapt.tasks import FRAGMENTS_FILE, TASK_FILE, Task, TaskData, load_task, save_task
from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.adapt.trials import ARMS, Arm, Trial, TrialPiece, TrialResult, run_trial
from foundation_core.errors import Stopped
from foundation_core.evaluate.metrics import accuracy, gain, macro_f1, spread
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
        Stopped: somebody asked; the finished trials are kept.
    """
    start = time.perf_counter()
    trunk = Pretrained.find(inputs["trunk"].folder, inputs["trunk"].outputs[WEIGHTS_FILE])
    task = _task(spec, inputs["corpus"], context)

    piece = partial(TrialPiece, spec=spec, trunk=trunk, folder=context.folder)

    every_rate = [piece(Trial(arm, lr, spec.seeds[0]), test=False) for lr in spec.lr for arm in ARMS]
    tried = _run("choose learning rates", every_rate, spec.workers, context)
    rate = {arm: _best(tried[arm]).trial.lr for arm in ARMS}
    every_seed = [piece(Trial(arm, rate[arm], seed), test=True) for seed in spec.seeds for arm in ARMS]
    chosen = _run("train every seed", every_seed, spec.workers, context)

    _keep_best_weights(chosen, context.folder)
    scores = _scores(task, chosen)
    write_json(context.folder / SCORES_FILE, scores)
    _report(scores, context)
    every_trial = {result.trial.name: _described(result) for arm in ARMS for result in (*tried[arm], *chosen[arm])}
    return StageResult(
        outputs=_outputs(context.folder),
        summary={**scores, "trials": list(every_trial.values())},
        seconds=time.perf_counter() - start,
    )


def _task(spec: FinetuneSpec, corpus: Result, context: Context) -> TaskData:
    """The task, made once and then read from the stage's folder."""
    context.events.phase("make the task")
    if not (context.folder / TASK_FILE).exists():
        maker: Task = plugins.find("tasks", spec.task)()
        save_task(context.folder, maker.data(corpus.folder, spec))
    task = load_task(context.folder)
    rows = {name: len(task.split(name)) for name in ("train", "validation", "test")}
    facts = {**rows, "classes": len(task.classes), "digest": sha256_file(context.folder / FRAGMENTS_FILE)}
    context.tracker.dataset("task", facts)
    context.events.say(f"{len(task.classes)} classes: {', '.join(task.classes)}; fragments {rows}")
    return task


def _run(phase: str, pieces: Sequence[TrialPiece], workers: int, context: Context) -> ByArm:
    """The results of the trials, by arm and in the order of the pieces."""
    context.events.phase(phase)
    done: dict[Trial, TrialResult] = {}
    for result in context.pool.map(run_trial, pieces, workers):
        done[result.trial] = result
        score = _macro_f1(result.validation)
        context.events.progress(len(done), len(pieces), "trials", f"{result.trial.name}: validation {score:.3f}")
        if context.stop.requested():
            raise Stopped(
                f"finetune stopped after {len(done)} of {len(pieces)} trials of its phase {phase!r}; they are kept",
                fix="run the same command again to continue",
            )
    ordered = [done[piece.trial] for piece in pieces]
    return {arm: [result for result in ordered if result.trial.arm == arm] for arm in ARMS}


def _best(results: Sequence[TrialResult]) -> TrialResult:
    """The result with the best macro-F1 on validation; of equal ones, that with the lowest loss there."""
    return max(results, key=lambda result: (_macro_f1(result.validation), -result.validation.nats))


def _macro_f1(answers: Answers) -> float:
    return macro_f1(torch.tensor(answers.confusion))


def _accuracy(answers: Answers) -> float:
    return accuracy(torch.tensor(answers.confusion))


def _keep_best_weights(chosen: ByArm, folder: Path) -> None:
    """Leave one model an arm, the best on validation; a run that was interrupted here finds it moved already."""
    (folder / "weights").mkdir(exist_ok=True)
    for arm, results in chosen.items():
        trained = folder / "trials" / f"{_best(results).trial.name}.safetensors"
        if trained.exists():
            os.replace(trained, _weights_file(folder, arm))
    for left_over in (folder / "trials").glob("*.safetensors"):
        left_over.unlink()


def _weights_file(folder: Path, arm: Arm) -> Path:
    return folder / "weights" / f"{arm.name}.safetensors"


def _scores(task: TaskData, chosen: ByArm) -> dict[str, Any]:
    macro_f1s = {arm: [_macro_f1(_test(result)) for result in results] for arm, results in chosen.items()}
    arms = {
        arm.name: {
            "lr": results[0].trial.lr,
            "macro_f1": spread(macro_f1s[arm]),
            "accuracy": spread([_accuracy(_test(result)) for result in results]),
            "validation_macro_f1": [_macro_f1(result.validation) for result in results],
            "best_seed": _best(results).trial.seed,
        }
        for arm, results in chosen.items()
    }
    gains = {labels: gain(macro_f1s[Arm(True, labels)], macro_f1s[Arm(False, labels)]) for labels in ("few", "all")}
    return {"classes": task.classes, "arms": arms, "gain": gains}


def _test(result: TrialResult) -> Answers:
    assert result.test is not None, "the test is scored for every chosen trial"
    return result.test


def _described(result: TrialResult) -> dict[str, Any]:
    test = {} if result.test is None else {"test_macro_f1": _macro_f1(result.test)}
    return {
        "arm": result.trial.arm.name,
        "lr": result.trial.lr,
        "seed": result.trial.seed,
        "last_loss_nats": result.losses[-1],
        "validation_loss_nats": result.validation.nats / result.validation.rows,
        "validation_macro_f1": _macro_f1(result.validation),
        **test,
    }


def _report(scores: Mapping[str, Any], context: Context) -> None:
    for name, arm in scores["arms"].items():
        f1, right = arm["macro_f1"], arm["accuracy"]
        context.tracker.metrics({f"task/{name}/macro_f1": f1["mean"], f"task/{name}/accuracy": right["mean"]})
        seeds = f"{f1['min']:.3f} to {f1['max']:.3f} over {len(f1['values'])} seeds"
        context.events.say(f"{name}: test macro-F1 {f1['mean']:.3f} ({seeds}) at learning rate {arm['lr']:g}")
    for labels, gained in scores["gain"].items():
        context.tracker.metrics({f"task/gain-{labels}/macro_f1": gained["mean_difference"]})
        where = "beyond" if gained["beyond_spread"] else "within"
        difference = gained["mean_difference"]
        context.events.say(f"gain from pretraining, {labels} labels: {difference:+.3f}, {where} the spread of seeds")


def _outputs(folder: Path) -> dict[str, str]:
    names = [TASK_FILE, FRAGMENTS_FILE, SCORES_FILE, *(f"weights/{arm.name}.safetensors" for arm in ARMS)]
    return {name: sha256_file(folder / name) for name in names}
