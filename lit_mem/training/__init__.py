"""The training objective, and efficient ways to compute it."""
