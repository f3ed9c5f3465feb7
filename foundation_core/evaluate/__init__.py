"""Models -> scores, plots and cards."""
