"""Commands that show what there is: view, preview-anomalies, demo, slicer-module, list, where, doctor."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mednovelty import console
from mednovelty.cli_options import (
    BrainMasks,
    Contrasts,
    Folder,
    Json,
    MaskMaker,
    Overwrite,
    Threads,
    end,
)


def view(
    path: Annotated[
        Path,
        typer.Argument(help="What score or fit has written: OUT, OUT/sub-01, MODEL; or one of their pages."),
    ],
    browser: Annotated[
        bool, typer.Option("--browser/--no-browser", help="Open it, or only print the address.")
    ] = True,
    port: Annotated[int, typer.Option("--port", help="On 127.0.0.1; 0: any that is free.")] = 0,
    as_json: Json = False,
) -> None:
    """Show a page in the browser: of a scan, of a cohort, of a detector; Ctrl-C ends it."""
    from mednovelty import view_command

    request = view_command.ViewRequest(path, browser, port, as_json)
    end(console.run(lambda: view_command.view(request), as_json))


def preview_anomalies(
    folder: Folder,
    output: Annotated[Path, typer.Option("--output", "-o", help="The panel, a PNG.")],
    anomalies: Annotated[
        str, typer.Option("--anomalies", help="NAME[,NAME] of families; see mednovelty list anomalies.")
    ],
    recipe: Annotated[
        str, typer.Option(help="What scans are: slices, patches, qspace or qspace-volumes.")
    ] = "slices",
    seed: Annotated[int, typer.Option(help="Same seed, same anomalies.")] = 0,
    lesion_shapes: Annotated[
        Path | None,
        typer.Option("--lesion-shapes", help="Folder of lesion masks whose outlines are the shapes."),
    ] = None,
    rows: Annotated[int, typer.Option("--rows", help="Samples of each family.")] = 3,
    size: Annotated[
        int | None,
        typer.Option("--size", min=8, help="Pixels or voxels along each axis; default: the recipe's."),
    ] = None,
    assignments: Annotated[
        list[str] | None, typer.Option("--set", help="A family's setting, e.g. hyperintense.shapes.most=1.")
    ] = None,
    contrasts: Contrasts = None,
    brain_masks: BrainMasks = None,
    mask_maker: MaskMaker = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Draw what training would plant on one's own scans: as it was, planted, difference, truth."""
    from mednovelty import preview_command

    request = preview_command.PreviewRequest(
        folder=folder,
        output=output,
        anomalies=anomalies,
        recipe=recipe,
        seed=seed,
        rows=rows,
        size=size,
        assignments=assignments or (),
        lesion_shapes=lesion_shapes,
        contrasts=contrasts,
        brain_masks=brain_masks,
        mask_maker=mask_maker,
        overwrite=overwrite,
        as_json=as_json,
    )
    end(console.run(lambda: preview_command.preview(request), as_json))


def demo(
    folder: Annotated[Path, typer.Argument(help="Where cohort, detector, maps and table go.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the simulated people and of training.")] = 0,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Simulate a small cohort, then run check, fit, score and evaluate on it."""
    from mednovelty import demo as demonstration

    end(console.run(lambda: demonstration.run(folder, seed=seed, overwrite=overwrite, threads=threads)))


def slicer_module(
    folder: Annotated[Path, typer.Argument(help="Where the folder MedNovelty goes.")],
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Copy the module for 3D Slicer into a folder: score there, jump to clusters; it installs nothing."""
    from mednovelty import slicer_command

    end(console.run(lambda: slicer_command.copy_module(folder, overwrite, as_json), as_json))


def report(
    output: Annotated[Path, typer.Argument(help="The folder that score wrote, or a detector's.")],
    scans: Annotated[
        Path | None,
        typer.Option("--scans", help="Folder of the scans, where they are not where they were."),
    ] = None,
    as_json: Json = False,
) -> None:
    """Make the pages of a folder of maps again (OUT/index.html, one a scan), or a detector's."""
    from mednovelty import report_command

    request = report_command.ReportRequest(output, scans, as_json)
    end(console.run(lambda: report_command.report(request), as_json))


def list_plugins(
    group: Annotated[
        str,
        typer.Argument(
            help="scorers, scan_scorers, methods, preprocessors, views, neighbours, readers, anomalies, "
            "benchmarks."
        ),
    ],
    as_json: Json = False,
) -> None:
    """List what is installed in a plug-in group."""
    from mednovelty import commands

    end(console.run(lambda: commands.list_plugins(group, as_json), as_json))


def where(
    paper: Annotated[str, typer.Argument(help="A paper's key, e.g. vasilev2018.")],
    label: Annotated[str, typer.Argument(help='An equation, e.g. "Eq. (3)".')],
    as_json: Json = False,
) -> None:
    """Say which code implements an equation of a paper."""
    from mednovelty import commands

    end(console.run(lambda: commands.where(paper, label, as_json), as_json))


def doctor(as_json: Json = False) -> None:
    """Show versions, devices and thread counts, and what is missing."""
    from mednovelty import commands

    end(console.run(lambda: commands.doctor(as_json), as_json))


__all__ = ["demo", "doctor", "list_plugins", "preview_anomalies", "report", "slicer_module", "view", "where"]
