"""A data folder of one's own, and the `foundation` command run in it as a person would."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import time
from dataclasses import dataclass
from pathlib import Path

import psutil

PACKAGES = ("asyncio", "email", "encodings", "importlib", "multiprocessing", "tkinter", "unittest", "xml")

RECIPE = """
name: miniature
ingest:
  source: {{ kind: folder, path: {corpus} }}
  filters: [{{ measure: characters, at_least: 200 }}]
  split: {{ validation_fraction: 0.2, test_fraction: 0.2 }}
  tokenizer: {{ vocabulary: 512 }}
  unit_bytes: 200000
pretrain:
  model: {{ context_tokens: 64, trunk: {{ width: 32, depth: 2, heads: 2 }} }}
  steps: 12
  batch_rows: 4
  validate_every_steps: 4
  validation_rows: 8
  checkpoint_every_steps: 4
  micro_batch_rows: 1
finetune:
  classes: 3
  least_files: 2
  fragment_tokens: 32
  few_labels: 4
  all_labels: 8
  evaluation_labels: 4
  steps: 3
  batch_rows: 6
  lr: [0.001, 0.003]
  seeds: [0, 1, 2]
evaluate: {{ test_rows: 8, samples: 2, sample_tokens: 12 }}
publish: {{ model_name: miniature }}
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    output: str
    seconds: float


@dataclass(frozen=True)
class Workplace:
    """A data folder and a recipe of one's own."""

    home: Path
    recipe: Path

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a command runs with; no service is named, so every part is the run's own."""
        quiet = {name: value for name, value in os.environ.items() if not name.startswith(("PREFECT_", "RAY_"))}
        return {**quiet, "FOUNDATION_HOME": str(self.home)}

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """Start `foundation` with arguments."""
        command = [str(Path(sys.executable).with_name("foundation")), *arguments]
        return subprocess.Popen(
            command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=self.home,
            preexec_fn=hear_interrupts,
        )  # fmt: skip

    def run(self, *arguments: str) -> Ended:
        """Run `foundation` with arguments to its end."""
        start = time.monotonic()
        process = self.start(*arguments)
        output, _ = process.communicate(timeout=400)
        return Ended(process.returncode, output, time.monotonic() - start)

    def processes(self, words: str = "") -> list[psutil.Process]:
        """Every process that works for this data folder, with words in its command line."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("FOUNDATION_HOME") == str(self.home) and words in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:  # it ended while we looked
                continue
        return found


def hear_interrupts() -> None:
    """Runs in the child: a shell that runs the tests in the background lets its children ignore SIGINT."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def copy_corpus(folder: Path) -> Path:
    """Copy some small packages of the standard library, a dozen files each at the most."""
    library = Path(sysconfig.get_path("stdlib"))
    for package in PACKAGES:
        (folder / package).mkdir()
        files = sorted((library / package).glob("*.py"), key=lambda path: (path.stat().st_size > 40_000, path.name))
        for path in files[:14]:
            shutil.copy(path, folder / package / path.name)
    return folder


def make_workplace(folder: Path, corpus: Path) -> Workplace:
    """An empty data folder with the miniature recipe."""
    home = folder / "home"
    home.mkdir()
    recipe = folder / "miniature.yaml"
    recipe.write_text(RECIPE.format(corpus=corpus))
    return Workplace(home, recipe)
