"""Images, recordings and series as rows of numbers."""
