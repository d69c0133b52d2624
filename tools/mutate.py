"""Finds faults that the tests would miss: `python tools/mutate.py`. Pytest does not collect it.

Each fault below changes one symbol or word of the core, in a copy of the tree; then the tests of the core run until one
fails. A fault that no test catches has survived, and the script exits with 1. `--markdown FILE` writes the table of all
faults and the tests that catch them; docs/tests.md shows a part of it.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).parent.parent
TESTS = [
    "test_schedules", "test_denoiser", "test_losses", "samplers/test_timesteps",
    "samplers/test_samplers", "test_noise", "guidance/test_guidance",
    "likelihood/test_bound", "test_conditions", "test_patch", "test_codec", "test_model", "samplers/test_state",
    "samplers/test_order",
    "samplers/test_langevin", "samplers/test_sde", "likelihood/test_likelihood", "likelihood/test_ode",
    "likelihood/test_endpoints", "compression/test_coder", "editing/test_inversion", "editing/test_interpolation",
    "generate/test_inversion", "generate/test_frames",
]  # fmt: skip
FIRST = {  # the tests of a folder or a file, which run before the others
    "guidance/": ["guidance/test_guidance", "guidance/test_conditional"],
    "conditions.py": ["test_conditions", "guidance/test_guidance"],
    "samplers/": [
        "samplers/test_state",
        "samplers/test_samplers",
        "samplers/test_order",
        "samplers/test_langevin",
        "samplers/test_sde",
    ],
    "likelihood/": [
        "likelihood/test_bound",
        "likelihood/test_likelihood",
        "likelihood/test_ode",
        "likelihood/test_endpoints",
        "compression/test_coder",
    ],
    "editing/": ["editing/test_inversion", "editing/test_interpolation"],
    "generate/": ["generate/test_frames"],
    "nn/autoencoder.py": ["nn/test_autoencoder"],
    "nn/vq_autoencoder.py": ["nn/test_autoencoder"],
    "nn/tiny_autoencoder.py": ["formats/test_autoencoders"],
    "formats/autoencoder": ["formats/test_autoencoders"],
    "formats/vq_model.py": ["formats/test_autoencoders"],
    "codec.py": ["test_codec", "test_tiling"],
    "tiling.py": ["test_tiling"],
    "evaluation/conditions.py": ["evaluation/test_alignment", "recipes/test_values", "evaluation/test_evaluate"],
    "evaluation/alignment.py": ["evaluation/test_alignment"],
    "evaluation/variants.py": ["evaluation/test_variants"],
    "evaluation/tables.py": ["evaluation/test_tables"],
    "evaluation/loss_curve.py": ["evaluation/test_page"],
    "evaluation/details.py": ["evaluation/test_bits_per_dim"],
    "text/tokenizer.py": ["text/test_tokenizer"],
    "patch.py": ["test_patch"],
    "acceleration/": ["acceleration/test_placement"],
    "nn/slices.py": ["nn/test_slices"],
    "training/": ["training/test_player", "training/test_loop", "training/test_train_state"],
}

FAULTS: list[tuple[str, str, str]] = [  # (file, its text, the text with the fault)
    ("schedules/level.py", "return -self.eps(x_t, mean)", "return self.eps(x_t, mean)"),
    ("schedules/level.py", "x_coef=to.alpha * fresh", "x_coef=at.alpha * fresh"),
    ("schedules/level.py", "small=to.sigma**2", "small=at.sigma**2"),
    ("schedules/level.py", "2 * (log_ratio - to.log_ratio)", "1 * (log_ratio - to.log_ratio)"),
    ("schedules/base.py", "logsigmoid(2 * log_ratio.double())", "logsigmoid(log_ratio.double())"),
    ("schedules/tables.py", "torch.log1p(-self.betas()).cumsum(0)", "torch.log(self.betas()).cumsum(0)"),
    ("schedules/tables.py", "scale = 1000 / self.steps\n        return", "scale = 1\n        return"),
    ("schedules/tables.py", "clamp(max=self.max_beta)", "clamp(max=1)"),
    ("schedules/tables.py", "offset: float = 0.008", "offset: float = 0.08"),
    ("schedules/continuous.py", "return Level(1 - t, t.clone())", "return Level(1 - t, (1 - t))"),
    ("schedules/continuous.py", "(t * self.steps - 1) / (self.steps - 1)", "(t * self.steps) / self.steps"),
    ("denoiser.py", "return t * steps - first", "return t * steps"),
    ("denoiser.py", "return -level.log_ratio / 4", "return -level.log_ratio / 2"),
    ("denoiser.py", "return -level.sigma, level.alpha", "return level.sigma, level.alpha"),
    ("denoiser.py", "return -_ones(level), _ones(level)", "return _ones(level), _ones(level)"),
    ("denoiser.py", "det = level.alpha * b - level.sigma * a", "det = level.alpha * b + level.sigma * a"),
    ("denoiser.py", "self.predicts.error(level).square()", "self.predicts.error(level)"),
    ("denoiser.py", "-sigma_data * level.alpha / norm", "sigma_data * level.alpha / norm"),

    ("training/train_state.py", "(self.step + 1) * self.config.batch", "self.step * self.config.batch"),
    ("training/turn.py", "first = first + other", "first = first - other"),
    ("training/turn.py", "p.requires_grad_(False)", "p.requires_grad_(True)"),
    ("training/loop.py", "rate(turn.player.fit, turn.state.step)", "rate(turns[0].player.fit, turn.state.step)"),
    ("training/saved_state.py", "return files if prefix else files", "return files if False else files"),
    ("losses.py", "return level.snr.clamp(min=1)", "return level.snr.clamp(max=1)"),
    ("losses.py", "level.snr.clamp(max=gamma)", "level.snr.clamp(min=gamma)"),
    ("losses.py", "(k + level.snr) ** gamma", "(k + level.snr) * gamma"),
    ("losses.py", "(sigma2 * sigma_data**2)", "(sigma2 * sigma_data)"),
    ("losses.py", "((u * steps).floor() + 1)", "((u * steps).floor())"),
    ("losses.py", "before - level.snr) / 2", "before - level.snr)"),
    ("samplers/walk.py", "State(x, times[0])", "State(x, times[1])"),
    ("samplers/timesteps.py", "(entries.double() + 1) / table", "entries.double() / table"),
    ("samplers/timesteps.py", "(0.8 * table) ** 0.5", "(1.0 * table) ** 0.5"),
    ("samplers/timesteps.py", ".round() - 1", ".round()"),
    ("samplers/timesteps.py", "max(low, math.exp(-_last_log_ratio(schedule, least)))", "low"),
    ("samplers/timesteps.py", "min(high if high > start else start + 1, _last", "max(high, start + 1, -_last"),
    ("schedules/ranges.py", "(betas > 0) & (betas < 1)", "(betas > 0)"),
    ("losses.py", "(scale > UNTRAINED)", "(scale >= 0)"),
    ("samplers/timesteps.py", "bottom ** (1 / rho)", "bottom ** rho"),
    ("samplers/ddpm.py", "over(kernel.x_t_coef, state.x) * state.x", "over(kernel.x_coef, state.x) * state.x"),
    ("samplers/ddpm.py", "sqrt(variance(kernel, at, estimate))", "variance(kernel, at, estimate)"),
    ("samplers/ddpm.py", "where(over(to.sigma, x) > 0, sqrt", "where(over(to.sigma, x) >= 0, sqrt"),
    ("samplers/ddpm.py", "kernel.x_coef**2 * uncertain", "kernel.x_coef * uncertain"),
    ("samplers/ddpm.py", "fraction * high", "fraction * low"),
    ("samplers/ddim.py", "eta**2 * kernel.small", "eta * kernel.small"),
    ("samplers/ddim.py", "combine((keep, to.alpha - keep * at.alpha)", "combine((keep, to.alpha - keep * to.alpha)"),
    ("samplers/ddim.py", "return keep, to.alpha - keep * at.alpha", "return keep, to.alpha - keep * to.alpha"),
    ("samplers/ddim.py", "kernel.large if sigma_hat else variance", "kernel.small if sigma_hat else variance"),
    ("samplers/heun.py", "(2 * alpha), 0.0", "(3 * alpha), 0.0"),
    ("samplers/heun.py", "denoiser(x_u, u).mean", "denoiser(x_u, state.t).mean"),
    ("samplers/heun.py", "to.alpha * (_ratio(to) - _ratio(at))", "at.alpha * (_ratio(to) - _ratio(at))"),
    ("samplers/heun.py", "1 + gamma, 1.0", "1 - gamma, 1.0"),
    ("samplers/heun.py", "MAX_GAMMA = 2**0.5 - 1", "MAX_GAMMA = 2**0.5"),
    ("samplers/__init__.py", "s_noise=1.003", "s_noise=1.03"),
    ("samplers/__init__.py", "s_range=(0.05, 50.0)", "s_range=(0.05, 5.0)"),
    ("samplers/heun.py", "** 2 - ratio**2)", "** 2 - ratio)"),
    ("samplers/exponential.py", "j * found[-1] / k - 1", "j * found[-1] / k + 1"),
    ("samplers/exponential.py", "scale * (node - other)", "scale * (node + other)"),
    ("samplers/multistep.py", "on_mean - sum(each, 0.0), *each", "on_mean + sum(each, 0.0), *each"),
    ("samplers/multistep.py", "on_mean + own * at.alpha", "on_mean + own * to.alpha"),
    ("samplers/multistep.py", "lengths == n, new, old", "lengths >= n, new, old"),
    ("samplers/multistep.py", "*weights(n), *[0.0]", "*weights(count), *[0.0]"),
    ("samplers/state.py", "range(depth, 0, -1)", "range(1, depth + 1)"),
    ("samplers/state.py", "if not bool(each.t.isnan().all())", "if True"),
    ("samplers/state.py", "bool((t == t[0]).all())", "False"),
    ("samplers/unipc.py", "merge(there, history[-1], new)", "new"),
    ("samplers/langevin.py", "merge(clean, Evaluation", "merge(True, Evaluation"),
    ("samplers/plms.py", "nonzero(at.alpha) * at.sigma", "nonzero(at.alpha) * to.sigma"),
    ("samplers/plms.py", "[len(others)][1:]", "[len(others)][:-1]"),
    ("samplers/dpm_solver.py", "raw = [found[0] / (2 * nodes[0])]", "raw = [found[0] / nodes[0]]"),
    ("samplers/dpm_solver.py", "found[2] = found[2] / 2", "found[2] = found[2] / 1"),
    ("samplers/dpm_solver.py", "kernel.x_coef / (2 * node)", "kernel.x_coef / node"),
    ("samplers/unipc.py", "x, s, denoiser(", "x, state.t, denoiser("),
    ("samplers/unipc.py", "(-h if bh1 else found[0]) / (2 * nodes[0])", "(-h if bh1 else found[0]) / nodes[0]"),
    ("samplers/sde.py", "g2 if noisy else g2 / 2", "g2 if noisy else g2"),
    ("samplers/sde.py", "- 1, posterior(at, to).large", "- 1, posterior(at, to).small"),
    ("samplers/langevin.py", "(2 * c) ** 0.5 * sigma", "c**0.5 * sigma"),
    ("samplers/langevin.py", "(2 if half else 1)", "(1 if half else 2)"),
    ("samplers/langevin.py", "FIRST_DRAW = 2", "FIRST_DRAW = 0"),
    ("likelihood/rate_distortion.py", "each.cumsum(0) - each", "each.cumsum(0)"),
    ("likelihood/ode.py", "normal + volume", "normal - volume"),
    ("likelihood/ode.py", "127.5 + u) / 128", "127.5 + u) / 127.5"),
    ("likelihood/ode.py", '*key, "probe")', '*key, "dequantise")'),
    ("likelihood/ode.py", "(seed, row, repeat)", "(0, row, repeat)"),
    ("likelihood/ode.py", ".cpu(), off_volume.abs())", ".cpu(), 0 * off_volume)"),
    ("compression/symbols.py", "(1, 1, 2, 6, 24, 4, 1, 1, 1)", "(1, 1, 2, 6, 20, 4, 1, 1, 1)"),
    ("likelihood/bound.py", "mean.clamp(-1, 1)", "mean.clamp(-2, 1)"),
    ("likelihood/ode.py", "(first + rows).tolist()", "rows.tolist()"),
    ("likelihood/endpoints.py", "LEAST = 0.004", "LEAST = 0.04"),
    ("likelihood/endpoints.py", "max(visible, 1 / steps)", "max(visible, 0)"),
    ("likelihood/endpoints.py", "1 / found.at.snr, found.small", "found.small[-2], found.small"),
    ("editing/inversion.py", "(x + stretch * off)", "(x + off / stretch)"),
    ("editing/inversion.py", "to.sigma - grow * at.sigma", "to.sigma - grow * to.sigma"),
    ("editing/inversion.py", "schedule(t).eps(state.x", "schedule(state.t).eps(state.x"),
    ("editing/interpolation.py", "((1 - k) * theta).sin() / sine", "(k * theta).sin() / sine"),
    ("editing/interpolation.py", "(x * y).sum(1)", "(x * y).sum()"),
    ("editing/interpolation.py", "x.norm(dim=1) * y.norm(dim=1)", "x.norm(dim=1) * x.norm(dim=1)"),
    ("noise.py", "(seed, round(time * _TICKS), draw)", "(seed, round(time * _TICKS))"),
    ("noise.py", "digest_size=16", "digest_size=4"),
    ("noise.py", "found >> np.uint64(32)", "found >> np.uint64(33)"),
    ("noise.py", "int(part).to_bytes", "abs(int(part)).to_bytes"),
    ("noise.py", 'struct.pack("<q", len(part.encode()))', 'b""'),
    ("guidance/classifier_free.py", "torch.lerp(poor, good, scale)", "torch.lerp(good, poor, scale)"),
    ("guidance/classifier_free.py", "fraction.chunk(len(conds))[-1]", "fraction.chunk(len(conds))[0]"),
    ("guidance/thresholding.py", "mean.clamp(-edge, edge) / edge", "mean.clamp(-edge, edge)"),
    ("likelihood/decoder.py", "upper, lower = (x + 1 / 255", "upper, lower = (x + 1 / 127"),
    ("likelihood/bound.py", "(gap + torch.expm1(-gap)) / 2, error", "(gap - torch.expm1(-gap)) / 2, error"),
    ("likelihood/bound.py", "steps.x_coef.square() * torch.exp(", "steps.x_coef * torch.exp("),
    ("likelihood/bound.py", "over(ratio - 1 - ratio.log()", "over(ratio - 1 + ratio.log()"),
    ("likelihood/decoder.py", "x < -0.999, log_upper", "x < -0.999, log_lower"),
    ("likelihood/bound.py", "turn * stride, 1)", "turn, 1)"),
    ("likelihood/bound.py", "step < inner, turn", "step <= inner, turn"),
    ("likelihood/bound.py", "bits * weight, errors", "bits, errors"),
    ("likelihood/rate_distortion.py", "(found.asked > 0).sum(0)", "found.asked.sum(0)"),
    ("conditions.py", "torch.cat([mine, others[name]])", "torch.cat([others[name], mine])"),
    ("patch.py", "twin.__dict__[name] = value.copy()", "twin.__dict__[name] = value"),
    ("patch.py", "    if not found:\n", "    if found is None:\n"),
    ("acceleration/prepack.py", "type(up) is Up and type(up.conv) is Conv3x3", "True"),
    ("acceleration/placement.py", "    weights.clear()", "    pass"),
    ("nn/slices.py", "slice(end - count, end)", "slice(end - count + 1, end)"),
    ("codec.py", "* 127.5 + 127.5).round()", "* 127.5 + 127.5).floor()"),
    ("codec.py", "self.how.shift + self._mean(x)", "self.how.shift - self._mean(x)"),
    ("codec.py", "self.how.scale * (latents - self.how.shift", "1 / self.how.scale * (latents - self.how.shift"),
    ("codec.py", "x * self._std(x) / self.how.scale", "x / self._std(x) / self.how.scale"),
    ("codec.py", "(-(-side // factor) for side", "(side // factor for side"),
    ("codec.py", "solution[:-1].T.flatten()", "solution[:-1].flatten()"),
    ("tiling.py", "starts[i - 1] + side - first", "starts[i - 1] - first"),
    ("tiling.py", "(2 * share - 0.5).clamp(0, 1)", "(2 * share).clamp(0, 1)"),
    ("tiling.py", "-(-(length - side) // (side - overlap))", "(length - side) // (side - overlap)"),
    ("tiling.py", "tiles.whole // pixels", "tiles.whole // factor"),
    ("nn/autoencoder.py", "torch.exp(0.5 * self.logvar)", "torch.exp(self.logvar)"),
    ("nn/autoencoder.py", "LOGVAR = (-30.0, 20.0)", "LOGVAR = (-20.0, 20.0)"),
    ("nn/autoencoder.py", "asymmetric_padding=True", "asymmetric_padding=False"),
    ("nn/autoencoder.py", "(parts.middle_attention, False)", "(False, parts.middle_attention)"),
    ("nn/autoencoder.py", "config.blocks + 1),", "config.blocks),"),
    ("nn/vq_autoencoder.py", "0.5 * table.square()", "table.square()"),
    ("nn/vq_autoencoder.py", "- latents).detach()", "- latents)"),
    ("nn/tiny_autoencoder.py", "3 * torch.tanh(latents / 3)", "torch.tanh(latents / 3)"),
    ("nn/tiny_autoencoder.py", "2 * picture - 1", "picture"),
    ("formats/autoencoder_kl.py", "data[\"shift_factor\"] is None", "data[\"shift_factor\"]"),
    ("formats/autoencoder_kl.py", "down != up[::-1]", "down != up"),
    ("formats/vq_model.py", "None if z == width else z", "None"),
    ("model.py", "codec.factor * height", "height"),
    ("generate/job.py", "math.hypot(level.alpha.item(), level.sigma.item())", "level.alpha.item()"),
    ("generate/conditions.py", ".float() / 255", ".float() / 127.5 - 1"),
    ("generate/job.py", "dynamic_threshold(denoiser, request.dynamic_threshold)", "dynamic_threshold(denoiser)"),
    ("generate/job.py", "clip_denoised(denoiser) if request.clip", "denoiser if request.clip"),
    ("evaluation/conditions.py", "rows[i % len(rows)] for i", "rows[0] for i"),
    (
        "evaluation/conditions.py",
        "model.conditioner.from_labels(label, request.prompts",
        "model.conditioner.from_labels(None, request.prompts",
    ),
    ("evaluation/conditions.py", "if request.guess:", "if not request.guess:"),
    ("evaluation/variants.py", "(self.eta if sampler in ETA else (0.0,))", "self.eta"),
    ("evaluation/variants.py", "replace(axes, guidance=(0.0,))", "axes"),
    ("evaluation/variants.py", 'f"eta {request.eta:g}" if request.sampler in ETA', 'f"eta {request.eta:g}" if True'),
    ("evaluation/tables.py", "value < distance(front[-1])", "value > distance(front[-1])"),
    ("evaluation/tables.py", "* (1 + slack)", "* (1 - slack)"),
    ("evaluation/loss_curve.py", "out.append(mean / weight)", "out.append(mean)"),
    ("evaluation/details.py", "point[2] <= level", "point[2] < level"),
    ("text/tokenizer.py", "text[places[count][0] :]", "text[places[count][1] :]"),
    ("text/conditioner.py", "uniform((), seed,", "uniform((), 0,"),
]  # fmt: skip


def caught_by(fault: tuple[str, str, str]) -> str | None:
    """The name of the first test that fails with this fault; None if all pass."""
    file, right, wrong = fault
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        first = next((names for folder, names in FIRST.items() if file.startswith(folder)), [])
        path = tree / "src" / "unnoise" / file
        text = path.read_text()
        assert text.count(right) >= 1, f"{file} does not contain {right!r} any more: update this list"
        path.write_text(text.replace(right, wrong, 1))
        result = subprocess.run(
            [sys.executable, "-m", "pytest", "-x", "-q", "--no-header", "-p", "no:cacheprovider",
             *(f"tests/{name}.py" for name in dict.fromkeys(first + TESTS))],
            cwd=tree, env={**os.environ, "PYTHONPATH": str(tree / "src"), "OMP_NUM_THREADS": "1"},
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    found = re.search(r"^(?:FAILED|ERROR) (?:tests/)?(\S+)", result.stdout, re.MULTILINE)
    if result.returncode == 0:
        return None
    return found[1] if found else result.stdout.strip().splitlines()[-1]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--markdown", type=Path, help="a file for the table")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="plant only the faults of files whose path contains this text")
    options = parser.parse_args()
    faults = [fault for fault in FAULTS if options.only in fault[0]]
    lines = ["| file | the fault | caught by |", "| --- | --- | --- |"]
    survivors = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for (file, right, wrong), test in zip(faults, pool.map(caught_by, faults)):
            survivors += test is None
            short = (re.sub(r"\s+", " ", text).replace("|", "\\|") for text in (right, wrong))
            line = "| {} | `{}` → `{}` | {} |".format(file, *short, f"`{test}`" if test else "**nothing: survived**")
            lines.append(line)
            print(line, flush=True)
    print(f"{len(faults)} faults, {survivors} survived")
    if options.markdown:
        options.markdown.write_text("\n".join(lines) + "\n")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
