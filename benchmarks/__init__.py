"""Tables and timings for docs/; run by hand."""
