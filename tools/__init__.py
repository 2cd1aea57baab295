"""Scripts that build the bundled model and corpus; in the repository, not in the wheel."""
