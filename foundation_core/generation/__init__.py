"""What is done with a model that writes: token by token, sampled, or the best of several beams."""
