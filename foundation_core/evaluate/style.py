"""One style for all pictures that are drawn."""

from __future__ import annotations

INK, GREY, GRID = "#22303f", "#7b8794", "#e4e8ec"
BLUE, ORANGE, GREEN = "#2468a8", "#d4731f", "#2f8f6b"
STYLE = {
    "font.size": 11,
    "axes.titlesize": 13,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.titlepad": 14,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": GRID,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "legend.frameon": False,
    "savefig.dpi": 150,
}
