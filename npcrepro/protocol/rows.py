"""How a protocol is written down: the proposed method, and one row for each method that differs from it."""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from npcrepro.protocol.method import Component, Method, Stage

Row = tuple[str, str, str, dict[str, Any]]
"""Name, title and summary of a method, and the attributes in which it differs from the proposed one."""


def methods_of(proposed: Method, rows: Iterable[Row]) -> tuple[Method, ...]:
    """The proposed method, then one method for each row.

    Example:
        >>> from npcrepro.protocol.registry import find_method
        >>> _, proposed = find_method("xue2020")
        >>> _, unaugmented = methods_of(proposed, [("plain", "Plain", "Without augmentation", {"augmentation": None})])
        >>> unaugmented.full_name, unaugmented.network == proposed.network
        ('xue2020/plain', True)
    """
    named = (replace(proposed, name=name, title=title, summary=summary, **changes)
             for name, title, summary, changes in rows)  # fmt: skip
    return proposed, *named


def network(target: str, **options: Any) -> dict[str, Any]:
    """The attribute of a row that names another network or other options."""
    return {"network": Component(target, options)}


def todays_reference(
    proposed: Method,
    dimensions: int,
    enlarge: int = 1,
    budget: float = 1.0,
    windows: tuple[tuple[float, float], ...] = (),
    slices: int = 0,
    batch_size: int | None = None,
    rate: float = 2e-3,
) -> Row:
    """The row of a modern reference: nnU-Net's recipe, for the channels and structures of the proposed method.

    Spacing, patch, depth and intensities are planned for the training patients, see
    :func:`npcrepro.models.baselines.nnunet.plan_shape`; the loss is Dice over the batch with cross-entropy, at several
    sizes; the rate falls by a polynomial, and the last weights are tested. Images are mirrored only if no structure
    has a side.

    Args:
        dimensions: 2 or 3; ``nnunet-2d`` or ``nnunet-3d`` is the name.
        enlarge: whole factor on the profile's matrix, whose voxels are what a patch may have.
        budget: factor on the profile's updates.
        windows: of CT, each of them a channel; without them percentiles of the structures, as in nnU-Net. Where bone is
            one of these, soft tissues have little contrast between the percentiles, and training starts slowly.
        slices: for volumes of a paper whose profiles have slices: a patch has the voxels of so many of them.
        batch_size: patches of an update, if not as many as images in the profile; nnU-Net has 2 of volumes.
        rate: of learning, at first.

    Source:
        Isensee et al., nnU-Net, Nature Methods 2021;18:203-211. Differs: AdamW in place of gradient descent, whose
        momentum of 0.99 needs more updates than there are here.

    Example:
        >>> from npcrepro.protocol.registry import find_method
        >>> _, proposed = find_method("xue2020")
        >>> todays_reference(proposed, dimensions=2)[0]
        'nnunet-2d'
    """
    sides = any(name.endswith(("_L", "_R")) for name in proposed.structures)
    stage = Stage(
        "all layers",
        Component("npcrepro.losses.cross_entropy:DeepSupervisionLoss"),
        Component("torch.optim:AdamW", {"lr": rate, "weight_decay": 1e-2}),
        forward={"deep": True},
        power=0.9,
        monitor="validation_dsc",
    )
    options = {"in_channels": len(windows) * len(proposed.channels)} if windows else {}
    data = {"enlarge": enlarge, "windows": windows}
    changes = {
        **network("npcrepro.models.baselines.nnunet:PlannedUNet", dimensions=dimensions, **options),
        "data": Component("npcrepro.sampling.patches:VolumePatchData", data | {"slices": slices})
        if slices
        else Component("npcrepro.sampling.patches:PatchData", data),
        "augmentation": Component("npcrepro.sampling.augment:StrongAugmentation", {"flip": 0.0 if sides else 0.5}),
        "stages": (stage,),
        "activation": "softmax",
        "threshold": None,
        "uses": (),
        "budget": budget,
        "largest_component": True,
        "batch_size": batch_size,
    }
    summary = f"A modern reference, the {dimensions}-D recipe of nnU-Net, planned for the training patients"
    return f"nnunet-{dimensions}d", f"nnU-Net's recipe, {dimensions}-D", summary, changes


def shorter_reference(methods: Iterable[Method]) -> dict[str, Method]:
    """The modern reference as the profiles below ``paper`` train it, by name: a third of its augmentation.

    Its augmentation is made for a thousand epochs. After 3,000 updates on OpenKBP (fold 0, one seed, half the width) a
    third of it gave a mean DSC of 0.78, all of it 0.74.

    Example:
        >>> from npcrepro.protocol.registry import load
        >>> shorter_reference(load("xue2020").methods)["nnunet-2d"].augmentation.options["often"]
        0.33
    """
    references = (method for method in methods if method.name in ("nnunet-2d", "nnunet-3d"))
    return {
        method.name: replace(
            method, augmentation=replace(method.augmentation, options={**method.augmentation.options, "often": 0.33})
        )
        for method in references
        if method.augmentation
    }


def phantom(kind: str, patients: int, matrix: tuple[int, int, int], **options: Any) -> dict[str, Any]:
    """Options of :func:`npcrepro.cohorts.phantom.write_phantom` for a profile."""
    return {"kind": kind, "patients": patients, "matrix": matrix, **options}
