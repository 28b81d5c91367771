"""Fits a detector of another library and scores images with it, in that library's own Python.

    python -I library_runner.py versions pyod torch numpy     what is installed there, as JSON
    python -I library_runner.py run FOLDER                    see below

This file is run by path and needs numpy and the library alone, nothing of mednovelty. In the folder it finds
``task.json``, what to do, and ``split.npz``, ``training`` ``(n, D)`` and ``test`` ``(m, D)`` float32; no
label is in there. It leaves ``scores.npz``, ``scores`` ``(m,)``, higher for novel images, and ``told.json``.

Detectors of PyOD have its default settings and see the D pixels of an image as D numbers. PaDiM and PatchCore
of anomalib have ResNet-18 in its first three, or second and third, layers, with random weights: none are
downloaded. They see images of 32 x 32 in three channels and at most 5,000 training images, drawn at random:
patches of more do not fit into memory. PatchCore keeps one patch of a hundred.

Its standard input is a pipe from whoever started it, so that it ends when that process does.
"""

from __future__ import annotations

import json
import os
import random
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 32
MOST_IMAGES = 5000
BATCH = 100
CORESET = 0.01
BACKBONE = "resnet18"


def versions(packages: list[str]) -> dict[str, str]:
    """Return the versions of packages; what is not installed is left out."""
    found = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def run(folder: Path) -> None:
    """Do the task in a folder."""
    task = json.loads((folder / "task.json").read_text(encoding="utf-8"))
    seed = int(task["seed"])
    random.seed(seed)
    # Detectors without a seed of their own draw from what is global.
    np.random.seed(seed)  # noqa: NPY002
    with np.load(folder / "split.npz", allow_pickle=False) as split:
        training, test = split["training"], split["test"]
    detect = {"pyod": with_pyod, "anomalib": with_anomalib}[task["library"]]
    scores, told = detect(task, training, test)
    np.savez(folder / "scores.npz", scores=np.asarray(scores, np.float64))
    (folder / "told.json").write_text(json.dumps(told), encoding="utf-8")


def with_pyod(
    task: dict[str, Any], training: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return scores of a detector of PyOD, which are higher for novel images as they are."""
    detector = pyod_detector(task, *training.shape)
    started = time.perf_counter()
    detector.fit(training)
    fitted = time.perf_counter()
    scores = detector.decision_function(test)
    # DeepSVDD and those without a network know no device.
    place = task["device"] if task["detector"] == "vae" else "cpu"
    return scores, _told(started, fitted, len(training), place)


def pyod_detector(task: dict[str, Any], count: int, width: int) -> Any:
    """Return a detector of PyOD with its default settings."""
    name, seed = task["detector"], int(task["seed"])
    if name == "knn":
        from pyod.models.knn import KNN

        return KNN()
    if name == "ecod":
        from pyod.models.ecod import ECOD

        return ECOD()
    import torch

    torch.set_num_threads(int(task["threads"]))
    if name == "deepsvdd":
        from pyod.models.deep_svdd import DeepSVDD

        return DeepSVDD(n_features=width, random_state=seed, verbose=0)
    from pyod.models.vae import VAE

    # It leaves out a batch that is not full: of fewer images than one, all.
    batch = min(32, count)
    return VAE(random_state=seed, verbose=0, device=torch.device(task["device"]), batch_size=batch)


def with_anomalib(
    task: dict[str, Any], training: np.ndarray, test: np.ndarray
) -> tuple[np.ndarray, dict[str, Any]]:
    """Return scores of PaDiM or PatchCore, which are higher for novel images as they are."""
    import torch

    torch.set_num_threads(int(task["threads"]))
    torch.manual_seed(int(task["seed"]))
    if len(training) > MOST_IMAGES:
        drawn = np.random.default_rng(int(task["seed"])).permutation(len(training))[:MOST_IMAGES]
        training = training[np.sort(drawn)]
    model = anomalib_model(task["detector"]).to(task["device"])
    started = time.perf_counter()
    with torch.no_grad():
        model.train()
        # The network in it is no part of what is trained: its normalisation must not move.
        model.feature_extractor.eval()
        for x in images(training, task):
            model(x)
        if task["detector"] == "padim":
            model.fit()
        else:
            model.subsample_embedding(CORESET)
        model.eval()
        fitted = time.perf_counter()
        scores = [model(x).pred_score.flatten().cpu().numpy() for x in images(test, task)]
    told = _told(started, fitted, len(training), task["device"])
    return np.concatenate(scores), {**told, "backbone": f"{BACKBONE}, random weights", "side": SIDE}


def anomalib_model(name: str) -> Any:
    """Return a model of anomalib on a backbone with random weights."""
    if name == "padim":
        from anomalib.models.image.padim.torch_model import PadimModel

        return PadimModel(BACKBONE, ["layer1", "layer2", "layer3"], pre_trained=False)
    from anomalib.models.image.patchcore.torch_model import PatchcoreModel

    return PatchcoreModel(["layer2", "layer3"], BACKBONE, pre_trained=False)


def images(rows: np.ndarray, task: dict[str, Any]) -> Any:
    """Yield batches ``(b, 3, 32, 32)`` of ``(n, D)`` rows."""
    import torch

    shape = [int(size) for size in task["shape"]]
    for start in range(0, len(rows), BATCH):
        x = torch.from_numpy(rows[start : start + BATCH]).reshape(-1, *shape)[:, -3:]
        x = x.expand(-1, 3, -1, -1) if x.shape[1] == 1 else x
        x = torch.nn.functional.interpolate(x, (SIDE, SIDE), mode="bilinear", align_corners=False)
        yield x.to(task["device"])


def _told(started: float, fitted: float, count: int, device: str) -> dict[str, Any]:
    return {
        "fit_seconds": round(fitted - started, 3),
        "score_seconds": round(time.perf_counter() - fitted, 3),
        "fitted_on": count,
        "where": device,
    }


def _end_with_the_starter() -> None:
    # Not through ``sys.stdin``, whose lock a thread must not hold when Python ends.
    while os.read(0, 1):
        pass
    os._exit(3)


if __name__ == "__main__":
    if sys.argv[1] == "versions":
        sys.stdout.write(json.dumps(versions(sys.argv[2:])) + "\n")
    else:
        threading.Thread(target=_end_with_the_starter, daemon=True).start()
        run(Path(sys.argv[2]))
