"""Publish: models and scores -> registry.

    package -> MLflow model -> reload and compare -> plots and cards -> register, with the alias

The model is compared before anything is logged, so that a model that lost something on its way is never registered.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.data.tokenizer import TOKENIZER_FILE, load_tokenizer
from foundation_core.errors import ConfigError, Stopped
from foundation_core.evaluate.anatomy import write_anatomy
from foundation_core.evaluate.plots import draw_plots
from foundation_core.evaluate.report import model_card
from foundation_core.files import read_json
from foundation_core.pages.card import CARD_FOLDER, MARKDOWN_FILE, data_card
from foundation_core.specs import PublishSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.store import StageResult
from foundation_core.tracking.lineage import result_tags
from foundation_core.tracking.package import (
    EXAMPLE_FILE,
    TOLERANCE,
    Target,
    build_package,
    compare,
    register,
    save_mlflow_model,
)
from foundation_core.tracking.pyfunc import check_package
from foundation_core.train.threads import one_thread

TRACKING_URI, RUN_ID = "FOUNDATION_TRACKING_URI", "FOUNDATION_RUN_ID"


def publish(spec: PublishSpec, inputs: Inputs, context: Context) -> StageResult:
    """A registered model version that answers as the trained one did, with its cards and plots.

    Raises:
        CheckpointError: the reloaded model answers otherwise; nothing was registered.
        ConfigError: nobody said where MLflow is.
        Stopped: somebody asked, before the registration.
    """
    start = time.perf_counter()
    target = _target(spec)
    parts = _Parts(context)
    package, model = context.folder / "package", context.folder / "model"
    with parts("package"), one_thread():
        package_hash = build_package(package, inputs)
        save_mlflow_model(package, model, target.run_id)
        outputs = {f"model/data/package/{name}": digest for name, digest in check_package(package).items()}
        shutil.rmtree(package)
    with parts("reload and compare"), one_thread():
        difference = compare(model)
    if context.stop.requested():
        raise Stopped("publish stopped before the registration", fix="run the same command again")
    with parts("plots and cards"):
        plots = draw_plots(inputs, context.folder / "plots")
        example = read_json(model / "data" / package.name / EXAMPLE_FILE)
        cards = _write_cards(spec, inputs, example, context.folder / "cards")
        for page in _write_pages(inputs, context):
            context.tracker.artifact(page, page.parent.name)
    with parts("register"):
        for path in (*cards, *plots):
            context.tracker.artifact(path, path.parent.name)
            (model / path.parent.name).mkdir(exist_ok=True)
            shutil.copyfile(path, model / path.parent.name / path.name)
        registered = register(model, package_hash, target, result_tags(inputs), cards[0].read_text())
    context.events.say(
        f"{spec.model_name} version {registered.version} registered as @{spec.alias}; the reloaded model differs from"
        f" the trained one by {difference:.1e} at the most (allowed: {TOLERANCE:.0e})"
    )
    return StageResult(
        outputs=outputs,
        summary={
            "model_name": spec.model_name,
            "version": registered.version,
            "alias": spec.alias,
            "model_uri": f"models:/{spec.model_name}@{spec.alias}",
            "model_id": registered.model_id,
            "package_hash": package_hash,
            "largest_difference": difference,
            "tolerance": TOLERANCE,
            "seconds_by_part": parts.seconds,
        },
        seconds=time.perf_counter() - start,
    )


class _Parts:
    """Announces each part of the stage and keeps what it took."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        self._context.events.phase(name)
        start = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - start, 3)


def _write_pages(inputs: Inputs, context: Context) -> list[Path]:
    """The page on which a reader sees the model read a text of his; a model that it cannot show has none."""
    corpus, trunk = inputs["corpus"], inputs["trunk"]
    if TOKENIZER_FILE not in corpus.outputs:
        return []
    folder = context.folder / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    model = Pretrained.find(trunk.folder, trunk.outputs[WEIGHTS_FILE]).model()
    try:
        return [write_anatomy(folder / "anatomy.html", model, load_tokenizer(corpus.folder / TOKENIZER_FILE))]
    except ConfigError as error:
        context.events.say(f"no anatomy page: {error.found}")
        return []


def _target(spec: PublishSpec) -> Target:
    if missing := [name for name in (TRACKING_URI, RUN_ID) if not os.environ.get(name)]:
        raise ConfigError(
            f"publish does not know where MLflow is: {' and '.join(missing)} not set",
            fix="start it with `foundation run`, or set both: the address of a store and the id of an open run in it",
        )
    return Target(os.environ[TRACKING_URI], os.environ[RUN_ID], spec.model_name, spec.alias)


def _write_cards(spec: PublishSpec, inputs: Inputs, example: Mapping[str, Any], folder: Path) -> list[Path]:
    """The model's card, and that of its data: the one that the ingestion wrote, or made again where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = inputs["corpus"]
    written = corpus.folder / CARD_FOLDER / MARKDOWN_FILE
    texts = {
        "model_card.md": model_card(spec.model_name, spec.alias, inputs, example),
        MARKDOWN_FILE: written.read_text() if written.exists() else data_card(corpus).markdown,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]
