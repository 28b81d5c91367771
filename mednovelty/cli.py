"""The command line: thin words over the Python API.

Only what a command needs is imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mednovelty import console

app = typer.Typer(
    name="mednovelty",
    help="Find what is abnormal in a medical scan by training on healthy scans only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
main = app

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


@app.callback()
def common(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Details.")] = False,
) -> None:
    """Find what is abnormal in a medical scan by training on healthy scans only."""
    console.start_logging(quiet, verbose)


def _end(code: int) -> None:
    raise typer.Exit(code)


@app.command()
def check(
    folder: Folder,
    deep: Annotated[bool, typer.Option("--deep", help="Read every voxel to the end.")] = False,
    recipe: Annotated[
        str | None,
        typer.Option(help="What scans will be, a recipe as of fit; default: by what is there."),
    ] = None,
    contrasts: Contrasts = None,
    brain_masks: BrainMasks = None,
    mask_maker: MaskMaker = None,
    as_json: Json = False,
) -> None:
    """Check every header, gradient table and mask of a cohort before anything is trained."""
    from mednovelty import commands

    request = commands.CheckRequest(folder, deep, brain_masks, recipe, contrasts, mask_maker, as_json)
    _end(console.run(lambda: commands.check(request), as_json))


@app.command()
def fit(
    folders: Folders,
    output: Annotated[Path, typer.Option("--output", "-o", help="The detector's folder.")],
    recipe: Annotated[
        str, typer.Option(help="What scans are: qspace, qspace-volumes, slices, patches or contrasts.")
    ] = "qspace",
    method: Annotated[
        str | None, typer.Option(help="What is trained: vae, ae, ae-con, ...; see mednovelty list methods.")
    ] = None,
    preset: Annotated[
        str | None,
        typer.Option(help="released: what the method's released code has in place of its paper."),
    ] = None,
    latent: Annotated[
        str | None,
        typer.Option(
            help="Latents of the paper's nets: 8, 16 or 24; of several, 8,16,24, the best on held-out scans."
        ),
    ] = None,
    seed: Annotated[int, typer.Option(help="Same seed, same machine: same bits.")] = 0,
    settings: Annotated[Path | None, typer.Option("--settings", help="Settings file, TOML.")] = None,
    assignments: Set = None,
    scores: Scores = None,
    reference: Annotated[
        str | None, typer.Option(help="Which normals to keep beyond the budget: even or coreset.")
    ] = None,
    tune: Annotated[
        str | None,
        typer.Option(help="nln: choose K and alpha on held-out normals and anomalies made of them."),
    ] = None,
    anomalies: Annotated[
        str | None,
        typer.Option("--anomalies", help="Families planted in training, a,b; see mednovelty list anomalies."),
    ] = None,
    held_out: Annotated[
        str | None,
        typer.Option("--held-out", help="Families that are not trained on and choose the epoch."),
    ] = None,
    lesion_shapes: Annotated[
        Path | None,
        typer.Option("--lesion-shapes", help="Folder of lesion masks whose outlines planted anomalies take."),
    ] = None,
    contrasts: Contrasts = None,
    masks: Annotated[
        Path | None,
        typer.Option(
            "--masks",
            help="Lesion masks: left out, or for deep-sad, hsc, fcdd, synthetic-lesions shown as abnormal.",
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(
            "--labels", help="Table of scans or subjects: normal, anomalous, unlabelled; or classes."
        ),
    ] = None,
    outliers: Annotated[
        Path | None,
        typer.Option(
            "--outliers", help="Scans or pictures that deep-sad, hsc and fcdd are to tell from normal ones."
        ),
    ] = None,
    embeddings: Annotated[
        Path | None,
        typer.Option("--embeddings", help="Of reports: word vectors, a text file with a line a word."),
    ] = None,
    fold: Fold = None,
    brain_masks: BrainMasks = None,
    mask_maker: MaskMaker = None,
    calibrate: Calibrate = None,
    regions: RegionsToCalibrate = "one",
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint.")] = False,
    init: Annotated[
        Path | None,
        typer.Option("--init", help="A detector's folder: training starts from its weights."),
    ] = None,
    overwrite: Overwrite = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Train a detector on healthy scans, or on reports of healthy people (--method cvdd)."""
    from mednovelty import fit_command, words_commands

    def fit_scans() -> int:
        over = fit_command.overrides(
            assignments,
            method=method,
            latent=latent,
            scores=scores,
            reference=reference,
            mask_maker=mask_maker,
            tune=tune,
            preset=preset,
            anomalies=anomalies,
            held_out=held_out,
            lesion_shapes=lesion_shapes,
        )
        request = fit_command.FitRequest(
            folder=folders[0],
            output=output,
            recipe=recipe,
            seed=seed,
            settings=settings,
            overrides=over,
            brain_masks=brain_masks,
            contrasts=contrasts,
            masks=masks,
            labels=labels,
            outliers=outliers,
            fold=fold,
            calibrate=calibrate,
            regions=regions,
            resume=resume,
            init=init,
            overwrite=overwrite,
            device=device,
            threads=threads,
            as_json=as_json,
            reports=tuple(words_commands.reports_among(folders)),
            embeddings=embeddings,
        )
        return fit_command.fit(request)

    _end(console.run(fit_scans, as_json))


@app.command()
def score(
    model: Annotated[Path, typer.Argument(help="A detector's folder, as fit writes it.")],
    folders: Folders,
    output: Annotated[Path, typer.Option("--output", "-o", help="Where the maps go.")],
    scores: Scores = None,
    draws: Annotated[
        int | None, typer.Option(help="Draws of stochastic scores; default: the detector's.")
    ] = None,
    assignments: ScoreSet = None,
    fold: Fold = None,
    brain_masks: BrainMasks = None,
    mask_maker: MaskMaker = None,
    calibrated: Annotated[
        bool,
        typer.Option(
            "--calibration/--no-calibration", help="Maps of p-values where the detector is calibrated."
        ),
    ] = True,
    z: Annotated[bool, typer.Option("--z", help="Also maps of z, the normal quantile of 1 - p.")] = False,
    regions: Annotated[
        Path | None,
        typer.Option("--regions", help="Label images of these scans, where calibration was by such."),
    ] = None,
    segmented: Annotated[
        bool,
        typer.Option(
            "--segment/--no-segment", help="Masks and clusters of calibrated maps; see mednovelty threshold."
        ),
    ] = True,
    combine: Annotated[
        str | None,
        typer.Option(
            "--combine",
            help="Also combinations of the calibrated scores: fisher, cauchy, mean_z, rank_average, a,b.",
        ),
    ] = None,
    overwrite: Overwrite = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")
    ] = False,
    plot_sphere: Annotated[
        bool, typer.Option("--plot-sphere", help="Draw the latents of normals and scans on a sphere.")
    ] = False,
    device: Device = "auto",
    threads: Threads = None,
    as_json: Json = False,
) -> None:
    """Write novelty maps of every scan; scans that are done already are left alone."""
    from mednovelty import commands, words_commands

    def score_scans() -> int:
        reports = tuple(words_commands.reports_among(folders))
        return commands.score(replace(request, reports=reports))

    request = commands.ScoreRequest(
        model=model,
        folder=folders[0],
        output=output,
        scores=scores,
        draws=draws,
        assignments=assignments or (),
        fold=fold,
        brain_masks=brain_masks,
        mask_maker=mask_maker,
        overwrite=overwrite,
        dry_run=dry_run,
        device=device,
        threads=threads,
        as_json=as_json,
        plot_sphere=plot_sphere,
        calibrated=calibrated,
        z=z,
        regions=regions,
        segmented=segmented,
        combine=combine,
    )
    _end(console.run(score_scans, as_json))


@app.command()
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
    _end(console.run(lambda: calibrate_command.calibrate(request), as_json))


@app.command()
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
    peaks: Annotated[int, typer.Option(min=1, help="Of maps without clusters: how many peaks.")] = 3,
    score_names: Annotated[
        str | None,
        typer.Option(
            "--score", help="Which score, or several, a,b; default: of the model, conserved if one is."
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
        _end(console.run(lambda: explain_command.explain_voxels(voxels, output), as_json))
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
    _end(console.run(lambda: explain_command.explain(request), as_json))


@app.command()
def evaluate(
    output: Annotated[Path, typer.Argument(help="The folder that score wrote.")],
    masks: Annotated[Path, typer.Option("--masks", help="Folder of lesion masks by scan id, or manifest.")],
    seed: Annotated[int, typer.Option(help="Of the bootstrap and of the threshold's fifth.")] = 0,
    clever_hans: Annotated[
        bool,
        typer.Option(
            "--clever-hans",
            help="Also AUROC less the cosine of relevance and lesion: are lesions looked at? See explain.",
        ),
    ] = False,
    relevance: Annotated[
        Path | None,
        typer.Option(
            "--relevance", help="With --clever-hans: where explain wrote; default: the same folder."
        ),
    ] = None,
    together: Annotated[
        list[str] | None,
        typer.Option(
            "--together",
            help="A,B: also rate the maps of two scores as one, beside both. May be given several times.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure how well maps and lesion masks coincide."""
    from mednovelty import commands

    where = (relevance or output) if clever_hans or relevance is not None else None
    _end(console.run(lambda: commands.evaluate(output, masks, seed, as_json, where, together or ()), as_json))


@app.command()
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
        bool,
        typer.Option(
            "--cluster-size/--no-cluster-size",
            help="Drop clusters no larger than the largest of a calibration scan at that p.",
        ),
    ] = True,
    median: Annotated[
        int | None, typer.Option("--median", help="Clean by a median over cubes of so many voxels a side.")
    ] = None,
    opening: Annotated[
        int | None, typer.Option("--opening", help="Take away what is thin, by so many steps.")
    ] = None,
    closing: Annotated[int | None, typer.Option("--closing", help="Fill gaps, by so many steps.")] = None,
    atlas: Annotated[
        Path | None,
        typer.Option("--atlas", help="Image of labels, or a folder of such by scan id: where clusters lie."),
    ] = None,
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
        as_json=as_json,
    )
    _end(console.run(lambda: threshold_command.threshold(request), as_json))


@app.command()
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
        overwrite=overwrite,
        as_json=as_json,
    )
    _end(console.run(lambda: combine_command.combine(request), as_json))


@app.command("preview-anomalies")
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
    _end(console.run(lambda: preview_command.preview(request), as_json))


@app.command()
def demo(
    folder: Annotated[Path, typer.Argument(help="Where cohort, detector, maps and table go.")] = Path("demo"),
    seed: Annotated[int, typer.Option(help="Of the simulated people and of training.")] = 0,
    overwrite: Overwrite = False,
    threads: Threads = None,
) -> None:
    """Simulate a small cohort, then run check, fit, score and evaluate on it."""
    from mednovelty import demo as demonstration

    _end(console.run(lambda: demonstration.run(folder, seed=seed, overwrite=overwrite, threads=threads)))


@app.command("list")
def list_plugins(
    group: Annotated[
        str,
        typer.Argument(
            help="scorers, scan_scorers, methods, preprocessors, views, neighbours, readers, anomalies."
        ),
    ],
    as_json: Json = False,
) -> None:
    """List what is installed in a plug-in group."""
    from mednovelty import commands

    _end(console.run(lambda: commands.list_plugins(group, as_json), as_json))


@app.command()
def where(
    paper: Annotated[str, typer.Argument(help="A paper's key, e.g. vasilev2018.")],
    label: Annotated[str, typer.Argument(help='An equation, e.g. "Eq. (3)".')],
    as_json: Json = False,
) -> None:
    """Say which code implements an equation of a paper."""
    from mednovelty import commands

    _end(console.run(lambda: commands.where(paper, label, as_json), as_json))


@app.command()
def doctor(as_json: Json = False) -> None:
    """Show versions, devices and thread counts, and what is missing."""
    from mednovelty import commands

    _end(console.run(lambda: commands.doctor(as_json), as_json))
