"""Reports of finished runs and sweeps: plain data, and the page, Markdown and JSON that show it."""
