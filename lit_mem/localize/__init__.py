"""Locate memorization in a trained adapter: ablation of its parts, inside views, influence of training texts."""
