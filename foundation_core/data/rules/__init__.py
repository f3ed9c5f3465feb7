"""Which documents stay by what is measured of them."""
