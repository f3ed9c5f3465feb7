"""A Ray cluster by its Jobs API: reach it, with its token, and say in words of ours why not; its size; its jobs.

The token comes from where Ray's own commands take it: RAY_AUTH_TOKEN, RAY_AUTH_TOKEN_PATH, ~/.ray/auth_token.
"""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from cluster.stop import StopFile
from foundation_core.errors import ConfigError, SetupError, TransientError

if TYPE_CHECKING:
    from ray.job_submission import JobSubmissionClient

JOB_CONFIG = "RAY_JOB_CONFIG_JSON_ENV_VAR"
"""Set by Ray in the process of a submitted job: with which runtime environment it was submitted."""
CONNECT_SECONDS = 10.0
MOST_NODES = 10_000
"""What Ray's state API gives at the most."""
CHATTY = ("ray", "ray.dashboard.modules.job.sdk", "ray.dashboard.modules.dashboard_sdk")
"""Loggers of Ray's client that tell how it packs and when a connection closed."""


def join_cluster(folder: Path) -> None:
    """Let the process of a job take part in the cluster that runs it.

    Args:
        folder: becomes its working directory, which Ray puts before all else on the path of every worker: a folder
            where nobody keeps packages that are called like ours.
    """
    import ray

    os.chdir(folder)
    ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
    StopFile(folder).request_on_signals()  # Ray's own handler of SIGTERM ends the process at once


def connect(address: str) -> JobSubmissionClient:
    """A client of the Jobs API at an address.

    Args:
        address: of the dashboard, http://HOST:PORT.

    Raises:
        ConfigError: it is no address.
        SetupError: nobody answers there, or the token is missing or wrong.
    """
    url = urlsplit(address)
    if url.scheme not in ("http", "https") or not url.hostname:
        raise ConfigError(f"{address!r} is no address of a Ray dashboard", allowed="http://HOST:PORT")
    _use_token()
    os.environ["RAY_API_SERVER_ADDRESS"] = address  # or Ray's clients prefer what RAY_ADDRESS names
    from ray.job_submission import JobSubmissionClient

    for chatty in CHATTY:
        logging.getLogger(chatty).setLevel(logging.WARNING)
    with reaching(address):
        port = url.port or {"http": 80, "https": 443}[url.scheme]
        socket.create_connection((url.hostname, port), CONNECT_SECONDS).close()  # Ray's client waits for minutes
        try:
            return JobSubmissionClient(address)
        except RuntimeError as error:
            raise OSError("what answers there is no Ray dashboard") from error


@contextmanager
def reaching(address: str) -> Iterator[None]:
    """Turns Ray's refusals into ours.

    Raises:
        SetupError: nobody answers, or the token is missing or wrong.
        TransientError: the cluster answers and does not do it.
    """
    from ray.exceptions import AuthenticationError

    try:
        yield
    except AuthenticationError as error:
        has_token = bool(_token_source())
        raise SetupError(
            f"the Ray cluster at {address} refused {_token_source() or 'a request without a token'}",
            allowed="its own token, in RAY_AUTH_TOKEN, in the file that RAY_AUTH_TOKEN_PATH names, or in "
            "~/.ray/auth_token",
            fix="give that cluster's token" if has_token else "give the token",
        ) from error
    except (OSError, ValueError) as error:  # requests' errors and ConnectionError are OSErrors
        raise SetupError(
            f"no Ray cluster answers at {address}",
            allowed="the address of a dashboard, such as http://127.0.0.1:8265",
            fix="see that the cluster runs, and correct --address or FOUNDATION_RAY_ADDRESS",
        ) from error
    except RuntimeError as error:
        raise TransientError(f"the Ray cluster at {address} refused: {error}") from error


def cluster_cpus(address: str) -> int:
    """CPUs of all living nodes of a cluster.

    Raises:
        FoundationError: as `connect`.
    """
    return int(sum(node.resources_total.get("CPU", 0) for node in _living_nodes(address)))


def is_more_than_this_machine(address: str) -> bool:
    """Whether a cluster has several nodes, or is elsewhere.

    Raises:
        FoundationError: as `connect`.
    """
    return not is_here(address) or len(_living_nodes(address)) > 1


def is_here(address: str) -> bool:
    """Whether the dashboard at an address is this machine's; so is that of the cluster that a run starts for itself."""
    return not address or urlsplit(address).hostname in ("127.0.0.1", "localhost", "::1")


def _living_nodes(address: str) -> list[Any]:
    connect(address)
    from ray.util.state import list_nodes
    from ray.util.state.exception import RayStateApiException

    try:
        # no filter for those that live: Ray takes the ones that it leaves out for an answer cut short
        nodes = list_nodes(address=address, limit=MOST_NODES)
    except RayStateApiException as error:
        raise TransientError(f"the Ray cluster at {address} does not tell its nodes: {error}") from error
    return [node for node in nodes if node.state == "ALIVE"]


def live_jobs(address: str) -> dict[str, str]:
    """The command of every job that waits or runs on a cluster, by its id.

    Raises:
        FoundationError: as `connect`.
    """
    client = connect(address)
    with reaching(address):
        jobs = [job for job in client.list_jobs() if job.submission_id and not job.status.is_terminal()]
    return {str(job.submission_id): str(job.entrypoint) for job in jobs}


def surrounding_cluster() -> str:
    """The dashboard's address of the cluster whose job this process is; empty outside of a job."""
    if JOB_CONFIG not in os.environ:
        return ""
    from ray.job_submission import JobSubmissionClient

    # without an address the client asks the cluster that RAY_ADDRESS names, which Ray sets for a job
    return str(JobSubmissionClient().get_address())


def inherited_environment() -> dict[str, Any]:
    """What a job's own jobs need to find the code that it found: its runtime environment, without the variables."""
    config = json.loads(os.environ.get(JOB_CONFIG, "{}"))
    around = config.get("runtime_env") or {}
    return {name: value for name, value in around.items() if name != "env_vars" and not name.startswith("_")}


def _use_token() -> None:
    """Let Ray's clients send the token that is there; Ray does so only if it is told before its first import."""
    if _token_source():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _token_source() -> str:
    """Where a token is found, for a message; empty if nowhere."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return "the token in RAY_AUTH_TOKEN"
    if path := os.environ.get("RAY_AUTH_TOKEN_PATH"):
        return f"the token in {path}"
    path = str(Path.home() / ".ray" / "auth_token")
    return f"the token in {path}" if os.path.exists(path) else ""
