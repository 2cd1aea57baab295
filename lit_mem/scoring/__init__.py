"""One forward pass a text, and the scores of the frozen reference beside it."""
