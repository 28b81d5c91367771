"""One sample a window: overlapping boxes over the brain, and maps blended from what each window says.

Windows lie on a regular grid over the box that encloses the mask. ``stitch`` leaves the driving to MONAI's
sliding-window inference; ``cut`` and ``assemble`` use the same windows with the same weights.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from torch import Tensor

from mednovelty.errors import GeometryError, SettingsError
from mednovelty.memory_ladder import Ladder, report
from mednovelty.scan import Scan, Volume
from mednovelty.views.axes import STORED, Turn, to_ras

Predict = Callable[[Tensor], Mapping[str, Tensor]]
"""``(b, C, *size)`` windows to scores by name, ``(b,)`` or ``(b, *size)``."""


@dataclass(frozen=True, slots=True)
class PatchSettings:
    """How a scan is cut into windows.

    Attributes:
        size: Voxels of a window.
        overlap: Share of its size by which a window overlaps the next.
        mode: How windows are blended: ``gaussian``: the middle of a window counts more than its rim;
            ``constant``: all of it counts alike.
        sigma_scale: Width of that Gaussian, as a share of the window's size.
        windows_a_batch: How many windows go through the network together.
        min_brain: Windows of which the mask fills less than this share are not cut; ``stitch`` goes through
            every window with a voxel of the mask.
        axes: ``RAS``: windows are turned so that, as nearly as the voxels allow, their axes run to the right,
            the front and up, and ``size`` is along these; ``stored``: as the scan is stored.
        background: What voxels outside the mask show.
    """

    size: tuple[int, int, int] = (32, 32, 32)
    overlap: float = 0.5
    mode: Literal["gaussian", "constant"] = "gaussian"
    sigma_scale: float = 0.125
    windows_a_batch: int = 4
    min_brain: float = 0.1
    axes: Literal["RAS", "stored"] = "RAS"
    background: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "size", tuple(int(n) for n in self.size))
        if len(self.size) != 3 or min(self.size) < 1:
            raise SettingsError(f"patch: size must be three numbers of voxels, got {self.size}")
        if not 0 <= self.overlap < 1:
            raise SettingsError(f"patch: overlap must be at least 0 and below 1, got {self.overlap}")
        if self.mode not in ("gaussian", "constant"):
            raise SettingsError(f"patch: mode must be 'gaussian' or 'constant', got {self.mode!r}")
        if self.axes not in ("RAS", "stored"):
            raise SettingsError(f"patch: axes must be 'RAS' or 'stored', got {self.axes!r}")
        if not self.sigma_scale > 0 or self.windows_a_batch < 1 or not 0 <= self.min_brain <= 1:
            raise SettingsError(
                "patch: sigma_scale must be above 0, windows_a_batch at least 1 and min_brain in 0 to 1, got "
                f"{self.sigma_scale}, {self.windows_a_batch} and {self.min_brain}"
            )


@dataclass(frozen=True, slots=True, eq=False)
class _Layout:
    """Where the windows of a scan are.

    Attributes:
        turn: From the stored axes to the windows'.
        low: ``(3,)`` first voxel of the box that windows cover, along the turned axes; it can lie outside
            the scan, when that is smaller than a window.
        shape: Of that box; no side is smaller than a window's.
        starts: ``(w, 3)`` first voxels of windows, from the box's corner; in MONAI's order.
        voxels: ``(w,)`` how many voxels of the mask each has.
    """

    turn: Turn
    low: np.ndarray
    shape: tuple[int, ...]
    starts: np.ndarray
    voxels: np.ndarray


class PatchView:
    """Cuts a scan into overlapping windows, and blends their scores into maps.

    Args:
        settings: See ``PatchSettings``.
    """

    Settings: ClassVar[type] = PatchSettings

    def __init__(self, settings: PatchSettings | None = None) -> None:
        self.settings = settings or PatchSettings()

    def shape(self, channels: int) -> tuple[int, ...]:
        """Return ``(C, *size)``."""
        return channels, *self.settings.size

    def count(self, scan: Scan) -> int:
        """Return how many windows have enough brain."""
        return len(self._cut_starts(self._layout(scan)))

    def spacing_mm(self, scan: Scan) -> tuple[float, ...]:
        """Return the distance of two voxels along each axis of a window."""
        return tuple(float(scan.grid.spacing_mm[axis]) for axis in self._turn(scan).order)

    def stitch_count(self, scan: Scan) -> int:
        """Return how many windows ``stitch`` goes through: those with a voxel of the mask."""
        return int(np.count_nonzero(self._layout(scan).voxels))

    def centres(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return ``(stop - start, 3)``: the middles of windows, in voxels along I, J and K."""
        layout = self._layout(scan)
        at = self._cut_starts(layout)[start:stop] + layout.low + (np.array(self.settings.size) - 1) / 2
        return layout.turn.points(at, scan.grid.shape)

    def cut(self, scan: Scan, start: int, stop: int) -> np.ndarray:
        """Return windows ``start`` to ``stop``, ``(stop - start, C, *size)`` float32."""
        layout, size = self._layout(scan), np.array(self.settings.size)
        starts = self._cut_starts(layout)[start:stop]
        windows = np.empty((len(starts), *self.shape(scan.n_channels)), np.float32)
        if len(starts):
            corner = starts.min(0)
            box = self._box(scan, layout, corner, starts.max(0) + size)
            for window, place in zip(windows, starts - corner, strict=True):
                window[:] = box[(slice(None), *_slices(place, size))]
        return windows

    def assemble(self, scan: Scan, scores: np.ndarray, name: str) -> Volume:
        """Return the map ``(1, I, J, K)``, 0 outside the mask and where there is no window.

        Args:
            scan: The scan that was cut.
            scores: ``(n,)``, one a window, or ``(n, *size)``, one a voxel, of all n windows.
            name: What messages call the map.
        """
        layout, size = self._layout(scan), self.settings.size
        starts = self._cut_starts(layout)
        if scores.shape not in ((len(starts),), (len(starts), *size)):
            raise GeometryError(
                f"{name}: scores of {scan.id} must be ({len(starts)},) or {(len(starts), *size)}, "
                f"got {scores.shape}",
                code="geometry.shape",
            )
        weight = self._weight().numpy()
        total, weights = np.zeros(layout.shape, np.float32), np.zeros(layout.shape, np.float32)
        for place, score in zip(starts, scores, strict=True):
            where = _slices(place, size)
            total[where] += weight * score
            weights[where] += weight
        np.divide(total, weights, out=total, where=weights > 0)
        return _on_scan(scan, layout, total, name)

    def touches(self, scan: Scan, lesion: np.ndarray, start: int, stop: int) -> np.ndarray:
        """Return ``(stop - start,)`` bool: whether windows have a voxel of a lesion ``(I, J, K)``."""
        layout = self._layout(scan)
        starts = self._cut_starts(layout)[start:stop]
        turned = layout.turn(lesion)
        low = np.maximum(starts + layout.low, 0)
        high = starts + layout.low + self.settings.size
        return np.array(
            [turned[_slices(a, b - a)].any() for a, b in zip(low, high, strict=True)], bool
        )  # fmt: skip

    def stitch(
        self,
        scan: Scan,
        predict: Predict,
        advance: Callable[[int], Any] = lambda n: None,
        device: str | torch.device | None = None,
        told: Callable[[str], Any] = lambda words: None,
        on_processor: Callable[[], Predict] | None = None,
    ) -> dict[str, Volume]:
        """Return maps ``(1, I, J, K)`` by name, blended from the scores of windows; 0 outside the mask.

        Maps are put together on ``device``. When that runs out of memory, they are put together by the
        processor instead, from the start; when it does so again, fewer windows go through the network at a
        time, down to one, and then the processor scores them too (see ``memory_ladder``).

        Args:
            scan: A scan, preprocessed.
            predict: Scores of windows on ``device``, reduced to one number a window or a voxel. Gradients
                are on as they were when this was called.
            advance: Told after each batch how many windows are done; ``stitch_count`` in all.
            device: Where windows are scored; None: on the processor.
            told: Told in words each of these steps.
            on_processor: Makes what ``predict`` is, on the processor; None: that step is not made.

        Raises:
            torch.OutOfMemoryError: A single window is too large, and there is no step left.
        """
        device = torch.device(device or "cpu")
        layout = self._layout(scan)
        box = torch.from_numpy(self._box(scan, layout, np.zeros(3, int), np.array(layout.shape)))
        run = _Run(layout, predict, advance)
        found = None if device.type == "cpu" else self._try(box, run, device, device)
        if found is None:
            if device.type != "cpu":
                words = f"{scan.id}: {device} is out of memory; maps are put together by the processor"
                report(words, told)
                torch.cuda.empty_cache()
            ladder = Ladder(predict, on_processor=on_processor, name=scan.id, told=told)
            found = self._slide(box, run.again(ladder), device, torch.device("cpu"))
        return {
            name: _on_scan(scan, layout, stitched[0, 0].cpu().numpy(), name)
            for name, stitched in found.items()
        }

    def _try(
        self, box: Tensor, run: _Run, device: torch.device, stitch_on: torch.device
    ) -> dict[str, Tensor] | None:
        """Return what ``_slide`` does; None where memory runs out."""
        # The error is gone with this frame: it holds on to everything that its own frames hold.
        try:
            return self._slide(box, run, device, stitch_on)
        except torch.OutOfMemoryError:
            return None

    def _slide(
        self, box: Tensor, run: _Run, device: torch.device, stitch_on: torch.device
    ) -> dict[str, Tensor]:
        """Return ``(1, 1, *box)`` maps by name."""
        from monai.inferers.utils import sliding_window_inference

        settings = self.settings
        return sliding_window_inference(  # type: ignore[return-value]
            box[None].to(stitch_on),
            settings.size,
            settings.windows_a_batch,
            run,
            overlap=settings.overlap,
            mode=settings.mode,
            roi_weight_map=self._weight(),
            sw_device=device,
            device=stitch_on,
            with_coord=True,
        )

    def _weight(self) -> Tensor:
        """Return ``size`` weights of a window's voxels."""
        from monai.data.utils import compute_importance_map

        settings = self.settings
        return compute_importance_map(settings.size, settings.mode, settings.sigma_scale)

    def _turn(self, scan: Scan) -> Turn:
        return to_ras(scan.grid.affine) if self.settings.axes == "RAS" else STORED

    def _layout(self, scan: Scan) -> _Layout:
        settings, turn = self.settings, self._turn(scan)
        mask = turn(scan.mask)
        low, high = _bounds(mask)
        missing = np.maximum(np.array(settings.size) - (high - low), 0)
        shape = high - low + missing
        starts = [_starts(int(n), s, settings.overlap) for n, s in zip(shape, settings.size, strict=True)]
        inside = mask[_slices(low, high - low)].astype(np.float32)
        for axis, begin in enumerate(starts):
            voxel = np.arange(inside.shape[axis]) + missing[axis] // 2
            covers = (voxel >= begin[:, None]) & (voxel < begin[:, None] + settings.size[axis])
            inside = np.moveaxis(np.tensordot(covers.astype(np.float32), inside, (1, axis)), 0, axis)
        return _Layout(
            turn=turn,
            low=low - missing // 2,
            shape=tuple(int(n) for n in shape),
            starts=np.array(list(itertools.product(*starts))),
            # Whole numbers, exact in float32: a window has no 2^24 voxels.
            voxels=inside.ravel().round().astype(int),
        )

    def _cut_starts(self, layout: _Layout) -> np.ndarray:
        enough = layout.voxels >= max(1, self.settings.min_brain * np.prod(self.settings.size))
        return layout.starts[enough]

    def _box(self, scan: Scan, layout: _Layout, start: np.ndarray, stop: np.ndarray) -> np.ndarray:
        """Return ``(C, *)`` float32 signal between two corners, counted from the layout's box."""
        shape = layout.turn.shape(scan.grid.shape)
        low, high = start + layout.low, stop + layout.low
        within = list(zip(np.maximum(low, 0).tolist(), np.minimum(high, shape).tolist(), strict=True))
        known = layout.turn(
            scan.box(layout.turn.box(within, scan.grid.shape), self.settings.background)
        )  # fmt: skip
        padding = [(a - o, h - b) for (a, b), o, h in zip(within, low, high, strict=True)]
        if not np.any(padding):
            return np.ascontiguousarray(known)
        return np.pad(known, [(0, 0), *padding], constant_values=self.settings.background)


class _Run:
    """What MONAI calls with windows: leaves out those without a voxel of the mask, reports progress."""

    def __init__(self, layout: _Layout, predict: Predict, advance: Callable[[int], Any]) -> None:
        brain = (tuple(int(n) for n in start) for start in layout.starts[layout.voxels > 0])
        self._brain = frozenset(brain)
        self._predict, self._advance = predict, advance
        self._names: tuple[str, ...] = ()
        self._done = self._told = 0

    def again(self, predict: Predict) -> _Run:
        """Return the run for a second time through; what was reported is not reported again."""
        self._done, self._predict = 0, predict
        return self

    def __call__(self, windows: Tensor, places: list[list[slice]]) -> dict[str, Tensor]:
        """Return ``(b, 1, *size)`` scores by name."""
        has_brain = [tuple(s.start for s in place[2:]) in self._brain for place in places]
        self._done += sum(has_brain)
        if not any(has_brain) and self._names:
            return {name: _spread(windows[:0, 0], [], windows) for name in self._names}
        # Until the scores' names are known, a window without brain is scored all the same.
        kept = [n for n, brain in enumerate(has_brain) if brain] or [0]
        # A copy: of a batch of one, MONAI gives a view of the scan itself.
        scores = self._predict(windows[kept])
        self._names = tuple(scores)
        if self._done > self._told:
            self._advance(self._done - self._told)
            self._told = self._done
        return {name: _spread(score, kept, windows) for name, score in scores.items()}


def _spread(score: Tensor, kept: list[int], windows: Tensor) -> Tensor:
    """Return ``(b, 1, *size)`` float32: scores of the windows ``kept``, 0 in the others.

    Always new memory: MONAI multiplies by the weights in place, also what a predictor got from it.
    """
    size = windows.shape[2:]
    if score.shape not in (torch.Size([len(kept)]), torch.Size([len(kept), *size])):
        raise GeometryError(
            f"scores of {len(kept)} windows must be ({len(kept)},) or {(len(kept), *size)}, "
            f"got {tuple(score.shape)}",
            code="geometry.shape",
        )
    out = windows.new_zeros((len(windows), 1, *size))
    out[kept, 0] = score.detach().to(out).reshape(len(kept), *(score.shape[1:] or (1, 1, 1)))
    return out


def _starts(n: int, size: int, overlap: float) -> np.ndarray:
    """Return where windows begin along an axis, as MONAI has it; the last ends with the axis."""
    step = size if n == size else max(1, int(size * (1 - overlap)))
    return np.minimum(np.arange(0, max(n - size + step, 1), step), n - size)


def _bounds(mask: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the corners of the box that encloses a mask: first voxel, and one beyond the last."""
    profiles = [np.flatnonzero(mask.any(axis)) for axis in ((1, 2), (0, 2), (0, 1))]
    if not len(profiles[0]):
        return np.zeros(3, int), np.zeros(3, int)
    return np.array([p[0] for p in profiles]), np.array([p[-1] + 1 for p in profiles])


def _slices(start: np.ndarray, size: np.ndarray | tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(int(a), int(a) + int(n)) for a, n in zip(start, size, strict=True))


def _on_scan(scan: Scan, layout: _Layout, blended: np.ndarray, name: str) -> Volume:
    """Return what was blended in the layout's box on the scan's own voxels, 0 outside the mask."""
    data = np.zeros(scan.mask.shape, np.float32, order="F")
    turned = layout.turn(data)
    low = np.maximum(layout.low, 0)
    high = np.minimum(layout.low + layout.shape, turned.shape)
    turned[_slices(low, high - low)] = blended[_slices(low - layout.low, high - low)]
    data[~scan.mask] = 0
    return Volume(data[None], scan.grid.affine, name)
