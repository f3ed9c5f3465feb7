"""What a fresh environment must install to run a packaged model: exact versions, and the wheel of this code."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import distribution, version
from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from foundation_core.errors import SetupError

PROJECT = "foundation-pipeline"
NEEDED = ("mlflow", "torch", "tokenizers", "safetensors", "pyarrow", "pydantic", "pandas", "numpy")


def pinned() -> list[str]:
    """The requirement of each library that a packaged model needs, at the installed version.

    A local part of a version (`2.13.0+cpu`) names one index's build; elsewhere it cannot be found.
    """
    return [f"{name}=={version(name).partition('+')[0]}" for name in NEEDED]


def source_folder() -> Path | None:
    """The folder of the source that runs now; None if it came from a package index.

    A checkout, and a copy of one that a Ray job works in, has its project file beside this package. Else it is the
    folder that this project was installed from.
    """
    beside = Path(__file__).parents[2]
    if _is_ours(beside / "pyproject.toml"):
        return beside
    origin = distribution(PROJECT).read_text("direct_url.json")
    url = urlparse(json.loads(origin)["url"]) if origin else None
    folder = Path(url2pathname(url.path)) if url is not None and url.scheme == "file" else None
    return folder if folder is not None and (folder / "pyproject.toml").exists() else None


def _is_ours(project_file: Path) -> bool:
    return project_file.exists() and f'name = "{PROJECT}"' in project_file.read_text()


def build_wheel(folder: Path) -> Path | None:
    """The wheel of the source that runs now, in `folder`; None where a package index has it: pin the version there.

    The same source gives the same bytes.

    Raises:
        SetupError: the build failed, with what it said.
    """
    source = source_folder()
    if source is None:
        return None
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", str(folder.absolute())]
    done = subprocess.run(command, cwd=source, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SetupError(
            f"the wheel of {source} could not be built: {done.stderr.strip()[-500:]}",
            fix=f"install what builds it: pip install '{PROJECT}[track]'",
        )
    return next(folder.glob("*.whl"))
