"""The page that `unnoise demo` writes: one HTML file, everything inside it, readable offline, light and dark.

`page(report, pictures)` is a pure function of the numbers (report.json) and the pictures.
"""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from unnoise.io.units import duration, human


@dataclass(frozen=True)
class Gallery:
    """The pictures of a report."""

    drawn: Mapping[str, Sequence[Image.Image]]  # class: drawn pictures, a seed each
    real: Mapping[str, Sequence[Image.Image]] = field(default_factory=dict)  # class: held-out pictures
    over_time: Sequence[tuple[str, Image.Image]] = ()  # (when, one grid)
    walk: Sequence[tuple[str, Image.Image]] = ()  # (step, one line of pictures), from noise to picture


def page(report: Mapping[str, Any], gallery: Gallery) -> str:
    """The whole page. Every text is escaped; every picture is a data URI."""
    title = str(report["title"])
    parts = [
        header(report),
        section("Drawn by the model", drawn(gallery, report), "pictures"),
        section("How good", quality(report), "quality"),
        section("How it learned", learning(report, gallery), "learning"),
        section("Go on", commands(report), "next"),
        section("How this was made", details(report), "details"),
    ]
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{text(title)}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(part for part in parts if part)
        + "\n</main>\n</body>\n</html>\n"
    )


def text(value: object) -> str:
    return html.escape(str(value))


def section(title: str, body: str, name: str) -> str:
    return f'<section id="{name}">\n<h2>{text(title)}</h2>\n{body}\n</section>' if body else ""


def inline(picture: Image.Image, about: str, *, scale: int = 1) -> str:
    """A picture inside the page; `scale` enlarges it by whole pixels, in the browser."""
    memory = io.BytesIO()
    picture.save(memory, format="PNG", optimize=True)
    data = base64.b64encode(memory.getvalue()).decode()
    width, height = picture.width * scale, picture.height * scale
    return f'<img alt="{text(about)}" width="{width}" height="{height}" src="data:image/png;base64,{data}">'


def row(pictures: Sequence[Image.Image], gap: int = 2) -> Image.Image:
    """Pictures in one line, transparent between them: one image instead of many."""
    width, height = max(p.width for p in pictures), max(p.height for p in pictures)
    line = Image.new("RGBA", (len(pictures) * (width + gap) - gap, height))
    for i, picture in enumerate(pictures):
        line.paste(picture.convert("RGB"), (i * (width + gap), 0))
    return line


def header(report: Mapping[str, Any]) -> str:
    cards = [
        ("class accuracy", percent(report.get("class_accuracy")), real_share(report)),
        ("training", duration(report["seconds"]["train"]), f"{human(report['images'])} pictures seen"),
        ("speed", f"{report['pictures_per_second']['train']:.0f}/s", "pictures a second, trained"),
        ("drawing", f"{report['pictures_per_second']['sample']:.1f}/s", f"pictures a second, {report['steps']} steps"),
    ]
    body = "".join(
        f'<div class="card"><div class="name">{text(name)}</div><div class="value">{text(value)}</div>'
        f'<div class="note">{text(note)}</div></div>'
        for name, value, note in cards
    )
    return (
        f'<header>\n<h1>{text(report["title"])}</h1>\n<p class="lead">{text(report["summary"])}</p>\n'
        f'<div class="cards">{body}</div>\n</header>'
    )


def percent(share: float | None) -> str:
    return "not measured" if share is None else f"{100 * share:.1f} %"


def real_share(report: Mapping[str, Any]) -> str:
    real = report.get("class_accuracy_real")
    return "" if real is None else f"real pictures: {percent(real)}"


def drawn(gallery: Gallery, report: Mapping[str, Any]) -> str:
    lines = []
    both = bool(gallery.real)
    for name, pictures in gallery.drawn.items():
        scale = 2 if pictures[0].width <= 32 else 1
        real = gallery.real.get(name, ())
        cells = f'<td class="made">{inline(row(pictures), f"{name}, drawn", scale=scale)}</td>'
        if both:
            cells += f'<td class="real">{inline(row(real), f"{name}, real", scale=scale) if real else ""}</td>'
        lines.append(f'<tr><th scope="row">{text(name)}</th>{cells}</tr>')
    head = '<tr><td></td><th scope="col">drawn, one seed a column</th>'
    head += '<th scope="col">real, held out</th></tr>' if both else "</tr>"
    table = (
        f'<div class="scroll"><table class="gallery"><thead>{head}</thead><tbody>{"".join(lines)}</tbody></table></div>'
    )
    walk = ""
    if gallery.walk:
        steps = "".join(
            f"<tr><th>{text(when)}</th><td>{inline(picture, when, scale=2 if picture.height <= 32 else 1)}</td></tr>"
            for when, picture in gallery.walk
        )
        walk = (
            "<h3>From noise to picture</h3><p>What the model holds at some of its steps, top to bottom; one class a "
            f'column.</p><div class="scroll"><table class="gallery">{steps}</table></div>'
        )
    note = text(report.get("drawn_note", ""))
    return f"<p>{note}</p>\n{table}\n{walk}"


def quality(report: Mapping[str, Any]) -> str:
    lines = []
    for metric in report.get("metrics", ()):
        ideal = {"up": "higher is better", "down": "lower is better"}.get(str(metric.get("better")), "")
        lines.append(
            f"<tr><th scope='row'>{text(metric['name'])}<small>{ideal}</small></th>"
            f"<td>{number(metric['value'])}</td><td>{number(metric.get('real'))}</td>"
            f"<td>{text(metric.get('n', ''))}</td><td>{text(metric.get('features', ''))}</td></tr>"
        )
    table = (
        '<div class="scroll"><table class="numbers"><thead><tr><th>measure</th><th>drawn</th><th>real vs. real</th>'
        f"<th>pictures</th><th>features of</th></tr></thead><tbody>{''.join(lines)}</tbody></table></div>"
    )
    warnings = "".join(f"<p><strong>Note:</strong> {text(said)}.</p>" for said in report.get("warnings", ()))
    return f"<p>{text(report.get('quality_note', ''))}</p>\n{table}{warnings}" + classes(report)


def number(value: object) -> str:
    if value is None:
        return "&ndash;"
    if isinstance(value, float):
        return text(f"{value:.4g}")
    return text(value)


def classes(report: Mapping[str, Any]) -> str:
    """A bar a class: how often the classifier sees what was asked for."""
    shares: Mapping[str, float] = report.get("class_accuracy_each", {})
    real: Mapping[str, float] = report.get("class_accuracy_real_each", {})
    if not shares:
        return ""
    bars = []
    for name, share in shares.items():
        mark = (
            f'<i style="left:{100 * real[name]:.1f}%" title="real: {percent(real[name])}"></i>' if name in real else ""
        )
        bars.append(
            f'<tr><th scope="row">{text(name)}</th>'
            f'<td><div class="bar"><b style="width:{100 * share:.1f}%"></b>{mark}</div></td>'
            f"<td>{percent(share)}</td></tr>"
        )
    legend = "Share of drawn pictures that the classifier takes for what was asked"
    legend += "; the line marks real pictures." if real else "."
    return f'<h3>Class by class</h3><p>{legend}</p><table class="bars">{"".join(bars)}</table>'


def learning(report: Mapping[str, Any], gallery: Gallery) -> str:
    parts = []
    drawing = curve(report.get("curve", ()))
    if drawing:
        note = text(report.get("curve_note", "loss"))
        parts.append(f"<figure>{drawing}<figcaption>{note}</figcaption></figure>")
    if gallery.over_time:
        figures = "".join(
            f"<figure>{inline(picture, f'samples {when}')}<figcaption>{text(when)}</figcaption></figure>"
            for when, picture in gallery.over_time
        )
        parts.append(f'<h3>The same seeds while it learned</h3><div class="film">{figures}</div>')
    return "\n".join(parts)


def curve(points: Sequence[tuple[float, float]], *, width: int = 860, height: int = 280) -> str:
    """(pictures seen, loss) as SVG: every point thin, their running mean thick; the loss axis is logarithmic."""
    points = [(x, y) for x, y in points if y > 0 and math.isfinite(y)]
    if len(points) < 2:
        return ""
    points = points[:: max(1, len(points) // 1500)]
    left, right, top, bottom = 56, 12, 12, 34
    xs, ys = [x for x, _ in points], [y for _, y in points]
    x_low, x_high = min(xs), max(xs)
    y_low, y_high = math.log10(min(ys)), math.log10(max(ys))
    margin = max(0.03, 0.05 * (y_high - y_low))
    y_low, y_high = y_low - margin, y_high + margin

    def place(x: float, log_y: float) -> tuple[float, float]:
        return (
            left + (x - x_low) / max(x_high - x_low, 1e-9) * (width - left - right),
            top + (y_high - log_y) / (y_high - y_low) * (height - top - bottom),
        )

    def path(values: Sequence[tuple[float, float]]) -> str:
        return "M" + "L".join("{:.1f},{:.1f}".format(*place(x, math.log10(y))) for x, y in values)

    marks = []
    for tick in ticks(x_low, x_high):
        x, _ = place(tick, y_low)
        marks.append(f'<line class="grid" x1="{x:.1f}" x2="{x:.1f}" y1="{top}" y2="{height - bottom}"/>')
        marks.append(f'<text x="{x:.1f}" y="{height - 14}" text-anchor="middle">{human(tick)}</text>')
    for tick in log_ticks(10**y_low, 10**y_high):
        _, y = place(x_low, math.log10(tick))
        marks.append(f'<line class="grid" x1="{left}" x2="{width - right}" y1="{y:.1f}" y2="{y:.1f}"/>')
        marks.append(f'<text x="{left - 8}" y="{y + 4:.1f}" text-anchor="end">{tick:g}</text>')
    return (
        f'<svg class="curve" viewBox="0 0 {width} {height}" role="img" aria-label="loss over pictures seen">'
        f'{"".join(marks)}<path class="thin" d="{path(points)}"/>'
        f'<path class="thick" d="{path(list(zip(xs, smooth(ys), strict=True)))}"/></svg>'
    )


def smooth(values: Sequence[float], keep: float = 0.95) -> list[float]:
    """The running mean of what has been, corrected for its short beginning."""
    mean, weight, out = 0.0, 0.0, []
    for value in values:
        mean, weight = keep * mean + (1 - keep) * value, keep * weight + (1 - keep)
        out.append(mean / weight)
    return out


def ticks(low: float, high: float, about: int = 6) -> list[float]:
    """Round numbers between low and high."""
    step = 10 ** math.floor(math.log10(max(high - low, 1e-12) / about))
    step *= next(m for m in (1, 2, 5, 10) if (high - low) / (m * step) <= about)
    return [k * step for k in range(math.ceil(low / step), math.floor(high / step) + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Round numbers on a logarithmic axis: 1, 2, 5, 10; finer where the range is short."""
    for mantissas in ((1.0,), (1.0, 3.0), (1.0, 2.0, 5.0), (1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0)):
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        found = [m * 10.0**p for p in powers for m in mantissas if low <= m * 10.0**p <= high]
        if len(found) >= 3:
            return found
    return ticks(low, high, 4)


def commands(report: Mapping[str, Any]) -> str:
    blocks = "".join(
        f"<p>{text(about)}</p><pre><code>{text(line)}</code></pre>" for about, line in report.get("commands", ())
    )
    return f'<div class="commands">{blocks}</div>'


def details(report: Mapping[str, Any]) -> str:
    parts = []
    for name, facts in report.get("details", {}).items():
        rows = "".join(
            f"<tr><th scope='row'>{text(key)}</th><td>{text(value)}</td></tr>" for key, value in facts.items()
        )
        table = f'<div class="scroll"><table class="facts">{rows}</table></div>'
        parts.append(f"<details><summary>{text(name)}</summary>{table}</details>")
    return "".join(parts)


STYLE = """
:root { --paper: #fbfaf8; --card: #fff; --ink: #1d2127; --soft: #667080; --line: #e3e1dc; --accent: #2f6fde;
  --accent-soft: #a9c3f3; }
@media (prefers-color-scheme: dark) { :root { --paper: #14171b; --card: #1c2026; --ink: #e8eaed; --soft: #98a2b0;
  --line: #2d333c; --accent: #7aa7ff; --accent-soft: #34507f; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif; }
main { max-width: 980px; margin: 0 auto; padding: 40px 20px 80px; }
h1 { font-size: 2.1rem; line-height: 1.15; letter-spacing: -0.02em; margin: 0 0 8px; }
h2 { font-size: 1.3rem; letter-spacing: -0.01em; margin: 0 0 8px; }
h3 { font-size: 1rem; margin: 24px 0 4px; }
p { margin: 0 0 12px; max-width: 70ch; color: var(--soft); }
.lead { font-size: 1.1rem; }
section { margin-top: 28px; padding: 22px 24px; background: var(--card); border: 1px solid var(--line);
  border-radius: 14px; }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 14px; margin-top: 22px; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 14px; padding: 16px 18px; }
.card .name, .card .note { color: var(--soft); font-size: .85rem; }
.card .value { font-size: 1.75rem; font-weight: 650; letter-spacing: -0.02em; font-variant-numeric: tabular-nums; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; }
th { text-align: left; font-weight: 500; }
img { image-rendering: pixelated; display: block; border-radius: 3px; max-width: none; }
.gallery th { color: var(--soft); font-size: .85rem; padding: 2px 12px 2px 0; white-space: nowrap; }
.gallery tbody th { text-align: right; }
.gallery td { padding: 2px 0; }
.gallery td.real { padding-left: 22px; }
.gallery thead th:last-child:not(:nth-child(2)) { padding-left: 22px; }
.numbers { width: 100%; font-variant-numeric: tabular-nums; }
.numbers th, .numbers td { padding: 8px 14px 8px 0; border-bottom: 1px solid var(--line); text-align: left; }
.numbers thead th { color: var(--soft); font-size: .85rem; }
.numbers td:nth-child(2) { font-weight: 650; }
small { display: block; color: var(--soft); font-weight: 400; font-size: .78rem; }
.bars { width: 100%; }
.bars th { white-space: nowrap; padding-right: 14px; font-size: .9rem; width: 1%; }
.bars td:last-child { width: 1%; white-space: nowrap; padding-left: 12px; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
.bar { position: relative; height: 12px; background: var(--line); border-radius: 6px; }
.bar b { display: block; height: 100%; background: var(--accent); border-radius: 6px; }
.bar i { position: absolute; top: -3px; bottom: -3px; width: 2px; background: var(--ink); }
figure { margin: 0; }
figcaption { color: var(--soft); font-size: .85rem; margin-top: 4px; }
.curve { width: 100%; height: auto; }
.curve text { fill: var(--soft); font-size: 12px; }
.curve .grid { stroke: var(--line); stroke-width: 1; }
.curve path { fill: none; stroke-linejoin: round; }
.curve .thin { stroke: var(--accent-soft); stroke-width: 1; }
.curve .thick { stroke: var(--accent); stroke-width: 2.4; }
.film { display: flex; gap: 16px; overflow-x: auto; padding-bottom: 8px; }
.commands p { margin: 14px 0 4px; }
pre { margin: 0; padding: 12px 14px; background: var(--paper); border: 1px solid var(--line); border-radius: 10px;
  overflow-x: auto; }
code { font: 13.5px/1.5 ui-monospace, SFMono-Regular, Menlo, Consolas, monospace; }
details { border-top: 1px solid var(--line); padding: 8px 0; }
details:first-child { border-top: 0; }
summary { cursor: pointer; font-weight: 550; }
.facts th, .facts td { padding: 3px 18px 3px 0; font-size: .88rem; vertical-align: top; }
.facts th { color: var(--soft); }
@media print { section { break-inside: avoid; } details { display: none; } }
"""
