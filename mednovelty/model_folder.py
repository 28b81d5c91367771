"""A detector as a folder: its record, its tensors, its curve and its card."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mednovelty import record_checks, searches, store
from mednovelty.calibration import Constants, Scale
from mednovelty.curve import TrainingRecord, plot_curve, write_curve_csv
from mednovelty.errors import DetectorError, SettingsError, StoppedError
from mednovelty.fitting import FitSettings, Fitted, make_method
from mednovelty.gathering import SeenScan
from mednovelty.held_out_examples import read_examples, write_examples
from mednovelty.io.atomic import write_text_atomic
from mednovelty.model_card import model_card
from mednovelty.origin import Origin
from mednovelty.plugins import plugin
from mednovelty.recipes import recipe_of
from mednovelty.reference import Reference
from mednovelty.sample_places import NormalPlaces
from mednovelty.settings import checked, overlaid, tree_of

if TYPE_CHECKING:
    from mednovelty.detector import Detector

CURVE_CSV, CURVE_PNG, CARD = "training.csv", "training.png", "README.md"
PACKAGES = ("mednovelty", "torch", "numpy")
LATER_SETTINGS = ("maps", "structural_mask", "nln", "knn", "preset", "annotations")
"""What this format's first detectors had none of; they behave as the defaults say."""
LATER_TRAIN = ("average",)
"""The same of ``train``."""


def save(detector: Detector, folder: Path) -> str:
    """Write a detector into a folder and return its sha256; the record is written after the tensors.

    Raises:
        OutputError: The folder cannot be written.
    """
    sha256 = store.write(folder, record_of(detector), _tensors_of(detector))
    write_curve_csv(detector.fitted.record, folder / CURVE_CSV)
    plot_curve(detector.fitted.record, folder / CURVE_PNG)
    write_text_atomic(folder / CARD, model_card(detector, sha256))
    write_examples(folder, detector.fitted.examples, sha256)
    return sha256


def sha256_of(detector: Detector) -> str:
    """Return the sha256 that saving a detector would give it."""
    return store.sha256_of(record_of(detector), _tensors_of(detector))


def _tensors_of(detector: Detector) -> dict[str, Mapping[str, torch.Tensor]]:
    places = _places_told(detector)
    return {
        store.WEIGHTS: detector.model.state_dict(),
        store.REFERENCE: detector.reference.parts,
        store.SEARCHES: searches.states_of(detector.reference),
        **({store.PLACES: places} if places else {}),
    }


def _places_told(detector: Detector) -> dict[str, torch.Tensor]:
    """Return where normals come from, ``scan`` an index into the record's; nothing where it is unknown."""
    places = detector.fitted.places
    places = None if places is None else places.among([scan.id for scan in detector.scans])
    if places is None:
        return {}
    told = {"scan": torch.from_numpy(places.scan)}
    return told if places.mm is None else told | {"mm": torch.from_numpy(places.mm)}


def record_of(detector: Detector) -> store.DetectorRecord:
    """Return all of a detector but its tensors."""
    settings, reference = detector.settings, detector.reference
    tree = tree_of(settings)
    return store.DetectorRecord(
        recipe=detector.recipe,
        method=settings.method,
        settings=store.json_types(tree),
        shape=list(detector.shape),
        contrasts=list(detector.contrasts),
        preprocessing=[
            store.StepRecord(name=name, state=store.json_types(step.state()))
            for name, step in detector.preprocessing
        ],
        view=settings.view,
        seed=int(detector.seed),
        reference=store.ReferenceRecord(
            n_voxels=len(reference),
            drawn_from=reference.drawn_from,
            n_bytes=reference.n_bytes,
            neighbours=reference.neighbours,
            parts=sorted(reference.parts),
            searches=[
                store.SearchRecord(place=place, **store.json_types(choice.record))
                for (_, place), choice in reference.chosen.items()
            ],
        ),
        scans=_scans_told(detector.scans),
        origin=_origin_told(detector.origin),
        notes=list(detector.notes),
        summary=store.json_types(detector.fitted.summary),
        curve=[
            store.EpochRecord(**row) for row in store.json_types(detector.fitted.record.as_json(times=False))
        ],
        constants=_told(detector.constants),
        constants_by_k={
            str(k): _told(constants)
            for k, constants in detector.fitted.constants_by_k.items()
            if k != settings.nln.k
        },
        versions={package: version(package) for package in PACKAGES},
    )


def load(folder: Path) -> dict[str, Any]:
    """Return the fields of the detector in a folder.

    Raises:
        DetectorError: Nothing there, damaged, or made by plug-ins that are not installed.
    """
    record, files, sha256 = store.read(folder)
    weights, parts = files[store.WEIGHTS], files[store.REFERENCE]
    with _as_damage(folder / store.RECORD):
        record = _with_later_settings(record)
        settings = fit_settings(record.settings, where="settings")
        steps = tuple((s.name, plugin("preprocessors", s.name)(**s.state)) for s in record.preprocessing)
        record_checks.check_record(record, settings)
        record_checks.check_steps(record, settings, steps)
        method = make_method(settings)
        with torch.device("meta"):  # What the file asks for is compared before any memory is taken.
            sketch = method.build(tuple(record.shape))
        record_checks.check_weights(sketch, weights)
        record_checks.check_reference(record, settings, sketch, parts)
        model = method.build(tuple(record.shape))
        model.load_state_dict(weights)
        model.eval().requires_grad_(False)
        reference = Reference(parts, record.reference.neighbours, record.reference.drawn_from)
        told = [search.model_dump() for search in record.reference.searches]
        reference = searches.restored(reference, told, files[store.SEARCHES])
        places = _places(record, files.get(store.PLACES))
        examples = read_examples(folder, sha256, record.channels)
        curve = TrainingRecord.from_json([row.model_dump() for row in record.curve])
    constants = _constants(record, settings.nln.k)
    return {
        "recipe": record.recipe,
        "fitted": Fitted(
            method, model, reference, curve, record.summary, constants, settings.nln, places, examples
        ),
        "settings": settings,
        "seed": record.seed,
        "preprocessing": steps,
        "scans": _scans(record.scans),
        "origin": None
        if record.origin is None
        else Origin(record.origin.sha256, _scans(record.origin.scans)),
        "notes": tuple(record.notes),
        "contrasts": tuple(record.contrasts),
        "sha256": sha256,
    }


def _places(record: store.DetectorRecord, tensors: Mapping[str, torch.Tensor] | None) -> NormalPlaces | None:
    if tensors is None:
        return None
    record_checks.check_places(record, tensors)
    mm = tensors["mm"].numpy() if "mm" in tensors else None
    return NormalPlaces(tuple(scan.id for scan in record.scans), tensors["scan"].numpy(), mm)


def _scans_told(scans: Sequence[SeenScan]) -> list[store.ScanRecord]:
    return [store.ScanRecord(**vars(scan)) for scan in scans]


def _origin_told(origin: Origin | None) -> store.OriginRecord | None:
    if origin is None:
        return None
    return store.OriginRecord(sha256=origin.sha256, scans=_scans_told(origin.scans))


def _scans(told: Sequence[store.ScanRecord]) -> tuple[SeenScan, ...]:
    return tuple(SeenScan(**scan.model_dump()) for scan in told)


def _told(constants: Mapping[str, Constants]) -> dict[str, dict[str, store.ScaleRecord]]:
    return {
        name: {term: store.ScaleRecord(**asdict(scale)) for term, scale in terms.items()}
        for name, terms in constants.items()
    }


def _constants(record: store.DetectorRecord, k: int) -> dict[int, dict[str, dict[str, Scale]]]:
    """Return constants by K; those that a record tells without one are for the K of its settings."""
    told = {k: record.constants} if record.constants else {}
    told |= {int(other): constants for other, constants in record.constants_by_k.items()}
    return {
        k: {
            name: {term: Scale(scale.mean, scale.spread) for term, scale in terms.items()}
            for name, terms in constants.items()
        }
        for k, constants in told.items()
    }


def _with_later_settings(record: store.DetectorRecord) -> store.DetectorRecord:
    """Return a record with the settings that detectors written before these were there do not tell."""
    defaults = tree_of(FitSettings())
    later = {name: store.json_types(defaults[name]) for name in LATER_SETTINGS}
    settings = later | record.settings
    if isinstance(settings.get("train"), dict):
        settings["train"] = {name: defaults["train"][name] for name in LATER_TRAIN} | settings["train"]
    return record.model_copy(update={"settings": settings})


@contextmanager
def _as_damage(path: Path) -> Iterator[None]:
    """Turn whatever goes wrong into a ``DetectorError`` of one line that names the file."""
    try:
        yield
    except (StoppedError, MemoryError):
        raise
    except Exception as error:  # Plug-ins answer a state they do not understand with any error there is.
        raise DetectorError(f"{path}: cannot be put together: {store.one_line(error)}") from error


def fit_settings(*layers: dict[str, Any], where: str, recipe: str = "qspace") -> FitSettings:
    """Return settings from trees laid over the defaults of a recipe.

    Args:
        layers: Trees, each laid over those before it.
        where: What messages call the place they are from.
        recipe: Whose defaults; a method may lay its own over them, ``defaults(images=...)``, and over those
            one of its ``presets``, by name, which a layer's ``preset`` asks for.

    Raises:
        SettingsError: Unknown names (the nearest is suggested), wrong types, or values out of range.
    """
    base = overlaid(tree_of(FitSettings()), recipe_of(recipe).defaults, recipe)
    images = recipe_of(recipe).images
    names = _last(base, layers)
    kinds = {"method": plugin("methods", names["method"]), "view": plugin("views", names["view"])}
    if names["preset"]:
        layers = (_preset(kinds["method"], names, images=images), *layers)
    own = dict(kinds["method"].defaults(images=images)) if hasattr(kinds["method"], "defaults") else {}
    own_method = own.pop("method_settings", {})
    base = overlaid(base, own, names["method"])
    preferred = dict(recipe_of(recipe).preferred.get(names["method"], {}))
    own_method = {**own_method, **preferred.pop("method_settings", {})}
    base = overlaid(base, preferred, recipe)
    for name, kind in kinds.items():
        settings = getattr(kind, "Settings", None)
        base[f"{name}_settings"] = None if settings is None else tree_of(settings())
    if own_method:
        base["method_settings"] = overlaid(base["method_settings"], own_method, names["method"])
    steps = _last(base, layers)["preprocessors"]
    steps = [steps] if isinstance(steps, str) else steps
    base["preprocessor_settings"] = {name: plugin("preprocessors", name)().state() for name in steps}
    for layer in layers:
        base = overlaid(base, layer, where)
    for name, kind in kinds.items():
        if base[f"{name}_settings"] is not None:
            base[f"{name}_settings"] = checked(kind.Settings, base[f"{name}_settings"], where)
    return checked(FitSettings, base, where)


def _last(base: Mapping[str, Any], layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return those names, before anything is checked, on which it depends what settings there are."""
    found = {name: base[name] for name in ("method", "view", "preprocessors", "preset")}
    for layer in layers:
        found |= {name: layer[name] for name in found if name in layer}
    return found


def _preset(method: Any, names: Mapping[str, Any], *, images: bool) -> dict[str, Any]:
    presets = method.presets(images=images) if hasattr(method, "presets") else {}
    if names["preset"] not in presets:
        of = f"the method {names['method']} for {'images' if images else 'voxels'}"
        raise SettingsError(f"preset {names['preset']!r}: {of} has {', '.join(presets) or 'none'}")
    return dict(presets[names["preset"]])
