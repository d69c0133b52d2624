"""Which wrong letter would the tests miss? Run by hand: `python tools/mutate.py`. Not collected by pytest.

Each fault below changes one symbol or word of the core, in a copy of the tree, and runs the core's tests until one
fails. A fault that no test catches has survived, and the script ends with 1. `--markdown FILE` writes the table that
docs/tests.md shows.
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
    "test_schedules", "test_denoiser", "samplers/test_samplers", "test_noise", "guidance/test_guidance",
    "likelihood/test_bound", "test_conditions", "test_patch", "test_model", "samplers/test_order",
    "samplers/test_langevin", "samplers/test_sde", "likelihood/test_likelihood", "likelihood/test_ode",
    "likelihood/test_endpoints", "compression/test_coder", "editing/test_inversion", "editing/test_interpolation",
    "generate/test_inversion", "generate/test_frames",
]  # fmt: skip
FIRST = {  # where the tests of a folder, or a file, are; those of the core come after them
    "guidance/": ["guidance/test_guidance"],
    "conditions.py": ["test_conditions", "guidance/test_guidance"],
    "samplers/": ["samplers/test_samplers", "samplers/test_order", "samplers/test_langevin", "samplers/test_sde"],
    "likelihood/": [
        "likelihood/test_bound",
        "likelihood/test_likelihood",
        "likelihood/test_ode",
        "likelihood/test_endpoints",
        "compression/test_coder",
    ],
    "editing/": ["editing/test_inversion", "editing/test_interpolation"],
    "generate/": ["generate/test_frames"],
    "evaluation/conditions.py": ["evaluation/test_alignment", "recipes/test_values", "evaluation/test_evaluate"],
    "evaluation/alignment.py": ["evaluation/test_alignment"],
    "text/tokenizer.py": ["text/test_tokenizer"],
    "training/": ["training/test_player", "training/test_loop"],
}

FAULTS: list[tuple[str, str, str]] = [  # (file, what stands there once, what stands there wrongly)
    ("schedules.py", "return -self.eps(x_t, mean)", "return self.eps(x_t, mean)"),
    ("schedules.py", "x_coef=to.alpha * renewed", "x_coef=at.alpha * renewed"),
    ("schedules.py", "small=to.sigma.square()", "small=at.sigma.square()"),
    ("schedules.py", "2 * (at.log_ratio - to.log_ratio)", "1 * (at.log_ratio - to.log_ratio)"),
    ("schedules.py", "logsigmoid(2 * log_ratio.double())", "logsigmoid(log_ratio.double())"),
    ("schedules.py", "torch.log1p(-self.betas()).cumsum(0)", "torch.log(self.betas()).cumsum(0)"),
    ("schedules.py", "scale = 1000 / self.steps\n        return _linspace", "scale = 1\n        return _linspace"),
    ("schedules.py", "clamp(max=self.max_beta)", "clamp(max=1)"),
    ("schedules.py", "offset: float = 0.008", "offset: float = 0.08"),
    ("schedules.py", "return Level(1 - t, t.clone())", "return Level(1 - t, (1 - t))"),
    ("schedules.py", "place = (t * self.steps - 1) / (self.steps - 1)", "place = (t * self.steps) / self.steps"),
    ("denoiser.py", "lambda t, level: t * steps - 1", "lambda t, level: t * steps"),
    ("denoiser.py", "return -level.log_ratio / 4", "return -level.log_ratio / 2"),
    ("denoiser.py", "lambda level: (-level.sigma, level.alpha)", "lambda level: (level.sigma, level.alpha)"),
    ("denoiser.py", "lambda level: (-_ones(level), _ones(level))", "lambda level: (_ones(level), _ones(level))"),
    ("denoiser.py", "det = level.alpha * b - level.sigma * a", "det = level.alpha * b + level.sigma * a"),
    ("denoiser.py", "self.predicts.error(level).square()", "self.predicts.error(level)"),
    ("denoiser.py", "-sigma_data * level.alpha / norm(level)", "sigma_data * level.alpha / norm(level)"),
    ("denoiser.py", "return out, (spread + 1) / 2", "return out, spread / 2"),
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
    ("samplers/timesteps.py", "places.round() - 1", "places.round()"),
    ("samplers/timesteps.py", "sigma_min ** (1 / rho)", "sigma_min ** rho"),
    ("samplers/ddpm.py", "over(kernel.x_t_coef, state.x) * state.x", "over(kernel.x_coef, state.x) * state.x"),
    ("samplers/ddpm.py", "variance(kernel, at, estimate).sqrt()", "variance(kernel, at, estimate)"),
    ("samplers/ddpm.py", "over((s > 0).double(), x).bool()", "over((s >= 0).double(), x).bool()"),
    ("samplers/ddpm.py", "kernel.x_coef.square() * open_", "kernel.x_coef * open_"),
    ("samplers/ddpm.py", "spread * over(kernel.large.log(), spread)", "spread * over(kernel.small.log(), spread)"),
    ("samplers/ddim.py", "eta**2 * kernel.small", "eta * kernel.small"),
    ("samplers/ddim.py", "to.alpha - keep * at.alpha", "to.alpha - keep * to.alpha"),
    ("samplers/ddim.py", "alpha_s - keep * alpha", "alpha_s - keep * alpha_s"),
    ("samplers/ddim.py", "kernel.large if sigma_hat else renewed", "kernel.small if sigma_hat else renewed"),
    ("samplers/heun.py", "counts / (2 * place)", "counts / (3 * place)"),
    ("samplers/heun.py", "denoiser(x, u))]", "denoiser(x, state.t))]"),
    ("samplers/heun.py", "levels.alpha[1] * levels.sigma[1]", "levels.alpha[1] * levels.sigma[0]"),
    ("samplers/heun.py", "1 + churn, 1.0", "1 - churn, 1.0"),
    ("samplers/heun.py", ".square() - ratio.square())", ".square() - ratio)"),
    ("samplers/exponential.py", "j * found[-1] / k - 1", "j * found[-1] / k + 1"),
    ("samplers/exponential.py", "scale * (node - other)", "scale * (node + other)"),
    ("samplers/multistep.py", "on_mean - each.sum(0), *each", "on_mean + each.sum(0), *each"),
    ("samplers/multistep.py", "on_mean + own * at.alpha", "on_mean + own * to.alpha"),
    ("samplers/weights.py", "shape = [place - min(places) for place in places]", "shape = [0 for place in places]"),
    ("samplers/weights.py", "key = (formula, at, how)", "key = (formula, at, ())"),
    ("samplers/weights.py", ".reshape(looks, -1, 2).transpose(0, 1)", ".reshape(-1, looks, 2)"),
    ("samplers/plms.py", "counts * share / look[1]", "counts * share / sigma"),
    ("samplers/plms.py", "-own * alpha, *[", "-own * alpha_s, *["),
    ("samplers/dpm_solver.py", "raw = [found[0] / (2 * nodes[0])]", "raw = [found[0] / nodes[0]]"),
    ("samplers/dpm_solver.py", "found[2] = found[2] / 2", "found[2] = found[2] / 1"),
    ("samplers/dpm_solver.py", "kernel.x_coef / (2 * node)", "kernel.x_coef / node"),
    ("samplers/unipc.py", "x, s, denoiser(", "x, state.t, denoiser("),
    ("samplers/unipc.py", "(-h if bh1 else found[0]) / (2 * nodes[0])", "(-h if bh1 else found[0]) / nodes[0]"),
    ("samplers/sde.py", "posterior(at, to).large / 2)[:2]", "posterior(at, to).large)[:2]"),
    ("samplers/sde.py", "- 1, posterior(at, to).large)", "- 1, posterior(at, to).small)"),
    ("samplers/langevin.py", "(2 * c) ** 0.5 * sigma", "c**0.5 * sigma"),
    ("samplers/langevin.py", "(2 if half else 1)", "(1 if half else 2)"),
    ("samplers/langevin.py", "FIRST_DRAW = 2", "FIRST_DRAW = 0"),
    ("likelihood/rate_distortion.py", "each.cumsum(0) - each", "each.cumsum(0)"),
    ("likelihood/ode.py", "normal + volume", "normal - volume"),
    ("likelihood/ode.py", "127.5 + u) / 128", "127.5 + u) / 127.5"),
    ("likelihood/ode.py", '*key, "probe")', '*key, "dequantise")'),
    ("likelihood/ode.py", "(seed, row, repeat)", "(0, row, repeat)"),
    ("likelihood/ode.py", ".cpu(), off_volume.abs())", ".cpu(), 0 * off_volume)"),
    ("compression/coder.py", "(1, 1, 2, 6, 24, 4, 1, 1, 1)", "(1, 1, 2, 6, 20, 4, 1, 1, 1)"),
    ("likelihood/bound.py", "mean.clamp(-1, 1)", "mean.clamp(-2, 1)"),
    ("likelihood/ode.py", "(first + rows).tolist()", "rows.tolist()"),
    ("likelihood/endpoints.py", "LEAST = 0.004", "LEAST = 0.04"),
    ("likelihood/endpoints.py", "max(seen, 1 / steps)", "max(seen, 0)"),
    ("likelihood/endpoints.py", "1 / found.at.snr, found.small", "found.small[-2], found.small"),
    ("editing/inversion.py", "x + stretch * off]", "x + off / stretch]"),
    ("editing/inversion.py", "to.sigma - grow * at.sigma", "to.sigma - grow * to.sigma"),
    ("editing/inversion.py", "schedule(t).eps(state.x", "schedule(state.t).eps(state.x"),
    ("editing/interpolation.py", "((1 - k) * theta).sin() / sine", "(k * theta).sin() / sine"),
    ("editing/interpolation.py", "(x * y).sum(1)", "(x * y).sum()"),
    ("editing/interpolation.py", "x.norm(dim=1) * y.norm(dim=1)", "x.norm(dim=1) * x.norm(dim=1)"),
    ("noise.py", "(seed, round(time * _TICKS), draw)", "(seed, round(time * _TICKS))"),
    ("noise.py", "int(part).to_bytes", "abs(int(part)).to_bytes"),
    ("noise.py", 'struct.pack("<q", len(part.encode()))', 'b""'),
    ("guidance/classifier_free.py", "torch.lerp(poor, good, scale)", "torch.lerp(good, poor, scale)"),
    ("guidance/classifier_free.py", "spread.chunk(len(conds))[-1]", "spread.chunk(len(conds))[0]"),
    ("guidance/thresholding.py", "mean.clamp(-edge, edge) / edge", "mean.clamp(-edge, edge)"),
    ("likelihood/bound.py", "upper, lower = (x + 1 / 255", "upper, lower = (x + 1 / 127"),
    ("likelihood/bound.py", "(gap + torch.expm1(-gap)) / 2, error", "(gap - torch.expm1(-gap)) / 2, error"),
    ("likelihood/bound.py", "steps.x_coef.square() * torch.exp(", "steps.x_coef * torch.exp("),
    ("likelihood/bound.py", "over(share - 1 - share.log()", "over(share - 1 + share.log()"),
    ("likelihood/bound.py", "x < -0.999, log_upper", "x < -0.999, log_lower"),
    ("likelihood/bound.py", "turn * stride, 1)", "turn, 1)"),
    ("likelihood/bound.py", "step < inner, turn", "step <= inner, turn"),
    ("likelihood/bound.py", "bits * weight, errors", "bits, errors"),
    ("likelihood/rate_distortion.py", "(found.asked > 0).sum(0)", "found.asked.sum(0)"),
    ("conditions.py", "torch.cat([mine, others])", "torch.cat([others, mine])"),
    ("patch.py", "    finally:\n        undo(replaced)", "    finally:\n        pass"),
    ("codec.py", "* 127.5 + 127.5).round()", "* 127.5 + 127.5).floor()"),
    ("generate/frames.py", "math.hypot(level.alpha.item(), level.sigma.item())", "level.alpha.item()"),
    ("generate/conditions.py", ".float() / 255", ".float() / 127.5 - 1"),
    ("generate/frames.py", "dynamic_threshold(denoiser, request.dynamic_threshold)", "dynamic_threshold(denoiser)"),
    ("generate/frames.py", "clip_denoised(denoiser) if request.clip", "denoiser if request.clip"),
    ("evaluation/conditions.py", "rows[i % len(rows)] for i", "rows[0] for i"),
    (
        "evaluation/conditions.py",
        "model.conditioner.from_labels(label, request.prompts",
        "model.conditioner.from_labels(None, request.prompts",
    ),
    ("evaluation/conditions.py", "if how.guess:", "if not how.guess:"),
    ("text/tokenizer.py", "text[places[count][0] :]", "text[places[count][1] :]"),
    ("text/conditioner.py", "uniform((), seed,", "uniform((), 0,"),
]  # fmt: skip


def caught_by(fault: tuple[str, str, str]) -> str | None:
    """The test that fails with this fault; None where all pass."""
    file, right, wrong = fault
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder)
        shutil.copytree(ROOT / "src", tree / "src", ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copytree(ROOT / "tests", tree / "tests", ignore=shutil.ignore_patterns("__pycache__"))
        first = next((names for folder, names in FIRST.items() if file.startswith(folder)), [])
        path = tree / "src" / "unnoise" / file
        text = path.read_text()
        assert text.count(right) >= 1, f"{file} no longer holds {right!r}: bring this list up to date"
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
    parser.add_argument("--markdown", type=Path, help="write the table here")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--only", default="", help="faults whose file holds this text")
    asked = parser.parse_args()
    faults = [fault for fault in FAULTS if asked.only in fault[0]]
    lines = ["| file | the fault | caught by |", "| --- | --- | --- |"]
    survivors = 0
    with ThreadPoolExecutor(asked.jobs) as pool:
        for (file, right, wrong), test in zip(faults, pool.map(caught_by, faults)):
            survivors += test is None
            short = (re.sub(r"\s+", " ", text).replace("|", "\\|") for text in (right, wrong))
            line = "| {} | `{}` → `{}` | {} |".format(file, *short, f"`{test}`" if test else "**nothing: survived**")
            lines.append(line)
            print(line, flush=True)
    print(f"{len(faults)} faults, {survivors} survived")
    if asked.markdown:
        asked.markdown.write_text("\n".join(lines) + "\n")
    return int(survivors > 0)


if __name__ == "__main__":
    sys.exit(main())
