"""What can be known before anything starts: too few CPUs, no room, no source, unknown names."""

from __future__ import annotations

import shutil
from collections.abc import Iterable

import psutil

from cluster.compatibility import check_combination, check_tools
from cluster.forecast import WORKER_BYTES, Forecast, forecast
from cluster.planning import INPUTS, Step, plan
from cluster.ray_jobs import cluster_cpus, is_more_than_this_machine
from cluster.room import too_few_cpus
from cluster.settings import Settings, usable_cpus
from foundation_core import plugins
from foundation_core.errors import ConfigError, SetupError
from foundation_core.specs import LOCAL_WORKERS, IngestSpec, PipelineSpec
from foundation_core.stages.ingest_needs import memory_bytes
from foundation_core.store import Store

LEAST_FREE_BYTES = 500_000_000


def preflight(recipe: PipelineSpec, settings: Settings) -> None:
    """Refuse, with the numbers, what cannot work here.

    Raises:
        ConfigError: names that nothing installed has; all of them at once.
        SetupError: this machine cannot do it.
    """
    check_recipe(recipe)
    spec = recipe.pretrain
    if not settings.ray_dashboard and spec.fewest_workers * spec.threads_per_worker > usable_cpus():
        raise too_few_cpus(spec, usable_cpus())
    if not settings.ray_dashboard:
        check_tools(spec)
    _home_has_room(settings)


def preflight_cluster(recipe: PipelineSpec, settings: Settings, steps: Iterable[Step]) -> None:
    """Refuse what the configured Ray cluster cannot do, if one is configured and something is due on it.

    Raises:
        SetupError: it does not answer, or not to this token, or has fewer CPUs than the workers need.
    """
    if not settings.ray_dashboard:
        return
    due = {step.stage for step in steps if step.result is None}
    if due & {"ingest", "pretrain", "finetune"}:
        present, spec = cluster_cpus(settings.ray_dashboard), recipe.pretrain
        if "pretrain" in due and spec.fewest_workers * spec.threads_per_worker > present:
            raise too_few_cpus(spec, present)


def check_recipe(recipe: PipelineSpec) -> None:
    """Refuse what can work nowhere.

    Raises:
        ConfigError: names that nothing installed has, all of them at once; or parts that do not go together.
    """
    _names_exist(recipe)
    check_combination(recipe.pretrain)


def _home_has_room(settings: Settings) -> None:
    try:
        settings.home.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise SetupError(
            f"the data folder {settings.home} cannot be made: {error.strerror}",
            fix="name another folder with FOUNDATION_HOME",
        ) from error
    free_bytes = shutil.disk_usage(settings.home).free
    if free_bytes < LEAST_FREE_BYTES:
        raise SetupError(
            f"{settings.home} has {free_bytes / 1e6:.0f} MB free",
            allowed=f"at least {LEAST_FREE_BYTES / 1e6:.0f} MB",
            fix="free some space, or name another folder with FOUNDATION_HOME",
        )


def checked_plan(
    recipe: PipelineSpec, settings: Settings, source_content: str, last: str = "publish"
) -> tuple[list[Step], Forecast]:
    """What a recipe would do up to a stage, and take.

    Raises:
        SetupError: there is no room for it here; of memory, only what is certain counts.
    """
    store = Store(settings.results)
    steps = plan(recipe, store, source_content)[: list(INPUTS).index(last) + 1]
    found = forecast(recipe, steps, store)
    if "pretrain" in found.seconds and not settings.ray_dashboard:
        _fits_memory(recipe.pretrain.workers, found)
    if "ingest" in found.seconds:
        _fits_ingest(recipe.ingest, settings.ray_dashboard)
    free_bytes = shutil.disk_usage(settings.home).free
    if found.disk_bytes > free_bytes:
        raise SetupError(
            f"the run will write about {_gb(found.disk_bytes)}, and {settings.home} has {_gb(free_bytes)} free",
            fix="free some space, name another folder with FOUNDATION_HOME, or lower --pretrain.keep_checkpoints",
        )
    return steps, found


def _fits_memory(workers: int, found: Forecast) -> None:
    needed, there = workers * (WORKER_BYTES + found.state_bytes), psutil.virtual_memory().total
    if needed > there:
        raise SetupError(
            f"{workers} workers need {_gb(needed)} for {found.parameters / 1e6:.0f} M parameters with gradients and"
            f" optimizer state, and this machine has {_gb(there)}",
            fix="take a smaller model, fewer workers, or a ZeRO stage that shards more (--pretrain.zero_stage 3)",
        )


def _fits_ingest(spec: IngestSpec, dashboard: str) -> None:
    """Refuse an ingestion that this machine has no memory for, unless it goes to a cluster with others."""
    needed, there = memory_bytes(spec), psutil.virtual_memory().total
    if needed > there and not (dashboard and is_more_than_this_machine(dashboard)):
        raise SetupError(
            f"{spec.workers or LOCAL_WORKERS} workers on units of {_gb(spec.unit_bytes)} need about {_gb(needed)}, with"
            f" {_gb(spec.work_memory_bytes)} to look for copies in, and this machine has {_gb(there)}",
            fix="lower --ingest.workers, --ingest.unit_bytes or --ingest.work_memory_bytes",
        )


def _gb(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _names_exist(recipe: PipelineSpec) -> None:
    named = [
        ("sources", recipe.ingest.source.kind),
        *(("measures", rule.measure) for rule in recipe.ingest.filters),
        ("families", recipe.pretrain.model.family),
        ("objectives", recipe.pretrain.objective),
        ("tasks", recipe.finetune.task),
    ]
    problems = [
        f"no {plugins.member(group)} is called {name!r}; allowed: {', '.join(plugins.names(group))}"
        for group, name in named
        if name not in plugins.names(group)
    ]
    if problems:
        raise ConfigError("the recipe names what is not installed:\n    " + "\n    ".join(problems))
