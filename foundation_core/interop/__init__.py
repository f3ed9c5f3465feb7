"""Weights of models that others trained, under our names and back: small tables, each read in both directions."""
