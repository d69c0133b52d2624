"""Fitting a network: the one loop, what it remembers, where it is kept, how processes share it."""
