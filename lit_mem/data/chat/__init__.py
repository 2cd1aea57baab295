"""Conversations: their forms in files, the chat template, and which of their tokens are trained on and scored."""
