"""Where in a trained adapter memorization lives: switched-off parts, views of one example, influence of others."""
