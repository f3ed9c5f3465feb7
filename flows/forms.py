"""What people fill in on Prefect's pages: a recipe, the few knobs that matter, and dotted overrides for all others.

form -> recipe + overrides -> the same spec, the same preflight and the same stages as on the command line
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any

from prefect import flow
from pydantic import Field

from cluster.preflight import preflight
from cluster.settings import Settings
from cluster.sweep import LAST_STAGES, plan_sweep
from flows.pipeline import run_until
from flows.recipes import find_recipe, recipe_names
from flows.sweep import run_sweep
from foundation_core.recipe import load_recipe, parse_overrides
from foundation_core.specs import PipelineSpec

# mypy wants the names of members written out; these are known when the runner starts
Recipe = StrEnum("Recipe", [(name, name) for name in recipe_names() or ["none"]])  # type: ignore[misc]
"""The recipes there were when the runner started."""
LastStage = StrEnum("LastStage", [(name, name) for name in LAST_STAGES])  # type: ignore[misc]

Count = Annotated[int, Field(ge=0)]
Rate = Annotated[float, Field(ge=0, le=1)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Workers = Annotated[int, Field(ge=0, le=1024)]


@flow(name="pipeline")
def pipeline(
    recipe: Recipe,
    steps: Count = 0,
    learning_rate: Rate = 0.0,
    max_seconds: Seconds = 0.0,
    max_tokens: Count = 0,
    finetune_steps: Count = 0,
    model_name: str = "",
    others: str = "",
) -> None:
    """From raw files to a registered model: ingest, pretrain, finetune, evaluate, publish.

    Args:
        recipe: What to run. All that follows is optional.
        steps: Optimizer steps of pretraining. 0: as the recipe says.
        learning_rate: Peak learning rate of pretraining. 0: as the recipe says.
        max_seconds: Seconds after which pretraining ends, and the next stages go on. 0: as the recipe says.
        max_tokens: Tokens after which pretraining ends, and the next stages go on. 0: as the recipe says.
        finetune_steps: Optimizer steps of each trial of fine-tuning. 0: as the recipe says.
        model_name: The model's name in MLflow. Empty: as the recipe says.
        others: Any other field, as on the command line: --pretrain.workers 1 --ingest.split.seed 3
    """
    training = {
        "steps": steps, "optimizer.lr": learning_rate, "max_seconds": max_seconds, "max_tokens": max_tokens,
    }  # fmt: skip
    tuning, naming = {"steps": finetune_steps}, {"model_name": model_name}
    run_chosen("", recipe, others, pretrain=training, finetune=tuning, publish=naming)


@flow(name="ingest")
def ingest(recipe: Recipe, others: str = "") -> None:
    """Raw files to a corpus: documents, a tokenizer, shards of tokens.

    Args:
        recipe: What to run.
        others: Any other field, as on the command line: --ingest.split.seed 3
    """
    run_chosen("ingest", recipe, others)


@flow(name="pretrain")
def pretrain(
    recipe: Recipe,
    steps: Count = 0,
    learning_rate: Rate = 0.0,
    max_seconds: Seconds = 0.0,
    max_tokens: Count = 0,
    workers: Workers = 0,
    others: str = "",
) -> None:
    """A corpus to a trunk. The corpus is made first where it is not there.

    Args:
        recipe: What to run. All that follows is optional.
        steps: Optimizer steps. 0: as the recipe says.
        learning_rate: Peak learning rate. 0: as the recipe says.
        max_seconds: Seconds after which training ends and keeps what there is. 0: as the recipe says.
        max_tokens: Tokens after which training ends and keeps what there is. 0: as the recipe says.
        workers: Data-parallel processes. 0: as the recipe says.
        others: Any other field, as on the command line: --pretrain.batch_rows 8
    """
    training = {
        "steps": steps, "optimizer.lr": learning_rate, "max_seconds": max_seconds, "max_tokens": max_tokens,
        "workers": workers,
    }  # fmt: skip
    run_chosen("pretrain", recipe, others, pretrain=training)


@flow(name="finetune")
def finetune(recipe: Recipe, finetune_steps: Count = 0, others: str = "") -> None:
    """A trunk to task models, pretrained and from scratch. What comes before is made first where it is not there.

    Args:
        recipe: What to run. All that follows is optional.
        finetune_steps: Optimizer steps of each trial. 0: as the recipe says.
        others: Any other field, as on the command line: --finetune.few_labels 30
    """
    run_chosen("finetune", recipe, others, finetune={"steps": finetune_steps})


@flow(name="evaluate")
def evaluate(recipe: Recipe, samples: Count = 0, others: str = "") -> None:
    """Models to scores. What comes before is made first where it is not there.

    Args:
        recipe: What to run. All that follows is optional.
        samples: Texts to generate. 0: as the recipe says.
        others: Any other field, as on the command line: --evaluate.temperature 0.5
    """
    run_chosen("evaluate", recipe, others, evaluate={"samples": samples})


@flow(name="publish")
def publish(recipe: Recipe, model_name: str = "", others: str = "") -> None:
    """Models and scores to a registered version. What comes before is made first where it is not there.

    Args:
        recipe: What to run. All that follows is optional.
        model_name: The model's name in MLflow. Empty: as the recipe says.
        others: Any other field, as on the command line: --publish.alias champion
    """
    run_chosen("publish", recipe, others, publish={"model_name": model_name})


@flow(name="sweep")
def sweep(
    recipe: Recipe,
    learning_rates: str = "0.001 0.002 0.004",
    last: LastStage = LastStage["pretrain"],
    steps: Count = 0,
    max_seconds: Seconds = 0.0,
    others: str = "",
) -> None:
    """A recipe once for each learning rate of pretraining, and which of them is best on validation.

    Args:
        recipe: What to run. All that follows is optional.
        learning_rates: Peak learning rates of pretraining, with blanks between them.
        last: The last stage of each. To publish the best one, run the pipeline with its learning rate.
        steps: Optimizer steps of each pretraining. 0: as the recipe says.
        max_seconds: Seconds after which each pretraining ends and keeps what there is. 0: as the recipe says.
        others: Any other field, as on the command line: --pretrain.batch_rows 8
    """
    spec = chosen(recipe, others, pretrain={"steps": steps, "max_seconds": max_seconds})
    settings = Settings.from_environment()
    run_sweep(plan_sweep(spec, "pretrain.optimizer.lr", learning_rates.split(), last, settings), settings)


FORMS = (pipeline, sweep, ingest, pretrain, finetune, evaluate, publish)


def run_chosen(last: str, recipe: str, others: str, **knobs: Mapping[str, Any]) -> None:
    """Run a recipe up to a stage, with the knobs that somebody turned and the other fields that he wrote.

    Args:
        last: the stage; empty: as far as the recipe goes.

    Raises:
        FoundationError: what the command line would say.
    """
    spec = chosen(recipe, others, **knobs)
    preflight(spec, Settings.from_environment())
    run_until(spec, "", last or spec.last)


def chosen(recipe: str, others: str, **knobs: Mapping[str, Any]) -> PipelineSpec:
    """The recipe with the knobs that somebody turned and the other fields that he wrote.

    Raises:
        ConfigError: what the command line would say.
    """
    turned = [(f"{stage}.{name}", str(value)) for stage, part in knobs.items() for name, value in part.items() if value]
    return load_recipe(find_recipe(recipe), [*turned, *parse_overrides(shlex.split(others))])
