"""Commands from maps to decisions: calibrate, threshold, combine, explain."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mednovelty import console
from mednovelty.cli_options import (
    BrainMasks,
    Device,
    Fold,
    Json,
    MaskMaker,
    Overwrite,
    RegionsToCalibrate,
    Report,
    Scores,
    ScoreSet,
    Threads,
    end,
)


def calibrate(
    model: Annotated[Path, typer.Argument(help="A detector's folder, as fit writes it.")],
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Normal scans, as for fit; those that the detector was trained on are left out. Without "
            "it: tell of the calibration that is there."
        ),
    ] = None,
    leave_one_out: Annotated[
        bool,
        typer.Option(
            "--leave-one-out", help="The scans are those of fit: fit again without each, and score it."
        ),
    ] = False,
    scores: Scores = None,
    regions: RegionsToCalibrate = "one",
    assignments: ScoreSet = None,
    masks: Annotated[
        Path | None, typer.Option("--masks", help="Lesion masks by scan id; what is in one is left out.")
    ] = None,
    fold: Fold = None,
    brain_masks: BrainMasks = None,
    mask_maker: MaskMaker = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Score held-out normals, so that score can say how often a normal voxel is as novel: p-values."""
    from mednovelty import calibrate_command

    request = calibrate_command.CalibrateRequest(
        model=model,
        folder=folder,
        leave_one_out=leave_one_out,
        scores=scores,
        regions=regions,
        assignments=assignments or (),
        masks=masks,
        fold=fold,
        brain_masks=brain_masks,
        mask_maker=mask_maker,
        overwrite=overwrite,
        device=device,
        threads=threads,
        as_json=as_json,
    )
    end(console.run(lambda: calibrate_command.calibrate(request), as_json))


def explain(
    model: Annotated[
        Path,
        typer.Argument(help="A detector's folder; or, alone, one of score's maps: why voxels score so high."),
    ],
    folder: Annotated[
        Path | None, typer.Argument(help="Folder of scans, whose relevance is written. None: see --at.")
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where relevance goes; may be the folder of score's maps."),
    ] = None,
    at: Annotated[
        list[str] | None,
        typer.Option("--at", help="Of maps: X,Y,Z in mm (RAS+), as often as wanted; default: peaks."),
    ] = None,
    detector: Annotated[Path | None, typer.Option(help="Of maps: theirs; default: where they say.")] = None,
    scans: Annotated[Path | None, typer.Option(help="Of maps: theirs; default: where they say.")] = None,
    nearest: Annotated[int, typer.Option(min=1, help="Of maps: how many nearest normals.")] = 5,
    peaks: Annotated[int, typer.Option(min=1, help="Of maps: how many clusters, or peaks, a score.")] = 5,
    score_names: Annotated[
        str | None,
        typer.Option(
            "--score",
            help="Which score, or several, a,b, of maps combinations too; default: of the model, conserved "
            "if one is; of maps the first calibrated.",
        ),
    ] = None,
    method: Annotated[
        str,
        typer.Option(
            help="lrp: relevance through the layers of a score; gradient-x-input; smoothgrad; auto: lrp "
            "where there is one, else gradient-x-input."
        ),
    ] = "auto",
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Masks by scan id: of which voxels tables tell, as of lesions."),
    ] = None,
    fold: Fold = None,
    brain_masks: BrainMasks = None,
    mask_maker: MaskMaker = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write why scores are what they are: of a scan as maps of relevance, of a voxel as one page.

    With a detector and scans, where relevance lies, and of diffusion scans on which gradients and shells.
    With maps alone, explain OUT/sub-01 --at 10,-32,24: the voxel beside its nearest normals, what drives it.
    """
    from mednovelty import explain_command

    if folder is None:
        voxels = explain_command.VoxelRequest(
            model, tuple(at or ()), score_names, detector, scans, nearest, peaks, device, threads, as_json
        )
        end(console.run(lambda: explain_command.explain_voxels(voxels, output), as_json))
        return
    request = explain_command.ExplainRequest(
        model=model,
        folder=folder,
        output=output,
        only_of_maps=bool(at or detector or scans),
        score=score_names,
        method=method,
        masks=masks,
        fold=fold,
        brain_masks=brain_masks,
        mask_maker=mask_maker,
        overwrite=overwrite,
        device=device,
        threads=threads,
        as_json=as_json,
    )
    end(console.run(lambda: explain_command.explain(request), as_json))


def threshold(
    output: Annotated[Path, typer.Argument(help="The folder that score wrote.")],
    fdr: Annotated[
        float | None, typer.Option("--fdr", help="False discovery rate over each scan's mask; default: 0.05.")
    ] = None,
    p: Annotated[float | None, typer.Option("--p", help="Every voxel with at most this p.")] = None,
    quantile: Annotated[
        float | None,
        typer.Option("--quantile", help="Every voxel above this quantile of the calibration scans' voxels."),
    ] = None,
    masks: Annotated[
        Path | None,
        typer.Option("--masks", help="Lesion masks by scan id, or manifest: the best Dice on one fifth."),
    ] = None,
    seed: Annotated[int, typer.Option(help="With --masks: of the fifth.")] = 0,
    scores: Annotated[
        str | None, typer.Option("--scores", help="Which, a,b; default: all that are calibrated.")
    ] = None,
    min_mm3: Annotated[float, typer.Option("--min-mm3", help="Drop smaller clusters.")] = 0.0,
    connectivity: Annotated[int, typer.Option(help="6, 18 or 26 neighbours.")] = 26,
    cluster_size: Annotated[
        bool | None,
        typer.Option(
            "--cluster-size/--no-cluster-size",
            help="Drop clusters no larger than the largest of a calibration scan at that p; default: do, but "
            "not with --masks, whose threshold may flag most of a healthy scan.",
            show_default=False,
        ),
    ] = None,
    median: Annotated[
        int | None, typer.Option("--median", help="Clean by a median over cubes of so many voxels a side.")
    ] = None,
    opening: Annotated[
        int | None, typer.Option("--opening", help="Take away what is thin, by so many steps.")
    ] = None,
    closing: Annotated[int | None, typer.Option("--closing", help="Fill gaps, by so many steps.")] = None,
    atlas: Annotated[
        Path | None,
        typer.Option(
            "--atlas",
            help="Image of labels, or a folder of such by scan id: where clusters lie. "
            "Default: that of before.",
        ),
    ] = None,
    without_atlas: Annotated[bool, typer.Option("--no-atlas", help="Let the atlas of before go.")] = False,
    reported: Report = True,
    as_json: Json = False,
) -> None:
    """Segment the maps of a folder, or do it again in another way; nothing is scored."""
    from mednovelty import threshold_command

    request = threshold_command.ThresholdRequest(
        output=output,
        fdr=fdr,
        p=p,
        quantile=quantile,
        masks=masks,
        seed=seed,
        scores=scores,
        min_mm3=min_mm3,
        connectivity=connectivity,
        cluster_size=cluster_size,
        median=median,
        opening=opening,
        closing=closing,
        atlas=atlas,
        without_atlas=without_atlas,
        reported=reported,
        as_json=as_json,
    )
    end(console.run(lambda: threshold_command.threshold(request), as_json))


def combine(
    folders: Annotated[
        list[Path], typer.Argument(metavar="OUT", help="Folders that score wrote, of the same scans.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Where the maps go; default: beside those of a single folder."),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", help="fisher, cauchy, mean_z, rank_average; several: a,b.")
    ] = "fisher",
    scores: Annotated[
        str | None, typer.Option("--scores", help="Which, a,b; default: all that are calibrated.")
    ] = None,
    detectors: Annotated[
        list[Path] | None,
        typer.Option("--detector", help="A detector's folder, where it is not where it was; repeatable."),
    ] = None,
    other_images: Annotated[
        bool,
        typer.Option("--other-images", help="The folders are of different images of each session."),
    ] = False,
    z: Annotated[bool, typer.Option("--z", help="Also maps of z, the normal quantile of 1 - p.")] = False,
    segmented: Annotated[
        bool, typer.Option("--segment/--no-segment", help="Masks and clusters; see mednovelty threshold.")
    ] = True,
    reported: Report = True,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Make one map of several calibrated scores, of one detector or of several; nothing is scored."""
    from mednovelty import combine_command

    request = combine_command.CombineRequest(
        folders=folders,
        output=output,
        by=by,
        scores=scores,
        detectors=detectors or (),
        other_images=other_images,
        z=z,
        segmented=segmented,
        reported=reported,
        overwrite=overwrite,
        as_json=as_json,
    )
    end(console.run(lambda: combine_command.combine(request), as_json))


__all__ = ["calibrate", "combine", "explain", "threshold"]
