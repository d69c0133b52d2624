"""How many bits a model needs for a picture."""

from unnoise.likelihood.bound import Bound, bound_term, discretized_log_likelihood, rotating, table, whole_bound
from unnoise.likelihood.ode import log_density
from unnoise.likelihood.rate_distortion import curve

__all__ = [
    "Bound",
    "bound_term",
    "curve",
    "discretized_log_likelihood",
    "log_density",
    "rotating",
    "table",
    "whole_bound",
]
