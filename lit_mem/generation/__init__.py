"""Greedy decoding of many prompts at once."""
