"""CSV, JSON lines, Parquet and Arrow in parts of bounded bytes."""
