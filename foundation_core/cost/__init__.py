"""What a model costs: its parameters and its floating-point operations, by arithmetic or counted."""
