"""What a machine and a data folder are like, for a person who wonders why something does not work."""

from __future__ import annotations

import os
import platform
import shutil
import stat
import sys
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Literal, NamedTuple
from urllib.parse import urlsplit

import psutil

from cluster.embedded import answers
from cluster.preflight import LEAST_FREE_BYTES
from cluster.services import PORTS, port_for
from cluster.settings import Settings, usable_cpus
from cluster.stack import Stack
from foundation_core.errors import FoundationError

PACKAGES = ("torch", "ray", "prefect", "mlflow", "deepspeed", "pyarrow")
PYTHONS = ((3, 11), (3, 13))
LEAST_MEMORY_BYTES = 6e9
"""The quickstart's processes together take 3.9 GB at their peak."""


class Finding(NamedTuple):
    """One thing that was looked at.

    Args:
        level: ok; note: worth knowing; problem: something will not work.
        fix: what to do, for a problem.
    """

    name: str
    level: Literal["ok", "note", "problem"]
    found: str
    fix: str = ""


def diagnose(settings: Settings) -> list[Finding]:
    """Look at everything; nothing is changed."""
    found: list[Finding] = []
    for name, look in LOOKS.items():
        try:
            found += look(settings)
        except FoundationError as error:
            found.append(Finding(name, "problem", error.found, error.fix))
        except OSError as error:
            found.append(Finding(name, "problem", str(error), "see `data folder` above, then look again"))
    return found


def _python(_: Settings) -> Iterable[Finding]:
    version = platform.python_version()
    if PYTHONS[0] <= sys.version_info[:2] <= PYTHONS[1]:
        yield Finding("python", "ok", version)
    else:
        yield Finding("python", "problem", version, "use Python 3.11, 3.12 or 3.13: make PYTHON=python3.12 run")


def _packages(_: Settings) -> Iterable[Finding]:
    missing, present = [], []
    for package in PACKAGES:
        try:
            present.append(f"{package} {metadata.version(package)}")
        except metadata.PackageNotFoundError:
            missing.append(package)
    if missing:
        yield Finding(
            "packages", "problem", f"not installed: {', '.join(missing)}", "run `make run` once, or install .[all]"
        )
    if present:
        yield Finding("packages", "ok", ", ".join(present))


def _machine(_: Settings) -> Iterable[Finding]:
    memory = psutil.virtual_memory()
    found = f"{usable_cpus()} CPUs, {memory.total / 1e9:.1f} GB of memory, {memory.available / 1e9:.1f} GB free"
    if memory.available < LEAST_MEMORY_BYTES:
        yield Finding(
            "machine", "note", f"{found}; the quickstart and its services want {LEAST_MEMORY_BYTES / 1e9:.0f} GB"
        )
    else:
        yield Finding("machine", "ok", found)
    yield Finding("bfloat16", "ok", "in hardware" if _multiplies_bf16() else "not in hardware: float32 is chosen")


def _multiplies_bf16() -> bool:
    try:
        with open("/proc/cpuinfo") as lines:
            return any(flag in line for line in lines for flag in (" avx512_bf16", " amx_bf16", " bf16"))
    except OSError:
        return False


def _gpu(_: Settings) -> Iterable[Finding]:
    if shutil.which("nvidia-smi"):
        found = "there is one, for a Ray cluster that FOUNDATION_RAY_ADDRESS names; what is started here trains on CPUs"
        yield Finding("gpu", "note", found)
    else:
        yield Finding("gpu", "ok", "none: CPUs train")


def _compiler(_: Settings) -> Iterable[Finding]:
    compiler = next((name for name in ("c++", "g++", "clang++") if shutil.which(name)), None)
    yield Finding("compiler", "ok", f"{compiler or 'none'}; nothing needs one")


def _data_folder(settings: Settings) -> Iterable[Finding]:
    place = settings.home if settings.home.exists() else settings.home.parent
    if not os.access(place, os.W_OK):
        fix = "give yourself the right to write there, or name another folder with FOUNDATION_HOME"
        yield Finding("data folder", "problem", f"{settings.home} cannot be written", fix)
        return
    free = shutil.disk_usage(place).free
    found = f"{settings.home}{'' if settings.home.exists() else ' (not there yet)'}, {free / 1e9:.1f} GB free"
    short = free < LEAST_FREE_BYTES
    fix = "free some space, or name another folder with FOUNDATION_HOME" if short else ""
    yield Finding("data folder", "problem" if short else "ok", found, fix)


def _services(settings: Settings) -> Iterable[Finding]:
    for state in Stack(settings).status():
        bad = state.word not in ("up", "down")
        fix = f"run `foundation up`; its log: {settings.logs / f'{state.name}.log'}" if bad else ""
        yield Finding(state.name, "problem" if bad else "ok", f"{state.word} {state.url}".rstrip(), fix)


def _ports(settings: Settings) -> Iterable[Finding]:
    for state in Stack(settings).status():
        wanted = urlsplit(state.url).port or PORTS[state.name]
        if not state.alive and port_for(state.name, wanted) != wanted:
            found = f"{wanted} is taken by another program; `foundation up` takes a free one instead"
            yield Finding(f"port of {state.name}", "note", found)


def _token(settings: Settings) -> Iterable[Finding]:
    path = settings.home / "stack" / "ray-token"
    if not path.exists():
        yield Finding("ray token", "ok", "made by `foundation up`")
    elif stat.S_IMODE(path.stat().st_mode) & 0o077:
        yield Finding("ray token", "problem", f"{path} can be read by others", f"chmod 600 {path}")
    else:
        yield Finding("ray token", "ok", f"{path}, readable by you alone")


def _environment(_: Settings) -> Iterable[Finding]:
    api = os.environ.get("PREFECT_API_URL")
    if api and not answers(f"{api}/health"):
        yield Finding(
            "PREFECT_API_URL", "problem", f"{api} does not answer", "start that server, or unset the variable"
        )
    ray = os.environ.get("RAY_ADDRESS")
    if ray:
        yield Finding("RAY_ADDRESS", "note", f"{ray}: not read; FOUNDATION_RAY_ADDRESS names a cluster's dashboard")
    proxies = [name for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY") if os.environ.get(name)]
    open_hosts = os.environ.get("no_proxy", os.environ.get("NO_PROXY", ""))
    if proxies and "127.0.0.1" not in open_hosts:
        fix = "add 127.0.0.1 and localhost to no_proxy"
        yield Finding(
            proxies[0], "problem", "requests to loopback go to a proxy, which does not know the services", fix
        )


LOOKS: Mapping[str, Callable[[Settings], Iterable[Finding]]] = {
    "python": _python,
    "packages": _packages,
    "machine": _machine,
    "gpu": _gpu,
    "compiler": _compiler,
    "data folder": _data_folder,
    "services": _services,
    "ports": _ports,
    "ray token": _token,
    "environment": _environment,
}
