"""The core beside others, same shapes and same weights: `python -m benchmarks.core [train|generate]`."""
