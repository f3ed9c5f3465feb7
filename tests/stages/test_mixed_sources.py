"""A mixture of sources whose documents have groups of their own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
import torch
from pydantic import ValidationError

from foundation_core.data.loading.mixture_entries import OfSource
from foundation_core.data.loading.packing import Size, Windows
from foundation_core.data.shards.dataset import ShardDataset, ShardWriter
from foundation_core.data.units.work import TOKENS
from foundation_core.errors import ConfigError
from foundation_core.specs import MixedGroupSpec, MixtureSpec, PretrainSpec
from foundation_core.specs.loading import Packing
from foundation_core.stages.sample_order import chosen_by, order_of
from foundation_core.stages.training_data import TrainingData
from tests.support.tasks import ingested

BOTH = ({"source": "web", "weight": 7.0}, {"source": "books", "weight": 3.0})
SIZES = {"web/folder/en": (40, 11), "web/folder/es": (20, 11), "books/folder/en": (10, 31), "webcam/folder/en": (9, 11)}
"""Documents of each folder, and the tokens of each of them."""


def spec(*entries: dict[str, Any], **mixture: Any) -> PretrainSpec:
    groups = [MixedGroupSpec.model_validate(entry) for entry in entries]
    return PretrainSpec(steps=10, batch_rows=4, mixture=MixtureSpec.model_validate({"groups": groups, **mixture}))


@pytest.fixture
def dataset(tmp_path: Path) -> ShardDataset:
    """Two sources with folders of equal names, and a third one, in several shards."""
    names = [f"{folder}/{number}" for folder, (count, _) in SIZES.items() for number in range(count)]
    folders = [name.rpartition("/")[0] for name in names]
    rows = {
        "document": names,
        "group": [folder.rpartition("/")[2] for folder in folders],
        "tokens": [[1] * SIZES[folder][1] for folder in folders],
    }
    with ShardWriter(tmp_path, TOKENS, source={}, shard_size=300) as writer:
        writer.write(pa.table(rows, schema=TOKENS))
    return ShardDataset(tmp_path)


def sources(windows: Windows, rows: torch.Tensor) -> list[str]:
    """The source of each row, all of whose documents are of one."""
    found = [{name.split("/")[0] for name in documents} for documents in windows.documents_of(rows)]
    assert all(len(of_row) == 1 for of_row in found)
    return [of_row.pop() for of_row in found]


@pytest.mark.parametrize("packing", ["cut", "best_fit", "one_document"])
@pytest.mark.parametrize("compiled", [False, True])
def test_sources_are_read_in_exact_proportions_whatever_their_folders_are_called(
    dataset: ShardDataset, packing: Packing, compiled: bool
) -> None:
    asked = spec(*BOTH, by="epochs", max_epochs=99.0)
    windows = Windows(dataset, 10, packing, chosen_by(asked.mixture), compiled)
    sizes = windows.sizes()
    assert sizes[OfSource("web")][1:] == (660, 60)
    assert sizes[OfSource("books")][1:] == (310, 10)
    order, rows = order_of(asked, windows), {name: sizes[OfSource(name)].rows for name in ("web", "books")}
    share = 7 * rows["web"] / (7 * rows["web"] + 3 * rows["books"])
    read = sources(windows, order.take(0, 400))
    for samples in range(1, 401):
        assert abs(read[:samples].count("web") - samples * share) < 1
    assert set(read) == {"web", "books"}
    assert windows.gather(order.take(0, 40))["tokens"].shape == (40, 11)
    # the negative control: groups of equal names are one group, of three sources
    merged = Windows(dataset, 10, packing, ["en"], compiled)
    assert merged.sizes()["en"].documents == 40 + 10 + 9


@pytest.mark.parametrize(
    ("by", "web"), [({}, 6867), ({"by": "tokens"}, 6867), ({"by": "documents"}, 4375), ({"by": "epochs"}, 8235)]
)
def test_weights_of_sources_count_what_the_spec_says_and_tokens_unless_it_says_so(
    dataset: ShardDataset, by: dict[str, str], web: int
) -> None:
    """A document of "web" is one row and 11 tokens, one of "books" three rows and 31 tokens.

    Of 10,000 rows, those of "web", at weights of 7 and 3: by tokens 7 x 60/660 of 7 x 60/660 + 3 x 30/310, by documents
    7 of 7 + 3 x 3, by epochs 7 x 60 of 7 x 60 + 3 x 30.
    """
    asked = spec(*BOTH, **by)
    windows = Windows(dataset, 10, "one_document", chosen_by(asked.mixture))
    assert list(windows.sizes().values()) == [Size(60, 660, 60), Size(30, 310, 10)]
    taken = order_of(asked, windows).take(0, 10_000)
    assert int((taken < 60).sum()) == web
    assert sources(windows, taken[:40]) == ["web" if row < 60 else "books" for row in taken[:40].tolist()]


def test_a_source_that_would_be_read_too_often_is_refused_with_the_figures(dataset: ShardDataset) -> None:
    asked = spec({"source": "webcam"}, {"source": "web"}, by="documents", max_epochs=2.0)
    windows = Windows(dataset, 10, "one_document", chosen_by(asked.mixture))
    with pytest.raises(ConfigError, match=r"reads the source 'webcam' 2\.22 times: 20 rows in 10 steps, and it has 9"):
        order_of(asked, windows)


def test_a_source_that_is_not_there_is_refused_with_those_that_are(dataset: ShardDataset) -> None:
    asked = spec({"source": "web"}, {"source": "boo"})
    with pytest.raises(ConfigError, match="nothing to predict in the source 'boo'") as caught:
        order_of(asked, Windows(dataset, 10, "cut", chosen_by(asked.mixture)))
    assert caught.value.allowed == "'books', 'web', 'webcam'"


def test_a_group_and_a_source_may_be_mixed_if_they_share_no_document(dataset: ShardDataset) -> None:
    apart = spec({"source": "books"}, {"group": "es"}, max_epochs=99.0)
    windows = Windows(dataset, 10, "cut", chosen_by(apart.mixture))
    assert sources(windows, order_of(apart, windows).take(0, 40)).count("books") == 20
    shared = spec({"source": "web"}, {"group": "es"}, max_epochs=99.0)
    with pytest.raises(ConfigError, match=r"has the group 'es' and the source 'web', and a shard has \d+ documents of"):
        order_of(shared, Windows(dataset, 10, "cut", chosen_by(shared.mixture)))


@pytest.mark.parametrize(
    ("entries", "said"),
    [
        ([{"weight": 2.0}], "needs a group or a source, one of both; found neither"),
        ([{"group": "en", "source": "web"}], "one of both; found group 'en' and source 'web'"),
        ([{"source": "web"}, {"source": "web"}], "each group or source once, found ['web/', 'web/']"),
    ],
)
def test_an_entry_names_a_group_or_a_source_and_each_once(entries: list[dict[str, Any]], said: str) -> None:
    with pytest.raises(ValidationError) as caught:
        spec(*entries)
    assert said in str(caught.value)
    spec({"group": "web"}, {"source": "web"}, {"group": ""})  # the negative control


def test_sources_of_an_ingest_result_are_weighed_with_folders_and_labels_of_their_own(tmp_path: Path) -> None:
    labels = ["apples", "bridges", "other"]
    said = [{"text": f"a row that says {number} " * 9, "label": labels[number % 3]} for number in range(60)]
    (tmp_path / "said.jsonl").write_text("".join(f"{json.dumps(row)}\n" for row in said))
    parts = {
        "code": {"kind": "folder", "path": str(tmp_path / "source")},
        "said": {"kind": "table", "path": str(tmp_path / "said.jsonl"), "text_field": "text", "label_field": "label"},
    }
    corpus = ingested(tmp_path, source={"kind": "several", "parts": parts})
    asked = spec({"source": "said", "weight": 1.0}, {"source": "code", "weight": 3.0}, max_epochs=99.0)
    data = TrainingData.open(corpus, 32, "best_fit", chosen_by(asked.mixture))
    assert isinstance(data.train, Windows)
    sizes, rows = data.train.sizes(), order_of(asked, data.train).take(0, 4000)
    read = sources(data.train, rows)
    tokens = {
        name: read.count(name) * size.tokens / size.rows
        for name, size in zip(("said", "code"), sizes.values(), strict=True)
    }
    assert tokens["code"] / tokens["said"] == pytest.approx(3, rel=0.01)
    documents = sum(of.documents for of in sizes.values())
    assert documents == ShardDataset(corpus.folder / "tokens" / "train").rows
