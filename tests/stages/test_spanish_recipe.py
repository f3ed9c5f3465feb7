"""The recipe in Spanish, from a folder to a registered model that writes: on a small sample, and on real pages."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow.pyfunc
import pandas
import pytest
import yaml

from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.errors import ConfigError, DataError
from foundation_core.files import read_json
from foundation_core.recipe import load_recipe
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest
from foundation_core.store import Result
from tests.support.spanish import TEXTS, write_spanish
from tests.support.whole import TRUNK, run_whole

RECIPE = Path(__file__).parents[2] / "recipes" / "espanol.yaml"
PAGES = Path("/usr/share/man/es")
Build = Callable[..., Context]


def recipe_of(folder: Path, **tokenizer: Any) -> dict[str, Any]:
    """The recipe's own body with another folder, and sizes that a few texts fill."""
    body: dict[str, Any] = yaml.safe_load(RECIPE.read_text())
    body["ingest"]["source"]["path"] = str(folder)
    body["ingest"]["tokenizer"] = {"vocabulary": 330, **tokenizer}
    small = {
        "steps": 3,
        "validate_every_steps": 2,
        "validation_rows": 16,
        "engine": "torch",
        "workers": 1,
        "precision": "float32",
    }
    body["pretrain"] |= {**small, "micro_batch_rows": 8, "checkpoint_every_steps": 2, "zero_stage": 0}
    body["pretrain"]["model"] |= {"trunk": TRUNK, "context_tokens": 48}
    body["finetune"] |= {
        "fragment_tokens": 24, "answer_tokens": 12, "few_labels": 1, "all_labels": 20, "evaluation_labels": 6,
        "steps": 2, "seeds": [0, 1], "workers": 1,
    }  # fmt: skip
    body["evaluate"] |= {"sample_tokens": 12, "test_rows": 16}
    return body


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("textos")
    write_spanish(path)
    return path


@pytest.fixture(scope="module")
def results(folder: Path, tmp_path_factory: pytest.TempPathFactory, serial_context: Build) -> Mapping[str, Result]:
    """The whole recipe on the sample."""
    body = recipe_of(folder)
    body["ingest"]["split"] |= {"validation_fraction": 0.2, "test_fraction": 0.2, "seed": 7}
    return run_whole(tmp_path_factory.mktemp("whole"), body, serial_context)


def rows(result: Result, name: str) -> dict[str, dict[str, Any]]:
    found = [row for table in ShardDataset(result.folder / name).tables() for row in table.to_pylist()]
    return {row["document"].removeprefix("folder/"): row for row in found}


def test_old_encodings_and_wrong_tables_are_repaired_and_a_page_is_prose(results: Mapping[str, Result]) -> None:
    kept = rows(results["corpus"], "documents")
    assert (kept["01.txt"]["text"], kept["01.txt"]["encoding"]) == (TEXTS[1], "latin-1")
    assert kept["02.txt"]["text"] == TEXTS[2]
    assert kept["regar.1.gz"]["text"].startswith("NOMBRE\n\nregar - echa agua")


def test_copies_near_copies_and_other_languages_fall_by_their_rules(results: Mapping[str, Result]) -> None:
    dropped = {name: row["rule"] for name, row in rows(results["corpus"], "dropped").items()}
    assert dropped == {"copia.txt": "copies <= 1", "04.txt": "similarity < 0.8", "baker.txt": "in_es >= 0.65"}


def test_the_fertility_of_the_tokenizer_is_told_for_spanish(results: Mapping[str, Result]) -> None:
    of = results["corpus"].summary["tokenizer"]["fertility"]
    assert of["es"]["texts"] == results["corpus"].summary["splits"]["validation"]["documents"]
    assert of["es"]["tokens_per_word"] > 1


def test_three_prompts_are_continued_in_the_samples_and_first_in_the_model_card(results: Mapping[str, Result]) -> None:
    prompts = load_recipe(RECIPE).evaluate.prompts
    samples = read_json(results["scores"].folder / "samples.json")
    assert [sample["prompt"] for sample in samples[:3]] == list(prompts)
    card = (results["version"].folder / "cards" / "model_card.md").read_text()
    shown = card.partition("What it writes.")[2]
    places = [shown.index(f"    {prompt}") for prompt in prompts]
    assert places == sorted(places)


def test_bits_per_byte_of_the_test_stand_beside_those_of_counting(results: Mapping[str, Result]) -> None:
    scores = results["scores"].summary
    assert scores["test"]["bits_per_byte"] > 0
    assert scores["deciding"] == "bits_per_byte"
    assert scores["baseline"]["label"] == "6-grams of bytes"
    # Three steps of training are behind any counting: a score that did not come from the model would not be.
    assert scores["arms"]["pretrained-all"]["bits_per_byte"]["mean"] > scores["baseline"]["all"]["bits_per_byte"]


def test_the_published_model_continues_spanish(results: Mapping[str, Result]) -> None:
    model = mlflow.pyfunc.load_model(str(results["version"].folder / "model"))
    texts = pandas.DataFrame({"text": ["El panadero", "¿Qué más? Mañana"]})
    for task in ("generate", "write"):
        assert len(model.predict(texts, {"task": task})) == 2


def test_rules_for_english_are_refused_on_spanish_texts_with_the_shares(
    folder: Path, tmp_path: Path, serial_context: Build
) -> None:
    overrides = [("ingest.source.path", str(folder)), ("ingest.quality.language", "en")]
    spec = load_recipe(RECIPE, overrides).ingest
    with pytest.raises(ConfigError, match=r"ingest\.quality\.language=en, and .*% of the texts are in it: es 9\d%"):
        ingest(spec, {}, serial_context(tmp_path))


@pytest.mark.parametrize(
    ("path", "fix"),
    [
        ("/usr/share/man/xx", "apt-get install manpages-xx, or correct source.path (--ingest.source.path FOLDER)"),
        ("/usr/share/man/pt_XX", "apt-get install manpages-pt-xx, or"),
        ("/nowhere/textos", "correct source.path (--ingest.source.path FOLDER)"),
    ],
)
def test_a_folder_that_is_not_there_is_named_with_what_brings_it(
    path: str, fix: str, tmp_path: Path, serial_context: Build
) -> None:
    spec = load_recipe(RECIPE, [("ingest.source.path", path)]).ingest
    with pytest.raises(DataError, match="is not there") as caught:
        ingest(spec, {}, serial_context(tmp_path))
    assert fix in str(caught.value)
    assert ("apt-get" in str(caught.value)) == path.startswith("/usr/share/man")


def test_real_manual_pages_go_through_the_recipe_s_ingestion(tmp_path: Path, serial_context: Build) -> None:
    if not PAGES.is_dir():
        pytest.skip("Debian's manpages-es is not installed")
    overrides = [("ingest.source.pattern", "man[5-8]/[a-m]*"), ("ingest.tokenizer.vocabulary", "1024")]
    spec = load_recipe(RECIPE, overrides).ingest
    summary = ingest(spec, {}, serial_context(tmp_path)).summary
    documents = summary["documents"]
    assert documents["kept"] > documents["in"] / 2
    assert documents["in"] == documents["kept"] + documents["dropped"] + documents["quarantined"]
    text = next(iter(ShardDataset(tmp_path / "documents").tables()))["text"][0].as_py()
    assert text.startswith(("NOMBRE", "Nombre"))
    assert "\\f" not in text
    assert json.dumps(summary)
