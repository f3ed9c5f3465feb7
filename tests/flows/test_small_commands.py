"""The commands that only tell: recipes, plan, doctor, completion."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from cluster.diagnosis import Finding, diagnose
from cluster.settings import Settings
from flows.cli import COMMANDS, main
from flows.commands.submit import _words
from foundation_core.data.units.store import in_use
from foundation_core.data.units.work import Unit
from foundation_core.recipe import parse_recipe


@pytest.fixture
def recipes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two recipes over a small corpus, and an empty data folder."""
    corpus = tmp_path / "corpus"
    corpus.mkdir()
    for number in range(5):
        (corpus / f"{number}.py").write_text("x = 1\n" * 200)
    folder = tmp_path / "recipes"
    folder.mkdir()
    body = f"name: small\ningest: {{ source: {{ kind: folder, path: {corpus} }} }}\npretrain: {{ workers: 1 }}\n"
    (folder / "small.yaml").write_text(f"# Five little files\n{body}")
    (folder / "bare.yaml").write_text(body)
    monkeypatch.setenv("FOUNDATION_RECIPES", str(folder))
    monkeypatch.setenv("FOUNDATION_HOME", str(tmp_path / "home"))
    return folder


def test_recipes_are_listed_with_what_they_say_of_themselves(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recipes", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"bare": "", "small": "Five little files"}


def test_a_plan_says_what_the_run_takes_and_starts_nothing(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "small", "--json"]) == 0
    small = json.loads(capsys.readouterr().out)
    assert [stage["what"] for stage in small["stages"]] == ["run"] * 5
    assert main(["plan", "small", "--json", "--pretrain.model.trunk.depth", "8"]) == 0
    deep = json.loads(capsys.readouterr().out)
    for number in ("parameters", "worker_bytes", "disk_bytes"):
        assert deep[number] > small[number]
    assert deep["seconds"]["pretrain"] > small["seconds"]["pretrain"]
    assert main(["plan", "small"]) == 0
    assert "memory per worker" in capsys.readouterr().out
    assert not (recipes.parent / "home" / "results").exists()


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("foundation pret", "pretrain"),
        ("foundation run sma", "small"),
        ("foundation run small --pretrain.st", "--pretrain.steps"),
    ],
)
def test_bash_completes_commands_recipes_and_fields(
    recipes: Path, capsys: pytest.CaptureFixture[str], line: str, expected: str
) -> None:
    assert main(["completion", "bash"]) == 0
    script = capsys.readouterr().out
    words = line.split()
    call = f'COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _foundation; echo "${{COMPREPLY[@]}}"'
    done = subprocess.run(["bash", "-c", script + call], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [expected]


def test_a_healthy_place_has_no_problem(recipes: Path) -> None:
    assert [finding for finding in diagnose(Settings.from_environment()) if finding.level == "problem"] == []


@pytest.mark.parametrize(
    ("variable", "value", "name"),
    [
        ("PREFECT_API_URL", "http://127.0.0.1:9/api", "PREFECT_API_URL"),
        ("http_proxy", "http://proxy.example", "http_proxy"),
        ("FOUNDATION_RAY_PORT", "99999999", "ports"),
        ("FOUNDATION_HOME", "/proc/nowhere", "data folder"),
    ],
)
def test_the_doctor_names_the_trouble_and_what_to_do(
    recipes: Path, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, name: str
) -> None:
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.setenv(variable, value)
    found = {finding.name: finding for finding in diagnose(Settings.from_environment())}
    assert found[name].level == "problem"
    assert found[name].fix


def test_looking_writes_nothing(recipes: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["status", "--json"]) == 0
    assert {row["state"] for row in json.loads(capsys.readouterr().out)} == {"down"}
    assert main(["doctor", "--json"]) == 0
    assert not Settings.from_environment().home.exists()


def test_a_token_that_others_can_read_is_a_problem(recipes: Path) -> None:
    settings = Settings.from_environment()
    token = settings.home / "stack" / "ray-token"
    token.parent.mkdir(parents=True)
    token.write_text("secret")
    token.chmod(0o644)
    assert _of(settings, "ray token").level == "problem"
    token.chmod(0o600)
    assert _of(settings, "ray token").level == "ok"


def _of(settings: Settings, name: str) -> Finding:
    return next(finding for finding in diagnose(settings) if finding.name == name)


def test_a_mistyped_command_is_answered_with_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main(["pretran"])
    assert left.value.code == 2
    assert "did you mean pretrain?" in capsys.readouterr().err


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        main([name, "--help"])
    assert left.value.code == 0
    assert COMMANDS[name].help in " ".join(capsys.readouterr().out.split())


def test_a_submitted_recipe_means_the_files_from_where_it_was_submitted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    body = {
        "source": {"kind": "folder", "path": "texts"},
        "tokenizer": {"kind": "existing", "path": "tokenizer.json"},
        "decontamination": {"sets": [{"name": "farm", "path": "farm.jsonl", "text_field": "question"}]},
    }
    words = _words([], parse_recipe({"ingest": body}))
    given = {name.removeprefix("--"): value for name, value in zip(words[::2], words[1::2], strict=True)}
    assert given["ingest.source.path"] == str(tmp_path / "texts")
    assert given["ingest.tokenizer.path"] == str(tmp_path / "tokenizer.json")
    (farm,) = json.loads(given["ingest.decontamination.sets"])
    assert (farm["path"], farm["text_field"]) == (str(tmp_path / "farm.jsonl"), "question")
    assert _words([], parse_recipe({})) == []


def test_pruning_removes_units_that_nobody_used_and_says_what_that_gave(
    recipes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = recipes.parent / "home" / "results" / "units"
    for name in ("old", "new"):
        Unit.of(root, "read", name).commit({"a.arrow": bytes(500_000)})
    os.utime(Unit.of(root, "read", "old").folder, (0, 0))
    for options, said in (
        (["--dry-run"], "would remove 1 units of 0.5 MB, unused for 30 days; 1 of 0.5 MB would stay"),
        ([], "removed 1 units of 0.5 MB, unused for 30 days; 1 of 0.5 MB are left"),
        (["--days", "1"], "removed 0 units of 0.0 MB, unused for 1 days; 1 of 0.5 MB are left"),
    ):
        assert main(["prune", *options]) == 0
        assert capsys.readouterr().out.strip() == said
    with in_use(root):
        assert main(["prune"]) == 2
    assert "an ingestion is using the units" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["prune", "--days", "-1"])
