"""Does a detector's record agree with itself, and with the tensors beside it?

The hashes in the record find damaged tensors, but nothing finds a record that was damaged or edited by
hand. So whatever is said twice must be said alike, whatever is read must be what was written, and whatever
has bounds must keep them. Every function here raises ``DetectorError``; who calls puts the file's name
before its words.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from mednovelty.calibration import with_terms
from mednovelty.errors import DetectorError
from mednovelty.fitting import FitSettings, check_plugins, fallback_neighbours, make_view
from mednovelty.neighbours.latent_settings import MOST_NEIGHBOURS
from mednovelty.plugins import plugin
from mednovelty.preprocess.intensity import ChannelMean
from mednovelty.preprocess.qspace import B0_THRESHOLD_S_PER_MM2, GradientScheme
from mednovelty.protocols import Preprocessor
from mednovelty.recipes import RECIPES
from mednovelty.reference import latent_size, part_widths
from mednovelty.scoring import reference_parts
from mednovelty.settings import tree_of
from mednovelty.store import PLACES, REFERENCE, WEIGHTS, DetectorRecord, SearchRecord, json_types
from mednovelty.tuning import takes_neighbours

LARGEST_B_S_PER_MM2 = 1e6
CHANNEL_MEANS = (1e-9, 1e9)
"""What a channel's mean can be, in scans whose own mean is 1."""
MEAN_TOLERANCE, ANNOTATED_TOLERANCE = 1e-6, 0.5
UNIT_NORM_TOLERANCE = 0.02

Steps = Sequence[tuple[str, Preprocessor]]


def check_record(record: DetectorRecord, settings: FitSettings) -> None:
    """Check what a record says against the settings read from it, and that its plug-ins are installed.

    Raises:
        DetectorError: It contradicts itself.
        UnknownPluginError: A plug-in that it names is not installed.
    """
    _say(first_difference(record.settings, json_types(tree_of(settings)), "settings"))
    for name, told, meant in (
        ("method", record.method, settings.method),
        ("view", record.view, settings.view),
        ("reference.neighbours", record.reference.neighbours, fallback_neighbours(settings.neighbours)),
    ):
        if told != meant:
            raise DetectorError(f"{name} is {told!r}, but the settings say {meant!r}")
    known = (*RECIPES, "voxels")
    if record.recipe not in known:
        raise DetectorError(f"no recipe is called {record.recipe!r}; known: {', '.join(known)}")
    recipe = RECIPES.get(record.recipe)
    structural = recipe is not None and not recipe.diffusion
    if bool(record.contrasts) != structural or len(set(record.contrasts)) != len(record.contrasts):
        raise DetectorError(f"contrasts: {record.contrasts} do not fit the recipe {record.recipe!r}")
    # Of diffusion scans the gradients, which are checked with the steps, say how many channels there are.
    channels = len(record.contrasts) if structural else record.shape[0]
    if recipe is not None and tuple(record.shape) != tuple(make_view(settings).shape(channels)):
        raise DetectorError(f"shape: {record.shape} is not that of the view {record.view!r}")
    if (recipe is None or recipe.diffusion) and (len(record.shape) > 1) != (
        recipe is not None and recipe.images
    ):
        of = "windows" if recipe is not None and recipe.images else "voxels"
        raise DetectorError(f"shape: {record.shape}, where the recipe {record.recipe!r} has {of}")
    check_plugins(settings)
    plugin("neighbours", record.reference.neighbours)
    for search in record.reference.searches:
        _check_search(search, settings)
    _check_constants(record, settings)
    _check_history(record)


def _check_search(search: SearchRecord, settings: FitSettings) -> None:
    """Check what is told of one search among the normals."""
    place = f"reference.searches: {search.kind} {search.place}"
    if search.asked != settings.neighbours:
        raise DetectorError(
            f"{place}: {search.asked!r} was asked for, but the settings say {settings.neighbours!r}"
        )
    if bool(search.settings) != (search.quality is not None):
        raise DetectorError(
            f"{place}: an approximate search has settings and a quality, an exact one neither"
        )
    if search.quality is None:
        return
    if search.quality.recall < search.target:
        raise DetectorError(f"{place}: its recall, {search.quality.recall}, is below its target")
    for error in (search.quality.mean_error_nats, search.quality.max_error_nats):
        if (error is None) != (search.kind != "density"):
            raise DetectorError(f"{place}: errors in nats are told of densities, and of nothing else")


def _check_constants(record: DetectorRecord, settings: FitSettings) -> None:
    """Check that constants are those of scores with terms, all of a score's, and of numbers of neighbours.

    A score may have none at all: then it cannot be computed, and all others can.
    """
    wanted = {name: set(plugin("scorers", name).terms) for name in with_terms(settings.scores)}
    for k, constants in (("", record.constants), *record.constants_by_k.items()):
        place = f"constants_by_k.{k}" if k else "constants"
        for name, terms in constants.items():
            if set(terms) != wanted.get(name):
                raise DetectorError(
                    f"{place}: {name} has those of {', '.join(sorted(terms)) or 'nothing'}, but its "
                    f"terms are {', '.join(sorted(wanted.get(name, ()))) or 'none'}"
                )
    most = min(MOST_NEIGHBOURS, record.reference.n_voxels)
    for k in record.constants_by_k:
        if not (k.isascii() and k.isdigit() and str(int(k)) == k and 1 <= int(k) <= most):
            raise DetectorError(
                f"constants_by_k: {k!r} is no number of neighbours among {record.reference.n_voxels} normals"
            )
        if int(k) == settings.nln.k:
            raise DetectorError(f"constants_by_k: those for nln.k={k} are told in constants already")
    if takes_neighbours(settings.scores) and settings.nln.k > record.reference.n_voxels:
        raise DetectorError(
            f"settings.nln.k is {settings.nln.k}, but the reference holds {record.reference.n_voxels} normals"
        )


def _check_history(record: DetectorRecord) -> None:
    """Check what is told of the training."""
    for number, row in enumerate(record.curve):
        if row.epoch != number or row.validation.get("loss") is None:
            raise DetectorError(f"curve.{number}: not epoch {number} with its validation loss")
    verdict, collapsed = record.summary.get("verdict"), record.summary.get("collapsed")
    if not isinstance(verdict, str) or not isinstance(collapsed, bool):
        raise DetectorError("summary: without verdict (text) and collapsed (true or false)")
    seen = sum(scan.n_voxels for scan in record.scans)
    if not any(scan.role == "training" for scan in record.scans):
        raise DetectorError("scans: none has the role 'training'")
    if not record.reference.n_voxels <= record.reference.drawn_from <= seen:
        raise DetectorError(
            f"reference: {record.reference.n_voxels} voxels drawn from {record.reference.drawn_from}, where "
            f"the scans have {seen}"
        )


def check_steps(record: DetectorRecord, settings: FitSettings, steps: Steps) -> None:
    """Check that the preprocessing is that of the recipe, step by step, and fits the channels.

    Args:
        record: What was read.
        settings: Its settings.
        steps: Made from it, in order.

    Raises:
        DetectorError: It is not.
    """
    diffusion = ["gradient_scheme", *settings.preprocessors, "mean_intensity", "channel_mean"]
    expected = [] if record.recipe == "voxels" else list(settings.preprocessors)
    if record.recipe in RECIPES and RECIPES[record.recipe].diffusion:
        expected = diffusion
    names = [name for name, _ in steps]
    if names != expected:
        raise DetectorError(
            f"preprocessing: the recipe {record.recipe!r} takes the steps "
            f"{', '.join(expected) or 'none'}, not {', '.join(names) or 'none'}"
        )
    for told, (name, step) in zip(record.preprocessing, steps, strict=True):
        _say(first_difference(told.state, json_types(step.state()), f"preprocessing.{name}"))
        for setting, value in _settings_of_step(name, settings).items():
            if told.state.get(setting) != value:
                raise DetectorError(
                    f"preprocessing.{name}.{setting} is {told.state.get(setting)!r}, but the "
                    f"settings say {value!r}"
                )
        if isinstance(step, GradientScheme):
            check_scheme(step, record.shape[0])
        if isinstance(step, ChannelMean):
            annotated = any(scan.annotation for scan in record.scans)
            tolerance = ANNOTATED_TOLERANCE if annotated else MEAN_TOLERANCE
            check_channel_means(step, record.shape[0], settings.normalise_within, tolerance)


def _settings_of_step(name: str, settings: FitSettings) -> dict[str, Any]:
    """Return which fields of a step's state the settings have decided."""
    if name == "gradient_scheme":
        return {
            "bvalue_tolerance": settings.bvalue_tolerance,
            "angle_tolerance_deg": settings.angle_tolerance_deg,
        }
    if name == "mean_intensity":
        return {"within": settings.normalise_within}
    return settings.preprocessor_settings.get(name, {})


def check_scheme(scheme: GradientScheme, channels: int) -> None:
    """Check that a scheme has one b-value and one unit direction a channel.

    Raises:
        DetectorError: It has not.
    """
    bvalues, count = np.array(scheme.bvalues_s_per_mm2), len(scheme.directions)
    if not len(bvalues) == count == channels or {len(d) for d in scheme.directions} != {3}:
        raise DetectorError(
            f"preprocessing.gradient_scheme: {len(bvalues)} b-values and {count} directions of three numbers "
            f"do not make {channels} channels"
        )
    if not ((bvalues >= 0) & (bvalues <= LARGEST_B_S_PER_MM2)).all():
        raise DetectorError(
            f"preprocessing.gradient_scheme: b-values lie between 0 and {LARGEST_B_S_PER_MM2:g} s/mm2, not "
            f"{bvalues.min():g} and {bvalues.max():g}"
        )
    with np.errstate(over="ignore"):
        norms = np.linalg.norm(np.array(scheme.directions), axis=1)
    wrong = np.abs(norms - (bvalues > B0_THRESHOLD_S_PER_MM2)) > UNIT_NORM_TOLERANCE
    if wrong.any():
        channel = int(np.argmax(wrong))
        raise DetectorError(
            f"preprocessing.gradient_scheme: the direction of channel {channel} "
            f"(b={bvalues[channel]:g}) has length {norms[channel]:.3g}"
        )


def check_channel_means(
    step: ChannelMean, channels: int, within: str, tolerance: float = MEAN_TOLERANCE
) -> None:
    """Check that there is one mean a channel, of a size that a mean can have.

    Args:
        step: As read.
        channels: C.
        within: What the mean was taken over that each scan was divided by before, ``mask`` or
            ``whole-scan``. Divided by its mean in the mask, the C means average 1.
        tolerance: How far from 1: lesions are in a scan's mean and not in the normals'.

    Raises:
        DetectorError: There is not.
    """
    if len(step.means) != channels:
        raise DetectorError(f"preprocessing.channel_mean: {len(step.means)} means for {channels} channels")
    low, high = CHANNEL_MEANS
    wrong = [mean for mean in step.means if not low <= mean <= high]
    if wrong:
        raise DetectorError(
            f"preprocessing.channel_mean: a channel's mean lies between {low:g} and {high:g}, not at "
            f"{wrong[0]:g}"
        )
    average = float(np.mean(step.means))
    if within == "mask" and abs(average - 1) > tolerance:
        raise DetectorError(
            f"preprocessing.channel_mean: the means average {average:.8g}, not 1, though each scan was "
            "divided by its own mean before"
        )


def check_weights(sketch: Any, weights: Mapping[str, Tensor]) -> None:
    """Check names, shapes and dtypes of weights against a model that takes no memory.

    Args:
        sketch: The model, built on torch's ``meta`` device.
        weights: From the file.

    Raises:
        DetectorError: They belong to another model.
    """
    wanted = sketch.state_dict()
    for name in sorted({*wanted, *weights}):
        if name not in weights:
            raise DetectorError(f"{WEIGHTS}: has no tensor {name!r}")
        if name not in wanted:
            raise DetectorError(f"{WEIGHTS}: the model of these settings has no tensor {name!r}")
        there, here = weights[name], wanted[name]
        if (there.shape, there.dtype) != (here.shape, here.dtype):
            raise DetectorError(
                f"{WEIGHTS}: tensor {name!r} is {_shown(there)}, but the model of these settings has "
                f"{_shown(here)}"
            )


def check_reference(
    record: DetectorRecord, settings: FitSettings, sketch: Any, parts: Mapping[str, Tensor]
) -> None:
    """Check the reference's parts against the record, the model, and the scores that compare with them.

    Args:
        record: What was read.
        settings: Its settings.
        sketch: The model, built on torch's ``meta`` device.
        parts: From the file.

    Raises:
        DetectorError: They do not fit.
    """
    told = record.reference
    n_bytes = sum(part.numel() * part.element_size() for part in parts.values())
    found = (sorted(parts), n_bytes, {len(part) for part in parts.values()} or {0})
    if found != (told.parts, told.n_bytes, {told.n_voxels}):
        raise DetectorError(
            f"{REFERENCE}: holds {', '.join(found[0]) or 'nothing'}, {n_bytes} bytes, which is not the "
            "reference that the record tells of"
        )
    latent = latent_size(sketch)
    widths = part_widths(record.channels, latent)
    for name, part in parts.items():
        if part.dim() != 2 or not len(part) or part.shape[1] != widths.get(name) or _dtype(part) != "float32":
            raise DetectorError(
                f"{REFERENCE}: part {name!r} is {_shown(part)}, which does not fit the model: "
                f"{record.channels} channels, {latent} latents"
            )
        if name.endswith("_sigma") and not (part > 0).all():
            raise DetectorError(f"{REFERENCE}: part {name!r} has a standard deviation that is not above 0")
    missing = sorted(reference_parts(settings.scores) - set(parts))
    if missing:
        raise DetectorError(f"{REFERENCE}: has no part {missing[0]!r}, which the detector's scores need")


def check_places(record: DetectorRecord, tensors: Mapping[str, Tensor]) -> None:
    """Check where normals are said to come from: one place each, in scans that the record tells of.

    Raises:
        DetectorError: They do not fit.
    """
    n = record.reference.n_voxels
    wanted = {"scan": ((n,), "int32"), "mm": ((n, 3), "float32")}
    found = {name: (tuple(tensor.shape), _dtype(tensor)) for name, tensor in tensors.items()}
    if "scan" not in found or any(wanted.get(name) != value for name, value in found.items()):
        shown = ", ".join(f"{name} {_shown(tensor)}" for name, tensor in tensors.items()) or "nothing"
        raise DetectorError(f"{PLACES}: holds {shown}, which are no places of {n} normals")
    scan = tensors["scan"]
    if not ((scan >= 0) & (scan < len(record.scans))).all():
        raise DetectorError(
            f"{PLACES}: has normals of scans that are none of the record's {len(record.scans)}"
        )


def first_difference(written: Any, read: Any, place: str) -> str:
    """Say where what was read is not what was written; nothing where it is.

    Examples:
        >>> first_difference({"a": [1, 2.5]}, {"a": [1.0, 2.5]}, "settings")
        ''
        >>> first_difference({"a": [1, "2.5"]}, {"a": [1, 2.5]}, "settings")
        "settings.a.1: '2.5' cannot stand there"
        >>> first_difference({}, {"a": 1}, "settings")
        'settings.a: missing'
    """
    if isinstance(written, dict) and isinstance(read, dict):
        for key in [*written, *(key for key in read if key not in written)]:
            if key not in written or key not in read:
                return f"{place}.{key}: {'unknown' if key in written else 'missing'}"
        pairs = [(f"{place}.{key}", value, read[key]) for key, value in written.items()]
    elif isinstance(written, list) and isinstance(read, list) and len(written) == len(read):
        pairs = [(f"{place}.{i}", *pair) for i, pair in enumerate(zip(written, read, strict=True))]
    else:
        same = written == read and isinstance(written, bool) == isinstance(read, bool)
        return "" if same else f"{place}: {_short(written)} cannot stand there"
    return next((found for name, a, b in pairs if (found := first_difference(a, b, name))), "")


def _say(difference: str) -> None:
    if difference:
        raise DetectorError(difference)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _shown(tensor: Tensor) -> str:
    return f"{tuple(tensor.shape)} {_dtype(tensor)}"


def _dtype(tensor: Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")
