"""Sweeps: many runs that differ in a few options, one table of what they measured, and what follows from it."""
