"""The command line: thin words over the Python API.

Only what a command needs is imported when it runs, so that ``--help`` answers at once.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from mednovelty import console
from mednovelty.cli_bench import bench
from mednovelty.cli_decisions import calibrate, combine, explain, threshold
from mednovelty.cli_looking import (
    demo,
    doctor,
    list_plugins,
    preview_anomalies,
    report,
    slicer_module,
    view,
    where,
)
from mednovelty.cli_options import (
    BrainMasks,
    Calibrate,
    Contrasts,
    Device,
    Fold,
    Folder,
    Folders,
    Json,
    MaskMaker,
    Overwrite,
    RegionsToCalibrate,
    Report,
    Scores,
    ScoreSet,
    Set,
    Threads,
    end,
)

app = typer.Typer(
    name="mednovelty",
    help="Find what is abnormal in a medical scan by training on healthy scans only.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)
main = app


@app.callback()
def common(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Warnings and errors only.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Details.")] = False,
) -> None:
    """Find what is abnormal in a medical scan by training on healthy scans only."""
    console.start_logging(quiet, verbose)


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
    end(console.run(lambda: commands.check(request), as_json))


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

    end(console.run(fit_scans, as_json))


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
    reported: Report = True,
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
        reported=reported,
    )
    end(console.run(score_scans, as_json))


app.command()(calibrate)
app.command()(explain)


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
    reported: Report = True,
    as_json: Json = False,
) -> None:
    """Measure how well maps and lesion masks coincide."""
    from mednovelty import commands

    where = (relevance or output) if clever_hans or relevance is not None else None
    request = commands.EvaluateRequest(output, masks, seed, as_json, where, together or (), reported)
    end(console.run(lambda: commands.evaluate(request), as_json))


app.command()(threshold)
app.command()(combine)
app.command()(report)
app.command("preview-anomalies")(preview_anomalies)
app.command()(view)
app.command()(bench)
app.command()(demo)
app.command("slicer-module")(slicer_module)
app.command("list")(list_plugins)
app.command()(where)
app.command()(doctor)
