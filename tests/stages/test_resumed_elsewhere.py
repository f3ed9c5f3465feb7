"""A training goes on where its folder is empty, from a store: with its best weights and all that it had found out."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from foundation_core.adapt.transfer import WEIGHTS_FILE
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import CheckpointError, Stopped
from foundation_core.events import read_events
from foundation_core.files import read_json, write_json
from foundation_core.specs import CheckpointSpec, ModelSpec, OptimizerSpec, PretrainSpec, TrunkSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.pretrain import pretrain
from foundation_core.store import Result, StageResult
from foundation_core.train.ledger import LEDGER_FILE, Ledger
from foundation_core.train.precision import PRECISION_FILE
from tests.support.faults import StopAfter
from tests.support.tasks import ingested

Contexts = Callable[..., Context]
STOP_QUESTIONS = 7
# The rate is absurd, so that the first validation is the best one.
SPEC = PretrainSpec(
    model=ModelSpec(trunk=TrunkSpec(width=16, depth=1, heads=2), context_tokens=32), steps=12, batch_rows=4,
    optimizer=OptimizerSpec(lr=10.0, warmup_fraction=1.0), precision="float32", validate_every_steps=2,
    validation_rows=20, checkpoint_every_steps=3, workers=1, engine="torch",
)  # fmt: skip


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Result:
    return ingested(tmp_path_factory.mktemp("ingested"))


@pytest.fixture(scope="module")
def whole(corpus: Result, tmp_path_factory: pytest.TempPathFactory, serial_context: Contexts) -> StageResult:
    return pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path_factory.mktemp("whole")))


def with_store(folder: Path) -> PretrainSpec:
    store = folder / "store"
    store.mkdir(exist_ok=True)
    return SPEC.model_copy(update={"checkpoints": CheckpointSpec(store=str(store))})


def stopped(spec: PretrainSpec, corpus: Result, context: Context) -> None:
    with pytest.raises(Stopped):
        pretrain(spec, {"corpus": corpus}, context)


def said(folder: Path, pattern: str) -> list[str]:
    """What the sentences of a stage have in place of the pattern's group."""
    texts = [str(event.get("text")) for _, event in read_events(folder)]
    return [found[1] for text in texts if (found := re.search(pattern, text))]


def test_an_empty_folder_gets_the_best_weights_from_the_store(
    tmp_path: Path, corpus: Result, whole: StageResult, serial_context: Contexts
) -> None:
    spec = with_store(tmp_path)
    stopped(spec, corpus, serial_context(tmp_path / "here", stop=StopAfter(STOP_QUESTIONS)))
    there = pretrain(spec, {"corpus": corpus}, serial_context(tmp_path / "there"))
    assert whole.summary["best_step"] < STOP_QUESTIONS, "no later validation may write them again"
    assert there.outputs[WEIGHTS_FILE] == whole.outputs[WEIGHTS_FILE]
    assert there.summary["best_validation"] == whole.summary["best_validation"]
    assert there.summary["model_hash_end"] == whole.summary["model_hash_end"]


def test_best_weights_that_somebody_removed_come_back_from_the_checkpoint(
    tmp_path: Path, corpus: Result, whole: StageResult, serial_context: Contexts
) -> None:
    stopped(SPEC, corpus, serial_context(tmp_path, stop=StopAfter(STOP_QUESTIONS)))
    (tmp_path / WEIGHTS_FILE).unlink()
    assert (
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path)).outputs[WEIGHTS_FILE]
        == (whole.outputs[WEIGHTS_FILE])
    )


def test_without_best_weights_anywhere_a_training_is_refused_and_not_finished_without_them(
    tmp_path: Path, corpus: Result, serial_context: Contexts
) -> None:
    stopped(SPEC, corpus, serial_context(tmp_path, stop=StopAfter(STOP_QUESTIONS)))
    for path in (tmp_path / WEIGHTS_FILE, *tmp_path.glob("checkpoints/*/best.safetensors")):
        path.unlink()
    for path in tmp_path.glob("checkpoints/*/manifest.json"):
        body = read_json(path)
        write_json(path, {**body, "files": [file for file in body["files"] if file["file"] != "best.safetensors"]})
    with pytest.raises(CheckpointError, match="the best weights so far"):
        pretrain(SPEC, {"corpus": corpus}, serial_context(tmp_path))


def test_what_was_found_out_is_known_again_where_the_folder_is_empty(
    tmp_path: Path, corpus: Result, serial_context: Contexts
) -> None:
    spec = with_store(tmp_path).model_copy(update={"precision": "auto"})
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    document = next(ShardDataset(corpus.folder / "tokens" / "train").tables())["document"][0].as_py()
    found = {"failure": "persistent_nan", "step": 1, "rewind_to": 0, "documents": [document]}
    write_json(here / LEDGER_FILE, {"version": 1, "entries": [found]})
    stopped(spec, corpus, serial_context(here, stop=StopAfter(STOP_QUESTIONS)))
    stopped(spec, corpus, serial_context(there, stop=StopAfter(1)))
    for name in (LEDGER_FILE, PRECISION_FILE):
        assert read_json(there / name) == read_json(here / name)


def test_a_checkpoint_that_knew_an_entry_which_is_lost_is_refused(tmp_path: Path) -> None:
    nothing: Any = None  # no row is looked at
    ledger = Ledger(tmp_path, nothing, nothing, batch_rows=4)
    with pytest.raises(CheckpointError, match=LEDGER_FILE):
        ledger.allows(3, {"faults": {"quarantines": 1}})
    assert ledger.allows(3, {"faults": {"quarantines": 0}})


def test_a_try_begins_with_the_model_that_the_one_before_it_left(
    tmp_path: Path, corpus: Result, whole: StageResult, serial_context: Contexts
) -> None:
    folder = tmp_path / "run"
    stopped(SPEC, corpus, serial_context(folder, stop=StopAfter(STOP_QUESTIONS)))
    pretrain(SPEC, {"corpus": corpus}, serial_context(folder))
    begins = said(folder, r"workers, .* model (\w{12})$")
    (left,), (ended,) = (
        said(folder, r"^left after step \d+: .* model (\w{12})$"),
        said(folder, r"^ended .* model (\w+)$"),
    )
    assert begins == [whole.summary["model_hash_start"][:12], left]
    assert ended == whole.summary["model_hash_end"][:12] != left
    shutil.rmtree(folder)
