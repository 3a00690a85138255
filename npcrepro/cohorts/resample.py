"""One grid for series that were acquired on several. Images are those of SimpleITK (see `images.to_itk`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from npcrepro.cohorts.check import grid_defects

if TYPE_CHECKING:
    import SimpleITK as sitk


def same_grid(image: sitk.Image, reference: sitk.Image) -> bool:
    """Whether size, spacing, origin and direction agree within the tolerances of `check`."""
    grids = []
    for each in (image, reference):
        geometry = {"origin": each.GetOrigin(), "direction": each.GetDirection()}
        grids.append((each.GetSize()[::-1], each.GetSpacing()[::-1], geometry))
    return not grid_defects("", grids[0], "", *grids[1], "")


def resample(
    image: sitk.Image, reference: sitk.Image, transform: sitk.Transform | None = None, *, outside: float | None = None
) -> sitk.Image:
    """An image on the grid of ``reference``, linear, in its own number type.

    ``transform`` maps points of ``reference`` to points of ``image`` (see `register_rigid`). Voxels that ``image`` does
    not cover become ``outside``, by default its smallest value.
    """
    import SimpleITK as sitk

    if outside is None:
        statistics = sitk.MinimumMaximumImageFilter()
        statistics.Execute(image)
        outside = statistics.GetMinimum()
    return sitk.Resample(image, reference, transform or sitk.Transform(), sitk.sitkLinear, outside)


def resample_mask(mask: sitk.Image, reference: sitk.Image, transform: sitk.Transform | None = None) -> sitk.Image:
    """A mask (0 and 1) on the grid of ``reference``, uint8: where it covers half of a voxel or more.

    Linear interpolation and a threshold keep the volume of a small structure better than the nearest neighbour does.
    """
    import SimpleITK as sitk

    share = sitk.Resample(
        sitk.Cast(mask > 0, sitk.sitkFloat32), reference, transform or sitk.Transform(), sitk.sitkLinear, 0.0
    )
    return share >= 0.5


def register_rigid(fixed: sitk.Image, moving: sitk.Image) -> tuple[sitk.Transform, float]:
    """Rigid registration by mutual information (Mattes): transform from ``fixed`` to ``moving``, and the information.

    Starts from the identity in scanner coordinates, as series of one examination lie close to each other. The sampler
    has a seed of its own. The information is positive; it is low where the two do not match.
    """
    import SimpleITK as sitk

    start = sitk.Euler3DTransform()
    # Rotation about the middle of the image, so that rotation and translation do not pull at each other.
    middle = [(size - 1) / 2 for size in fixed.GetSize()]
    start.SetCenter(fixed.TransformContinuousIndexToPhysicalPoint(middle))
    method = sitk.ImageRegistrationMethod()
    method.SetMetricAsMattesMutualInformation(numberOfHistogramBins=32)
    method.SetMetricSamplingStrategy(method.RANDOM)
    method.SetMetricSamplingPercentage(0.2, seed=1)
    method.SetInterpolator(sitk.sitkLinear)
    method.SetOptimizerAsRegularStepGradientDescent(
        learningRate=2.0,
        minStep=1e-3,
        numberOfIterations=300,
        relaxationFactor=0.8,  # with the usual 0.5 the step has died before the pose is found
        gradientMagnitudeTolerance=1e-8,
    )
    method.SetOptimizerScalesFromPhysicalShift()
    method.SetShrinkFactorsPerLevel([4, 2, 1])
    method.SetSmoothingSigmasPerLevel([2.0, 1.0, 0.0])
    method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
    method.SetInitialTransform(start, inPlace=False)
    floats = [sitk.Cast(image, sitk.sitkFloat32) for image in (fixed, moving)]
    found = method.Execute(*floats)
    return found, -float(method.GetMetricValue())
