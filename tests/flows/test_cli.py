"""The `foundation` command: a person's mistake is a message and exit status 2, never a traceback, and costs nothing."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import psutil
import pytest

from cluster.embedded import PrefectApi
from cluster.settings import Settings, usable_cpus
from foundation_core.files import read_json, write_json
from foundation_core.specs import PipelineSpec, described_leaves
from foundation_core.store import RESULT_FILE
from tests.support.workplace import Ended, Workplace

pytestmark = pytest.mark.timeout(400)


@dataclass(frozen=True)
class ServedPlace(Workplace):
    """A workplace beside a Prefect API that somebody else runs."""

    api: str = ""

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a command runs with."""
        return {**super().environment, "PREFECT_API_URL": self.api}


RECIPE = """\
name: little
ingest:
  source: { kind: folder, path: CORPUS }
  split: { validation_fraction: 0.2, test_fraction: 0.2 }
  tokenizer: { vocabulary: 300 }
pretrain: { workers: 1 }
"""

WRONG = """\
name: wrong
ingest:
  tokenizer: { vocabulary: 12 }
  colour: red
pretrain:
  steps: many
  model:
    trunk: { width: 100, heads: 3 }
"""


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """An empty data folder, a corpus of forty small files, and a recipe that ingests it."""
    return _place(tmp_path)


def _place(folder: Path) -> Workplace:
    (folder / "home").mkdir()
    (folder / "corpus").mkdir()
    for number in range(40):
        text = "\n".join(f"def function_{number}_{line}(): return {number * line}" for line in range(20))
        (folder / "corpus" / f"module_{number:02d}.py").write_text(text)
    recipe = folder / "recipe.yaml"
    recipe.write_text(RECIPE.replace("CORPUS", str(folder / "corpus")))
    return Workplace(folder / "home", recipe)


def _assert_refused(ended: Ended, place: Workplace, *words: str) -> None:
    assert ended.status == 2, ended.output
    assert "Traceback" not in ended.output
    assert ended.output.startswith("foundation: ")
    for word in words:
        assert word in ended.output
    assert not list(place.home.glob("results/*/*/result.json"))


def test_every_problem_of_a_recipe_is_in_one_message_with_its_line(place: Workplace) -> None:
    place.recipe.write_text(WRONG)
    ended = place.run("run", str(place.recipe), "--finetune.seeds", "[]", "--publish.nickname", "x")
    _assert_refused(
        ended,
        place,
        "the recipe has 6 problems",
        f"{place.recipe}:3: ingest.tokenizer.vocabulary: Input should be greater than or equal to 258, found 12",
        f"{place.recipe}:4: ingest.colour: unknown field; allowed: source, cleaning, quality,",
        f"{place.recipe}:6: pretrain.steps: Input should be a valid integer",
        f"{place.recipe}:8: pretrain.model.trunk: heads must divide width: width=100, heads=3",
        "finetune: seeds needs one or more seeds",
        "--publish.nickname: publish.nickname: unknown field; allowed: model_name, alias",
    )
    assert list(place.home.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["run", "nowhere.yaml"], "recipe nowhere.yaml cannot be read: No such file or directory"),
        (["run", "RECIPE", "--pretrain.steps"], "'--pretrain.steps' is not understood"),
        (["run", "RECIPE", "more"], "'more' is not understood"),
        (
            ["run", "RECIPE", "--finetune.lr", "[1"],
            "--finetune.lr: finetune.lr: Input should be a valid tuple, found '[1'",
        ),
        (
            ["sweep", "RECIPE", "--values", "1e-3", "0"],
            "--pretrain.optimizer.lr 0: pretrain.optimizer.lr: Input should be",
        ),
        (["sweep", "RECIPE", "--over", "publish.alias", "--values", "a"], "publish.alias cannot be swept"),
        (["sweep", "RECIPE", "--values", "1e-3", "--pretrain.size", "3"], "pretrain.size: unknown field"),
        (["run", "RECIPE", f"--pretrain.workers={usable_cpus() + 1}"], f"and there are {usable_cpus()} CPUs in all"),
        (["run", "RECIPE", "--ingest.source.path", "/nowhere"], "the source folder /nowhere is not there"),
        (["why", "RECIPE", "--ingest.source.path", "/nowhere"], "the source folder /nowhere is not there"),
        (["run", "RECIPE", "--ingest.source.path", "EMPTY"], "the source is empty"),
        (["run", "RECIPE", "--ingest.source.pattern", "**/*.txt"], "the source is empty"),
        (["run", "RECIPE", "--ingest.source.kind", "web"], "no source is called 'web'; allowed: audio_folder"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(place: Workplace, arguments: list[str], words: str) -> None:
    (place.home.parent / "empty").mkdir()
    names = {"RECIPE": str(place.recipe), "EMPTY": str(place.home.parent / "empty")}
    _assert_refused(place.run(*(names.get(word, word) for word in arguments)), place, words)
    assert not (place.home / "logs").exists()


def test_a_data_folder_that_cannot_be_one_is_named(place: Workplace) -> None:
    (place.home / "file").touch()
    wrong = replace(place, home=place.home / "file")
    ended = subprocess.run(
        [sys.executable, "-m", "flows.cli", "run", str(place.recipe)],
        env=wrong.environment, capture_output=True, text=True,
    )  # fmt: skip
    assert ended.returncode == 2, ended.stderr
    assert ended.stderr.startswith(f"foundation: the data folder {wrong.home} cannot be made")


def test_options_that_a_command_does_not_have_are_not_ignored(place: Workplace) -> None:
    for command in (["fields", "--pretrain.steps", "3"], ["look", "--prot", "5001"]):
        ended = place.run(*command)
        assert ended.status == 2
        assert "unrecognized arguments" in ended.output


@pytest.fixture(scope="module")
def ingested(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Workplace, Ended]]:
    """Real ingest flows: one with a Prefect API of its own, two with one that is there already."""
    place = _place(tmp_path_factory.mktemp("well"))
    ended = {"well": (place, place.run("ingest", str(place.recipe)))}
    api = PrefectApi(Settings(tmp_path_factory.mktemp("api")))
    try:
        api.wait()
        served = ServedPlace(place.home, place.recipe, api.url)
        for name, option, value in [
            ("vocabulary", "--ingest.tokenizer.vocabulary", "50000"),
            ("filters", "--ingest.filters", "[{measure: characters, at_least: 1000000}]"),
        ]:
            ended[name] = (served, served.run("ingest", str(place.recipe), option, value))
    finally:
        api.end()
    return ended


def test_a_vocabulary_that_the_corpus_cannot_fill_is_refused_with_the_numbers(
    ingested: dict[str, tuple[Workplace, Ended]],
) -> None:
    place, ended = ingested["vocabulary"]
    assert ended.status == 2, ended.output
    assert "Traceback" not in ended.output
    assert "foundation: tokenizer.vocabulary=50000 cannot be filled: the training documents give" in ended.output
    assert "To do: lower ingest.tokenizer.vocabulary or add documents" in ended.output
    assert place.processes() == []


def test_a_corpus_of_which_nothing_is_left_names_the_rule(ingested: dict[str, tuple[Workplace, Ended]]) -> None:
    place, ended = ingested["filters"]
    assert ended.status == 2, ended.output
    assert "Traceback" not in ended.output
    assert "no document is left of 40: 'characters >= 1e+06' dropped 40" in ended.output
    assert place.processes() == []


def test_a_corpus_is_made_and_a_second_time_nothing_is_done(ingested: dict[str, tuple[Workplace, Ended]]) -> None:
    place, ended = ingested["well"]
    assert ended.status == 0, ended.output
    assert "40 of 40 documents" in ended.output
    assert place.processes() == []
    before = {path: path.stat().st_mtime_ns for path in place.home.rglob("*")}
    again = place.run("ingest", str(place.recipe), "--ingest.workers", "1", "--name", "another-name")
    assert again.status == 0, again.output
    assert "nothing to do" in again.output
    assert {path: path.stat().st_mtime_ns for path in place.home.rglob("*")} == before


def test_a_result_of_a_newer_version_is_refused_and_stays(
    ingested: dict[str, tuple[Workplace, Ended]],
) -> None:
    place, _ = ingested["well"]
    (path,) = place.home.glob(f"results/ingest/*/{RESULT_FILE}")
    body = read_json(path)
    write_json(path, {**body, "version": 99})
    ended = place.run("run", str(place.recipe))
    write_json(path, body)
    assert ended.status == 2
    assert f"{path} has version 99" in ended.output
    assert "Traceback" not in ended.output


def test_why_tells_what_would_run_and_touches_nothing(place: Workplace) -> None:
    ended = place.run("why", str(place.recipe))
    assert ended.status == 0, ended.output
    assert [line.split()[:2] for line in ended.output.splitlines()] == [
        [stage, "run"] for stage in ("ingest", "pretrain", "finetune", "evaluate", "publish")
    ]
    assert "never run in this data folder" in ended.output
    assert list(place.home.iterdir()) == []


def test_fields_lists_every_field_with_its_meaning(place: Workplace) -> None:
    output = place.run("fields").output
    for name, _, text in described_leaves(PipelineSpec):
        assert f"--{name} " in output
        assert text in output


def test_a_reader_that_leaves_early_is_no_error(place: Workplace) -> None:
    process = place.start("fields")
    assert process.stdout is not None
    process.stdout.close()
    assert process.wait() == 0


HEAVY = {"torch", "numpy", "pyarrow", "pydantic", "yaml", "rich", "prefect", "ray", "deepspeed", "mlflow", "psutil"}
LISTS_MODULES = """
import sys
from flows.cli import main
try:
    status = main(sys.argv[1:])
except SystemExit as end:
    status = end.code
print(status, *{name.partition(".")[0] for name in sys.modules}, file=sys.stderr)
"""


def _modules(environment: dict[str, str], *arguments: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", LISTS_MODULES, *arguments], env=environment, capture_output=True, text=True
    )
    status, *modules = done.stderr.split()
    assert status == "0", done.stderr
    return set(modules)


def test_help_imports_nothing_heavy(place: Workplace) -> None:
    assert _modules(place.environment, "--help") & HEAVY == set()


def test_why_imports_no_framework(place: Workplace) -> None:
    heavy = _modules(place.environment, "why", str(place.recipe)) & HEAVY
    assert heavy <= {"pydantic", "yaml", "pyarrow", "numpy", "psutil"}


def test_a_person_who_interrupts_is_told_how_to_go_on(place: Workplace) -> None:
    command = place.start("ingest", str(place.recipe))
    _wait_until(lambda: (place.home / "logs" / "prefect.log").exists(), command)
    command.send_signal(signal.SIGINT)
    output, _ = command.communicate(timeout=120)
    assert command.returncode == 130, output
    assert "stopped; run the same command again and it continues" in output
    assert "Traceback" not in output
    _, alive = psutil.wait_procs(place.processes(), timeout=30)
    assert alive == []


def _wait_until(found: Callable[[], bool], command: subprocess.Popen[str]) -> None:
    while not found():
        assert command.poll() is None, "it ended before that"
        os.sched_yield()
