"""Commands that show what there is: preview-anomalies, demo, list, where, doctor."""

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


__all__ = ["demo", "doctor", "list_plugins", "preview_anomalies", "where"]
