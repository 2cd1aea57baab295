"""One function for each kind of plot, drawn from plain values; `output` makes pixels or SVG of what it returns."""
