"""Units of work: committed apart, in any order, and put together."""
