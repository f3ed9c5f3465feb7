"""Documents that are said again, here or in an evaluation set."""
