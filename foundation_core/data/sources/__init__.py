"""What goes in: the items of a source, their ids and their digests."""
