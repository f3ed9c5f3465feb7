"""A training that was interrupted ends where an uninterrupted one ends, to the last digit."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from foundation_core.errors import CheckpointError, DivergedError, Stopped
from foundation_core.specs import OptimizerSpec
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
