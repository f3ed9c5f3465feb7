"""Trials: trained once, tested when asked, the same wherever they run."""

import pickle
from dataclasses import replace

import pytest
import torch

from foundation_core.adapt import trials
from foundation_core.adapt.fragments import PackageOfFragment
from foundation_core.adapt.tasks import save_task
from foundation_core.adapt.transfer import Pretrained
from foundation_core.adapt.trials import Arm, Trial, TrialPiece, arms_of, run_trial
from foundation_core.specs import FinetuneSpec
from tests.support.tasks import pretrained, write_tokens

ARMS = arms_of(PackageOfFragment())
SPEC = FinetuneSpec(
    classes=2, least_files=1, fragment_tokens=8, few_labels=2, all_labels=6, evaluation_labels=3, steps=3, batch_rows=4
)


def _rows(tally):
    return sum(map(sum, tally["confusion"]))


@pytest.fixture
def piece(tmp_path):
    """Builds the piece of a trial in a folder, which has a task and a trunk."""
    trunk = pretrained(tmp_path)
    for split in ("train", "validation", "test"):
        write_tokens(tmp_path, split, {f"{package}/{split}": 60 for package in ("a", "b")})
    data = PackageOfFragment().data(tmp_path, SPEC)

    def build(folder="one", arm=ARMS[0], test=False, **fields):
        save_task(tmp_path / folder, data)
        trial = Trial(arm, **{"lr": 1e-2, "seed": 0, **fields})
        found = Pretrained.find(trunk.folder, trunk.outputs["weights.safetensors"])
        return TrialPiece(trial, SPEC, found, tmp_path / folder, test)

    return build


def test_a_trial_leaves_its_weights_its_losses_and_its_answers_on_validation(piece):
    result = run_trial(piece())
    assert len(result.losses) == SPEC.steps
    assert _rows(result.validation) == 6
    assert piece().weights_file.exists()
    assert piece().trial.name == "pretrained-few-lr0.01-seed0"


def test_the_test_is_scored_only_when_asked(piece):
    assert run_trial(piece()).test is None
    assert not piece().tested_file.exists()
    assert _rows(run_trial(piece(test=True)).test) == 6
    assert piece().tested_file.exists()


def test_what_is_written_is_not_done_again(piece, monkeypatch):
    first = run_trial(piece(test=True))
    monkeypatch.setattr(trials, "load_task", None)  # whatever trains or answers needs the task
    assert run_trial(piece(test=True)) == first
    with pytest.raises(TypeError):
        run_trial(piece(test=True, seed=1))


def test_a_trial_without_its_last_file_is_trained_again_to_the_same_bytes(piece):
    run_trial(piece())
    before = [path.read_bytes() for path in (piece().trained_file, piece().weights_file)]
    piece().trained_file.unlink()
    run_trial(piece())
    assert [path.read_bytes() for path in (piece().trained_file, piece().weights_file)] == before


def test_the_same_trial_gives_the_same_bytes_elsewhere_and_another_seed_does_not(piece):
    one, other = piece("one", test=True), piece("other", test=True)
    for run in (one, other):
        run_trial(run)
    for name in ("trained_file", "tested_file", "weights_file"):
        assert getattr(one, name).read_bytes() == getattr(other, name).read_bytes()
    assert run_trial(piece(seed=1)).losses != run_trial(one).losses


def test_every_arm_and_rate_and_seed_has_a_name_of_its_own():
    every = [Trial(arm, lr, seed) for arm in ARMS for lr in (1e-3, 3e-3) for seed in (0, 1)]
    assert len({trial.name for trial in every}) == len(every) == 16


def test_arms_differ_in_where_they_start_and_in_what_they_read(piece):
    losses = {arm: run_trial(piece(arm=arm)).losses for arm in ARMS}
    assert len({tuple(values) for values in losses.values()}) == 4
    assert Arm(False, "all").name == "scratch-all"


def test_a_piece_and_its_result_cross_a_process_border(piece):
    sent = pickle.loads(pickle.dumps(piece()))
    assert sent == piece()
    assert pickle.loads(pickle.dumps(run_trial(sent))) == run_trial(piece())


def test_a_trial_uses_one_thread_and_gives_the_others_back(piece, monkeypatch):
    seen = []
    real = trials.load_task
    monkeypatch.setattr(trials, "load_task", lambda *parts: (seen.append(torch.get_num_threads()), real(*parts))[1])
    torch.set_num_threads(2)
    try:
        run_trial(piece())
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    assert seen == [1]


def test_a_probe_keeps_the_pretrained_trunk(piece):
    from foundation_core.weights import load_weights

    kept = []
    for adapt in ("probe", "full"):
        probe = piece(folder=adapt)
        probe = replace(probe, spec=SPEC.model_copy(update={"adapt": adapt}))
        run_trial(probe)
        after, before = load_weights(probe.weights_file), probe.trunk.weights()
        kept.append(all(torch.equal(after[name], value) for name, value in before.items()))
    assert kept == [True, False]
