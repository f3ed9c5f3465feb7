"""The evaluate stage: every score, again the same."""

import json
import math

import pytest
import torch

from foundation_core.data.loading.packing import Windows
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.tokens.byte_level import load_tokenizer, token_bytes
from foundation_core.errors import CheckpointError, Stopped
from foundation_core.evaluate.likelihood import score_rows
from foundation_core.evaluate.samples import statements, whole_lines
from foundation_core.events import read_events
from foundation_core.files import read_json
from foundation_core.identity import action_key
from foundation_core.model.families import build
from foundation_core.objectives.language import NextToken
from foundation_core.specs import EvaluateSpec
from foundation_core.stages.evaluate import evaluate
from foundation_core.stages.finetune import finetune
from foundation_core.store import commit_result
from foundation_core.weights import load_weights
from tests.support.tasks import MODEL, SHAPE, TASK, ingested, pretrained

SPEC = EvaluateSpec(test_rows=10**6, samples=4, sample_tokens=24, threads=1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory, serial_context):
    root = tmp_path_factory.mktemp("inputs")
    inputs = {"corpus": ingested(root), "trunk": pretrained(root)}
    folder = root / "finetune"
    done = finetune(TASK, inputs, serial_context(folder))
    return {**inputs, "task": commit_result(folder, action_key("finetune", TASK, {}), done)}


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory, serial_context):
    folder = tmp_path_factory.mktemp("evaluate")
    return folder, evaluate(SPEC, inputs, serial_context(folder))


def test_the_scores_say_against_what_the_data_was_checked(inputs, finished):
    folder, result = finished
    assert read_json(folder / "scores.json")["contamination"] == result.summary["contamination"]
    assert result.summary["contamination"] == "not checked against any evaluation set"


def test_the_loss_is_that_of_the_kept_checkpoint_on_the_test_split(inputs, finished):
    test = finished[1].summary["test"]
    model = build(MODEL, SHAPE).eval()
    model.load_state_dict(load_weights(inputs["trunk"].folder / "weights.safetensors"))
    corpus = inputs["corpus"].folder
    lengths = token_bytes(load_tokenizer(corpus / "tokenizer.json"))

    def bits_per_byte(split):
        windows = Windows(ShardDataset(corpus / "tokens" / split), MODEL.context_tokens)
        return score_rows(model, NextToken(), windows, torch.arange(len(windows)), lengths).bits_per_byte

    assert test["bits_per_byte"] == pytest.approx(bits_per_byte("test"), rel=1e-6)
    assert test["bits_per_byte"] != pytest.approx(bits_per_byte("validation"), rel=1e-6)
    assert test["perplexity"] == pytest.approx(math.exp(test["total"] / test["labels"]))
    assert test["rows"] == test["rows_of_split"]
    assert test["checkpoint_step"] == inputs["trunk"].summary["best_step"]


def test_the_same_inputs_give_the_same_content_and_another_seed_other_samples(
    inputs, finished, tmp_path, serial_context
):
    again = evaluate(SPEC, inputs, serial_context(tmp_path / "again"))
    assert again.outputs == finished[1].outputs
    other = evaluate(SPEC.model_copy(update={"seed": 1}), inputs, serial_context(tmp_path / "other"))
    assert other.outputs["samples.json"] != again.outputs["samples.json"]


def test_speeds_are_told_and_not_part_of_the_content(inputs, finished):
    folder, result = finished
    assert set(result.outputs) == {"scores.json", "samples.json"}
    assert "speed" not in read_json(folder / "scores.json")
    speed = result.summary["speed"]
    assert speed["tokens_per_second"] == inputs["trunk"].summary["tokens_per_second"]
    assert speed["flops_formula"]
    assert speed["samples_tokens_per_second"] > 0


def test_the_arms_and_the_gain_stand_beside_the_baseline(inputs, finished):
    summary = finished[1].summary
    assert summary["arms"] == inputs["task"].summary["arms"]
    assert summary["gain"] == inputs["task"].summary["gain"]
    baseline = summary["baseline"]
    assert len(baseline["few"]["values"]) == len(TASK.seeds)
    assert len(baseline["all"]["values"]) == 1
    assert baseline["all"]["macro_f1"] > 0.9, "every package has words of its own"


def test_the_samples_show_what_was_judged(finished):
    folder, result = finished
    samples = read_json(folder / "samples.json")
    assert len(samples) == SPEC.samples
    for sample in samples:
        found = statements(sample["prompt"] + whole_lines(sample["completion"]))
        assert sample["statements"] == (None if found is None else found - 1)
    parsed = [sample["statements"] is not None for sample in samples]
    assert result.summary["samples"]["parsed_fraction"] == sum(parsed) / len(parsed)


def test_the_stage_reports_figures_that_can_be_logged(finished):
    folder, result = finished
    events = [event for _, event in read_events(folder)]
    logged = {name: value for event in events if event["kind"] == "metrics" for name, value in event["values"].items()}
    assert logged["test/bits_per_byte"] == result.summary["test"]["bits_per_byte"]
    assert logged["samples/parsed_fraction"] == result.summary["samples"]["parsed_fraction"]
    assert logged["task/baseline-few/macro_f1"] == result.summary["baseline"]["few"]["macro_f1"]
    assert json.loads(json.dumps(result.summary)) == result.summary


def test_a_stop_leaves_no_scores(inputs, tmp_path, serial_context):
    class Stop:
        def requested(self):
            return True

    with pytest.raises(Stopped, match="evaluate stopped"):
        evaluate(SPEC, inputs, serial_context(tmp_path, stop=Stop()))
    assert not (tmp_path / "scores.json").exists()


def test_edited_weights_of_the_trunk_are_refused(inputs, tmp_path, serial_context):
    trunk = pretrained(tmp_path)
    path = trunk.folder / "weights.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + b"edit")
    with pytest.raises(CheckpointError, match="sha256"):
        evaluate(SPEC, {**inputs, "trunk": trunk}, serial_context(tmp_path / "evaluate"))
