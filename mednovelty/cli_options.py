"""Options that several commands of the command line share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Folder = Annotated[
    Path, typer.Argument(help="BIDS tree, plain folder, one image or a data manifest (.toml).")
]
Folders = Annotated[
    list[Path],
    typer.Argument(
        metavar="FOLDER", help="As for check; or reports: text files, reports/*.txt, or a folder of them."
    ),
]
BrainMasks = Annotated[Path | None, typer.Option("--brain-masks", help="Folder of brain masks, by scan id.")]
Contrasts = Annotated[
    str | None,
    typer.Option("--contrasts", help="Images of a structural scan, e.g. FLAIR,T1w; default: the only one."),
]
MaskMaker = Annotated[
    str | None,
    typer.Option(
        "--mask-maker",
        help="Of which a structural scan's mask is made where none is given: head, or (simply) brain. "
        "Default: head; for score what the detector was fitted with.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON, and only that, on stdout.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="One setting, e.g. train.max_epochs=50.")]
Fold = Annotated[
    int | None,
    typer.Option(
        "--fold", min=1, help="Which fold of a manifest with [folds] is tested, counted from 1; default: 1."
    ),
]
ScoreSet = Annotated[
    list[str] | None, typer.Option("--set", help="A setting of the maps, e.g. maps.median_px=5.")
]
Scores = Annotated[
    str | None,
    typer.Option(
        "--scores",
        help="Names or groups: all, fast, latent, reconstruction, stochastic, elbo, ...",
    ),
]
Device = Annotated[str, typer.Option("--device", "-d", help="auto, cpu, cuda or cuda:1.")]
Threads = Annotated[
    int | None, typer.Option("--threads", min=1, help="Processor threads; default: all cores.")
]


Calibrate = Annotated[
    str | None,
    typer.Option(
        "--calibrate",
        help="Of which normals p-values are made: validation, leave-one-out, or a folder of others.",
    ),
]
RegionsToCalibrate = Annotated[
    str,
    typer.Option(
        "--regions",
        help="Voxels held against all normal ones (one), those of a class of tissue (classes), or of a "
        "region: a folder of label images by scan id.",
    ),
]


Report = Annotated[
    bool, typer.Option("--report/--no-report", help="Pages to look at: OUT/index.html, and one a scan.")
]


def end(code: int) -> None:
    """End the command with an exit code."""
    raise typer.Exit(code)


__all__ = [
    "BrainMasks",
    "Calibrate",
    "Contrasts",
    "Device",
    "Fold",
    "Folder",
    "Folders",
    "Json",
    "MaskMaker",
    "Overwrite",
    "RegionsToCalibrate",
    "Report",
    "ScoreSet",
    "Scores",
    "Set",
    "Threads",
    "end",
]
