"""What a model is trained for: batch -> example -> loss as a sum and a count."""
