"""The models of a run: its base, what is trained on it, the frozen reference, and their scores."""
