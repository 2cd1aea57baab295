"""One forward pass per text, with scores of the frozen reference."""
