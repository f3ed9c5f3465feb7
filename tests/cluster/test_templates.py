"""A template is a whole, empty database of one version; it replaces nothing and is never half there."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from cluster import templates
from cluster.templates import DatabaseTemplate


def _write(database: Path, *statements: str) -> None:
    with closing(sqlite3.connect(database)) as connection, connection:
        for statement in statements:
            connection.execute(statement)


def _tables(database: Path) -> list[str]:
    with closing(sqlite3.connect(database)) as connection:
        return [name for (name,) in connection.execute("select name from sqlite_master")]


def test_what_was_kept_fills_a_place_that_is_empty_and_no_other(tmp_path: Path) -> None:
    made, empty, full = tmp_path / "made.db", tmp_path / "new" / "empty.db", tmp_path / "full.db"
    _write(made, "create table runs (id)")
    _write(full, "create table mine (id)")
    template = DatabaseTemplate("pytest", tmp_path / "templates")
    template.fill(empty)
    assert not empty.exists()
    template.keep(made)
    template.fill(empty)
    template.fill(full)
    assert (_tables(empty), _tables(full)) == (["runs"], ["mine"])


def test_what_is_still_in_the_write_ahead_log_is_kept_too(tmp_path: Path) -> None:
    made = tmp_path / "made.db"
    with closing(sqlite3.connect(made)) as writer:
        writer.execute("pragma journal_mode = wal")
        writer.execute("create table runs (id)")
        writer.commit()
        assert (tmp_path / "made.db-wal").stat().st_size > 0
        template = DatabaseTemplate("pytest", tmp_path / "templates")
        template.keep(made)
    assert _tables(template.path) == ["runs"]
    assert list(template.path.parent.iterdir()) == [template.path]


def test_the_first_one_kept_stays_and_another_version_has_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = tmp_path / "first.db", tmp_path / "second.db"
    _write(first, "create table one (id)")
    _write(second, "create table two (id)")
    DatabaseTemplate("pytest", tmp_path / "templates").keep(first)
    DatabaseTemplate("pytest", tmp_path / "templates").keep(second)
    assert _tables(DatabaseTemplate("pytest", tmp_path / "templates").path) == ["one"]
    monkeypatch.setattr(templates, "version", lambda tool: "999")
    assert not DatabaseTemplate("pytest", tmp_path / "templates").path.exists()


def test_where_nothing_can_be_written_there_is_none_and_nobody_complains(tmp_path: Path) -> None:
    made, target = tmp_path / "made.db", tmp_path / "target.db"
    _write(made, "create table runs (id)")
    (tmp_path / "file").touch()
    template = DatabaseTemplate("pytest", tmp_path / "file" / "below")
    template.keep(made)
    template.fill(target)
    assert not target.exists()
