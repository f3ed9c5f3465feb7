"""How a pretrained trunk becomes a task model."""
