"""One drawing of each plot, as matplotlib objects that belong to no window and no global state."""
