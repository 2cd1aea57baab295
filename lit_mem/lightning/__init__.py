"""Lightning: the module, the data module, and the callback that measures."""
