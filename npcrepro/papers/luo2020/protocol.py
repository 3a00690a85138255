"""Luo et al. 2020: two U-Nets, one after the other, with multi-scale average pooling, for 14 structures on CT.

Luo Y, Li X, Luo C, et al. Tissue segmentation in nasopharyngeal CT images using two-stage learning. Computers,
Materials & Continua 2020;65(2):1771-1780.

The paper's printed numbers, its claims, and its gaps with our choices are in ``luo2020.yaml``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage

# PAPER: 14 structures (Section 3.1).
# DIFFERS: locref is a reference point of the planning system; a ball on the skin takes its place in the phantom.
STRUCTURES = (
    "LocRef",
    "CTV2",
    "CTVnd",
    "Mandible_L",
    "Mandible_R",
    "Parotid_L",
    "Parotid_R",
    "BrainStem",
    "SpinalCord",
    "Eye_L",
    "Eye_R",
    "OpticNerve_L",
    "OpticNerve_R",
    "OpticChiasm",
)

# SILENT: the intensity window; soft tissue. Bone wants a second one (method two-windows).
SOFT_TISSUE_HU, BONE_HU = (-160.0, 240.0), (-200.0, 1300.0)

# PAPER: learning rate 0.001 (Section 3.3).
# SILENT: the optimiser; Adam.
ADAM = Component("torch.optim:Adam", {"lr": 1e-3})

# PAPER: the rate x 0.9 every 10 iterations, 100 epochs.
# DIFFERS: every 10 of 100 epochs; by iterations the rate is gone within the first epoch (method iteration-decay).
DECAY = {"decay": 0.9, "decays": 9}

# DIFFERS: the paper keeps the model that is best on the test data; here a validation patient chooses.
CHOICE = {"keep_best": True, "monitor": "validation_dsc"}


def _loss(**options: Any) -> Component:
    return Component("npcrepro.papers.luo2020.losses:LuoLoss", {"activation": "softmax", **options})


def _stages(
    loss: Mapping[str, Any] | None = None,
    decay: Mapping[str, Any] | None = None,
    joint: bool = False,
    kind: str = "npcrepro.papers.luo2020.losses:LuoLoss",
    optimiser: Component = ADAM,
) -> tuple[Stage, ...]:
    """Both stages of the network, equal in updates; with ``joint`` a third in which both move."""
    # SILENT: whether 100 epochs are those of both stages together or of each; together, so that two stages see as many
    # slices as the networks that they are compared with (method two-stage-long has as many for each).
    loss, schedule = loss or {}, {**(decay or DECAY), **CHOICE}
    share = 1 / (2 + joint)
    # SILENT: whether the stages are trained together or one after the other; one after the other.
    coarse = Stage(
        "stage 1",
        # SILENT: the target of the first stage; the union of all structures.
        Component(kind, {"activation": "sigmoid", "target": "union", **loss}),
        optimiser,
        share,
        {"output": "coarse"},
        ("coarse",),
        activation="sigmoid",
        **schedule,
    )
    fine = Stage(
        "stage 2",
        Component(kind, {"activation": "softmax", **loss}),
        optimiser,
        share,
        {"output": "fine"},
        ("fine",),
        **schedule,
    )
    if not joint:
        return coarse, fine
    # SILENT: weights of the two losses ("loss function of each step"); equal.
    both = Component("npcrepro.papers.luo2020.losses:LuoJointLoss", {"activation": "softmax", **loss})
    return coarse, fine, Stage("both", both, optimiser, share, {"output": "both"}, **schedule)


TWO_STAGE = Method(
    paper="luo2020",
    name="two-stage",
    title="Proposed",
    summary="Two U-Nets, one after the other, with multi-scale pooling at the coarsest level of each",
    channels=("CT",),
    structures=STRUCTURES,
    any_structures=True,
    network=Component("npcrepro.papers.luo2020.network:TwoStageUNet"),
    # PAPER: two-dimensional slices with a label, others removed (Section 3.1).
    data=Component("npcrepro.sampling.slices:SliceData", {"normalisation": "none", "windows": (SOFT_TISSUE_HU,)}),
    # SILENT: augmentation; none.
    stages=_stages(),
    # SILENT: number of outputs and decision; softmax over background and structures, the most probable one.
    activation="softmax",
    threshold=None,
)


def _variant(name: str, title: str, summary: str, **changes: Any) -> Method:
    return replace(TWO_STAGE, name=name, title=title, summary=summary, **changes)


def _network(**options: Any) -> dict[str, Component]:
    return {"network": Component("npcrepro.papers.luo2020.network:TwoStageUNet", options)}


def _one_network(
    target: str,
    loss: Component | None = _loss(),  # noqa: B008
    decay: Mapping[str, Any] = DECAY,
    optimiser: Component = ADAM,
    **options: Any,
) -> dict[str, Any]:
    """Changes for a network that is trained in one stage, in as many updates."""
    stage = Stage("all layers", loss, optimiser, **decay, **CHOICE)
    return {"network": Component(target, options), "stages": (stage,)}


UNET = "npcrepro.models.unet:UNet"
MULTI_SCALE_UNET = "npcrepro.papers.luo2020.network:MultiScaleUNet"

PRESENT = {"dice": {"absent": "skip"}}
PRESENT_LOSS = _loss(**PRESENT)
DICE_CROSS_ENTROPY = "npcrepro.losses.cross_entropy:DiceCrossEntropyLoss"
# Three times the printed rate, which batch normalisation bears, falling to a twentieth, and three times the updates.
# Half of the slices are moved, as interpolation blurs.
TUNED_ADAM = Component("torch.optim:Adam", {"lr": 3e-3})
TUNED_DECAY = {"decay": 0.88, "decays": 24}
TUNED = {
    "data": Component(
        "npcrepro.sampling.slices:SliceData",
        {"normalisation": "none", "windows": (SOFT_TISSUE_HU, BONE_HU), "background_share": 0.2},
    ),
    "augmentation": Component("npcrepro.sampling.augment:Affine", {"shift": 0.05, "moved": 0.5}),
    "budget": 3.0,
}

METHODS = (
    TWO_STAGE,
    # SILENT: configuration and training of the three baselines; the same slices, updates, loss and schedule. But for
    # FCN-8 the Dice loss leaves out structures that a slice does not show: it starts slowly, and the reward for marking
    # none of them where most are absent kept it from ever marking one, or took back what it had learnt without it. So
    # FCN-8 is judged beside networks with its own loss (dice-present, one-stage-present and no-pooling-present).
    _variant("unet", "U-Net", "One U-Net of five levels", **_one_network(UNET)),
    _variant(
        "fcn8",
        "FCN-8",
        "VGG-16 trunk with scores at three scales",
        **_one_network("npcrepro.models.baselines.fcn8:FCN8", PRESENT_LOSS),
    ),
    _variant(
        "mask-rcnn",
        "Mask R-CNN",
        "Boxes first, then a mask in each; instances of a structure are united",
        **_one_network("npcrepro.models.baselines.mask_rcnn:MaskRCNN", None),
        activation="identity",
        threshold=0.5,
    ),
    _variant(
        "one-stage",
        "One stage",
        "The first stage alone, with multi-scale pooling, on the structures",
        **_one_network(MULTI_SCALE_UNET, multi_scale="bottleneck"),
    ),
    _variant("no-pooling", "No multi-scale pooling", "Two stages without the block", **_network(multi_scale=None)),
    _variant("dice", "Dice alone", "Without the focal loss", stages=_stages({"beta": 1.0})),
    _variant("focal", "Focal alone", "Without the Dice loss", stages=_stages({"beta": 0.0})),
    _variant(
        "dice-present",
        "Dice over present structures",
        "Structures that a slice does not show are left out of its Dice loss",
        stages=_stages(PRESENT),
    ),
    _variant(
        "iteration-decay",
        "Rate decays by iterations",
        "The learning rate x 0.9 every 10 iterations, as printed: documents the failure",
        stages=_stages(decay={"decay": 0.9, "decay_every": 10}),
    ),
    _variant(
        "no-pooling-present",
        "No pooling, present structures",
        "Two stages without the block, with the Dice loss that FCN-8 has",
        stages=_stages(PRESENT),
        **_network(multi_scale=None),
    ),
    _variant(
        "one-stage-present",
        "One stage, present structures",
        "The first stage alone, with the Dice loss that FCN-8 has",
        **_one_network(MULTI_SCALE_UNET, PRESENT_LOSS, multi_scale="bottleneck"),
    ),
    _variant(
        "mask-rcnn-enlarged",
        "Mask R-CNN, slices enlarged",
        "Mask R-CNN on slices of twice the pixels in each direction",
        **_one_network("npcrepro.models.baselines.mask_rcnn:MaskRCNN", None, enlarge=2),
        activation="identity",
        threshold=0.5,
    ),
    _variant(
        "two-stage-enlarged",
        "Proposed, slices enlarged",
        "Both stages on slices of twice the pixels in each direction, as one Mask R-CNN has them",
        **_network(enlarge=2),
    ),
    _variant(
        "pooling-at-input", "Pooling at the input", "The block first in each stage", **_network(multi_scale="input")
    ),
    _variant("pooling-on-skips", "Pooling on skips", "The block on each skip", **_network(multi_scale="skips")),
    _variant("map-only", "Map only", "Stage 2 sees the map of stage 1 alone", **_network(stage2_input="map")),
    _variant("masked-image", "Masked image", "Stage 2 sees image times map", **_network(stage2_input="masked")),
    _variant("crop", "Crop", "Stage 2 sees the image inside the box of the map", **_network(stage2_input="crop")),
    _variant("four-levels", "Stage 2 of four levels", "A deeper second stage", **_network(fine_levels=4)),
    _variant("five-levels", "Stage 2 of five levels", "A second stage as deep as the first", **_network(fine_levels=5)),
    _variant("joint", "Joint", "Stage by stage, then both together", stages=_stages(joint=True)),
    _variant(
        "dice-factor-2",
        "Dice with factor 2",
        "The Dice loss with the factor 2 that equation 1 lacks",
        stages=_stages({"dice": {"form": "factor 2"}}),
    ),
    _variant(
        "two-windows",
        "Two windows",
        "Soft tissue and bone windows as two channels",
        data=Component(
            "npcrepro.sampling.slices:SliceData", {"normalisation": "none", "windows": (SOFT_TISSUE_HU, BONE_HU)}
        ),
        **_network(in_channels=2),
    ),
    # Two networks share the updates of one; here each is trained as long as the plain U-Net.
    _variant("two-stage-long", "Proposed, twice the updates", "As many updates in each stage as U-Net has", budget=2.0),
    # The recipe of today on the paper's network and on the plain one: what the idea adds when both are trained well.
    _variant(
        "two-stage-tuned",
        "Proposed, tuned",
        "Two windows, augmentation, Dice and cross-entropy, slices without structures, three times the updates",
        stages=_stages(decay=TUNED_DECAY, kind=DICE_CROSS_ENTROPY, optimiser=TUNED_ADAM),
        **TUNED,
        **_network(in_channels=2),
    ),
    _variant(
        "unet-tuned",
        "U-Net, tuned",
        "One U-Net trained in the same way as the tuned two stages",
        **TUNED,
        **_one_network(
            UNET, Component(DICE_CROSS_ENTROPY, {"activation": "softmax"}), TUNED_DECAY, TUNED_ADAM, in_channels=2
        ),
    ),
    # What the paper cannot have: the network that is hard to beat today, in the same training.
    _variant(
        "nnunet-unet-tuned",
        "U-Net of nnU-Net, tuned",
        "The reference of today, MONAI's DynUNet with residual blocks, trained in the same way as the tuned two stages",
        **TUNED,
        **_one_network(
            "npcrepro.models.baselines.nnunet:nnunet_unet",
            Component(DICE_CROSS_ENTROPY, {"activation": "softmax"}),
            TUNED_DECAY,
            TUNED_ADAM,
            in_channels=2,
        ),
    ),
)

ROWS = ("two-stage", "unet", "fcn8", "mask-rcnn")


def _phantom(patients: int, matrix: tuple[int, int, int]) -> dict[str, Any]:
    return {"kind": "ct", "patients": patients, "matrix": matrix}


PAPER = Paper(
    key="luo2020",
    title="Luo et al. 2020: two-stage U-Net for organs on CT",
    methods=METHODS,
    profiles=(
        Profile(
            name="smoke", matrix=(64, 64), width=0.125, batch_size=2, updates=6, check_every=2, folds=1,
            methods=ROWS, phantom=_phantom(5, (10, 48, 48)),
        ),
        Profile(
            name="quick", matrix=(96, 96), width=0.25, batch_size=4, updates=150, check_every=30, folds=1,
            methods=ROWS, phantom=_phantom(6, (36, 96, 96)),
        ),
        Profile(
            name="bench", matrix=(80, 80), width=0.5, batch_size=16, updates=1000, check_every=100, folds=1,
            methods=(*ROWS, "two-stage-long", "two-stage-tuned", "unet-tuned", "nnunet-unet-tuned"),
            phantom=_phantom(20, (72, 128, 128)),
        ),
        # PAPER: 512 x 512, 124 patients, five folds, 100 epochs of about 7,112 slices.
        # SILENT: batch size; 8.
        Profile(
            name="paper", matrix=(512, 512), width=1.0, batch_size=8, updates=88_900, check_every=889, folds=None,
            methods=ROWS, phantom=_phantom(124, (72, 512, 512)),
        ),
    ),
    # PAPER: five-fold.
    # DIFFERS: folds of patients, not of slices; the slice split is an experiment of its own.
    split={"kind": "k-fold", "folds": 5, "validation": 0.1},
    comparisons={
        "two-stage-long": "unet",
        "unet-tuned": "two-stage-tuned",
        "nnunet-unet-tuned": "unet-tuned",
    },
    added=tuple(method.name for method in METHODS if method.name not in ROWS),
)  # fmt: skip
