"""A file appears whole under its name, or not at all."""

from __future__ import annotations

import errno
import hashlib
import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from foundation_core.errors import DataError, SetupError
from foundation_core.files import PARTIAL, committed, read_json, remove_partial, sha256_file, sha256_json, write_json

DIES_INSIDE = """
import os, signal, sys
from pathlib import Path
from foundation_core.files import committed
with committed(Path(sys.argv[1])) as sink:
    sink.write(b"half")
    sink.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_committed_file_is_there_with_what_was_written_and_nothing_beside_it(tmp_path: Path) -> None:
    with committed(tmp_path / "new" / "file") as sink:
        sink.write(b"whole")
        assert not (tmp_path / "new" / "file").exists()
    assert (tmp_path / "new" / "file").read_bytes() == b"whole"
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["file"]


def test_an_error_while_writing_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    with pytest.raises(KeyboardInterrupt), committed(path) as sink:  # noqa: PT012 - the write is what is interrupted
        sink.write(b"half")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"earlier"
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_writer_killed_while_writing_leaves_the_earlier_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"earlier")
    dead = subprocess.run([sys.executable, "-c", DIES_INSIDE, str(path)])
    assert dead.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"earlier"
    assert path.with_name("file" + PARTIAL).read_bytes() == b"half"
    remove_partial(tmp_path)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_said_with_the_room_that_is_left(tmp_path: Path) -> None:
    with pytest.raises(SetupError, match=r"no room left .*file \(\d+\.\d MB free\)"), committed(tmp_path / "file"):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(tmp_path.iterdir()) == []


def test_another_error_of_the_disk_is_not_called_full(tmp_path: Path) -> None:
    with pytest.raises(PermissionError), committed(tmp_path / "file"):
        raise PermissionError(errno.EACCES, "Permission denied")


def test_json_comes_back_and_is_whole(tmp_path: Path) -> None:
    body = {"name": "ñ", "rows": [1, 2.5, None]}
    write_json(tmp_path / "body.json", body)
    assert read_json(tmp_path / "body.json") == body
    assert sha256_file(tmp_path / "body.json") == hashlib.sha256((tmp_path / "body.json").read_bytes()).hexdigest()


def test_json_that_no_reader_would_take_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "body.json", {"loss": float("nan")})
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("content", "message"), [(None, "is not there"), (b"{half", "is not JSON"), (b"\xff", "not JSON")]
)
def test_json_that_cannot_be_read_names_the_file(tmp_path: Path, content: bytes | None, message: str) -> None:
    path = tmp_path / "body.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=rf"body\.json.*{message}"):
        read_json(path)


def test_a_digest_of_json_does_not_depend_on_the_order_of_keys() -> None:
    assert sha256_json({"a": 1, "b": [1]}) == sha256_json(json.loads('{ "b": [1], "a": 1 }'))
    assert sha256_json({"a": 1}) != sha256_json({"a": "1"})
