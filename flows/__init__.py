"""When things run: Prefect flows, and the `foundation` command that starts them."""
