"""The kinds of phantom cohorts, and the MRI of one patient: how a slab of sampled tissue becomes voxels."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import ndimage

from npcrepro.cohorts.phantom.acquisition import Draw, Fields, Grid, Sampled, rician, texture
from npcrepro.cohorts.phantom.shapes import RandomField, Triple
from npcrepro.cohorts.phantom.signal import PatientTissues, Series, series_signal
from npcrepro.cohorts.phantom.tissues import Tissue

MARKER = "LocRef"  # a ball on the skin, the small reference structure of a simulation CT
# Grey matter has this intensity (before contrast agent) where the gain of the scanner is 1.
GREY_MATTER_LEVEL = 300.0
GAIN_VARIATION = 0.30  # log-normal sd of the gain, drawn for each patient and series
BIAS_FIELD = 0.16  # log-normal sd of the sensitivity over the head
BIAS_FIELD_MM = 80.0
NOISE_RANGE = (9.0, 18.0)  # sd of the complex noise over patients, in units of the level above
POINT_SPREAD = 0.45  # sd of the point spread function in the plane, in voxels

# Every tenth patient moves during the dynamic series, from this range of frames on and by about this much (z, y, x).
MOTION_EVERY, MOTION_PATIENT = 10, 1
MOTION_FRAMES = (15, 45)
MOTION_MM = (1.5, 3.0, 1.5)


@dataclass(frozen=True)
class Kind:
    """A kind of phantom cohort: its MRI series (none: CT), default grid (z, y, x; mm), and structures of its labels."""

    series: tuple[Series, ...]
    matrix: tuple[int, int, int]
    spacing_mm: Triple
    structures: tuple[str, ...] = ("GTVp",)
    centre_mm: Triple = (0.0, 0.0, 0.0)

    @property
    def channels(self) -> dict[str, tuple[int, int]]:
        """Name of each channel: which series, and which frame of it."""
        names = {} if self.series else {"CT": (0, 0)}
        for number, series in enumerate(self.series):
            for frame in range(series.frames):
                names[series.name if series.frames == 1 else f"frame_{frame + 1:02d}"] = (number, frame)
        return names


_GRADIENT = {"arterial_flow": 1.0, "venous_flow": 1.0, "void_mm": 4.0}
KINDS = {
    "mri": Kind(
        series=(
            Series("T1", 600, 10),
            Series("T2", 4000, 90, arterial_flow=0.1, venous_flow=0.4),
            Series("CET1", 600, 10, contrast_after_s=150),
        ),
        matrix=(24, 160, 160),
        spacing_mm=(3.0, 1.375, 1.375),
    ),
    "thrive": Kind(
        series=(Series("THRIVE", 5, 2.3, 12, contrast_after_s=240, fat_suppressed=True, **_GRADIENT),),
        matrix=(24, 256, 256),
        spacing_mm=(3.0, 0.6, 0.6),
    ),
    "dce": Kind(
        series=(Series("DCE", 4, 1.5, 15, frames=65, interval_s=5, arrival=8, **_GRADIENT),),
        matrix=(20, 144, 144),
        spacing_mm=(3.0, 1.53, 1.53),
    ),
    "ct": Kind(
        series=(),
        matrix=(72, 256, 256),
        spacing_mm=(3.0, 1.0, 1.0),
        structures=(
            *("GTVp", "GTVnd", "CTV2", "CTVnd", "Mandible_L", "Mandible_R", "Parotid_L", "Parotid_R"),
            *("BrainStem", "SpinalCord", "Eye_L", "Eye_R", "OpticNerve_L", "OpticNerve_R", "OpticChiasm", MARKER),
        ),
        centre_mm=(-10.0, 0.0, 0.0),
    ),
}


class MriScan:
    """The wanted channels of one patient's MRI. `motion`: frame from which on the head is elsewhere, and where."""

    marker_mm = None

    def __init__(
        self,
        kind: Kind,
        names: Sequence[str],
        grid: Grid,
        draw: Draw,
        tissues: PatientTissues,
        motion: tuple[int, Triple] | None,
    ) -> None:
        self.grid, self.motion = grid, motion
        self.places = [kind.channels[name] for name in names]
        self.series = kind.series
        self.noises = [draw(f"{name} noise") for name in names]
        tables, self.bias, self.sigma = {}, {}, {}
        for number in sorted({number for number, _ in self.places}):
            rng = draw(kind.series[number].name)
            table = series_signal(kind.series[number], tissues)
            level = GREY_MATTER_LEVEL / table[0, Tissue.GREY_MATTER, 0]
            gain = np.exp(GAIN_VARIATION * np.clip(rng.standard_normal(), -2, 2))
            tables[number] = (gain * level * table).astype(np.float32)
            self.sigma[number] = gain * rng.uniform(*NOISE_RANGE)
            self.bias[number] = RandomField(rng, BIAS_FIELD_MM, knots=8)
        # (tissue, channel, 3), to take all channels of a slice in one product.
        self.table = np.stack([tables[number][frame] for number, frame in self.places], 1)

    def slab(
        self, out: np.ndarray, sampled: Sampled, moved: Sampled | None, axes: Sequence[np.ndarray], fields: Fields
    ) -> None:
        """Fill `out` (C, z, y, x)."""
        water, uptake = texture(fields.water, axes), texture(fields.uptake, axes)
        bias = {n: np.exp(np.float32(BIAS_FIELD) * field(*axes)) for n, field in self.bias.items()}
        before = [moved is None or frame < self.motion[0] for _, frame in self.places]
        for z in range(len(axes[0])):
            still = self._signal(sampled.fractions[z], water[z], uptake[z])
            after = None if moved is None else self._signal(moved.fractions[z], water[z], uptake[z])
            for channel, (number, _) in enumerate(self.places):
                source, signal = (sampled, still) if before[channel] else (moved, after)
                plane = ndimage.gaussian_filter(signal[channel], POINT_SPREAD, truncate=3)
                metal = source.fractions[z][..., Tissue.METAL]
                if metal.any():  # the field about a filling takes signal away
                    spread = [self.series[number].void_mm / s for s in self.grid.spacing_mm[1:]]
                    plane *= np.clip(1 - 6 * ndimage.gaussian_filter(metal, spread), 0, 1)
                plane *= bias[number][z]
                out[channel, z] = np.rint(rician(plane, self.sigma[number], self.noises[channel]))

    def _signal(self, fractions: np.ndarray, water: np.ndarray, uptake: np.ndarray) -> np.ndarray:
        """Signal (C, y, x) of a slice from tissue fractions and textures."""
        kinds, channels, _ = self.table.shape
        parts = fractions.reshape(-1, kinds) @ self.table.transpose(0, 2, 1).reshape(kinds, 3 * channels)
        parts = parts.reshape(*water.shape, 3, channels)
        signal = parts[:, :, 0] + water[..., None] * parts[:, :, 1] + uptake[..., None] * parts[:, :, 2]
        return np.ascontiguousarray(np.moveaxis(signal, -1, 0))


def draw_motion(kind: str, patient: int, rng: np.random.Generator) -> tuple[int, Triple] | None:
    if kind != "dce" or patient % MOTION_EVERY != MOTION_PATIENT:
        return None
    shift = rng.choice([-1, 1], 3) * rng.uniform(0.6, 1.4, 3) * MOTION_MM
    return int(rng.integers(*MOTION_FRAMES)), tuple(shift.tolist())
