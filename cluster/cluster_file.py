"""The file that describes a cluster, as its spec. Every problem is named."""

from __future__ import annotations

from pathlib import Path

from pydantic import ValidationError

from foundation_core.errors import ConfigError
from foundation_core.specs.cluster import ClusterSpec

EXAMPLES = "infra/clusters"


def load_cluster(path: Path) -> ClusterSpec:
    """The cluster that a YAML file describes.

    Raises:
        ConfigError: it is not there, is not YAML, or has problems; all of them are in the message.
    """
    import yaml

    try:
        body = yaml.safe_load(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(
            f"cluster file {path} cannot be read: {error.strerror}", fix=f"name a YAML file; {EXAMPLES} has examples"
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"cluster file {path} is not YAML: {error}", fix="correct the file") from error
    try:
        return ClusterSpec.model_validate(body)
    except ValidationError as error:
        problems = [
            f"{'.'.join(map(str, one['loc'])) or 'the file'}: {one['msg'].removeprefix('Value error, ')}"
            for one in error.errors()
        ]
        raise ConfigError(
            f"cluster file {path} has {len(problems)} problem{'s' if len(problems) > 1 else ''}:\n    "
            + "\n    ".join(problems),
            fix=f"correct each; {EXAMPLES} has examples",
        ) from error
