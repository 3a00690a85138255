"""From tissue to signal: how patients differ, the signal equations of MRI, and the uptake of contrast agent."""

from dataclasses import dataclass

import numpy as np

from npcrepro.cohorts.phantom.tissues import Tissue, columns

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
FAT_LEFT = 0.12  # what fat suppression leaves of the signal of fat
DISEASE = (Tissue.TUMOUR, Tissue.METASTATIC_NODE)

HAEMATOCRIT = 0.42
STEP_S = 0.5  # of the convolution; the first pass of the bolus is about 10 s wide
# Veins of the head fill after the arteries, and the bolus has spread by then.
VENOUS_DELAY_S, VENOUS_SPREAD_S = 7.0, 5.0


@dataclass(frozen=True)
class Series:
    """A series of spin echoes, or of spoiled gradient echoes with a ``flip_deg`` below 90.

    Attributes:
        contrast_after_s: time from injection to a series of one frame; ``None`` is without.
        frames: images, one every ``interval_s``; at frame ``arrival`` the bolus arrives.
        arterial_flow, venous_flow: what flow leaves of the signal of blood.
        void_mm: over which the signal about metal is lost.
    """

    name: str
    repetition_ms: float
    echo_ms: float
    flip_deg: float = 90.0
    contrast_after_s: float | None = None
    frames: int = 1
    interval_s: float = 0.0
    arrival: int = 1
    arterial_flow: float = 0.15
    venous_flow: float = 0.75
    fat_suppressed: bool = False
    void_mm: float = 2.0

    def magnitude(self, density: np.ndarray, r1: np.ndarray, r2: np.ndarray) -> np.ndarray:
        """Signal from proton density and relaxation rates per second; T2* is taken as T2 at short echo times."""
        decay = np.exp(-self.repetition_ms / 1000 * r1)
        flip = np.deg2rad(self.flip_deg)
        excited = density * np.sin(flip) * (1 - decay) / (1 - np.cos(flip) * decay)
        return excited * np.exp(-self.echo_ms / 1000 * r2)

    def times_s(self) -> np.ndarray:
        """Time of each frame after the arrival of the bolus; long before it without contrast agent."""
        if self.frames > 1:
            return (np.arange(1, self.frames + 1) - self.arrival + 0.5) * self.interval_s
        return np.array([-np.inf if self.contrast_after_s is None else self.contrast_after_s])


# The tissues of one patient: arrays over `Tissue` by the names of `Properties`.
PatientTissues = dict[str, np.ndarray]


def draw_tissues(rng: np.random.Generator) -> PatientTissues:
    """Draw the tissues of one patient about the values of `PROPERTIES`."""
    drawn = columns()

    def factor(sd: float, sd_disease: float) -> np.ndarray:
        normal = np.clip(rng.standard_normal(len(Tissue)), -2, 2)
        # Tumour and nodes of one patient are one disease.
        normal[Tissue.METASTATIC_NODE] = normal[Tissue.TUMOUR]
        return np.exp(np.where(np.isin(np.arange(len(Tissue)), DISEASE), sd_disease, sd) * normal)

    drawn["t1_ms"] *= factor(RELAXATION_VARIATION, 0.7 * TUMOUR_RELAXATION_VARIATION)
    drawn["t2_ms"] *= factor(RELAXATION_VARIATION, TUMOUR_RELAXATION_VARIATION)
    dose = np.exp(DOSE_VARIATION * np.clip(rng.standard_normal(), -2, 2))
    drawn["transfer"] = drawn["transfer"] * dose * factor(UPTAKE_VARIATION, TUMOUR_UPTAKE_VARIATION)
    drawn["extracellular"] = drawn["extracellular"] * dose * factor(0.5 * UPTAKE_VARIATION, 0.5 * UPTAKE_VARIATION)
    drawn["plasma"] *= dose
    drawn["fat"][Tissue.MARROW] = rng.uniform(*MARROW_FAT_RANGE)
    return drawn


def series_signal(series: Series, tissues: PatientTissues) -> np.ndarray:
    """Signal (frame, tissue, 3) of a series, in units of fully relaxed water.

    The last axis holds the mean, and what one standard deviation of the field of water content and of the field of
    uptake adds to it.
    """
    agent = concentration(series.times_s(), tissues)
    mean = _magnitude(series, tissues, agent)
    # More water relaxes more slowly; the differences of the signal equation do the rest.
    texture = tissues["texture"]
    wetter = {
        "density": tissues["density"] * (1 + 0.3 * texture),
        "t1_ms": tissues["t1_ms"] * (1 + 0.7 * texture),
        "t2_ms": tissues["t2_ms"] * (1 + texture),
        "fat": np.clip(tissues["fat"] * (1 - 0.7 * texture), 0, 1),
    }
    water = _magnitude(series, tissues | wetter, agent) - mean
    uptake = _magnitude(series, tissues, agent * (1 + tissues["uptake_texture"][:, None])) - mean
    return np.stack([mean, TEXTURE * water, TEXTURE * uptake], -1).swapaxes(0, 1)


def _magnitude(series: Series, tissues: PatientTissues, agent: np.ndarray) -> np.ndarray:
    """Signal (tissue, frame): water and fat each by the signal equation; the agent is in the water."""
    r1 = 1000 / tissues["t1_ms"][:, None] + R1_RELAXIVITY * agent
    r2 = 1000 / tissues["t2_ms"][:, None] + R2_RELAXIVITY * agent
    water = series.magnitude(tissues["density"][:, None], r1, r2)
    fat = series.magnitude(np.array(FAT_DENSITY), np.array(1000 / FAT_T1_MS), np.array(1000 / FAT_T2_MS))
    if series.fat_suppressed:
        fat = fat * FAT_LEFT
    share = tissues["fat"][:, None]
    signal = (1 - share) * water + share * fat
    signal[Tissue.ARTERY] *= series.arterial_flow
    signal[Tissue.VEIN] *= series.venous_flow
    return signal


def plasma_concentration(time_s: np.ndarray) -> np.ndarray:
    """Concentration in arterial plasma in mM at `time_s` after the arrival of the bolus; 0 before it.

    The functional form and parameters of Parker et al. (Magn Reson Med 2006;56:993) for 0.1 mmol/kg.
    """
    minutes = np.maximum(np.asarray(time_s, float), 0) / 60
    first_pass = 0.809 / 0.0563 * np.exp(-((minutes - 0.17046) ** 2) / (2 * 0.0563**2))
    second_pass = 0.330 / 0.132 * np.exp(-((minutes - 0.365) ** 2) / (2 * 0.132**2))
    washout = 1.050 * np.exp(-0.1685 * minutes) / (1 + np.exp(-38.078 * (minutes - 0.483)))
    blood = (first_pass + second_pass) / np.sqrt(2 * np.pi) + washout
    return np.where(np.asarray(time_s) > 0, blood / (1 - HAEMATOCRIT), 0.0)


def concentration(time_s: np.ndarray, tissues: PatientTissues) -> np.ndarray:
    """Concentration (tissue, time) in mM by the extended Tofts model, at `time_s` after the arrival of the bolus."""
    fine = np.arange(0, max(float(np.max(time_s)), 0) + 2 * STEP_S, STEP_S)
    arterial = plasma_concentration(fine)
    delayed = plasma_concentration(fine - VENOUS_DELAY_S)
    spread = np.exp(-fine / VENOUS_SPREAD_S)
    vein = np.convolve(delayed, spread / spread.sum())[: len(fine)]
    curves = []
    for tissue, k, volume, plasma in zip(Tissue, tissues["transfer"], tissues["extracellular"], tissues["plasma"]):
        leaked = np.zeros_like(fine)
        if k > 0:
            leaked = k * STEP_S / 60 * np.convolve(arterial, np.exp(-k / volume * fine / 60))[: len(fine)]
        curve = leaked + plasma * (vein if tissue == Tissue.VEIN else arterial)
        curves.append(np.interp(time_s, fine, curve, left=0.0))
    return np.array(curves)
