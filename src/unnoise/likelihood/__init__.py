"""Likelihoods: the variational bound, the probability flow, and the rate-distortion curve."""

from unnoise.likelihood.bound import (
    Bound,
    bound_term,
    chain,
    last,
    noise_of,
    rotating,
    table,
    whole_bound,
)
from unnoise.likelihood.decoder import discretized_log_likelihood
from unnoise.likelihood.endpoints import even_chain, last_time
from unnoise.likelihood.ode import Bits, Density, bits, dequantized, exact, hutchinson, log_density
from unnoise.likelihood.rate_distortion import curve

__all__ = [
    "Bits",
    "Bound",
    "Density",
    "bits",
    "bound_term",
    "chain",
    "curve",
    "dequantized",
    "discretized_log_likelihood",
    "even_chain",
    "exact",
    "hutchinson",
    "last",
    "last_time",
    "log_density",
    "noise_of",
    "rotating",
    "table",
    "whole_bound",
]
