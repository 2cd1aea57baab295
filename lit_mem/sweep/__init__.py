"""Sweeps: many runs that differ in a few options, one table of their metrics, and the conclusions."""
