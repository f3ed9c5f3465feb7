"""The loader measured: how fast it starts, and how many tokens a second come out of it."""
