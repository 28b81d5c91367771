"""The ``preview-anomalies`` command: what training would plant, on one's own scans."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mednovelty import console
from mednovelty.errors import OutputError, SettingsError

if TYPE_CHECKING:
    import torch

    from mednovelty.anomalies.host import Gradients, Host, Planted
    from mednovelty.anomalies.mixture import Mixture
    from mednovelty.report.anomaly_panels import Pair
    from mednovelty.scan import Scan

log = logging.getLogger("mednovelty")
SLAB_MM = 40.0
"""Of a diffusion scan, as much around the slice that is looked at."""
HEIGHTS = (0.45, 0.75)
"""Slices and windows are taken between these shares of a scan's own."""
MOST_ROWS = 20


@dataclass(frozen=True)
class PreviewRequest:
    """What ``preview-anomalies`` was asked for."""

    folder: Path
    output: Path
    anomalies: str
    recipe: str = "slices"
    seed: int = 0
    rows: int = 3
    size: int | None = None
    assignments: Sequence[str] = ()
    lesion_shapes: Path | None = None
    contrasts: str | None = None
    brain_masks: Path | None = None
    mask_maker: str | None = None
    overwrite: bool = False
    as_json: bool = False


@dataclass(frozen=True, eq=False)
class Sample:
    """One of a host's samples: whose it is, and the names of its channels."""

    id: str
    channels: Sequence[str]


def preview(request: PreviewRequest) -> int:
    """Plant anomalies in a few samples of some scans and draw them; return the exit code."""
    from mednovelty.anomalies.mixture import Mixture, prior_of, refuse_unused_outlines, spelled
    from mednovelty.report.anomaly_panels import DPI, Family, anomalies_figure
    from mednovelty.report.figures import save_figure
    from mednovelty.seeds import generator

    if request.output.suffix.lower() != ".png":
        raise SettingsError(f"{request.output}: the panel is a PNG; end its name in .png")
    if request.output.exists() and not request.overwrite:
        raise OutputError(f"{request.output}: is there already; choose another name or pass --overwrite")
    if not 1 <= request.rows <= MOST_ROWS:
        raise SettingsError(f"--rows must lie between 1 and {MOST_ROWS}, got {request.rows}")
    settings = _settings(request)
    mixtures = {
        name: Mixture.of(name, {name: settings[name]} if name in settings else None)
        for name in spelled(request.anomalies)
    }
    for mixture in mixtures.values():
        _refuse_other_kind(request.recipe, mixture)
    if request.lesion_shapes is not None:
        refuse_unused_outlines({name: mixture.families[name] for name, mixture in mixtures.items()})
    hosts = _hosts(request)
    outlines = hosts[0][0].outlines
    priors = {name: prior_of(mixture.families[name], outlines) for name, mixture in mixtures.items()}
    families = []
    for name, mixture in mixtures.items():
        pairs = []
        for number, (host, samples) in enumerate(hosts):
            made = mixture.plant(host, generator(request.seed, "preview", name, number))
            pairs += [_pair(host, made, place, sample) for place, sample in enumerate(samples)]
        families.append(Family(f"{name}: {priors[name].words}", pairs[: request.rows]))
    source = f"{request.recipe}, seed {request.seed}; the patient's right is on the left"
    save_figure(anomalies_figure(families, source), request.output, DPI)
    if request.as_json:
        told = {name: {"words": prior.words, "ranges": prior.ranges} for name, prior in priors.items()}
        console.print_json({"panel": str(request.output), "seed": request.seed, "anomalies": told})
    for name, prior in priors.items():
        log.info("%s: %s", name, prior.words)
    log.info("wrote %s", request.output)
    return 0


def _settings(request: PreviewRequest) -> dict[str, Any]:
    """Return the settings of each family; where real shapes are given, those that have shapes use them."""
    from mednovelty.anomalies.mixture import spelled
    from mednovelty.plugins import plugin
    from mednovelty.settings import parse_assignments

    tree = {key.replace("-", "_"): value for key, value in parse_assignments(request.assignments).items()}
    names = spelled(request.anomalies)
    for key, value in tree.items():
        if key not in names or not isinstance(value, dict):
            raise SettingsError(f"--set {key}: write NAME.setting=value, NAME one of {', '.join(names)}")
    if request.lesion_shapes is not None:
        for name in names:
            if hasattr(plugin("anomalies", name)(), "shapes"):
                tree.setdefault(name, {}).setdefault("shapes", {}).setdefault("kinds", ["outline"])
    return tree


def _refuse_other_kind(recipe: str, mixture: Mixture) -> None:
    from mednovelty.recipes import recipe_of

    wanted = "diffusion" if recipe_of(recipe).scans == "dwi" else "images"
    if mixture.needs != wanted:
        raise SettingsError(
            f"anomalies {', '.join(mixture.families)} are of {mixture.needs}, and --recipe {recipe} is of "
            f"{wanted}; see mednovelty list anomalies"
        )


def _hosts(request: PreviewRequest) -> list[tuple[Host, list[Sample]]]:
    """Return samples of some scans, ready for planting: of contrasts as one, of diffusion by scan."""
    from mednovelty.anomalies.outlines import read_outlines
    from mednovelty.fit_command import find_scans_of
    from mednovelty.io.read_scan import DEFAULTS, read_scan, with_mask_maker
    from mednovelty.recipes import recipe_of

    outlines = None if request.lesion_shapes is None else read_outlines(request.lesion_shapes)
    if outlines is not None:
        log.info("%s: %s", request.lesion_shapes, outlines.describe())
    recipe = recipe_of(request.recipe)
    kind = recipe.scans
    listed = find_scans_of(kind, request.folder, request.contrasts, request.brain_masks)
    console.say_skipped(listed)
    options = DEFAULTS if request.mask_maker is None else with_mask_maker(DEFAULTS, request.mask_maker)
    files = list(listed)
    places = np.unique(np.linspace(0, len(files) - 1, min(request.rows, len(files))).round().astype(int))
    scans = [read_scan(files[place], options=options) for place in places]
    each = -(-request.rows // len(scans))
    if recipe.images and recipe.diffusion:
        hosts = [_cut([scan], each, request) for scan in scans]
    elif recipe.diffusion:
        hosts = [_volume(scan, share) for scan in scans for share in np.linspace(*HEIGHTS, each)]
    else:
        hosts = [_cut(scans, each, request)]
    return [(replace(host, outlines=outlines), samples) for host, samples in hosts]


def _cut(scans: Sequence[Scan], each: int, request: PreviewRequest) -> tuple[Host, list[Sample]]:
    """Return slices or windows of some scans, preprocessed as the recipe does; of diffusion, of one scan."""
    import torch

    from mednovelty.anomalies.host import Host
    from mednovelty.fitting import make_steps, make_view
    from mednovelty.model_folder import fit_settings

    axes = len(make_view(fit_settings(where="--size", recipe=request.recipe)).shape(1)) - 1
    if not axes:
        raise SettingsError(f"--recipe {request.recipe} has single voxels, in which no anomaly has a shape")
    layer = {} if request.size is None else {"view_settings": {"size": [request.size] * axes}}
    settings = fit_settings(layer, where="--size", recipe=request.recipe)
    steps, view = make_steps(settings), make_view(settings)
    images, masks, spacings, samples = [], [], [], []
    for scan in scans:
        for _, step in steps:
            scan = step(scan)
        inside = replace(scan, stored=np.ones((1, scan.n_voxels), np.float32), scale=np.ones(1),
                         offset=np.zeros(1), contrasts=())  # fmt: skip
        count = view.count(scan)
        for place in np.linspace(*HEIGHTS, each) * (count - 1) if count else ():
            start = round(float(place))
            images.append(view.cut(scan, start, start + 1))
            masks.append(view.cut(inside, start, start + 1)[:, 0] > 0.5)
            spacings.append(view.spacing_mm(scan))
            samples.append(Sample(scan.id, scan.contrasts))
    if not images:
        raise SettingsError("no slice or window of these scans has enough brain to plant anomalies in")
    host = Host(torch.from_numpy(np.concatenate(images)), torch.from_numpy(np.concatenate(masks)),
                torch.tensor(np.array(spacings), dtype=torch.float32), _gradients(scans[0]))  # fmt: skip
    return host, samples


def _gradients(scan: Scan) -> Gradients | None:
    """Return how a scan's channels were measured; None of a structural one."""
    import torch

    from mednovelty.anomalies.host import Gradients
    from mednovelty.preprocess.qspace import GradientScheme

    if scan.gradients is None:
        return None
    scheme = GradientScheme.of(scan.gradients)
    return Gradients(torch.tensor(scheme.bvalues_s_per_mm2), torch.tensor(scheme.directions))


def _volume(scan: Scan, share: float) -> tuple[Host, list[Sample]]:
    """Return a slab of a diffusion scan's signals, its axes turned to the right, the front and up."""
    import torch

    from mednovelty.anomalies.host import Host
    from mednovelty.views.axes import to_ras

    if scan.gradients is None:
        raise SettingsError(f"{scan.id}: has no gradients, which --recipe qspace is about")
    turn = to_ras(scan.grid.affine)
    mask, spacing = turn(scan.mask), scan.grid.spacing_mm[list(turn.order)]
    ends = [(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask)]
    low, high = ends[2]
    middle, half = low + share * (high - 1 - low), max(SLAB_MM / 2 / spacing[2], 1)
    ends[2] = max(low, round(middle - half)), min(high, round(middle + half) + 1)
    signals = turn(scan.box(turn.box(ends, scan.grid.shape)))
    box = tuple(slice(*end) for end in ends)
    host = Host(torch.from_numpy(np.ascontiguousarray(signals))[None],
                torch.from_numpy(np.ascontiguousarray(mask[box]))[None],
                tuple(float(step) for step in spacing), _gradients(scan))  # fmt: skip
    return host, [Sample(scan.id, ())]


def _pair(host: Host, made: Planted, place: int, sample: Sample) -> Pair:
    """Return the slice with most truth, of the channel or map that changes most."""
    from mednovelty.report.anomaly_panels import Pair

    before, names = _shown(host.images[place], host, place, sample)
    after, _ = _shown(made.images[place], host, place, sample)
    truth, mask = made.truth[place].numpy(), host.mask[place].numpy()
    spacing = host.spacings_mm[place].tolist()
    if truth.ndim == 3:
        amount = truth.sum((0, 1)) if truth.any() else mask.sum((0, 1))
        k = int(amount.argmax())
        before, after, truth, mask = before[..., k], after[..., k], truth[..., k], mask[..., k]
    spread = [float(channel[mask].std()) or 1.0 if mask.any() else 1.0 for channel in before]
    moved = [float(np.abs((b - a)[mask]).sum()) / s for a, b, s in zip(before, after, spread, strict=True)]
    best = int(np.argmax(moved))
    title = f"{sample.id} {names[best]}"
    box = tuple(slice(int(at.min()), int(at.max()) + 1) for at in np.nonzero(mask)) if mask.any() else ...
    return Pair(title, before[best][box], after[best][box], truth[box], mask[box], spacing[1] / spacing[0])


def _shown(image: torch.Tensor, host: Host, place: int, sample: Sample) -> tuple[np.ndarray, Sequence[str]]:
    """Return what is drawn of a sample: its channels; of diffusion three maps of its signals."""
    from mednovelty.nn.planted_diffusion import B0_S_PER_MM2

    if host.gradients is None:
        return image.numpy(), sample.channels
    weighted = host.gradients.bvalues_s_per_mm2 > B0_S_PER_MM2
    b0, signals = image[~weighted].mean(0), image[weighted]
    mean = signals.mean(0)
    maps = [b0, mean, signals.std(0) / mean.clamp_min(1e-6)]
    inside = host.mask[place]
    shown = [(found * inside).numpy() for found in maps]
    return np.stack(shown), ("mean b=0", "mean weighted", "spread / mean")
