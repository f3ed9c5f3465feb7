"""Where the stages run: a local process or a Ray cluster, with one launcher, one job entry point and one lease."""
