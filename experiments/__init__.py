"""What textbooks say of the transformer, measured on small models: one file a claim.

`python -m experiments.all` runs all of them, `python -m experiments.translation` one.

Each experiment prints its figures, draws a picture into docs/images/transformer and keeps the figures in
docs/experiments.json. The letters of tensor suffixes are those of `foundation_core.model`.
"""
