"""The plain engine on one GPU: tokens a second, and what share of the card's peak they are."""
