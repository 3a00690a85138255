"""Where a head is in a volume of any series, and intensities normalised inside it."""

import warnings
from collections.abc import Mapping

import numpy as np

from npcrepro.base.errors import InputError
from npcrepro.base.wording import plural

BRIGHTEST = 99.9  # percentile; what is brighter counts as that, so that a few voxels do not move a threshold
MOST_CUT_OFF = 0.05  # share of a structure that may be cut off without a word


def bright(image: np.ndarray, share: float = 0.5) -> np.ndarray:
    """Where an image is above a share of its Otsu threshold, counted from its smallest value.

    Otsu's threshold parts fat from the rest where fat is much brighter, as on T1. Half of it parts tissue from air. As
    it is counted from the smallest value, CT, whose air is far below zero, is treated like MRI.

    Args:
        image: of any shape and intensities.
        share: of the threshold.

    Returns:
        bool, of the same shape; nothing of an image of one value.

    Example:
        >>> bright(np.array([0, 2, 40, 50, 100, 100])).astype(int).tolist()
        [0, 0, 1, 1, 1, 1]
    """
    import SimpleITK as sitk

    floor = image.min()
    if image.max() == floor:
        return np.zeros(image.shape, bool)
    highest = np.percentile(image, BRIGHTEST)
    clipped = image.clip(max=highest) if highest > floor else image
    finder = sitk.OtsuThresholdImageFilter()
    finder.Execute(sitk.GetImageFromArray(clipped.reshape(1, -1).astype(np.float32)))
    # Otsu's threshold is the middle of the two means. Where no value lies between the parts, all thresholds there are
    # as good, and the library gives the lowest, half of which would be noise.
    light = clipped > finder.GetThreshold()
    threshold = (clipped[light].mean(dtype=np.float64) + clipped[~light].mean(dtype=np.float64)) / 2
    return image > floor + share * (threshold - floor)


def head_mask(image: np.ndarray, share: float = 0.5) -> np.ndarray:
    """The largest connected part of what is `bright`, with what it encloses in each axial slice.

    Args:
        image: ``(z, y, x)`` of any intensities.
        share: of Otsu's threshold.

    Returns:
        bool, of the same shape; all of it where the image is of one value.

    Example:
        >>> image = np.zeros((1, 5, 5))
        >>> image[0, 1:4, 1:4] = 9.0
        >>> image[0, 2, 2] = 0.0
        >>> int(head_mask(image).sum())
        9
    """
    from scipy import ndimage

    parts, count = ndimage.label(bright(image, share))
    if not count:
        return np.ones(image.shape, bool)
    largest = np.bincount(parts.ravel())[1:].argmax() + 1
    return np.stack([ndimage.binary_fill_holes(part == largest) for part in parts])


def zscore(image: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Mean 0 and standard deviation 1 inside a mask, for all voxels alike.

    Args:
        image: of any shape.
        inside: bool, of the same shape; where it holds fewer than two values the whole image takes its place.

    Returns:
        float32, of the same shape; zero where the whole image has one value.

    Example:
        >>> zscore(np.array([1.0, 3.0, 7.0]), np.array([True, True, False])).tolist()
        [-1.0, 1.0, 5.0]
    """
    chosen = image[inside]
    if not len(chosen) or chosen.min() == chosen.max():
        chosen = image
    mean, deviation = chosen.mean(dtype=np.float64), chosen.std(dtype=np.float64)
    return ((image - mean) / (deviation if deviation > 0 else np.inf)).astype(np.float32)


def tell_what_is_cut_off(structure: str, shares: Mapping[str, float]) -> None:
    """Warn where the cut about the middle of the head leaves out more than 5 % of a structure that is to be learnt.

    Args:
        shares: for each case the share of the structure that is cut off, in [0, 1]; ``nan`` where it has none.

    Raises:
        InputError: all of it is cut off, so that a case would be taken for one without it.

    Example:
        >>> tell_what_is_cut_off("GTVp", {"A": 0.01, "B": 0.0})
    """
    most = {case: share for case, share in shares.items() if share > MOST_CUT_OFF}
    if not most:
        return
    worst = max(most, key=most.__getitem__)
    cause = (
        "the image shows another part of the body, or far more than a head (name the structure otherwise than the "
        "method does, and nothing is cut off)"
    )
    if most[worst] == 1:
        raise InputError(f"case {worst}: all of {structure} lies outside the cut about the middle of the head: {cause}")
    cases = f"{len(most)} of {plural(len(shares), 'case')}, most in {worst} ({most[worst]:.0%})"
    warnings.warn(
        f"the cut about the middle of the head leaves out a part of {structure} in {cases}: {cause}", stacklevel=3
    )
