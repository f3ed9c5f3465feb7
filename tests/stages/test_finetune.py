"""The finetune stage: what it chooses, what it looks at, and how it goes on."""

import json
import math
from collections import Counter
from dataclasses import replace

import pytest
import torch

from foundation_core.adapt import trials
from foundation_core.adapt.fragments import PackageOfFragment
from foundation_core.adapt.scores import macro_f1
from foundation_core.adapt.tasks import load_task, save_task
from foundation_core.adapt.transfer import task_model
from foundation_core.adapt.trials import arms_of
from foundation_core.errors import ConfigError, Stopped
from foundation_core.events import read_events
from foundation_core.files import read_json
from foundation_core.stages.finetune import finetune
from foundation_core.weights import load_weights
from tests.support.faults import StopAfter
from tests.support.tasks import MODEL, SHAPE, TASK, ingested, pretrained

ARMS = arms_of(PackageOfFragment())
TRIALS = len(ARMS) * (len(TASK.lr) + len(TASK.seeds) - 1)


@pytest.fixture(scope="module")
def inputs(tmp_path_factory):
    root = tmp_path_factory.mktemp("inputs")
    return {"corpus": ingested(root), "trunk": pretrained(root)}


@pytest.fixture(scope="module")
def finished(inputs, tmp_path_factory, serial_context):
    folder = tmp_path_factory.mktemp("finetune")
    return folder, finetune(TASK, inputs, serial_context(folder))


@pytest.fixture
def trained(monkeypatch):
    """Counts the trainings that really happen, by name."""
    names = Counter()
    real = trials._train_and_commit
    monkeypatch.setattr(trials, "_train_and_commit", lambda piece: (names.update([piece.trial.name]), real(piece)))
    return names


def test_every_rate_is_tried_once_and_every_seed_at_the_chosen_one(inputs, tmp_path, serial_context, trained):
    summary = finetune(TASK, inputs, serial_context(tmp_path)).summary
    assert len(trained) == trained.total() == TRIALS == len(summary["trials"])
    for arm in ARMS:
        of_arm = [trial for trial in summary["trials"] if trial["arm"] == arm.name]
        assert {trial["lr"] for trial in of_arm if trial["seed"] == TASK.seeds[0]} == set(TASK.lr)
        chosen = summary["arms"][arm.name]["lr"]
        assert {trial["seed"] for trial in of_arm if trial["lr"] == chosen} == set(TASK.seeds)


def test_the_chosen_rate_is_the_best_on_validation(finished):
    summary = finished[1].summary
    for name, arm in summary["arms"].items():
        tried = [trial for trial in summary["trials"] if trial["arm"] == name and trial["seed"] == TASK.seeds[0]]
        best = max(tried, key=lambda trial: (trial["validation"], -trial["validation_loss"]))
        assert arm["lr"] == best["lr"]


def test_the_test_is_scored_for_the_chosen_rate_alone(finished):
    folder, result = finished
    tested = {path.stem for path in (folder / "tests").iterdir()}
    assert tested == {
        f"{name}-lr{arm['lr']:g}-seed{seed}" for name, arm in result.summary["arms"].items() for seed in TASK.seeds
    }
    assert len(tested) < TRIALS


def test_what_the_test_says_changes_no_choice(finished, inputs, tmp_path, serial_context):
    folder, result = finished
    task = load_task(folder)
    turned = (task.test.labels + 1) % len(task.classes)
    test = replace(task.test, tensors={**task.test.tensors, "labels": turned})
    save_task(tmp_path, replace(task, test=test))
    other = finetune(TASK, inputs, serial_context(tmp_path))
    for name, arm in result.summary["arms"].items():
        now = other.summary["arms"][name]
        assert [now[part] for part in ("lr", "best_seed", "validation")] == [
            arm[part] for part in ("lr", "best_seed", "validation")
        ]
        assert now["macro_f1"] != arm["macro_f1"]
        assert other.outputs[f"weights/{name}.safetensors"] == result.outputs[f"weights/{name}.safetensors"]


def test_the_figures_are_those_of_the_trials(finished):
    folder, result = finished
    summary = result.summary
    for name, arm in summary["arms"].items():
        names = [f"{name}-lr{arm['lr']:g}-seed{seed}" for seed in TASK.seeds]
        confusions = [read_json(folder / "tests" / f"{trial}.json")["confusion"] for trial in names]
        assert arm["macro_f1"]["values"] == [macro_f1(torch.tensor(confusion)) for confusion in confusions]
        assert arm["macro_f1"]["min"] == min(arm["macro_f1"]["values"])
    for labels, found in summary["gain"].items():
        pretrained_arm, scratch = (
            summary["arms"][f"{kind}-{labels}"]["macro_f1"] for kind in ("pretrained", "scratch")
        )
        assert found["mean_difference"] == pytest.approx(pretrained_arm["mean"] - scratch["mean"])
        assert found["beyond_spread"] == (pretrained_arm["min"] > scratch["max"])


def test_the_kept_weights_are_those_of_the_seed_that_is_best_on_validation(finished):
    folder, result = finished
    task = load_task(folder)
    assert not list((folder / "trials").glob("*.safetensors"))
    for name, arm in result.summary["arms"].items():
        model = task_model(MODEL, SHAPE, len(task.classes), TASK.pool, seed=0)
        model.load_state_dict(load_weights(folder / "weights" / f"{name}.safetensors"))
        found = PackageOfFragment().answer(model, task.validation, task.facts)
        best = TASK.seeds.index(arm["best_seed"])
        assert macro_f1(torch.tensor(found["confusion"])) == max(arm["validation"])
        assert arm["validation"][best] == max(arm["validation"])


@pytest.mark.parametrize("questions", [1, 3, TRIALS - 1])
def test_an_interrupted_stage_goes_on_by_trial_to_the_same_content(
    finished, inputs, tmp_path, serial_context, trained, questions
):
    with pytest.raises(Stopped, match="kept"):
        finetune(TASK, inputs, serial_context(tmp_path, stop=StopAfter(questions)))
    before = trained.total()
    assert 0 < before < TRIALS
    again = finetune(TASK, inputs, serial_context(tmp_path))
    assert trained.total() == TRIALS, "no trial was trained twice"
    assert again.outputs == finished[1].outputs
    assert again.summary == finished[1].summary


def test_a_stage_that_died_before_its_commit_finds_all_done(finished, inputs, serial_context, trained):
    folder, result = finished
    again = finetune(TASK, inputs, serial_context(folder))
    assert not trained
    assert again.outputs == result.outputs
    assert again.summary == result.summary


def test_processes_give_what_one_process_gives(finished, inputs, tmp_path, serial_context):
    from cluster.pools import ProcessPool

    spec = TASK.model_copy(update={"workers": 2})
    assert finetune(spec, inputs, serial_context(tmp_path, pool=ProcessPool())).outputs == finished[1].outputs


def test_a_corpus_with_too_few_packages_is_refused_with_the_counts(inputs, tmp_path, serial_context):
    spec = TASK.model_copy(update={"classes": 9, "least_classes": 9})
    with pytest.raises(ConfigError, match="4 packages can be classes") as error:
        finetune(spec, inputs, serial_context(tmp_path))
    assert "apples" in str(error.value)


def test_the_stage_reports_as_it_goes(finished):
    folder, result = finished
    events = [event for _, event in read_events(folder)]
    ends = [event for event in events if event["kind"] == "progress" and event["done"] == event["total"]]
    assert [event["total"] for event in ends[:2]] == [len(ARMS) * len(TASK.lr), len(ARMS) * len(TASK.seeds)]
    logged = {name: value for event in events if event["kind"] == "metrics" for name, value in event["values"].items()}
    assert logged["task/scratch-few/macro_f1"] == result.summary["arms"]["scratch-few"]["macro_f1"]["mean"]
    assert all(math.isfinite(value) for value in logged.values())
    assert json.loads(json.dumps(result.summary)) == result.summary


def test_the_best_arm_is_the_pretrained_one_that_is_best_on_validation(finished):
    summary = finished[1].summary
    means = {name: sum(arm["validation"]) for name, arm in summary["arms"].items() if name.startswith("pretrained")}
    assert summary["best_arm"] == max(means, key=means.get)
