"""Raw files -> documents -> shards -> windows -> batches."""
