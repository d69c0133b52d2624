"""Speed beside the peers: the same weights, one process, in turn (A B A B), medians, ratios. `python -m benchmarks`."""
