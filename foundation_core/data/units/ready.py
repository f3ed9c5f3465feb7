"""What worker processes need before their first text: machine code and tables, 0.8 s that no document is in.

Imported by the server that they are forked from, it loads them once for all, while the source is listed.
"""

from __future__ import annotations

import pyarrow as pa

from foundation_core.data.copies.minhash import Sketch
from foundation_core.data.rules.quality import measure

_TEXT = pa.array(["a text"], pa.large_string())

measure(_TEXT)
Sketch(shingle_words=1, bands=1, band_rows=1)(_TEXT)
