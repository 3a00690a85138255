"""From tissue to signal: what each tissue is made of, how patients differ, and the signal equations of MRI."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import numpy as np

from npcrepro.cohorts.phantom.dce import tissue_concentration
from npcrepro.cohorts.phantom.tissues import Tissue

# Knobs of difficulty. Raising a variation moves tissues apart from patient to patient, so that no threshold learnt on
# one patient holds for the next.
RELAXATION_VARIATION = 0.05  # relative sd of T1 and T2 of any tissue between patients
TUMOUR_RELAXATION_VARIATION = 0.12  # the same for the tumour
UPTAKE_VARIATION = 0.15  # relative sd of Ktrans and of the extracellular volume between patients
TUMOUR_UPTAKE_VARIATION = 0.22  # the same for the tumour
DOSE_VARIATION = 0.12  # relative sd of the dose that reaches the head: moves all that enhances together
MARROW_FAT_RANGE = (0.35, 0.65)  # fraction of fat in marrow, which grows with age
TEXTURE = 1.0  # factor on every texture inside a tissue

# Relaxivities of a usual gadolinium agent at 3 T, per mM and second.
R1_RELAXIVITY, R2_RELAXIVITY = 4.5, 5.0

# Fat beside water: T2 is the effective one in a train of echoes, where fat stays bright.
FAT_T1_MS, FAT_T2_MS, FAT_DENSITY = 380.0, 115.0, 0.85
# What fat suppression leaves of the signal of fat.
FAT_LEFT = 0.12


@dataclass(frozen=True)
class TissueSignal:
    """What decides the signal of one tissue at 3 T.

    Attributes:
        density: proton density, 0-1.
        t1_ms, t2_ms: relaxation times of its water.
        fat: fraction of fat, 0-1.
        transfer: Ktrans per minute.
        extracellular, plasma: volume fractions of the extended Tofts model.
        texture: relative sd of water content and relaxation inside the tissue.
        uptake_texture: relative sd of the uptake inside the tissue.
    """

    density: float
    t1_ms: float
    t2_ms: float
    fat: float = 0.0
    transfer: float = 0.0
    extracellular: float = 0.1
    plasma: float = 0.0
    texture: float = 0.0
    uptake_texture: float = 0.0


# Values in the range that the literature reports at 3 T; bone, teeth and metal decay before any echo.
SIGNALS = {
    Tissue.OUTSIDE: TissueSignal(0.0, 1000, 50),
    Tissue.SKIN: TissueSignal(0.70, 1000, 38, 0.15, 0.08, 0.20, 0.008, 0.10, 0.1),
    Tissue.FAT: TissueSignal(0.70, 1000, 45, 0.90, 0.03, 0.10, 0.003, 0.11, 0.3),
    Tissue.MUSCLE: TissueSignal(0.85, 1350, 38, 0.04, 0.035, 0.11, 0.004, 0.15, 0.3),
    Tissue.CORTICAL_BONE: TissueSignal(0.08, 400, 8, 0.0, texture=0.3),
    Tissue.MARROW: TissueSignal(0.60, 1100, 55, 0.50, 0.08, 0.20, 0.008, 0.20, 0.4),
    Tissue.TOOTH: TissueSignal(0.03, 600, 5),
    Tissue.METAL: TissueSignal(0.0, 1000, 50),
    Tissue.AIR: TissueSignal(0.0, 1000, 50),
    Tissue.LUMEN: TissueSignal(0.0, 1000, 50),
    Tissue.MUCOSA: TissueSignal(0.90, 1350, 110, 0.0, 0.40, 0.46, 0.03, 0.14, 0.3),
    Tissue.ADENOID: TissueSignal(0.88, 1280, 100, 0.0, 0.30, 0.40, 0.02, 0.10, 0.25),
    Tissue.PAROTID: TissueSignal(0.82, 1150, 70, 0.35, 0.25, 0.28, 0.015, 0.18, 0.25),
    Tissue.SUBMANDIBULAR: TissueSignal(0.84, 1200, 72, 0.15, 0.28, 0.30, 0.015, 0.09, 0.15),
    Tissue.TONGUE: TissueSignal(0.84, 1300, 44, 0.18, 0.10, 0.16, 0.006, 0.22, 0.3),
    Tissue.ARTERY: TissueSignal(0.90, 1850, 150, 0.0, plasma=0.58),
    Tissue.VEIN: TissueSignal(0.90, 1700, 90, 0.0, plasma=0.58, texture=0.05, uptake_texture=0.1),
    Tissue.NODE: TissueSignal(0.86, 1250, 85, 0.04, 0.20, 0.32, 0.012, 0.06, 0.15),
    Tissue.CSF: TissueSignal(1.00, 4000, 1400, texture=0.04),
    Tissue.GREY_MATTER: TissueSignal(0.82, 1450, 92, 0.0, 0.0, 0.1, 0.010, 0.05, 0.2),
    Tissue.WHITE_MATTER: TissueSignal(0.70, 840, 70, 0.0, 0.0, 0.1, 0.006, 0.03, 0.2),
    Tissue.SPINAL_CORD: TissueSignal(0.74, 950, 76, 0.0, 0.0, 0.1, 0.006, 0.03, 0.2),
    Tissue.OPTIC_NERVE: TissueSignal(0.74, 1050, 78, 0.0, 0.01, 0.1, 0.006, 0.03, 0.2),
    Tissue.VITREOUS: TissueSignal(1.00, 4000, 900, texture=0.03),
    Tissue.LENS: TissueSignal(0.70, 1150, 32),
    Tissue.FLUID: TissueSignal(0.98, 2600, 320, texture=0.05),
    Tissue.CARTILAGE: TissueSignal(0.70, 1150, 42, 0.0, 0.03, 0.10, 0.003, 0.08),
    Tissue.TUMOUR: TissueSignal(0.86, 1300, 78, 0.0, 0.19, 0.37, 0.010, 0.12, 0.28),
    Tissue.NECROSIS: TissueSignal(0.95, 1900, 180, 0.0, 0.02, 0.10, 0.0, 0.10),
    Tissue.METASTATIC_NODE: TissueSignal(0.86, 1300, 82, 0.0, 0.20, 0.37, 0.010, 0.11, 0.25),
}
DISEASE = (Tissue.TUMOUR, Tissue.METASTATIC_NODE)


@dataclass(frozen=True)
class SpinEcho:
    """A spin-echo or turbo spin-echo series.

    Attributes:
        contrast_after_s: time from injection to series; ``None`` is without.
        arterial_flow, venous_flow: what flow leaves of the signal of blood.
        void_mm: over which the signal about metal is lost.
    """

    name: str
    repetition_ms: float
    echo_ms: float
    contrast_after_s: float | None = None
    arterial_flow: float = 0.15
    venous_flow: float = 0.75
    fat_suppressed: bool = False
    void_mm: float = 2.0

    def magnitude(self, density: np.ndarray, r1: np.ndarray, r2: np.ndarray) -> np.ndarray:
        """Signal from proton density and relaxation rates per second."""
        return density * (1 - np.exp(-self.repetition_ms / 1000 * r1)) * np.exp(-self.echo_ms / 1000 * r2)


@dataclass(frozen=True)
class SpoiledGradientEcho:
    """A spoiled gradient-echo series.

    Attributes:
        frames: images, one every ``interval_s``.
        arrival: frame at which the bolus arrives.
        contrast_after_s: time from injection to a series of one frame.
    """

    name: str
    repetition_ms: float
    echo_ms: float
    flip_deg: float
    contrast_after_s: float | None = None
    frames: int = 1
    interval_s: float = 0.0
    arrival: int = 1
    arterial_flow: float = 1.0
    venous_flow: float = 1.0
    fat_suppressed: bool = False
    void_mm: float = 4.0

    def magnitude(self, density: np.ndarray, r1: np.ndarray, r2: np.ndarray) -> np.ndarray:
        """Signal from proton density and relaxation rates per second; T2* is taken as T2 at these short echo times."""
        decay = np.exp(-self.repetition_ms / 1000 * r1)
        flip = np.deg2rad(self.flip_deg)
        excited = density * np.sin(flip) * (1 - decay) / (1 - np.cos(flip) * decay)
        return excited * np.exp(-self.echo_ms / 1000 * r2)

    def times_s(self) -> np.ndarray:
        """Time of each frame after the arrival of the bolus; the first enhanced frame is frame `arrival`."""
        return (np.arange(1, self.frames + 1) - self.arrival + 0.5) * self.interval_s


Series = SpinEcho | SpoiledGradientEcho


@dataclass(frozen=True)
class PatientTissues:
    """The tissues of one patient: arrays over `Tissue` for each field of `TissueSignal`."""

    density: np.ndarray
    t1_ms: np.ndarray
    t2_ms: np.ndarray
    fat: np.ndarray
    transfer: np.ndarray
    extracellular: np.ndarray
    plasma: np.ndarray
    texture: np.ndarray
    uptake_texture: np.ndarray

    def concentration(self, time_s: np.ndarray) -> np.ndarray:
        """Contrast agent (tissue, time) in mM at times after the arrival of the bolus."""
        venous = np.arange(len(self.density)) == Tissue.VEIN
        return tissue_concentration(time_s, self.transfer, self.extracellular, self.plasma, venous)


def draw_tissues(rng: np.random.Generator) -> PatientTissues:
    """Draw the tissues of one patient about the values of `SIGNALS`."""
    columns = {f.name: np.array([getattr(SIGNALS[t], f.name) for t in Tissue], float) for f in fields(PatientTissues)}

    def factor(sd: float, sd_disease: float) -> np.ndarray:
        drawn = np.clip(rng.standard_normal(len(Tissue)), -2, 2)
        # Tumour and nodes of one patient are one disease.
        drawn[Tissue.METASTATIC_NODE] = drawn[Tissue.TUMOUR]
        return np.exp(np.where(np.isin(np.arange(len(Tissue)), DISEASE), sd_disease, sd) * drawn)

    columns["t1_ms"] = columns["t1_ms"] * factor(RELAXATION_VARIATION, 0.7 * TUMOUR_RELAXATION_VARIATION)
    columns["t2_ms"] = columns["t2_ms"] * factor(RELAXATION_VARIATION, TUMOUR_RELAXATION_VARIATION)
    dose = np.exp(DOSE_VARIATION * np.clip(rng.standard_normal(), -2, 2))
    columns["transfer"] = columns["transfer"] * dose * factor(UPTAKE_VARIATION, TUMOUR_UPTAKE_VARIATION)
    columns["extracellular"] = columns["extracellular"] * dose * factor(0.5 * UPTAKE_VARIATION, 0.5 * UPTAKE_VARIATION)
    columns["plasma"] = columns["plasma"] * dose
    columns["fat"][Tissue.MARROW] = rng.uniform(*MARROW_FAT_RANGE)
    return PatientTissues(**columns)


def series_signal(series: Series, tissues: PatientTissues) -> np.ndarray:
    """Signal (frame, tissue, 3) of a series, in units of fully relaxed water.

    The last axis holds the mean, and what one standard deviation of the field of water content and of the field of
    uptake adds to it.
    """
    if series.contrast_after_s is not None:
        agent = tissues.concentration(np.array([series.contrast_after_s]))
    elif isinstance(series, SpoiledGradientEcho) and series.frames > 1:
        agent = tissues.concentration(series.times_s())
    else:
        agent = np.zeros((len(tissues.density), 1))
    mean = _magnitude(series, tissues, agent)
    # More water relaxes more slowly; the differences of the signal equation do the rest.
    wetter = replace(
        tissues,
        density=tissues.density * (1 + 0.3 * tissues.texture),
        t1_ms=tissues.t1_ms * (1 + 0.7 * tissues.texture),
        t2_ms=tissues.t2_ms * (1 + tissues.texture),
        fat=np.clip(tissues.fat * (1 - 0.7 * tissues.texture), 0, 1),
    )
    water = _magnitude(series, wetter, agent) - mean
    uptake = _magnitude(series, tissues, agent * (1 + tissues.uptake_texture[:, None])) - mean
    return np.stack([mean, TEXTURE * water, TEXTURE * uptake], -1).swapaxes(0, 1)


def _magnitude(series: Series, tissues: PatientTissues, agent: np.ndarray) -> np.ndarray:
    """Signal (tissue, frame): water and fat each by the signal equation; the agent is in the water."""
    r1 = 1000 / tissues.t1_ms[:, None] + R1_RELAXIVITY * agent
    r2 = 1000 / tissues.t2_ms[:, None] + R2_RELAXIVITY * agent
    water = series.magnitude(tissues.density[:, None], r1, r2)
    fat = series.magnitude(np.array(FAT_DENSITY), np.array(1000 / FAT_T1_MS), np.array(1000 / FAT_T2_MS))
    if series.fat_suppressed:
        fat = fat * FAT_LEFT
    share = tissues.fat[:, None]
    signal = (1 - share) * water + share * fat
    signal[Tissue.ARTERY] *= series.arterial_flow
    signal[Tissue.VEIN] *= series.venous_flow
    return signal
