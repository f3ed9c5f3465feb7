"""How a model learns: the step, the loop around it, and what they stand on."""
