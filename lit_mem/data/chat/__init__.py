"""Conversations: file formats, the chat template, and which tokens are trained on and scored."""
