"""NPC MRI 277: three series on three grids, with one mask each (Li et al., Scientific Data 2025)."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.images import from_itk
from npcrepro.cohorts.public.sets import Conversion
from npcrepro.cohorts.public.volumes import Volume, binary, case_folders, mask_on, registered, stack
from npcrepro.cohorts.resample import resample_mask, rigid_motion
from npcrepro.metrics.overlap import count

# Channel: folder of the series, name of its mask.
SERIES = {"T1": ("T1WI", "ROI-T1"), "T2": ("T2WI", "ROI-T2"), "CET1": ("CE-T1WI", "ROI-CE-T1")}
ALONE = "-alone"  # ends the name of a variant that has the reference series and no other


def npc_mri(log: Conversion) -> Iterator[CaseArrays]:
    folders = case_folders(log, "*/ROI-*.nii*")
    cases = {f"NPC_{folder.name}": folder for folder in folders}
    channels, reference = log.wanted.channels, log.variant.removesuffix(ALONE)

    def case(name: str, folder: Path) -> CaseArrays:
        fixed = _read_series(folder, reference)
        drawn = _mask(name, folder, reference, fixed, log)
        if drawn is None:
            raise InputError(f"{folder / SERIES[reference][1]}.nii: no such file; the reference series has no mask")
        images, masks = dict.fromkeys(channels, fixed.array), {reference: drawn}
        for channel in channels:
            if channel != reference:
                images[channel], own = _moved(name, folder, channel, fixed, drawn, log)
                masks |= {} if own is None else {channel: own}
        log.sheets.mkdir(exist_ok=True)
        _sheet(log.sheets / f"{name}.png", name, reference, images, masks, fixed.spacing_mm)
        label = drawn.astype(np.uint8)
        return CaseArrays(name, name, stack([*images.values()]), label, fixed.spacing_mm, geometry=fixed.geometry)

    return log.convert(cases, case)


def _read_series(folder: Path, channel: str) -> Volume:
    # pydicom is not needed for the other sets.
    from npcrepro.cohorts.dicom import read_series

    series = folder / SERIES[channel][0]
    if not series.is_dir():
        raise InputError(f"{series}: no such folder; {channel} is missing, or the archive was not unpacked whole")
    return Volume(*read_series(series))


def _mask(name: str, folder: Path, channel: str, series: Volume, log: Conversion) -> np.ndarray | None:
    """The mask drawn on a series, on its grid; None where there is none."""
    for ending in (".nii", ".nii.gz"):
        path = folder / f"{SERIES[channel][1]}{ending}"
        if path.is_file():
            mask, note = mask_on(path, series)
            log.note(name, note and f"{channel}: {note}")
            return binary(mask)
    return None


def _moved(
    name: str, folder: Path, channel: str, fixed: Volume, reference: np.ndarray, log: Conversion
) -> tuple[np.ndarray, np.ndarray | None]:
    """A series and its own mask, registered to the reference series."""
    series = _read_series(folder, channel)
    image, transform = registered(series, fixed)
    shift_mm, turn_deg = rigid_motion(transform, fixed.itk())
    text = f"{channel}: moved by {shift_mm:.1f} mm and {turn_deg:.1f} degrees"
    try:
        own = _mask(name, folder, channel, series, log)
    except InputError as problem:
        # The reference series has a mask of its own, so that the case is not lost.
        log.note(name, f"{channel}: its mask is not used: {problem}")
        own = None
    if own is not None:
        drawn = Volume(own, series.spacing_mm, series.geometry)
        own = from_itk(resample_mask(drawn.itk(), fixed.itk(), transform))[0].astype(bool)
        text += f"; DSC of its own mask with the reference mask {count(own, reference).dsc:.2f}"
    log.note(name, text)
    return image, own


def _sheet(
    path: Path,
    name: str,
    reference: str,
    images: dict[str, np.ndarray],
    masks: dict[str, np.ndarray],
    spacing_mm: tuple[float, float, float],
) -> None:
    """One picture of a patient: the series side by side through the middle of the tumour, from below and from the left.

    A mask that was turned over or a series out of order shows in it at a glance.
    """
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    from npcrepro.base.colours import METHODS, REFERENCE

    inside = np.argwhere(masks[reference])
    z, _, x = np.median(inside, axis=0).astype(int) if len(inside) else np.array(masks[reference].shape) // 2
    figure = Figure(figsize=(9, 5.5), layout="constrained")
    axes = figure.subplots(2, len(images), squeeze=False)
    for column, (channel, image) in enumerate(images.items()):
        for row, (cut, aspect) in enumerate([(np.s_[z], 1.0), (np.s_[:, :, x], spacing_mm[0] / spacing_mm[1])]):
            axis = axes[row, column]
            # Arrays start at the feet; pictures start at the top.
            origin = "lower" if row else "upper"
            # A vessel that shines would leave the rest in the dark.
            axis.imshow(image[cut], cmap="gray", vmax=np.percentile(image, 99.5), aspect=aspect, origin=origin)
            for one, colour in ((channel, METHODS[0]), (reference, REFERENCE)):
                if one in masks and masks[one][cut].any():
                    axis.contour(masks[one][cut], levels=[0.5], colors=colour, linewidths=1)
            axis.set_axis_off()
        axes[0, column].set_title(channel, fontsize=9)
    lines = [
        Line2D([], [], color=REFERENCE, label=f"mask of {reference}"),
        Line2D([], [], color=METHODS[0], label="mask of the series"),
    ]
    figure.legend(handles=lines, loc="outside lower center", ncols=2, fontsize=8)
    figure.suptitle(name, fontsize=10)
    figure.savefig(path, dpi=80)
