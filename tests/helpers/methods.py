"""Every sampling method with the properties that it claims: those with a name, and the others by their function."""

from __future__ import annotations

from unnoise.samplers import (
    EXACT,
    RELEASED,
    SAMPLERS,
    Sampler,
    dpm_solver,
    dpm_solver_single,
    euler_maruyama,
    heun,
    ncsn,
    ncsn_v2,
    probability_flow,
    reverse_diffusion,
)

METHODS: dict[str, Sampler] = SAMPLERS | {
    "heun-midpoint": Sampler(lambda request: heun(alpha=1 / 2), spacing="karras", calls=2, order=2),
    "heun-ralston": Sampler(lambda request: heun(alpha=2 / 3), spacing="karras", calls=2, order=2),
    "dpm++2m-taylor": Sampler(lambda request: dpm_solver(2, rule=EXACT), spacing="log-snr", order=2),
    "dpm++3m-released": Sampler(lambda request: dpm_solver(3, rule=RELEASED), spacing="log-snr", order=2),
    "dpm++3s": Sampler(lambda request: dpm_solver_single(3), spacing="log-snr", calls=3, order=3),
    "dpm-solver-2": Sampler(
        lambda request: dpm_solver_single(2, predict_noise=True), spacing="log-snr", calls=2, order=2
    ),
    "dpm-solver-3": Sampler(
        lambda request: dpm_solver_single(3, predict_noise=True), spacing="log-snr", calls=3, order=3
    ),
    "ncsn": Sampler(
        lambda request: ncsn(denoise=True), spacing="log-snr", calls=100, last_calls=101, order=0, stochastic=True
    ),
    "ncsn-v2": Sampler(lambda request: ncsn_v2(), spacing="log-snr", calls=5, last_calls=6, order=0, stochastic=True),
    "reverse-diffusion": Sampler(lambda request: reverse_diffusion(), stochastic=True),
    "euler-maruyama": Sampler(lambda request: euler_maruyama(), stochastic=True),
    "probability-flow": Sampler(lambda request: probability_flow()),
}
