"""An evaluation as tables: for the terminal, and as Markdown.

The first table has the means over scans, the second all scans pooled and slice by slice, the third lesion by
lesion, the fourth by their volume; then, where asked for, which lesions two scores find alone and together,
and Clever Hans scores.
Each fits a terminal of 100 columns; in a narrower one cells are folded, never cut.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from mednovelty.abnormality import BLIND
from mednovelty.evaluation.clever_hans import DETECTS_FROM
from mednovelty.evaluation.lesion_sizes import class_names, found_by_size
from mednovelty.evaluation.lesions import POINTS
from mednovelty.evaluation.together import pooled_words, shared_lesions, words
from mednovelty.evaluation.verdicts import pooled_verdicts, verdicts
from mednovelty.text import printable

if TYPE_CHECKING:
    from rich.table import Table

    from mednovelty.evaluation.result import Evaluation

MEAN_HEADS = {
    "auroc": "AUROC",
    "ap": "AP",
    "fpr_at_95_lesion_tpr": "healthy flagged at 95 % lesion found",
    "fpr_at_95_healthy_tpr": "lesion missed at 95 % healthy passed",
    "dice_best": "Dice, best",
    "dice_fifth": "Dice, by a fifth",
}
POOLED_HEADS = {
    "auroc": "AUROC",
    "ap": "AP",
    "dice_rotated": "Dice, five fifths",
    "slice_mean_auroc": "slice mean AUROC",
    "slice_mean_ap": "slice mean AP",
    "slice_max_auroc": "slice max AUROC",
    "slice_max_ap": "slice max AP",
}
POINT_HEADS = {
    "dice": "found, FP: best Dice",
    "fpr_1_in_100": "found, FP: 1 % flagged",
    "fpr_1_in_1000": "found, FP: 0.1 % flagged",
}
SHARED_ROWS = {"dice": "best Dice", "fpr_1_in_100": "1 % flagged", "fpr_1_in_1000": "0.1 % flagged"}
SHARED_HEADS = ("both", "only {0}", "only {1}", "only together", "none", "lost together")
REASON_HEADS = ("slice mean AUROC", "cosine", "cosine, even", "Clever Hans")
MOST_NAMED_PATIENTS = 12
LONGEST_NAME = 22
"""Of a score, in characters, that is kept in one piece in narrow terminals."""
_FOUND_FP = (
    "Found: share of the lesions; FP: false positives a scan, flagged components without a lesion voxel."
)


class _Part(NamedTuple):
    """One table: its cells are lines, by row."""

    title: str
    heads: list[str]
    cells: dict[str, list[list[str]]]
    caption: list[str]
    first: str = "score"
    """What a row is; rows that are no scores are in the order of the cells."""


def tables(found: Evaluation) -> list[Table]:
    """Return the tables for the terminal, the trivial baselines set apart."""
    from rich.table import Table
    from rich.text import Text

    made = []
    for part in _parts(found):
        table = Table(title=Text(part.title), caption=Text("\n".join(part.caption)), caption_justify="left",
                      padding=(0, 0, 0, 1))  # fmt: skip
        rows = [(key, style, "\n".join(lines), last) for key, style, lines, last in _rows(found, part)]
        longest = max((len(line) for _, _, name, _ in rows for line in name.split("\n")), default=0)
        table.add_column(part.first, overflow="fold", no_wrap=longest <= LONGEST_NAME)
        for head in part.heads:
            table.add_column(Text(head), justify="right", overflow="fold")
        for key, style, name, last in rows:
            texts = [Text("\n".join(lines)) for lines in part.cells[key]]
            table.add_row(Text(name), *texts, style=style, end_section=last)
        made.append(table)
    return made


def _rows(found: Evaluation, part: _Part) -> Iterator[tuple[str, str, list[str], bool]]:
    """Yield each row's key, style, name in lines, and whether a group of rows ends with it."""
    groups = found.ranked() if part.first == "score" else (list(part.cells), [])
    for group, style in zip(groups, ("", "yellow"), strict=True):
        keys = [key for key in group if key in part.cells]
        for key in keys:
            kinds = found.kinds(key) if part.first == "score" else ()
            beside = [f"({', '.join(kinds)})"] if kinds else []
            yield key, style, [printable(key), *beside], key == keys[-1]


def markdown(found: Evaluation) -> str:
    """Return the tables and their words as Markdown; trivial baselines are marked as such."""
    blocks = []
    for title, heads, cells, caption, first in _parts(found):
        lines = [f"**{_escaped(title)}**", "", _row([_escaped(head) for head in (first, *heads)])]
        lines.append(_row(["---"] * (1 + len(heads))))
        for key, style, name, _ in _rows(found, _Part(title, heads, cells, caption, first)):
            told = f"`{_escaped(name[0])}`" if first == "score" else _escaped(name[0])
            told += "".join(f" {beside}" for beside in name[1:]) + (" (trivial)" if style else "")
            lines.append(_row([told, *(" ".join(_in_brackets(cell)) for cell in cells[key])]))
        blocks.append("\n".join([*lines, "", *(f"* {_escaped(line)}" for line in caption)]))
    return "\n\n".join(blocks) + "\n"


def _parts(found: Evaluation) -> list[_Part]:
    """Return what each table is made of."""
    first = {
        score: [_with_interval(row, metric) for metric in MEAN_HEADS] for score, row in found.mean.items()
    }
    rows = {score: found.pooled.get(score, {}) for score in found.mean}
    second = {score: [_with_interval(row, metric) for metric in POOLED_HEADS] for score, row in rows.items()}
    third = {score: [_lesion_cell(row, point) for point in POINTS] for score, row in rows.items()}
    lesions = sum(len(lesions) for lesions in found.lesions.values())
    said = [*verdicts(found), *words(found), *_trained_to_find(found)]
    parts = [
        _Part(_mean_title(found), list(MEAN_HEADS.values()), first, said),
        _Part(_pooled_title(found), list(POOLED_HEADS.values()), second,
              [*pooled_verdicts(found), *pooled_words(found)]),
        _Part(f"Lesion by lesion: {lesions:,} lesions", list(POINT_HEADS.values()), third,
              _what_thresholds_are(found)),
    ]  # fmt: skip
    parts += _by_size(found)
    parts += [part for name in found.together for part in _shared(found, name)]
    return [*parts, *([_reasons(found)] if found.reasons else [])]


def _by_size(found: Evaluation) -> list[_Part]:
    """Return the table of lesions found by their volume; none where no threshold is known."""
    told = found_by_size(found)
    heads = [name for name in class_names() if any(name in row for row in told.values())]
    cells = {
        score: [[row[name].share, f"of {row[name].lesions:,}"] for name in heads]
        for score, row in told.items()
    }
    title = "Lesions found by their volume, where 1 % of healthy voxels are flagged"
    return [_Part(title, heads, cells, [], "score")] if cells else []


def _trained_to_find(found: Evaluation) -> list[str]:
    """Say what methods that make their own anomalies look for."""
    return [
        f"{method} ({', '.join(map(found.named, scores))}) was trained to find: {what.rstrip('. ')}; {BLIND}."
        for (method, what), scores in found.priors().items()
    ]


def _shared(found: Evaluation, name: str) -> list[_Part]:
    """Return the table of which lesions two scores find alone and together; none without thresholds."""
    told = {SHARED_ROWS[point]: shared_lesions(found, name, point) for point in POINTS}
    known = {row: one for row, one in told.items() if one is not None}
    if not known:
        return []
    cells = {
        row: [[f"{n:,}"] for n in (one.both, one.first, one.second, one.together, one.none, one.lost)]
        for row, one in known.items()
    }
    one, other = found.together[name]
    lesions = next(iter(known.values())).lesions
    heads = [head.format(*(printable(found.named(score)) for score in (one, other))) for head in SHARED_HEADS]
    caption = [
        "Each score at its own threshold. Only together: found by the combination, by neither alone; lost "
        "together: found by one or both, not by the combination. The others add up to all."
    ]
    title = f"Found by {found.named(one)}, by {found.named(other)}, by both as one: {lesions:,} lesions"
    return [_Part(title, heads, cells, caption, "threshold")]


def _reasons(found: Evaluation) -> _Part:
    """Return the table of Clever Hans scores."""
    cells = {
        score: [
            [f"{reason.found.auroc:.3f}"],
            [f"{reason.found.cosine:.3f}"],
            [f"{reason.found.even:.3f}"],
            [f"{reason.found.value:.3f}", *(["flagged"] if reason.found.flagged else [])],
        ]
        for score, reason in found.reasons.items()
    }
    above = next(iter(found.reasons.values())).found.threshold
    told = [
        "AUROC of slices by their mean score, less the cosine of relevance and lesion in diseased slices; "
        f"flagged above {above:g} where AUROC is at least {DETECTS_FROM:g} and the cosine no higher than "
        "even, that of relevance that is the same everywhere in the brain."
    ]
    told += [
        f"{found.named(score)}: {why.found.words()}"
        for score, why in found.reasons.items()
        if why.found.flagged
    ]
    n = max(reason.slices for reason in found.reasons.values())
    return _Part(f"Clever Hans scores: {n:,} diseased slices", list(REASON_HEADS), cells, told)


def _mean_title(found: Evaluation) -> str:
    n = len(found.scans)
    voxels = sum(int(next(iter(rows.values()))["lesion_voxels"]) for rows in found.scans.values())
    scans = f"{n} scan{'s' * (n != 1)} with a lesion mask, {voxels:,} lesion voxels"
    return f"{scans}; mean and {found.settings.level:.0%} interval over scans" if n > 1 else scans


def _pooled_title(found: Evaluation) -> str:
    row: Mapping[str, Any] = max(found.pooled.values(), key=lambda row: row.get("scans", 0), default={})
    title = "All scans pooled, and slice by slice"
    if "slices_healthy" not in row:
        return title
    return (
        f"{title}: {row['slices_healthy']:,} healthy slices, {row['slices_diseased']:,} with at least "
        f"{found.settings.diseased_voxels} lesion voxels, {row['slices_dropped']:,} between"
    )


def _what_thresholds_are(found: Evaluation) -> list[str]:
    if found.fifth.get("drawn_from") == "voxels":
        return [
            f"{_FOUND_FP} Thresholds come from a fifth of the voxels of the scans themselves, since there "
            "are fewer than 5 patients with a lesion."
        ]
    drawn = found.fifth.get("patients", [])
    if not drawn:
        return []
    named = ", ".join(drawn[:MOST_NAMED_PATIENTS])
    more = f" and {len(drawn) - MOST_NAMED_PATIENTS} more" if len(drawn) > MOST_NAMED_PATIENTS else ""
    return [
        f"{_FOUND_FP} Thresholds of these and of Dice by a fifth come from {len(drawn)} patients, {named}"
        f"{more}, and are tried on the others; Dice, five fifths: each fifth in turn."
    ]


def _with_interval(row: Mapping[str, Any], metric: str) -> list[str]:
    if math.isnan(row.get(metric, math.nan)):
        return ["-"]
    interval = row.get(f"{metric}_interval")
    return [f"{row[metric]:.3f}"] + ([] if interval is None else [f"{interval[0]:.2f}-{interval[1]:.2f}"])


def _lesion_cell(row: Mapping[str, Any], point: str) -> list[str]:
    recall = row.get(f"lesion_recall_at_{point}", math.nan)
    false = row.get(f"false_positives_at_{point}", math.nan)
    return ["-" if math.isnan(recall) else f"{recall:.0%}", "-" if math.isnan(false) else f"{false:.1f}"]


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _in_brackets(lines: list[str]) -> list[str]:
    return [lines[0], *(f"({line})" for line in lines[1:])]


def _escaped(text: str) -> str:
    return printable(text).replace("|", "\\|").replace("<", "&lt;")
