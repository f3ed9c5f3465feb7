"""A training that was interrupted ends where an uninterrupted one ends, to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foundation_core.errors import CheckpointError, DivergedError, Stopped
from foundation_core.events import read_events
from foundation_core.files import read_json, write_json
from foundation_core.specs import OptimizerSpec
from foundation_core.train import loop
from foundation_core.train.goodput import SAVE_SECONDS, VALIDATION_SECONDS
from tests.support.training import OPTIMIZER, Trained, Training, weights_sha256, write_corpus

STEPS = 12


def _from_step(step: int, what: BaseException | None = None) -> Callable[[], bool]:
    """A stop signal: False before a step, then True, or an exception out of the blue."""
    asked = 0

    def requested() -> bool:
        nonlocal asked
        asked += 1
        if asked >= step and what is not None:
            raise what
        return asked >= step

    return requested


@pytest.fixture(scope="module")
def uninterrupted(token_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    return Training(tmp_path_factory.mktemp("uninterrupted"), token_corpus, steps=STEPS).run()


def _assert_equal(one: Trained, other: Trained) -> None:
    assert one.losses == other.losses
    assert one.grad_norms == other.grad_norms
    assert one.validations == other.validations
    assert weights_sha256(one.weights) == weights_sha256(other.weights)
    assert (one.progress.best_step, one.progress.labels) == (other.progress.best_step, other.progress.labels)


def test_the_training_learns(token_corpus: Path, tmp_path: Path, uninterrupted: Trained) -> None:
    """Beside a training on the same rows whose steps are too small to learn anything: some rows are easier."""
    tiny_steps = OPTIMIZER.model_copy(update={"lr": 1e-9})
    standing = Training(tmp_path, token_corpus, steps=STEPS, optimizer=tiny_steps).run()
    assert list(uninterrupted.losses) == list(range(1, STEPS + 1))
    assert uninterrupted.losses[1] == standing.losses[1]
    last = range(STEPS - 3, STEPS + 1)
    assert sum(uninterrupted.losses[step] for step in last) < 0.85 * sum(standing.losses[step] for step in last)


def test_two_runs_are_equal_to_the_last_digit(token_corpus: Path, tmp_path: Path, uninterrupted: Trained) -> None:
    _assert_equal(Training(tmp_path, token_corpus, steps=STEPS).run(), uninterrupted)


@pytest.mark.parametrize("stops", [[1], [4], [5], [6], [11], [2, 3, 4]], ids=str)
def test_a_stopped_training_saves_first_and_ends_like_an_uninterrupted_one(
    token_corpus: Path, tmp_path: Path, uninterrupted: Trained, stops: list[int]
) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS)
    done = 0
    for more in stops:
        done += more
        with pytest.raises(Stopped, match=f"after step {done} of {STEPS}, saved"):
            training.run(_from_step(more))
        assert (tmp_path / "checkpoints" / f"step-{done:08d}" / "manifest.json").exists()
    _assert_equal(training.run(), uninterrupted)


@pytest.mark.parametrize("step", [3, 7, 12])
def test_a_training_that_died_without_saving_repeats_steps_and_ends_like_an_uninterrupted_one(
    token_corpus: Path, tmp_path: Path, uninterrupted: Trained, step: int
) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS, checkpoint_every_steps=5)
    with pytest.raises(KeyboardInterrupt):
        training.run(_from_step(step, KeyboardInterrupt()))
    again = training.run()
    _assert_equal(again, uninterrupted)
    assert len(again.progress.step_seconds) == STEPS - 5 * ((step - 1) // 5)


def test_a_stop_at_the_last_step_is_no_stop(token_corpus: Path, tmp_path: Path, uninterrupted: Trained) -> None:
    _assert_equal(Training(tmp_path, token_corpus, steps=STEPS).run(_from_step(STEPS)), uninterrupted)


def test_a_finished_training_that_runs_again_does_nothing(
    token_corpus: Path, tmp_path: Path, uninterrupted: Trained
) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS)
    training.run()
    again = training.run()
    assert again.progress.step_seconds == []
    assert again.best == {}
    _assert_equal(again, uninterrupted)


def test_how_often_it_is_saved_changes_nothing(token_corpus: Path, tmp_path: Path, uninterrupted: Trained) -> None:
    _assert_equal(Training(tmp_path, token_corpus, steps=STEPS, checkpoint_every_steps=1).run(), uninterrupted)


def test_the_seed_is_felt(token_corpus: Path, tmp_path: Path, uninterrupted: Trained) -> None:
    """The control beside the equalities: another order of the same samples is another training."""
    other = Training(tmp_path, token_corpus, steps=STEPS, seed=1).run()
    assert other.losses[STEPS] != uninterrupted.losses[STEPS]
    assert weights_sha256(other.weights) != weights_sha256(uninterrupted.weights)


# The rate rises without end, and the steps of the last half do harm: the best validation is not the last.
WILD = OPTIMIZER.model_copy(update={"lr": 0.8, "warmup_fraction": 1.0})


@pytest.fixture(scope="module")
def wild(token_corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Trained:
    trained = Training(tmp_path_factory.mktemp("wild"), token_corpus, optimizer=WILD, validate_every_steps=2).run()
    assert 2 < trained.progress.best_step < 10, trained.validations
    return trained


def test_the_best_weights_are_those_of_the_best_validation(token_corpus: Path, tmp_path: Path, wild: Trained) -> None:
    best = min(wild.validations, key=lambda step: wild.validations[step])
    assert wild.progress.best_step == best == max(wild.best)
    assert wild.progress.best_scores["bits_per_byte"] == wild.validations[best]
    training = Training(tmp_path, token_corpus, optimizer=WILD, validate_every_steps=99)
    with pytest.raises(Stopped):
        training.run(_from_step(best))
    there = weights_sha256(training.saved_weights())
    assert weights_sha256(wild.best[best]) == there != weights_sha256(wild.weights)


def test_the_best_step_of_before_an_interruption_stays_the_best(
    token_corpus: Path, tmp_path: Path, wild: Trained
) -> None:
    training = Training(tmp_path, token_corpus, optimizer=WILD, validate_every_steps=2)
    with pytest.raises(Stopped):
        training.run(_from_step(wild.progress.best_step + 1))
    again = training.run()
    assert again.best == {}, "nothing after the interruption was better"
    assert again.progress.best_step == wild.progress.best_step


def _first_events(folder: Path) -> list[tuple[str, int]]:
    """What a training did, in its order: steps, validations and saves, each with its step."""
    kinds = {"train/loss_nats": "step", VALIDATION_SECONDS: "validation", SAVE_SECONDS: "save"}
    metrics = [event for _, event in read_events(folder / "rank-0") if event["kind"] == "metrics"]
    return [(kinds[name], event["step"]) for event in metrics for name in event["values"] if name in kinds]


def _state(folder: Path, step: int) -> dict[str, object]:
    state: dict[str, object] = read_json(folder / "checkpoints" / f"step-{step:08d}" / "manifest.json")["state"]
    return state


@pytest.mark.parametrize("step", [3, 6, 9])
def test_a_stop_at_a_step_to_be_validated_saves_at_once_and_validates_when_it_goes_on(
    token_corpus: Path, tmp_path: Path, uninterrupted: Trained, step: int
) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS)
    with pytest.raises(Stopped):
        training.run(_from_step(step))
    done = _first_events(tmp_path)
    assert done[done.index(("step", step)) + 1 :] == [("save", step), ("save", step)], "the save, and the wait for it"
    assert _state(tmp_path, step)["owes_validation"]
    _assert_equal(training.run(), uninterrupted)
    since = _first_events(tmp_path)[len(done) :]
    assert since[:2] == [("validation", step), ("step", step + 1)]
    assert since.count(("validation", step)) == 1


def test_a_stop_between_validations_owes_none_and_an_owed_one_that_is_forgotten_is_missed(
    token_corpus: Path, tmp_path: Path, uninterrupted: Trained
) -> None:
    """The controls to the test above: nothing is validated where it is not due, and the debt is what does it."""
    between, forgotten = (Training(tmp_path / name, token_corpus, steps=STEPS) for name in ("between", "forgotten"))
    with pytest.raises(Stopped):
        between.run(_from_step(4))
    assert not _state(between.folder, 4)["owes_validation"]
    _assert_equal(between.run(), uninterrupted)
    with pytest.raises(Stopped):
        forgotten.run(_from_step(6))
    manifest = forgotten.folder / "checkpoints" / "step-00000006" / "manifest.json"
    body = read_json(manifest)
    del body["state"]["owes_validation"]
    write_json(manifest, body)
    assert uninterrupted.validations.keys() - forgotten.run().validations.keys() == {6}


def test_the_best_weights_are_found_by_an_owed_validation_too(
    token_corpus: Path, tmp_path: Path, wild: Trained
) -> None:
    best = wild.progress.best_step
    training = Training(tmp_path, token_corpus, optimizer=WILD, validate_every_steps=2)
    with pytest.raises(Stopped):
        training.run(_from_step(best))
    again = training.run()
    assert again.progress.best_step == best
    assert again.progress.best_scores == wild.progress.best_scores
    assert weights_sha256(again.best[best]) == weights_sha256(wild.best[best])


def test_a_stop_at_the_last_step_saves_before_the_last_validation_which_may_be_cut_short(
    token_corpus: Path, tmp_path: Path, uninterrupted: Trained, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(tmp_path, token_corpus, steps=STEPS)

    def killed(*_: object) -> float:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(loop, "_validate", killed)
        training.validate_every_steps = STEPS
        with pytest.raises(KeyboardInterrupt):
            training.run(_from_step(STEPS))
    assert _state(tmp_path, STEPS)["owes_validation"]
    again = training.run()
    assert again.progress.step_seconds == [], "no step is done again"
    assert again.validations == {STEPS: uninterrupted.validations[STEPS]}
    assert weights_sha256(again.best[STEPS]) == weights_sha256(uninterrupted.weights)


def test_a_diverging_training_stops_and_leaves_a_checkpoint_from_before(token_corpus: Path, tmp_path: Path) -> None:
    hopeless = OptimizerSpec(lr=1e30, warmup_fraction=0.5, clip_norm=1e30)
    training = Training(tmp_path, token_corpus, optimizer=hopeless, checkpoint_every_steps=1, validate_every_steps=99)
    with pytest.raises(DivergedError, match="lower the learning rate"):
        training.run()
    weights = training.saved_weights()
    assert all(bool(tensor.isfinite().all()) for tensor in weights.values())


@pytest.mark.parametrize(
    ("change", "name"), [({"seed": 1}, "order"), ({"batch_rows": 6}, "order"), ({"corpus": "other"}, "corpus")], ids=str
)
def test_a_checkpoint_of_another_training_is_refused_by_name(
    token_corpus: Path, tmp_path: Path, change: dict[str, object], name: str
) -> None:
    Training(tmp_path, token_corpus, steps=2).run()
    if "corpus" in change:
        change = {"corpus": write_corpus(tmp_path / "other", seed=1)}
    other = Training(tmp_path, **{"corpus": token_corpus, "steps": 2, **change})  # type: ignore[arg-type]
    with pytest.raises(CheckpointError, match=f"belongs to another training: its {name} is"):
        other.run()
