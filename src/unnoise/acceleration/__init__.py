"""Make a network fast on the machine at hand."""
