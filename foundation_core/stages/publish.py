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

import torch

from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.data.tokens.byte_level import TOKENIZER_FILE, load_tokenizer
from foundation_core.errors import ConfigError, FoundationError, Stopped
from foundation_core.evaluate.anatomy import EXAMPLE, EXAMPLE_TOKENS, Reads, write_anatomy
from foundation_core.evaluate.plots import draw_plots
from foundation_core.evaluate.report import model_card
from foundation_core.files import read_json
from foundation_core.pages.card import CARD_FOLDER, MARKDOWN_FILE, data_card
from foundation_core.specs import PublishSpec
from foundation_core.stages.contract import Context, Inputs
from foundation_core.stages.training_data import TrainingData
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

_SAMPLES_SHOWN = 4
"""Samples that the anatomy page of a model of values lets its reader choose from."""
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
        anatomy = _write_anatomy(inputs, context)
        cards = _write_cards(spec, inputs, example, anatomy, context.folder / "cards")
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


def _write_anatomy(inputs: Inputs, context: Context) -> str:
    """What the model's card says of the page on which people see the model read: where it is, or why there is none."""
    corpus, trunk = inputs["corpus"], inputs["trunk"]
    if TOKENIZER_FILE not in corpus.outputs:
        return "There is no anatomy page: this model reads no text and writes none."
    folder = context.folder / "pages"
    folder.mkdir(parents=True, exist_ok=True)
    model = Pretrained.find(trunk.folder, trunk.outputs[WEIGHTS_FILE]).model()
    tokenizer = load_tokenizer(corpus.folder / TOKENIZER_FILE)
    try:
        page = write_anatomy(folder / "anatomy.html", model, tokenizer, _reads(inputs))
    except FoundationError as error:
        context.events.say(f"no anatomy page: {error.found}")
        allowed = f" (allowed: {error.allowed})" if error.allowed else ""
        return f"There is no anatomy page: {error.found}{allowed}."
    context.tracker.artifact(page, folder.name)
    return (
        f"`{folder.name}/{page.name}` of the MLflow run of `publish` is one file that needs no network: type a text"
        " and see this model read it, number by number, from the tokens to the probabilities."
    )


def _reads(inputs: Inputs) -> Reads:
    """What the anatomy page begins with: the first text of the test split, or its first samples."""
    data, objective = TrainingData.open(inputs["corpus"], EXAMPLE_TOKENS), inputs["trunk"].parts["spec"]["objective"]
    first = data.test.gather(torch.arange(min(_SAMPLES_SHOWN, len(data.test))))
    if "values" in first:
        return Reads(objective=objective, values=first["values"])
    assert data.tokenizer is not None, "a text corpus has a tokenizer"
    is_first = first["segment"][:1] == first["segment"][:1, :1]
    text = data.tokenizer.decode(first["tokens"][:1][is_first].tolist()) if len(data.test) else ""
    return Reads(text.rstrip("\N{REPLACEMENT CHARACTER}") or EXAMPLE, objective)


def _target(spec: PublishSpec) -> Target:
    if missing := [name for name in (TRACKING_URI, RUN_ID) if not os.environ.get(name)]:
        raise ConfigError(
            f"publish does not know where MLflow is: {' and '.join(missing)} not set",
            fix="start it with `foundation run`, or set both: the address of a store and the id of an open run in it",
        )
    return Target(os.environ[TRACKING_URI], os.environ[RUN_ID], spec.model_name, spec.alias)


def _write_cards(
    spec: PublishSpec, inputs: Inputs, example: Mapping[str, Any], anatomy: str, folder: Path
) -> list[Path]:
    """The model's card, and that of its data: the one that the ingestion wrote, or made again where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    corpus = inputs["corpus"]
    written = corpus.folder / CARD_FOLDER / MARKDOWN_FILE
    texts = {
        "model_card.md": model_card(spec.model_name, spec.alias, inputs, example, anatomy),
        MARKDOWN_FILE: written.read_text() if written.exists() else data_card(corpus).markdown,
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    return [folder / name for name in texts]
