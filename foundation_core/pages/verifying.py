"""Whether data sets still are what their manifests say: every file is read and its hash compared."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from foundation_core.data.shards.dataset import MANIFEST, ShardDataset
from foundation_core.errors import DataError
from foundation_core.files import sha256_file
from foundation_core.store import RESULT_FILE, load_result


class Checked(NamedTuple):
    """A file that was compared.

    Args:
        damage: what is wrong with it, naming it; empty if nothing is.
    """

    path: Path
    bytes: int
    damage: str


def manifests(folder: Path) -> list[Path]:
    """The manifests of the data sets at or below a folder.

    Raises:
        DataError: there is none.
    """
    found = sorted(folder.rglob(MANIFEST))
    if not found:
        raise DataError(
            f"{folder} is no data set: {'it holds no ' + MANIFEST if folder.is_dir() else 'it is not there'}",
            allowed="the folder of an ingest result, or one of its data sets",
            fix="`foundation runs` lists the results of the data folder",
        )
    return found


def bytes_to_verify(folder: Path) -> int:
    """Bytes of the shards that will be read."""
    return sum(path.stat().st_size for manifest in manifests(folder) for path in manifest.parent.glob("*.arrow"))


def verify(folder: Path) -> Iterator[Checked]:
    """Every file of the data sets at or below a folder, compared with its manifest, one after the other.

    Of an ingest result also what later stages read beside them, and whether its manifests are those that it committed.
    """
    contents = dict[Path, str]()
    for manifest in manifests(folder):
        try:
            dataset = ShardDataset(manifest.parent, verify=False)
        except DataError as error:  # its manifest was edited, or a shard is missing or of another size
            yield Checked(manifest, 0, error.found)
            continue
        contents[manifest] = dataset.content
        for shard in dataset.manifest["shards"]:
            path = dataset.folder / shard["file"]
            yield Checked(path, shard["bytes"], _damage(path, shard["sha256"], sha256_file(path)))
    if (folder / RESULT_FILE).exists():
        for name, digest in sorted(load_result(folder).outputs.items()):
            path = folder / name
            if not path.exists():
                yield Checked(path, 0, f"{path} is damaged: it is not there")
            elif path.name != MANIFEST:
                yield Checked(path, path.stat().st_size, _damage(path, digest, sha256_file(path)))
            elif path in contents:
                yield Checked(path, 0, _damage(path, digest, contents[path]))


def _damage(path: Path, wanted: str, found: str) -> str:
    return "" if found == wanted else f"{path} is damaged: it was edited; its hash is {found}, and was {wanted}"
