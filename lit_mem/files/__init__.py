"""Files of a run, written and read without a trainer."""
