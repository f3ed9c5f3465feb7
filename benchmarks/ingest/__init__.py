"""The ingestion beside the field's tool, on the same documents."""
