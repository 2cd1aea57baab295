"""lit_mem: see memorization while you fine-tune."""

__version__ = "0.1.0"
