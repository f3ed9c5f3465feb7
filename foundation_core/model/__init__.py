"""The transformer, part by part. Read in this order: layout, attention, positions, block, transformer, families.

A part is passed in where it varies; none of them asks which model it is in. Shapes are written as letters, the same in
every file: B batch, T query length, S key length, D width, H heads, K kv heads, E head width, V vocabulary. A tensor
carries them as a suffix (`q_BHTE`) where its layout changes.
"""
