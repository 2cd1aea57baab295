"""What is trained on, and how little of it has to be computed."""
