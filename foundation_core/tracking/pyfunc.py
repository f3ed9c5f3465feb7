"""A package and what MLflow loads of it, by name from our wheel. It runs no code from the artifact.

weights.safetensors  model.json                     the pretrained model
tokenizer.json  features.json                       what reads texts, and what reads values, as far as there are some
classifier.safetensors  classifier.json             the task model, if there is one
example.json                                        a stored question and its answers
package.json                                        sha256 of every other file
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from foundation_core import plugins
from foundation_core.adapt.tasks import Facts, corpus_tokenizer, find_task
from foundation_core.adapt.transfer import WEIGHTS_FILE, Pretrained
from foundation_core.data.values.features import FEATURES_FILE, load_features
from foundation_core.errors import CheckpointError
from foundation_core.files import read_json, sha256_file
from foundation_core.objectives.base import Request
from foundation_core.objectives.language import Prefix
from foundation_core.objectives.special import special_tokens
from foundation_core.specs import FinetuneSpec, MaskingSpec
from foundation_core.tracking.served import ServedModel, TaskModel
from foundation_core.weights import load_weights

PACKAGE_FILE = "package.json"
PACKAGE_VERSION = 2
TASK_MODEL_FILE, TASK_WEIGHTS_FILE = "classifier.json", "classifier.safetensors"
FRAGMENT_FACTS = ("task", "fragment_tokens", "pool")
"""What version 1 said of its classifier."""


def read_model(folder: Path, trunk: Pretrained, objective: str, task_weights: tuple[Path, str] | None) -> ServedModel:
    """The model of a package.

    Args:
        folder: of the package, with all files but the weights, which may lie elsewhere.
        objective: name of the one that the model was pretrained for.
        task_weights: of the task model, and what they must hash to. None: there is none.

    Raises:
        CheckpointError: the tokenizer of the package is not that of the model.
    """
    trunk.check_tokenizer(folder)
    tokenizer = corpus_tokenizer(folder)
    features = load_features(folder) if (folder / FEATURES_FILE).exists() else None
    tokens = None if tokenizer is None else special_tokens(tokenizer)
    trained_for = plugins.find("objectives", objective)(Request(trunk.spec, MaskingSpec(), trunk.shape, tokens))
    task_model = None
    if task_weights is not None:
        body = read_json(folder / TASK_MODEL_FILE)
        spec = FinetuneSpec.model_validate(body.get("spec") or {name: body[name] for name in FRAGMENT_FACTS})
        facts, task = Facts(spec, body["classes"], tokenizer), find_task(spec.task)
        model = task.model(trunk, facts, seed=0)
        model.load_state_dict(load_weights(*task_weights))
        task_model = TaskModel(task, model.eval(), facts)
    return ServedModel(trunk, tokenizer, features, task_model, prefix=isinstance(trained_for, Prefix))


def _load_pyfunc(data_path: str) -> ServedModel:
    """The entry point that MLflow calls."""
    folder = Path(data_path)
    files = check_package(folder)
    trunk = Pretrained.find(folder, files[WEIGHTS_FILE])
    task = (folder / TASK_WEIGHTS_FILE, files[TASK_WEIGHTS_FILE]) if TASK_WEIGHTS_FILE in files else None
    body: dict[str, Any] = read_json(folder / PACKAGE_FILE)
    return read_model(folder, trunk, body.get("objective", "next_token"), task)  # version 1 knew no other


def check_package(folder: Path) -> dict[str, str]:
    """The sha256 of each file of a package, after comparing them.

    Raises:
        CheckpointError: a file is missing, edited or cut short, or the package comes from a newer version.
    """
    package = read_json(folder / PACKAGE_FILE)
    if package["version"] > PACKAGE_VERSION:
        raise CheckpointError(
            f"{folder / PACKAGE_FILE} has version {package['version']}",
            allowed=f"versions up to {PACKAGE_VERSION}",
            fix="upgrade foundation-pipeline",
        )
    files: dict[str, str] = package["files"]
    for name, expected in files.items():
        path = folder / name
        found = sha256_file(path) if path.is_file() else "no file"
        if found != expected:
            raise CheckpointError(
                f"{path} is not the file that was packaged: {found}",
                allowed=f"sha256 {expected}",
                fix="download the model again, or publish it again",
            )
    return files
