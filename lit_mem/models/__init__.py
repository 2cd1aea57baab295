"""The models of a run: the base, its adapter, the frozen reference, and their scores."""
