"""Kinds of phantom cohorts: MRI, high-resolution and dynamic contrast-enhanced series, CT."""

from __future__ import annotations

from dataclasses import dataclass

from npcrepro.cohorts.phantom.ct import ComputedTomography
from npcrepro.cohorts.phantom.shapes import Triple
from npcrepro.cohorts.phantom.signal import Series, SpinEcho, SpoiledGradientEcho

MARKER = "LocRef"  # a ball on the skin, the small reference structure of a simulation CT


@dataclass(frozen=True)
class Kind:
    """A kind of phantom cohort: its series, its default grid (z, y, x; mm), and the structures of its labels."""

    series: tuple[Series | ComputedTomography, ...]
    matrix: tuple[int, int, int]
    spacing_mm: Triple
    structures: tuple[str, ...] = ("GTVp",)
    centre_mm: Triple = (0.0, 0.0, 0.0)

    @property
    def channels(self) -> dict[str, tuple[int, int]]:
        """Name of each channel: which series, and which frame of it."""
        names = {}
        for number, series in enumerate(self.series):
            frames = getattr(series, "frames", 1)
            for frame in range(frames):
                names[series.name if frames == 1 else f"frame_{frame + 1:02d}"] = (number, frame)
        return names


KINDS = {
    "mri": Kind(
        series=(
            SpinEcho("T1", repetition_ms=600, echo_ms=10),
            SpinEcho("T2", repetition_ms=4000, echo_ms=90, arterial_flow=0.1, venous_flow=0.4),
            SpinEcho("CET1", repetition_ms=600, echo_ms=10, contrast_after_s=150),
        ),
        matrix=(24, 160, 160),
        spacing_mm=(3.0, 1.375, 1.375),
    ),
    "thrive": Kind(
        series=(
            SpoiledGradientEcho(
                "THRIVE", repetition_ms=5, echo_ms=2.3, flip_deg=12, contrast_after_s=240, fat_suppressed=True
            ),
        ),
        matrix=(24, 256, 256),
        spacing_mm=(3.0, 0.6, 0.6),
    ),
    "dce": Kind(
        series=(
            SpoiledGradientEcho(
                "DCE", repetition_ms=4, echo_ms=1.5, flip_deg=15, frames=65, interval_s=5, arrival=8
            ),
        ),
        matrix=(20, 144, 144),
        spacing_mm=(3.0, 1.53, 1.53),
    ),
    "ct": Kind(
        series=(ComputedTomography(),),
        matrix=(72, 256, 256),
        spacing_mm=(3.0, 1.0, 1.0),
        structures=(
            *("GTVp", "GTVnd", "CTV2", "CTVnd", "Mandible_L", "Mandible_R", "Parotid_L", "Parotid_R"),
            *("BrainStem", "SpinalCord", "Eye_L", "Eye_R", "OpticNerve_L", "OpticNerve_R", "OpticChiasm", MARKER),
        ),
        centre_mm=(-10.0, 0.0, 0.0),
    ),
}  # fmt: skip
