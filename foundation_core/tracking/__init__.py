"""Where figures, files and lineage go."""

import os

# MLflow reads these when it is imported, and its servers inherit them. A person's own setting wins.
for _name, _value in {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "3",  # 14 s until an absent server is an error; the default takes 4 minutes
    "MLFLOW_UV_AUTO_DETECT": "false",  # a lock file in the working directory says nothing about a packaged model
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",  # a script reads what a command prints
    "GIT_PYTHON_REFRESH": "quiet",
}.items():
    os.environ.setdefault(_name, _value)
