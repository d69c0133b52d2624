"""How many bits a model needs for a picture."""

from unnoise.likelihood.bound import bound_term, discretized_log_likelihood

__all__ = ["bound_term", "discretized_log_likelihood"]
