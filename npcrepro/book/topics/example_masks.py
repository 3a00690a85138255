"""Two made-up masks to try the metrics on, and what the chapter "What the numbers mean" shows of them."""

from math import acos, pi, sqrt

import numpy as np
import pandas as pd

from npcrepro.book.figures.style import METHODS, REFERENCE
from npcrepro.book.parts import outline, panel, swatch
from npcrepro.metrics.overlap import count
from npcrepro.metrics.surface import CONVENTIONS, surface_distances

SPACING_MM = (3.0, 0.54, 0.54)  # a usual series of head and neck: thick slices, fine pixels
RADII_MM = (22.0, 22.0, 24.0)
LARGER = 1.03  # the prediction, along each axis
LARGEST_SHIFT_MM = 12.0
PREDICTION = METHODS[0]
SURFACES = {"voxel": "border voxels", "surfel": "surface elements"}
NUMBERS = {
    "HD (mm)": lambda distances: distances.hausdorff,
    "HD95, larger of both directions (mm)": lambda distances: distances.hausdorff_95,
    "HD95, directions pooled (mm)": lambda distances: distances.percentile(95, "pooled"),
    "MASD (mm)": lambda distances: distances.masd,
    "ASSD (mm)": lambda distances: distances.assd,
    "NSD at 1 mm": lambda distances: distances.nsd(1),
    "NSD at 2 mm": lambda distances: distances.nsd(2),
}


def shifted_pair(shift_mm: float) -> tuple[np.ndarray, np.ndarray]:
    """Prediction and reference: two ellipsoids, the prediction a little larger, one slice higher and moved along x.

    Args:
        shift_mm: along x, 0 to `LARGEST_SHIFT_MM`.

    Returns:
        Two masks ``(z, y, x)`` with the spacing `SPACING_MM`; the grid is the same for every shift.
    """
    spacing, radii = np.array(SPACING_MM), np.array(RADII_MM)
    first = -radii * LARGER
    last = -first + (SPACING_MM[0], 0, LARGEST_SHIFT_MM)
    # Voxel centres at whole steps from the centre of the reference, a free voxel around.
    places = [np.arange(a // s - 1, b // s + 3) * s for a, b, s in zip(first, last, spacing, strict=True)]

    def ellipsoid(radii_mm: np.ndarray, *centre_mm: float) -> np.ndarray:
        sides = zip(np.ix_(*places), centre_mm, radii_mm, strict=True)
        return sum(((place - centre) / radius) ** 2 for place, centre, radius in sides) <= 1

    return ellipsoid(radii * LARGER, SPACING_MM[0], 0, shift_mm), ellipsoid(radii, 0, 0, 0)


def overlap(prediction: np.ndarray, reference: np.ndarray) -> pd.DataFrame:
    """DSC, JSC, precision and sensitivity as one row."""
    found = count(prediction, reference)
    return pd.DataFrame(
        [{"DSC": found.dsc, "JSC": found.jsc, "precision": found.precision, "sensitivity": found.sensitivity}]
    )


def distances(prediction: np.ndarray, reference: np.ndarray) -> pd.DataFrame:
    """Every distance at `SPACING_MM` under both conventions of a surface: rows `NUMBERS`, columns `SURFACES`."""
    columns = {}
    for convention in CONVENTIONS:
        measured = surface_distances(prediction, reference, SPACING_MM, convention)
        columns[SURFACES[convention]] = {name: number(measured) for name, number in NUMBERS.items()}
    return pd.DataFrame(columns)


def ball_radius_mm(volume_ml):
    """Radius of a ball of so many millilitres, a number or an array of them.

    Example:
        >>> round(float(ball_radius_mm(4.18879)), 3)
        10.0
    """
    return np.cbrt(3 / (4 * pi) * 1000 * np.asarray(volume_ml, dtype=float))


def ball_dsc(volume_ml, shift_mm: float):
    """DSC of a ball, of one volume or an array of them, with itself moved aside; 0 from the diameter on.

    Example:
        >>> float(ball_dsc(4 / 3 * pi, 5.0))  # a ball of radius 10 mm
        0.6328125
    """
    part = np.minimum(shift_mm / (2 * ball_radius_mm(volume_ml)), 1)
    return (1 - part) ** 2 * (2 + part) / 2


def tube_dsc(diameter_mm: float, shift_mm: float) -> float:
    """DSC of a long round tube with itself moved across its axis; 0 from the diameter on.

    Example:
        >>> round(tube_dsc(4.0, 2.0), 3), tube_dsc(4.0, 5.0)
        (0.391, 0.0)
    """
    part = min(shift_mm / diameter_mm, 1)
    return 2 / pi * (acos(part) - part * sqrt(1 - part**2))


def empty_pairs() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """A pair of masks ``(z, y, x)`` for each status: prediction and reference, with something in it or not."""
    some, other, nothing = np.zeros((3, 4, 9, 9), dtype=bool)
    some[1:3, 2:6, 2:6], other[1:3, 3:7, 2:6] = True, True
    pairs = (other, some), (nothing, some), (other, nothing), (nothing, nothing)
    return dict(zip(("ok", "pred_empty", "ref_empty", "both_empty"), pairs, strict=True))


def page(prediction: np.ndarray, reference: np.ndarray, *numbers: pd.DataFrame) -> str:
    """HTML of `picture` with tables of numbers below it."""
    tables = (frame.to_html(index=len(frame) > 1, border=0, float_format="{:.2f}".format) for frame in numbers)
    return picture(prediction, reference) + "".join(tables)


def picture(prediction: np.ndarray, reference: np.ndarray) -> str:
    """Two slices through the middle of the reference with both contours, as SVG.

    Args:
        prediction, reference: masks ``(z, y, x)``, z upwards, at `SPACING_MM`; the reference is not empty.
    """
    z, y, _ = (round(places.mean()) for places in np.nonzero(reference))
    slices = {
        "axial slice": (reference[z], prediction[z], SPACING_MM[1:]),
        "coronal slice": (reference[::-1, y], prediction[::-1, y], SPACING_MM[::2]),
    }
    figures = ""
    for title, (*masks, pixel_mm) in slices.items():
        paths = "".join(
            f'<path d="{outline(mask)}" stroke="{colour}" fill="{colour}" vector-effect="non-scaling-stroke"/>'
            for mask, colour in zip(masks, (REFERENCE, PREDICTION), strict=True)
        )
        drawing = f'<g fill-opacity="0.25" stroke-width="2" transform="scale(.5)">{paths}</g>'
        figures += panel(title, f"Both contours, {title}", masks[0].shape, pixel_mm, drawing)
    legend = f"{swatch(REFERENCE)} reference (orange), {swatch(PREDICTION)} prediction (blue)"
    return f'<div class="npc-panels">{figures}</div><p>{legend}</p>'
