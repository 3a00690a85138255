"""One grid for series that were acquired on several. Images are those of SimpleITK (see `images.to_itk`)."""

import numpy as np
import SimpleITK as sitk

from npcrepro.base.errors import InputError
from npcrepro.cohorts.check import grid_defects

# Why an image or a mask may have nothing in common with the grid that it should be put on.
ELSEWHERE = "its origin was lost, or it is of another patient"
LARGEST_TURN_DEG = 30.0  # a head does not turn farther between two series of one examination
REGISTRATION_MM = 2.0
REGISTRATION_SAMPLES = 20_000
SHRINK_FACTORS = (4, 2, 1)
SMOOTHING_MM = (4.0, 2.0, 0.0)


def same_grid(image: sitk.Image, reference: sitk.Image) -> bool:
    """Whether size, spacing, origin and direction agree within the tolerances of `check`."""
    grids = []
    for each in (image, reference):
        geometry = {"origin": each.GetOrigin(), "direction": each.GetDirection()}
        grids.append((each.GetSize()[::-1], each.GetSpacing()[::-1], geometry))
    return not grid_defects("", grids[0], "", *grids[1], "")


def resample(image: sitk.Image, reference: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """An image on the grid of ``reference``, linear, in its own number type.

    ``transform`` maps points of ``reference`` to points of ``image`` (see `register_rigid`). Voxels that ``image`` does
    not cover become its smallest value.
    """
    darkest = float(sitk.GetArrayViewFromImage(image).min())
    return sitk.Resample(image, reference, transform or sitk.Transform(), sitk.sitkLinear, darkest)


def inside(image: sitk.Image, reference: sitk.Image) -> np.ndarray:
    """Which voxels of ``reference`` have their middle in ``image``: bool (z, y, x).

    Example:
        >>> from npcrepro.cohorts.images import to_itk
        >>> row = to_itk(np.zeros((1, 1, 3)), (1.0, 1.0, 1.0))
        >>> moved = {"origin": [1, 0, 0], "direction": np.eye(3).ravel()}
        >>> inside(to_itk(np.zeros((1, 1, 3)), (1.0, 1.0, 1.0), moved), row).tolist()
        [[[False, True, True]]]
    """
    ones = sitk.Image(image.GetSize(), sitk.sitkUInt8) + 1
    ones.CopyInformation(image)
    found = sitk.Resample(ones, reference, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    return sitk.GetArrayFromImage(found) == 1


def resample_mask(mask: sitk.Image, reference: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """A mask (0 and 1) on the grid of ``reference``, uint8: where it reaches one half at the middle of a voxel, linear
    between its own voxels.

    Outlines are smoother than by the nearest neighbour. A small structure may lose a tenth of its volume, and on a grid
    of half the spacing with the same first voxel it gains up to a quarter.
    """
    share = sitk.Resample(
        sitk.Cast(mask > 0, sitk.sitkFloat32), reference, transform or sitk.Transform(), sitk.sitkLinear, 0.0
    )
    return share >= 0.5


def register_rigid(fixed: sitk.Image, moving: sitk.Image) -> tuple[sitk.Transform, float]:
    """Rigid registration by mutual information (Mattes): transform from ``fixed`` to ``moving``, and the information.

    Starts from the scanner coordinates, as series of one examination lie close to each other; where the middle of
    ``moving`` lies outside ``fixed`` (another scanner), the middles are laid on each other first. Works on voxels of
    about 2 mm. Deterministic. The information is positive; it is low where the two do not match. Raises InputError for
    images of which one is flat and for images that lose each other.
    """
    fixed, moving = (_coarse(image) for image in (fixed, moving))
    method = sitk.ImageRegistrationMethod()
    # More threads add up in another order at every call.
    method.SetNumberOfWorkUnits(1)
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.REGULAR)
    voxels = fixed.GetNumberOfPixels()
    shares = [min(1.0, REGISTRATION_SAMPLES / voxels * factor**3) for factor in SHRINK_FACTORS]
    method.SetMetricSamplingPercentagePerLevel(shares, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    # Steps along a noisy gradient walk away from the optimum where series share little information.
    method.SetOptimizerAsPowell(
        numberOfIterations=20, maximumLineIterations=50, stepLength=1.0, stepTolerance=1e-2, valueTolerance=1e-4
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel(SHRINK_FACTORS)
    method.SetSmoothingSigmasPerLevel(SMOOTHING_MM)
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(_start(fixed, moving), inPlace=False)
    try:
        found = method.Execute(fixed, moving)
    except RuntimeError:
        cause = "one of them is flat, or they show different parts of the body"
        raise InputError(f"two series cannot be registered: {cause}") from None
    _, turn = rigid_motion(found, fixed)
    if turn > LARGEST_TURN_DEG:
        cause = "they show different parts of the body, or one was acquired in another position"
        raise InputError(f"two series cannot be registered: they came out turned by {turn:.0f} degrees; {cause}")
    return found, -float(method.GetMetricValue())


def rigid_motion(transform: sitk.Transform, image: sitk.Image) -> tuple[float, float]:
    """How far a rigid transform moves the middle of an image, in mm, and by how much it turns, in degrees."""
    middle = np.array(_middle(image))
    moved = np.array(transform.TransformPoint(middle.tolist()))
    turned = np.stack([np.array(transform.TransformPoint((middle + axis).tolist())) - moved for axis in np.eye(3)])
    cosine = np.clip((np.trace(turned) - 1) / 2, -1, 1)
    return float(np.linalg.norm(moved - middle)), float(np.degrees(np.arccos(cosine)))


def _middle(image: sitk.Image) -> tuple[float, ...]:
    return image.TransformContinuousIndexToPhysicalPoint([(size - 1) / 2 for size in image.GetSize()])


def _coarse(image: sitk.Image) -> sitk.Image:
    """The image as floats on voxels of about 2 mm, without the outermost values, which would fill most of a histogram
    with metal and vessels."""
    factors = [max(1, round(REGISTRATION_MM / spacing)) for spacing in image.GetSpacing()]
    factors = [min(factor, size) for factor, size in zip(factors, image.GetSize())]
    image = sitk.BinShrink(sitk.Cast(image, sitk.sitkFloat32), factors)
    low, high = np.percentile(sitk.GetArrayViewFromImage(image), (1, 99))
    return sitk.Clamp(image, sitk.sitkFloat32, float(low), float(high)) if low < high else image


def _start(fixed: sitk.Image, moving: sitk.Image) -> sitk.Transform:
    start = sitk.Euler3DTransform()
    # Rotation about the middle of the image, so that rotation and translation do not pull at each other.
    start.SetCenter(_middle(fixed))
    index = fixed.TransformPhysicalPointToContinuousIndex(_middle(moving))
    if not all(-0.5 <= i <= size - 0.5 for i, size in zip(index, fixed.GetSize())):
        start.SetTranslation([m - f for m, f in zip(_middle(moving), _middle(fixed))])
    return start
