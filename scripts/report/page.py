# SPDX-License-Identifier: Apache-2.0
"""The pages themselves: templates filled with text that is escaped, and with pictures, volumes, style and scripts inlined."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any, NamedTuple
from urllib.parse import quote

import numpy as np
import numpy.typing as npt

from ..data.folder import summary
from ..errors import named, several
from ..evaluation.metrics import heading
from ..measurement import Task
from ..measurement.task import SPACE
from .figures import box_plot, calibration, histogram, risk_coverage
from .notes import all_warnings, doubts, notes, own_warnings, unfinished
from .slices import MAPS, Look, Plane, looks, plane_name, planes
from .viewer import viewer_parts
from .volumes import CaseVolumes

PAPER = "Diff-Ensembler: Learning to Ensemble 2D Diffusion Models for Volume-to-Volume Medical Image Translation"
CITATION = f"Please cite: Zhu et al., <cite>{PAPER}</cite>, 2025. Made with Score-Fusion, research use; not for diagnosis."
NOT_EVALUATED = "This run was not evaluated, so there are no metrics."
# The browser itself refuses what would be fetched from anywhere.
POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data: blob:; connect-src data: blob:"
)
NO_RECORD = "The run left no record of what was done."
CONVENTION = (
    "Neurological convention: <strong>the left of a picture (L) is the patient&rsquo;s left</strong>; sagittal slices face "
    "right (A)."
)
RATINGS = ("good", "doubtful", "bad")
WORST_BY = "psnr"  # lower is worse
TITLES = {
    "title": "task",
    "conditions": "input",
    "target": "result",
    "block": "voxels averaged (left-right, back-front, feet-head)",  # up to 0.6
    "blocks": "voxels averaged (left-right, back-front, feet-head)",
    "smooth": "measurement shown interpolated",
    "planes": "planes",
    "size": "networks",
    "fusion": "learned fusion",
    "consistency": "projected onto the measurement",
    "samples": "samples",
    "nfe": "NFE (network evaluations per plane)",
    "peak_memory_gb": "peak memory (GB)",
}
SIDES = {"axial": "LR", "coronal": "LR", "sagittal": "PA"}


class CasePage(NamedTuple):
    """All that a case's page says.

    case: as the record calls it; name: as the page does; above: where that of all cases lies; results: content of results.json,
    empty when there is none; digest: what tells this result from others of the case; beside: what lies beside the page, file ->
    what it is.
    """

    case: str
    name: str
    above: str
    shown: CaseVolumes
    task: Task
    results: Mapping[str, Any]
    digest: str
    beside: Mapping[str, str]


def case_page(page: CasePage) -> str:
    """The page of one case, complete in itself."""
    volumes = page.shown.volumes
    styles = looks(volumes, samples=page.results.get("system", {}).get("samples"), own=page.shown.own)
    axes, affine = page.task.axes, page.shown.affine
    of_body = tuple(axes) == SPACE
    measured = page.results.get("cases", {}).get(page.case, {})
    return _fill(
        "case.html",
        case=escape(page.name),
        above=_link(page.above),
        task=escape(page.task.title),
        beside=_beside(page.beside),
        notes=notes("Doubts", measured.get("doubts", ())) + notes("Not shown", page.shown.notes),
        viewer=Template(_asset("viewer.html")).substitute(
            viewer_parts(volumes, affine, styles), script=_asset("viewer.js"), grid=_grid(affine, axes)
        ),
        rating=_rating(page.name, page.digest),
        caption=_caption(volumes, of_body=of_body),
        convention=CONVENTION if of_body else "",
        planes="\n".join(_plane(_by_axes(plane, axes), styles, page.name) for plane in planes(volumes, affine, styles)),
        metrics=_metrics(measured, page),
        histogram=histogram(volumes, styles),
        histogram_caption="Voxels brighter than the background.",
        facts=_facts(page.results, measured, own_warnings(page.results, page.case, _link(page.above))),
        script=_asset("planes.js") + _asset("rating.js"),
    )


def group_page(
    results: Mapping[str, Any], task: Task, *, pages: Mapping[str, tuple[str, str]], unseen: Mapping[str, str], name: str,
    part: str = "",
) -> str:  # fmt: skip
    """The page of all cases. pages: case -> its page and what tells its result from others; unseen: case -> why it has none;
    part: what is said of cases that were left out.
    """
    files = results.get("files")
    failed = [named(case, line) for case, line in results.get("failures", {}).items()]
    not_shown = [f"{case} has no page: {line}" for case, line in unseen.items()]
    cases: dict[str, Mapping[str, Any]] = {case: {} for case in pages} | results.get("cases", {})
    titles = _metric_keys(cases.values())
    shown = {key: heading(key) for key in titles}
    panels = {
        title: [scale * case[key] for case in cases.values() if _finite(case.get(key))]
        for key, (title, _, scale) in shown.items()
    }
    return _fill(
        "group.html",
        name=escape(name),
        task=escape(f"{task.title}, {several(len(cases), 'case')}{part}"),
        failures=notes("Not finished", unfinished(results, len(results.get("cases", {}))))
        + notes("Failed", [*failed, *not_shown])
        + doubts(cases, results.get("sources", {})),
        boxes=_boxes(panels) if "mean" in results else f'<p class="hint">{NOT_EVALUATED}</p>',
        calibration=_calibration(results.get("calibration")) + _risk(results.get("risk_coverage")),
        cases=_case_table(cases, titles, pages) + (f"<p>{escape(summary(files))}.</p>" if files else ""),
        facts=_facts(results, {}, all_warnings(results)),
        script=_asset("rating.js"),
    )


def _boxes(panels: Mapping[str, Sequence[float]]) -> str:
    drawings = {escape(title): box_plot(title, values) for title, values in panels.items() if values}
    drawn = "".join(f'<div role="img" aria-label="{title}">{drawing}</div>' for title, drawing in drawings.items())
    said = "Line: median. Box: middle half. Point: a case."
    chart = f'<figure class="chart"><div class="boxes">{drawn}</div><figcaption>{said}</figcaption></figure>'
    return f"<section><h2>All cases</h2>{chart}</section>"


def _calibration(curve: Mapping[str, Sequence[float]] | None) -> str:
    if curve is None:
        return ""
    said = (
        "Voxels in ten bins of rising uncertainty. On the grey line the error is as large as the uncertainty says; above it "
        "the uncertainty says too little, below it too much."
    )
    return _chart("Is the uncertainty right?", "Calibration", calibration(curve["predicted"], curve["actual"]), said)


def _risk(curve: Mapping[str, Sequence[float]] | None) -> str:
    if curve is None:
        return ""
    said = (
        "On the right the error of all voxels of the heads; to the left of it, of those that are left when the most doubtful "
        "ones, by the interval, are left out (the truth spans 0 to 1). The steeper, the better it knows where it is wrong."
    )
    return _chart("Does it know where it is wrong?", "Risk and coverage", risk_coverage(curve["kept"], curve["error"]), said)


def _chart(title: str, name: str, drawing: str, said: str) -> str:
    drawn = f'<div role="img" aria-label="{name}">{drawing}</div>'
    chart = f'<figure class="chart">{drawn}<figcaption>{said}</figcaption></figure>'
    return f"<section><h2>{title}</h2>{chart}</section>"


def _fill(template: str, **parts: str) -> str:
    return Template(_asset(template)).substitute(parts, style=_asset("style.css"), policy=POLICY, citation=CITATION)


def _link(place: str) -> str:
    """To a file beside a page, whatever its name is encoded in."""
    return escape(quote(os.fsencode(place)))


def _asset(name: str) -> str:
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


def _beside(files: Mapping[str, str]) -> str:
    links = ", ".join(f'<a href="{_link(name)}">{escape(what)}</a>' for name, what in files.items())
    return f'<p class="hint">Files: {links}</p>' if links else ""


def _grid(affine: npt.NDArray[np.float64], axes: Sequence[str]) -> str:
    """What viewer.js wants to know of a loop, whose voxels are counted: names of its axes, and rows from mm to voxels."""
    inverse = [] if tuple(axes) == SPACE else np.linalg.inv(affine)[:3].tolist()
    return escape(json.dumps({"axes": [*axes], "voxels": inverse}))


def _caption(volumes: Mapping[str, Any], *, of_body: bool) -> str:
    """of_body: whether it is a volume of a head, not a loop."""
    what = "folds, ventricles and lesions" if of_body else "borders, and all that moves,"
    edges = "folds" if of_body else "borders"
    said = [f"{what.capitalize()} should be sharp, whole and in their place, in all three planes alike."]
    if any(name.startswith("input") for name in volumes):
        said = [f"Follow an edge of the input into the result: {what} should keep their place and shape."]
    if "truth" in volumes:
        said.append("What the truth has and the result lacks was lost; what only the result has was invented.")
    if "error" in volumes:
        said.append(
            "The error is result minus truth, red where the result is too bright, blue where it is too dark: thin double "
            f"lines along {edges} are detail below the input&rsquo;s voxels, a wide area of one colour is a real fault."
        )
    if "uncertainty" in volumes:
        said.append(
            "The uncertainty is how far samples scatter (their standard deviation), bright where they disagree; where all are "
            "wrong in the same way it is dark. It is no error bar: errors are several times as large."
        )
    if "interval" in volumes:
        said.append("The interval is how wrong the result is taken to be: four of five voxels should err by less.")
    return " ".join(said)


def _rating(case: str, digest: str) -> str:
    """Buttons and a line for a reviewer's verdict, which rating.js keeps in the browser."""
    buttons = "".join(f'<button type="button" value="{word}">{word}</button>' for word in RATINGS)
    given = f'data-case="{escape(case)}" data-result="{digest}"'
    comment = f'<input type="text" placeholder="comment" aria-label="Comment on {escape(case)}">'
    return (
        f'<span class="rating" {given}><span class="choice" role="group" aria-label="Rating">{buttons}</span>{comment}</span>'
    )


def _by_axes(plane: Plane, axes: Sequence[str]) -> Plane:
    """A plane of the body as it is; of a loop by its two axes, its slices counted along the third."""
    if tuple(axes) == SPACE:
        return plane
    name = plane_name(plane.axis, axes)
    numbers = [label.partition(",")[0].removeprefix("voxel ") for label in plane.labels]
    return plane._replace(name=name, labels=[f"{axes[plane.axis]} = {number}" for number in numbers])


def _title_of(plane: Plane) -> str:
    return plane.name.capitalize() if plane.name in SIDES else plane.name


def _plane(plane: Plane, styles: Mapping[str, Look], case: str) -> str:
    across, up = (axis for axis in range(3) if axis != plane.axis)
    middle = len(plane.labels) // 2
    parts: dict[str, Any] = {
        **{"axis": plane.axis, "across": across, "up": up, "name": plane.name, "title": _title_of(plane)},
        **{"columns": plane.columns, "column": middle % plane.columns, "row": middle // plane.columns},
        **{"shown": len(plane.sheets), "narrow": math.ceil(len(plane.sheets) / 2)},
        **{"middle": middle, "last": len(plane.labels) - 1, "label": plane.labels[middle]},
        "labels": escape(json.dumps(plane.labels)),
        "views": "\n".join(_view(plane, name, styles[name], case) for name in plane.sheets),
    }
    return Template(_asset("plane.html")).substitute(parts)


def _view(plane: Plane, name: str, look: Look, case: str) -> str:
    size = f"width: {plane.columns * 100}%; height: {plane.rows * 100}%"
    alt = escape(f"{name.capitalize()} of case {case}, {plane.name} slices")
    picture = f'<img src="{plane.sheets[name]}" alt="{alt}" style="{size}" draggable="false">'
    sides = "".join(f"<em>{letter}</em>" for letter in SIDES.get(plane.name, ""))
    view = f'<div class="view" style="aspect-ratio: {plane.aspect:.4f}">{picture}{sides}</div>'
    scale = _scale(look) if name in MAPS else ""
    return f"<figure><figcaption><b>{escape(name)}</b>{scale}</figcaption>{view}</figure>"


def _scale(look: Look) -> str:
    low, high = look.ends
    bar = f'<span>{low}</span><i style="background: {look.gradient}"></i><span>{high}</span>'
    return f'<span class="scale">{bar}</span><small>{escape(look.unit)}</small>'


# Tables


def _metrics(measured: Mapping[str, Any], page: CasePage) -> str:
    keys = _metric_keys([measured])
    if not keys:
        return f"<p>{'Nothing was measured of this case.' if page.results else NOT_EVALUATED}</p>"
    others = page.results["cases"]
    rows = []
    for key in keys:
        values = [case[key] for case in others.values() if _finite(case.get(key))]
        mean = sum(values) / len(values) if values else math.nan
        shown = (measured[key], mean, min(values, default=None), max(values, default=None))
        rows.append((_title(key), *(_number(value, key) for value in shown)))
    scale = "Volumes are scaled by the truth&rsquo;s minimum and maximum, nothing is clipped."
    said = scale if "mean" in page.results else NOT_EVALUATED
    return _table(("", "this case", f"mean of {len(others)}", "lowest", "highest"), rows) + f'<p class="hint">{said}</p>'


def _case_table(
    cases: Mapping[str, Mapping[str, Any]], keys: Sequence[str], pages: Mapping[str, tuple[str, str]]
) -> str:  # fmt: skip
    def badness(case: str) -> tuple[float, str]:
        value: Any = cases[case].get(WORST_BY)
        return (value if _is_number(value) else math.inf, case)

    rows = []
    for case in sorted(cases, key=badness):
        page, digest = pages.get(case, ("", ""))
        link = f'<a href="{_link(page)}">{escape(case)}</a>' if page else escape(case)
        rows.append((link, *(_number(cases[case].get(key), key) for key in keys), _rating(case, digest) if page else ""))
    said = f'<p class="hint">Worst first, by {_title(WORST_BY)}.</p>' if WORST_BY in keys else ""
    return said + _table(("case", *map(_title, keys), "rating"), rows)


def _facts(results: Mapping[str, Any], measured: Mapping[str, Any], warnings: str) -> str:
    """What is known of the run, and of the case but its metrics. warnings: HTML."""
    facts = _flat({**results.get("task", {}), **results.get("system", {})})
    if axes := results.get("task", {}).get("axes"):  # of a loop
        facts = {f"voxels averaged ({', '.join(axes)})" if key == "blocks" else key: value for key, value in facts.items()}
    facts |= {key: results[key] for key in ("model", "versions", "peak_memory_gb") if key in results}
    facts |= {key: value for key, value in measured.items() if key != "doubts" and not _is_number(value)}
    if _is_number(mean := results.get("mean", {}).get("seconds")):
        facts["mean time of a case (s)"] = mean
    rows = [(_title(key), escape(_text(value))) for key, value in _flat(facts).items() if value not in (None, [], "")]
    rows += [("warnings", warnings)] if warnings else []
    if not rows:
        return f"<p>{NO_RECORD}</p>"
    lines = "".join(f'<tr><th scope="row">{key}</th><td>{value}</td></tr>' for key, value in rows)
    return f'<div class="wide"><table class="facts"><tbody>{lines}</tbody></table></div>'


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Cells are HTML; the first column is text, the others numbers."""
    lines = "".join(_row("td", row) for row in rows)
    return f'<div class="wide"><table><thead>{_row("th", head)}</thead><tbody>{lines}</tbody></table></div>'


def _row(tag: str, cells: Sequence[str]) -> str:
    kinds = ["", *[' class="number"'] * (len(cells) - 1)]
    return "<tr>" + "".join(f"<{tag}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)) + "</tr>"


def _flat(facts: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in facts.items():
        name = f"{before}{key}"
        found |= _flat(value, f"{name}: ") if isinstance(value, Mapping) else {name: value}
    return found


def _metric_keys(cases: Any) -> list[str]:
    """Every key with a number, in the order in which they come."""
    return list(dict.fromkeys(key for values in cases for key, value in values.items() if _is_number(value)))


def _title(key: str) -> str:
    return escape(TITLES.get(key) or heading(key).title)


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if not isinstance(value, list | tuple):
        return str(value)
    return ", ".join("x".join(map(_text, one)) if isinstance(one, list) else _text(one) for one in value)


def _number(value: Any, key: str) -> str:
    """Of a metric."""
    return format(value * heading(key).scale, heading(key).form) if _is_number(value) else "&ndash;"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _finite(value: Any) -> bool:
    return _is_number(value) and math.isfinite(value)
