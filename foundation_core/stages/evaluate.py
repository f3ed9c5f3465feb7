"""Evaluate: models -> scores, on the test split alone.

    trunk -> bits per byte and perplexity of its best checkpoint, samples and the share that parses, speed
    task  -> the scores of every arm beside those of the baseline, which learns from the same fragments

scores.json and samples.json hold what the same inputs give again; speeds are in the summary alone.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from statistics import fmean
from typing import Any

import torch
from tokenizers import Tokenizer

from foundation_core.adapt.tasks import Fragments, few_of, load_task
from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.data.order import Order
from foundation_core.data.shards import ShardDataset
from foundation_core.data.tokenizer import END_ID, load_tokenizer
from foundation_core.errors import Stopped
from foundation_core.evaluate.baseline import BaselineScore, Labelled, score_baseline
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.evaluate.samples import Sample, choose_prompts, judge, share_parsed
from foundation_core.files import sha256_file, write_json
from foundation_core.generation.generate import generate
from foundation_core.generation.sampling import Sampling, Stop
from foundation_core.model.transformer import Model
from foundation_core.specs import EvaluateSpec, PretrainSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.training_data import TrainingData
from foundation_core.store import Result, StageResult

SCORES_FILE, SAMPLES_FILE = "scores.json", "samples.json"
SPEEDS = ("tokens_per_second", "matmul_flops_per_second", "model_flops_utilisation", "flops_per_token", "flops_formula")
"""What pretraining measured of itself."""


def evaluate(spec: EvaluateSpec, inputs: Inputs, context: Context) -> StageResult:
    """Every score of the pipeline, and the samples.

    Raises:
        Stopped: somebody asked; the stage begins anew the next time.
    """
    start = time.perf_counter()
    torch.set_num_threads(spec.threads)
    corpus, trunk, task = inputs["corpus"], inputs["trunk"], inputs["task"]
    tokenizer = load_tokenizer(corpus.folder / "tokenizer.json")
    pretrained = Pretrained.find(trunk.folder, trunk.outputs[WEIGHTS_FILE])
    model = pretrained.language_model()

    _begin("score the test text", context)
    data = TrainingData.open(corpus, pretrained.spec.context_tokens)
    language = _language(spec, model, data, trunk)
    _begin("fit the baseline", context)
    baseline = _baseline(task, tokenizer)
    _begin("generate samples", context)
    samples, tokens_per_second = _samples(spec, model, corpus.folder, tokenizer)

    scores = {
        "language": language,
        "arms": task.summary["arms"],
        "gain": task.summary["gain"],
        "baseline": baseline,
        "samples": share_parsed(samples),
    }
    write_json(context.folder / SCORES_FILE, scores)
    write_json(context.folder / SAMPLES_FILE, [asdict(sample) for sample in samples])
    speed = {name: trunk.summary[name] for name in SPEEDS if name in trunk.summary}
    speed["samples_tokens_per_second"] = tokens_per_second
    _report(scores, speed, context)
    return StageResult(
        outputs={name: sha256_file(context.folder / name) for name in (SCORES_FILE, SAMPLES_FILE)},
        summary={**scores, "speed": speed},
        seconds=time.perf_counter() - start,
    )


def _begin(phase: str, context: Context) -> None:
    if context.stop.requested():
        raise Stopped(f"evaluate stopped before its phase {phase!r}", fix="run the same command again")
    context.events.phase(phase)


def _language(spec: EvaluateSpec, model: Model, data: TrainingData, trunk: Result) -> dict[str, Any]:
    """The loss of the best checkpoint on rows of the test split, spread over all of it."""
    objective, test = data.objective(PretrainSpec.model_validate(trunk.parts["spec"])), data.test
    rows = Order(len(test), spec.seed).take(0, min(spec.test_rows, len(test)))
    total = score_rows(model, objective, test, rows, data.token_bytes)
    return {
        "bits_per_byte": total.bits_per_byte,
        "perplexity": total.perplexity,
        "loss_nats": total.loss,
        **asdict(total),
        "rows": len(rows),
        "rows_of_split": len(test),
        "checkpoint_step": trunk.summary["best_step"],
    }


def _baseline(task: Result, tokenizer: Tokenizer) -> dict[str, Any]:
    """The baseline's scores with few labels, on the very rows that each seed's trials had, and with all."""
    data, spec = load_task(task.folder), task.parts["spec"]
    classes = len(data.classes)

    def texts(rows: Fragments) -> Labelled:
        return Labelled(tokenizer.decode_batch(rows.tokens.tolist()), rows.labels)

    validation, test = texts(data.validation), texts(data.test)
    few = [data.train.select(few_of(data.train, spec["few_labels"], classes, seed)) for seed in spec["seeds"]]
    return {
        labels: _described([score_baseline(texts(train), validation, test, classes) for train in draws])
        for labels, draws in (("few", few), ("all", [data.train]))
    }


def _described(scores: list[BaselineScore]) -> dict[str, Any]:
    return {
        "macro_f1": fmean(score.macro_f1 for score in scores),
        "accuracy": fmean(score.accuracy for score in scores),
        "macro_f1_values": [score.macro_f1 for score in scores],
        "strengths": [score.strength for score in scores],
    }


def _samples(spec: EvaluateSpec, model: Model, corpus: Path, tokenizer: Tokenizer) -> tuple[list[Sample], float]:
    """Definitions of test documents, continued; and the tokens generated a second."""
    prompts = choose_prompts(_test_documents(corpus), spec.samples, spec.seed)
    tokens = [tokenizer.encode(prompt.text).ids for prompt in prompts]
    sampling = Sampling(spec.temperature, spec.top_k)
    start = time.perf_counter()
    rows = generate(model, tokens, spec.sample_tokens, sampling, Stop(END_ID), spec.seed)
    seconds = time.perf_counter() - start
    real = [[*tokenizer.encode(prompt.rest).ids, END_ID][: spec.sample_tokens] for prompt in prompts]
    samples = [
        judge(prompt, _text(row, tokenizer), _text(real_row, tokenizer))
        for prompt, row, real_row in zip(prompts, rows, real, strict=True)
    ]
    return samples, sum(map(len, rows)) / seconds


def _text(tokens: list[int], tokenizer: Tokenizer) -> str:
    """The text of some tokens; one that is ended has only whole lines."""
    text: str = tokenizer.decode(tokens)
    return f"{text}\n" if tokens[-1] == END_ID else text


def _test_documents(corpus: Path) -> Iterator[tuple[str, str]]:
    for table in ShardDataset(corpus / "documents").tables():
        columns = (table[name].to_pylist() for name in ("document", "split", "text"))
        yield from ((document, text) for document, split, text in zip(*columns, strict=True) if split == "test")


def _report(scores: Mapping[str, Any], speed: Mapping[str, Any], context: Context) -> None:
    language, samples = scores["language"], scores["samples"]
    context.tracker.metrics(
        {
            "test/loss_nats": language["loss_nats"],
            "test/bits_per_byte": language["bits_per_byte"],
            "test/perplexity": language["perplexity"],
            "samples/parsed_fraction": samples["parsed_fraction"],
            "samples/tokens_per_second": speed["samples_tokens_per_second"],
            **{f"task/baseline-{labels}/macro_f1": score["macro_f1"] for labels, score in scores["baseline"].items()},
        }
    )
    context.events.say(
        f"test: {language['bits_per_byte']:.3f} bits per byte, perplexity {language['perplexity']:.1f} per token"
        f" (checkpoint of step {language['checkpoint_step']}, the best on validation)"
    )
    context.events.say(
        f"samples: {samples['parsed_fraction']:.0%} parse; of the real text, cut alike,"
        f" {samples['reference_parsed_fraction']:.0%}"
    )
    for labels, score in scores["baseline"].items():
        context.events.say(f"TF-IDF + logistic regression, {labels} labels: test macro-F1 {score['macro_f1']:.3f}")
    if "model_flops_utilisation" in speed:
        context.events.say(
            f"training: {speed['tokens_per_second']:,.0f} tokens/s, {speed['model_flops_utilisation']:.0%} of the"
            f" {speed['matmul_flops_per_second'] / 1e9:,.0f} GFLOP/s of a 2048-square product; {speed['flops_formula']}"
        )
