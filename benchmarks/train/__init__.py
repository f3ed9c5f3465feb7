"""Training measured: speed beside a plain torch rival, what saves cost, quality by the clock."""
