"""What a stage's result depends on, and why it would run again.

An *action key* names the work before it is done: the meaning of its spec, the content hashes of its inputs, the
version of its code and of the libraries that decide its bytes. A *content hash* names what came out. Later stages key
on content, so a change without effect stops after one stage. Paths, hosts and worker counts are in neither.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from foundation_core.files import sha256_json
from foundation_core.specs import Spec

CODE_VERSIONS = {"ingest": 9, "pretrain": 8, "finetune": 6, "evaluate": 8, "publish": 5}
"""A stage's code version: raise it when the same inputs would give another result (a test watches the source)."""

LIBRARIES = {
    "ingest": ("pyarrow", "tokenizers", "fastokens"),
    "pretrain": ("torch", "deepspeed"),
    "finetune": ("torch",),
    "evaluate": ("torch", "scikit-learn"),
    "publish": ("mlflow",),
}
"""The libraries that decide a stage's bytes."""


@dataclass(frozen=True)
class ActionKey:
    """The name of a piece of work: a digest, and the parts that it was made of (for `why`)."""

    stage: str
    digest: str
    parts: Mapping[str, Any]

    @property
    def short(self) -> str:
        """Twelve hex digits, for folder names."""
        return self.digest[:12]


def action_key(stage: str, spec: Spec, inputs: Mapping[str, str], libraries: Sequence[str] = ()) -> ActionKey:
    """The key of a stage.

    Args:
        spec: the stage's spec; only its meaning counts.
        inputs: content hash of each input, by name.
        libraries: those that decide this result, beside the stage's own.
    """
    parts = {
        "stage": stage,
        "code": CODE_VERSIONS[stage],
        "libraries": {name: _installed(name) for name in (*LIBRARIES[stage], *libraries)},
        "inputs": dict(sorted(inputs.items())),
        "spec": _jsonable(spec.meaning()),
    }
    return ActionKey(stage, sha256_json(parts), parts)


def content_hash(outputs: Mapping[str, str]) -> str:
    """The name of what came out: a digest over the digests of the outputs, by name."""
    return sha256_json(dict(outputs))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Each part that differs between two keys, as `dotted.name: old -> new`."""
    found: list[str] = []
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, Mapping) and isinstance(after, Mapping):
            found += differences(before, after, f"{prefix}{name}.")
        elif before != after:
            found.append(f"{prefix}{name}: {before} -> {after}")
    return found


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "absent"


def _jsonable(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_jsonable(item) for item in value]
    return value
