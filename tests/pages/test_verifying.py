"""Verification finds every byte that changed, and names the file."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from foundation_core.data.shards.dataset import ShardDataset, ShardWriter, remove_dataset
from foundation_core.errors import DataError
from foundation_core.pages.verifying import bytes_to_verify, verify
from foundation_core.store import Result


@pytest.fixture
def folder(shown: Result, tmp_path: Path) -> Path:
    return shutil.copytree(shown.folder, tmp_path / "copied")


def damages(folder: Path) -> list[str]:
    return [checked.damage for checked in verify(folder) if checked.damage]


def test_a_whole_result_has_no_damage_and_every_byte_of_its_shards_is_read(folder: Path) -> None:
    assert damages(folder) == []
    read = sum(checked.bytes for checked in verify(folder) if checked.path.suffix == ".arrow")
    assert (
        read
        == bytes_to_verify(folder)
        == sum(path.stat().st_size for path in folder.rglob("shard-*.arrow") if "units" not in path.parts)
    )


def test_one_changed_bit_of_any_file_is_found_and_named(folder: Path) -> None:
    files = [*folder.rglob("shard-*.arrow"), folder / "tokenizer.json"]
    assert len(files) > 6
    for path in files:
        whole = path.read_bytes()
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :])
        (damage,) = damages(folder)
        assert damage.startswith(f"{path} is damaged: it was edited")
        path.write_bytes(whole)


def _cut(folder: Path) -> Path:
    path = folder / "documents" / "shard-00000.arrow"
    path.write_bytes(path.read_bytes()[:-1])
    return path


def _remove(folder: Path) -> Path:
    path = folder / "tokens" / "train" / "shard-00000.arrow"
    path.unlink()
    return path


def _edit(folder: Path) -> Path:
    path = folder / "tokens" / "test" / "manifest.json"
    path.write_text(path.read_text().replace('"rows": ', '"rows": 1', 3))
    return path


def _exchange(folder: Path) -> Path:
    """Another whole data set in the place of one that the result committed."""
    name = folder / "tokens" / "test"
    dataset = ShardDataset(name)
    table = dataset.table(0)
    remove_dataset(name)
    with ShardWriter(name, table.schema, source={}, tokenizer=dataset.tokenizer, shard_size=10**9) as writer:
        writer.write(table.slice(1))
    return name / "manifest.json"


@pytest.mark.parametrize("damage", [_cut, _remove, _edit, _exchange])
def test_what_is_cut_removed_edited_or_exchanged_is_named(folder: Path, damage: Callable[[Path], Path]) -> None:
    path = damage(folder)
    (found,) = [each for each in damages(folder) if str(path) in each][:1]
    assert "is damaged" in found


def test_a_folder_without_a_data_set_is_refused(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(DataError, match="is no data set"):
            list(verify(folder))
