"""Steps that change texts before they are measured: repair, control characters, lines, personal data."""
