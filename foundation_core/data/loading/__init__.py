"""Shards to batches: rows, their order, and each rank's share."""
