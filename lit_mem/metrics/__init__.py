"""Thin torchmetrics shells that carry per-example numbers across batches and ranks."""
