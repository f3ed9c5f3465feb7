"""Tables of numbers become windows: where they lie, what they hold, and that time runs from training to test."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from foundation_core.data.loading.samples import Samples
from foundation_core.data.shards.dataset import ShardDataset
from foundation_core.data.split import SPLITS
from foundation_core.data.values.features import load_features
from foundation_core.data.values.series import Series
from foundation_core.errors import ConfigError, DataError
from foundation_core.specs import IngestSpec
from foundation_core.stages.contract import Context
from foundation_core.stages.ingest import ingest

ROWS, WINDOW = 200, 10


def _table(folder: Path, rows: int = ROWS) -> Path:
    lines = ["up,down,kind", *(f"{row},{-2 * row},{'day' if row < 100 else 'night'}" for row in range(rows))]
    (folder / "a.csv").write_text("\n".join(lines) + "\n")
    return folder / "a.csv"


def _spec(path: Path, **series: Any) -> IngestSpec:
    return IngestSpec.model_validate(
        {
            "source": {"kind": "series_table", "path": str(path), "label_field": "kind"},
            "series": {"columns": ["down", "up"], "window": WINDOW, "stride": 3, **series},
            "split": {"validation_fraction": 0.2, "test_fraction": 0.2},
        }
    )


def test_windows_hold_their_rows_column_by_column(tmp_path: Path, serial_context: Callable[[Path], Context]) -> None:
    ingest(_spec(_table(tmp_path)), {}, serial_context(tmp_path / "made"))
    features = load_features(tmp_path / "made")
    mean, std = (torch.tensor(figures) for figures in (features.statistics.mean, features.statistics.std))
    for split in SPLITS:
        samples = Samples(ShardDataset(tmp_path / "made" / "samples" / split), features)
        values = samples.gather(torch.arange(len(samples)))["values"].squeeze(2) * std[:, None] + mean[:, None]
        for row, (document, group) in enumerate(zip(samples.documents(), samples.groups(), strict=True)):
            first = int(document.split("/")[-1]) - 1
            expected = torch.arange(first, first + WINDOW).float()
            # normalised and back in float32: no difference measured, and neighbouring numbers of 400 differ by 3e-5
            assert (values[row] - torch.stack([-2 * expected, expected])).abs().max() < 1e-4
            assert group == ("day" if first + WINDOW - 1 < 100 else "night")


def test_no_window_reaches_over_the_border_of_a_split_and_the_test_comes_last(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    ingest(_spec(_table(tmp_path)), {}, serial_context(tmp_path / "made"))
    seen: dict[str, set[int]] = {}
    for split in SPLITS:
        (table,) = ShardDataset(tmp_path / "made" / "samples" / split).tables()
        firsts = [int(document.split("/")[-1]) - 1 for document in table["document"].to_pylist()]
        seen[split] = {row for first in firsts for row in range(first, first + WINDOW)}
    assert max(seen["train"]) < 120 <= min(seen["validation"])
    assert max(seen["validation"]) < 160 <= min(seen["test"])


def test_the_content_follows_the_label_column(tmp_path: Path) -> None:
    from foundation_core.data.sources.digests import source_content
    from foundation_core.data.sources.documents import open_source

    _table(tmp_path)
    labelled = _spec(tmp_path).source
    bare = labelled.model_copy(update={"label_field": None})
    assert source_content(open_source(labelled).files()) != source_content(open_source(bare).files())


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("up,down\n" + "1,2\n" * 9, "9 rows; a window has 10"),
        ("up\n" + "1\n" * 10, r"row 1 has no number in column 'down': None"),
        ("up,down\n" + "1,2\n" * 9 + "1,\n", r"row 10 has no number in column 'down': ''"),
        ("up,down\n" + "1,2\n" * 9 + "1,nan\n", r"row 10 has no number in column 'down': 'nan'"),
        ("up,down\n" + "1,1e99\n" * 10, "row 1 has no number in column 'down': '1e99'"),
        (b"\xff\xfe", "not a CSV table"),
    ],
)
def test_what_is_no_window_of_numbers_is_refused(data: str | bytes, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=reason):
        Series(_spec(tmp_path)).read(data if isinstance(data, bytes) else data.encode())


def test_a_series_without_columns_or_with_one_that_is_not_there_is_refused(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    table = _table(tmp_path)
    with pytest.raises(ConfigError, match=r"ingest\.series\.columns is empty"):
        ingest(_spec(table, columns=()), {}, serial_context(tmp_path / "made"))
    with pytest.raises(ConfigError, match="has no column 'left'"):
        ingest(_spec(table, columns=("left",)), {}, serial_context(tmp_path / "made"))
    with pytest.raises(ValueError, match="twice"):
        _spec(tmp_path, columns=("up", "up"))


GOOD = "up,down,kind\n" + "".join(f"{row},{-2 * row},day\n" for row in range(ROWS))
DAMAGED: Mapping[str, tuple[bytes, str]] = {
    "bytes.csv": (GOOD.encode() + b"1,\xff,day\n", "bytes.csv is not UTF-8: byte 0xff"),
    "columns.parquet": (b"PAR1 it says", "columns.parquet is not a Parquet file that can be read: "),
    "empty.csv": (b"", "empty.csv holds no table: it is empty"),
    "header.csv": (b"up,down,kind\n", "0 rows; a window has 10"),
    "lines.jsonl": (b'{"up": 1, "down": 2, "kind": 3}\nno JSON\n', "lines.jsonl:2 is not JSON: "),
    "packed.csv.gz": (gzip.compress(GOOD.encode())[:-9], "packed.csv.gz is not a whole gzip file: "),
    "ragged.csv": ((GOOD + "1,2\n").encode(), "ragged.csv:202 has 2 fields, and the header has 3"),
    "short.csv": (GOOD[: GOOD.index("9,-18")].encode(), "9 rows; a window has 10"),
    "splits.csv": (
        GOOD[: GOOD.index("12,-24")].encode(), "12 rows, and none of its splits has as many as a window: 10",
    ),
}  # fmt: skip
"""Tables that give no window, and the beginning of the reason."""


@pytest.mark.parametrize("label", ["kind", None])
def test_a_table_that_gives_no_window_is_quarantined_and_the_others_are_read(
    label: str | None, tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    (tmp_path / "raw").mkdir()
    for name, data in {"a.csv": GOOD.encode(), **{name: data for name, (data, _) in DAMAGED.items()}}.items():
        (tmp_path / "raw" / name).write_bytes(data)
    (tmp_path / "raw" / "gone.csv").symlink_to(tmp_path / "nowhere")
    spec = _spec(tmp_path / "raw")
    source = spec.source.model_copy(update={"label_field": label})
    spec = spec.model_copy(update={"source": source, "quarantine_fraction": 0.5})
    summary = ingest(spec, {}, serial_context(tmp_path / "made")).summary
    (table,) = ShardDataset(tmp_path / "made" / "quarantined").tables()
    reasons = {row["document"].removeprefix("series_table/"): row["reason"] for row in table.to_pylist()}
    assert set(reasons) == {*DAMAGED, "gone.csv"}
    assert all(reasons[name].startswith(reason) for name, (_, reason) in DAMAGED.items())
    assert not any(str(tmp_path) in reason for reason in reasons.values())
    alone = ingest(_spec(tmp_path / "raw" / "a.csv"), {}, serial_context(tmp_path / "alone")).summary["documents"]
    of_all = {**alone, "in": alone["in"] + len(reasons), "quarantined": len(reasons)}
    assert summary["documents"] == of_all
    with pytest.raises(DataError, match="documents cannot be read"):
        ingest(spec.model_copy(update={"quarantine_fraction": 0.1}), {}, serial_context(tmp_path / "strict"))


def test_a_table_that_is_read_again_with_other_splits_gives_its_windows(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.csv").write_text(GOOD)
    (tmp_path / "raw" / "b.csv").write_bytes(DAMAGED["splits.csv"][0])
    spec = _spec(tmp_path / "raw").model_copy(update={"quarantine_fraction": 0.5})
    assert ingest(spec, {}, serial_context(tmp_path / "made")).summary["documents"]["quarantined"] == 1
    wide = spec.split.model_copy(update={"validation_fraction": 0.06, "test_fraction": 0.06})
    again = ingest(spec.model_copy(update={"split": wide}), {}, serial_context(tmp_path / "made2")).summary
    assert again["documents"]["quarantined"] == 0


def test_a_table_without_the_column_is_refused_whatever_the_others_have(
    tmp_path: Path, serial_context: Callable[[Path], Context]
) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "a.csv").write_text(GOOD)
    (tmp_path / "raw" / "b.csv").write_text(GOOD.replace("down", "left"))
    with pytest.raises(ConfigError, match="has no column 'down'"):
        ingest(_spec(tmp_path / "raw"), {}, serial_context(tmp_path / "made"))
