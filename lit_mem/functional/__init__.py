"""Pure functions: tensors or words in, numbers out; no model, no Lightning."""
