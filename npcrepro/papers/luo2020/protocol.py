"""Luo et al. 2020: two U-Nets, one after the other, with multi-scale average pooling, for 14 structures on CT.

Luo Y, Li X, Luo C, et al. Tissue segmentation in nasopharyngeal CT images using two-stage learning. Computers,
Materials & Continua 2020;65(2):1771-1780.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage
from npcrepro.protocol.rows import Row, methods_of, network, phantom, shorter_reference, todays_reference

# PAPER: 14 structures (Section 3.1).
# DIFFERS: locref is a reference point of the planning system; a ball on the skin takes its place in the phantom.
STRUCTURES = (
    "LocRef", "CTV2", "CTVnd", "Mandible_L", "Mandible_R", "Parotid_L", "Parotid_R", "BrainStem", "SpinalCord",
    "Eye_L", "Eye_R", "OpticNerve_L", "OpticNerve_R", "OpticChiasm",
)  # fmt: skip

TWO_UNETS = "npcrepro.papers.luo2020.network:TwoStageUNet"
UNET = "npcrepro.models.unet:UNet"
MULTI_SCALE_UNET = "npcrepro.papers.luo2020.network:MultiScaleUNet"
FCN8 = "npcrepro.models.baselines.fcn8:FCN8"
MASK_RCNN = "npcrepro.models.baselines.mask_rcnn:MaskRCNN"
NNUNET = "npcrepro.models.baselines.nnunet:nnunet_unet"
LUO_LOSS = "npcrepro.papers.luo2020.losses:LuoLoss"
JOINT_LOSS = "npcrepro.papers.luo2020.losses:LuoJointLoss"
DICE_CROSS_ENTROPY = "npcrepro.losses.cross_entropy:DiceCrossEntropyLoss"

# SILENT: the intensity window; soft tissue. Bone wants a second one (method two-windows).
SOFT_TISSUE_HU, BONE_HU = (-160.0, 240.0), (-200.0, 1300.0)

# PAPER: learning rate 0.001 (Section 3.3).
# SILENT: the optimiser; Adam.
ADAM = Component("torch.optim:Adam", {"lr": 1e-3})

# PAPER: the rate x 0.9 every 10 iterations, 100 epochs.
# DIFFERS: the rate falls every 10 epochs; by iterations it is gone within the first epoch (method iteration-decay).
# DIFFERS: slices are drawn with replacement, so that an epoch is a number of updates.
EPOCH = 889  # updates: about 7,112 slices in batches of eight
DECAY: dict[str, Any] = {"decay": 0.9, "decay_every": 10 * EPOCH}

# DIFFERS: the paper keeps the model that is best on the test data; here validation patients choose.
# SILENT: what is compared to choose the model, "accuracy"; the DSC of all pixels and structures together (of the union
#   for the first stage), in the slices that show a structure. The results are means over structures in all slices. So
#   large structures weigh more in the choice, and false positives in slices without a structure do not count.
CHOICE: dict[str, Any] = {"keep_best": True, "monitor": "validation_dsc"}


def _two_stages(
    loss: Mapping[str, Any] | None = None,
    decay: Mapping[str, Any] = DECAY,
    joint: bool = False,
    kind: str = LUO_LOSS,
    optimiser: Component = ADAM,
) -> dict[str, Any]:
    """Both stages of the network, equal in updates; with ``joint`` a third in which both move.

    Args:
        loss: options of the losses.
        kind: where the class of the losses lives.
    """
    # SILENT: whether 100 epochs are those of both stages together or of each; together, so that two stages see as many
    # slices as the networks that they are compared with (method two-stage-long has as many for each).
    share = 1 / (2 + joint)
    # SILENT: the target of the first stage; the union of all structures.
    union = {"activation": "sigmoid", "target": "union", **(loss or {})}
    each = {"activation": "softmax", **(loss or {})}

    def stage(name: str, loss: Component, output: str, **options: Any) -> Stage:
        return Stage(name, loss, optimiser, share, {"output": output}, **options, **decay, **CHOICE)

    # SILENT: whether the stages are trained together or one after the other; one after the other.
    # SILENT: whether the rate starts again in the second stage; it does, so that it ends higher than that of one stage.
    stages = [
        stage("stage 1", Component(kind, union), "coarse", trainable=("coarse",), activation="sigmoid"),
        stage("stage 2", Component(kind, each), "fine", trainable=("fine",)),
    ]
    if joint:
        # SILENT: weights of the two losses ("loss function of each step"); equal.
        stages.append(stage("both", Component(JOINT_LOSS, each), "both"))
    return {"stages": tuple(stages)}


def _one_stage(
    kind: str | None = LUO_LOSS, decay: Mapping[str, Any] = DECAY, optimiser: Component = ADAM, **loss: Any
) -> dict[str, Any]:
    """A network that is trained in one stage, in as many updates; ``None`` where it computes a loss of its own."""
    component = Component(kind, {"activation": "softmax", **loss}) if kind else None
    return {"stages": (Stage("all layers", component, optimiser, **decay, **CHOICE),)}


def _data(*windows: tuple[float, float], **options: Any) -> dict[str, Any]:
    options = {"normalisation": "none", "windows": windows, **options}
    return {"data": Component("npcrepro.sampling.slices:SliceData", options)}


TWO_STAGE = Method(
    paper="luo2020",
    name="two-stage",
    title="Proposed",
    summary="Two U-Nets, one after the other, with multi-scale pooling at the coarsest level of each",
    channels=("CT",),
    structures=STRUCTURES,
    any_structures=True,
    # SILENT: augmentation; none.
    # SILENT: number of outputs and decision; softmax over background and structures, the most probable one.
    activation="softmax",
    threshold=None,
    **network(TWO_UNETS),
    # PAPER: training slices show a structure, others are removed (Section 3.1).
    # DIFFERS: the paper removes slices without a structure from testing, too. Here every slice is tested, and slices
    # that show a structure are scored by themselves besides.
    **_data(SOFT_TISSUE_HU),
    **_two_stages(),
)

PRESENT: dict[str, Any] = {"dice": {"absent": "skip"}}
# Mask R-CNN computes its own loss and gives probabilities.
OWN_LOSS = {**_one_stage(None), "activation": "identity", "threshold": 0.5}
# Three times the printed rate, which batch normalisation bears, falling to a twentieth, and three times the updates.
# Half of the slices are moved, as interpolation blurs.
TODAY: dict[str, Any] = {
    "kind": DICE_CROSS_ENTROPY,
    "decay": {"decay": 0.88, "decays": 24},
    "optimiser": Component("torch.optim:Adam", {"lr": 3e-3}),
}
TUNED = {
    **_data(SOFT_TISSUE_HU, BONE_HU, background_share=0.2),
    "augmentation": Component("npcrepro.sampling.augment:Affine", {"shift": 0.05, "moved": 0.5}),
    "budget": 3.0,
}

# Two patches an update, as in nnU-Net, each as large as its rule asks for where images keep their voxels.
REFERENCE_3D = todays_reference(
    TWO_STAGE, dimensions=3, budget=1.5, windows=(SOFT_TISSUE_HU, BONE_HU), slices=24, batch_size=2, rate=1e-3
)

# Name, title, summary, and what is not as in TWO_STAGE.
VARIANTS: tuple[Row, ...] = (
    # SILENT: configuration and training of the three baselines; the same slices, updates, loss and schedule, but for
    # Mask R-CNN, which has a loss of its own.
    ("unet", "U-Net", "One U-Net of five levels", network(UNET) | _one_stage()),
    # DIFFERS: FCN-8 with batch normalisation, which the other networks have. Without it (fcn8-plain) FCN-8 starts
    #   slowly, and the reward for marking none of the structures that a slice does not show keeps it from ever marking
    #   one; with normalisation, two trainings of profile bench did the same. So fcn8-plain is trained without such
    #   structures, as dice-present, one-stage-present and no-pooling-present are.
    ("fcn8", "FCN-8", "VGG-16 trunk with batch normalisation and scores at three scales",
     network(FCN8, batch_norm=True) | _one_stage()),
    ("mask-rcnn", "Mask R-CNN", "Boxes first, then a mask in each; instances of a structure are united",
     network(MASK_RCNN, made_for=512) | OWN_LOSS),
    ("one-stage", "One stage", "The first stage alone, with multi-scale pooling, on the structures",
     network(MULTI_SCALE_UNET, multi_scale="bottleneck") | _one_stage()),
    ("no-pooling", "No multi-scale pooling", "Two stages without the block", network(TWO_UNETS, multi_scale=None)),
    ("dice", "Dice alone", "Without the focal loss", _two_stages({"beta": 1.0})),
    ("focal", "Focal alone", "Without the Dice loss", _two_stages({"beta": 0.0})),
    ("dice-present", "Dice over present structures",
     "Structures that a slice does not show are left out of its Dice loss", _two_stages(PRESENT)),
    # PAPER: epsilon lies between 0 and 1 (equation 1).
    # SILENT: the value of epsilon; 1e-5 in the other methods, the end of the range in this one.
    ("epsilon-1", "Epsilon 1", "With 1 as epsilon of the Dice loss, which then tells of absent structures sooner",
     _two_stages({"dice": {"smoothing": 1.0}})),
    ("fcn8-plain", "FCN-8, plain", "FCN-8 without normalisation, with the Dice loss over present structures",
     network(FCN8) | _one_stage(**PRESENT)),
    ("iteration-decay", "Rate decays by iterations",
     "The learning rate x 0.9 every 10 iterations, as printed: documents the failure",
     _two_stages(decay={"decay": 0.9, "decay_every": 10})),
    ("no-pooling-present", "No pooling, present structures",
     "Two stages without the block, with the Dice loss over present structures",
     network(TWO_UNETS, multi_scale=None) | _two_stages(PRESENT)),
    ("one-stage-present", "One stage, present structures",
     "The first stage alone, with the Dice loss over present structures",
     network(MULTI_SCALE_UNET, multi_scale="bottleneck") | _one_stage(**PRESENT)),
    ("mask-rcnn-enlarged", "Mask R-CNN, slices enlarged",
     "Mask R-CNN on slices of twice the pixels in each direction",
     network(MASK_RCNN, made_for=512, enlarge=2) | OWN_LOSS),
    ("two-stage-enlarged", "Proposed, slices enlarged",
     "Both stages on slices of twice the pixels in each direction, as one Mask R-CNN has them",
     network(TWO_UNETS, enlarge=2)),
    ("pooling-at-input", "Pooling at the input", "The block first in each stage",
     network(TWO_UNETS, multi_scale="input")),
    ("pooling-on-skips", "Pooling on skips", "The block on each skip", network(TWO_UNETS, multi_scale="skips")),
    ("map-only", "Map only", "Stage 2 sees the map of stage 1 alone", network(TWO_UNETS, stage2_input="map")),
    ("masked-image", "Masked image", "Stage 2 sees image times map", network(TWO_UNETS, stage2_input="masked")),
    ("crop", "Crop", "Stage 2 sees the image inside the box of the map", network(TWO_UNETS, stage2_input="crop")),
    ("four-levels", "Stage 2 of four levels", "A deeper second stage", network(TWO_UNETS, fine_levels=4)),
    ("five-levels", "Stage 2 of five levels", "A second stage as deep as the first", network(TWO_UNETS, fine_levels=5)),
    ("joint", "Joint", "Stage by stage, then both together", _two_stages(joint=True)),
    ("dice-factor-2", "Dice with factor 2", "The Dice loss with the factor 2 that equation 1 lacks",
     _two_stages({"dice": {"form": "factor 2"}})),
    ("two-windows", "Two windows", "Soft tissue and bone windows as two channels",
     _data(SOFT_TISSUE_HU, BONE_HU) | network(TWO_UNETS, in_channels=2)),
    # Two networks share the updates of one; here each is trained as long as the plain U-Net.
    ("two-stage-long", "Proposed, twice the updates", "As many updates in each stage as U-Net has", {"budget": 2.0}),
    # A modern recipe on the paper's network and on the plain one: what the idea adds when both are trained well.
    ("two-stage-tuned", "Proposed, tuned",
     "Two windows, augmentation, Dice and cross-entropy, slices without structures, three times the updates",
     TUNED | network(TWO_UNETS, in_channels=2) | _two_stages(**TODAY)),
    ("unet-tuned", "U-Net, tuned", "One U-Net trained in the same way as the tuned two stages",
     TUNED | network(UNET, in_channels=2) | _one_stage(**TODAY)),
    # What the paper cannot have: the network that is hard to beat today, in the same training.
    ("nnunet-unet-tuned", "U-Net of nnU-Net, tuned",
     "A modern reference, MONAI's DynUNet with residual blocks, trained in the same way as the tuned two stages",
     TUNED | network(NNUNET, in_channels=2) | _one_stage(**TODAY)),
    todays_reference(TWO_STAGE, dimensions=2, budget=3.0, windows=(SOFT_TISSUE_HU, BONE_HU)),
    REFERENCE_3D,
    ("nnunet-3d-long", "nnU-Net's recipe, 3-D, eight times the updates",
     "The 3-D recipe of nnU-Net in eight times the updates, with all of its augmentation at every profile",
     REFERENCE_3D[3] | {"budget": 12.0}),
)  # fmt: skip

METHODS = methods_of(TWO_STAGE, VARIANTS)

# Slices of 64 to 96 pixels get more anchors in a cell, so that these lie as densely as on 512 x 512; slices that are
# enlarged twice need half as many along a side.
PLACES = {"mask-rcnn": 6, "mask-rcnn-enlarged": 3}


def _shortened(method: Method) -> Method:
    """The method as the profiles below ``paper`` train it: nine decays in each stage. At ``paper`` a network of one
    stage has nine decays, and a network of two stages four in each."""
    evenly: dict[str, Any] = {"decay_every": None, "decays": 9}
    stages = tuple(replace(one, **evenly) if one.decay_every == 10 * EPOCH else one for one in method.stages)
    places = {"places": PLACES[method.name]} if method.name in PLACES else {}
    options = {**method.network.options, **places}
    return replace(method, stages=stages, network=replace(method.network, options=options))


ROWS = ("two-stage", "unet", "fcn8", "mask-rcnn")
CONTROLS = ("two-stage-long", "two-stage-tuned", "unet-tuned", "nnunet-unet-tuned", "nnunet-2d")


# Name, matrix, width, batch size, updates, check every, folds, methods, phantom.
PROFILES = (
    Profile("smoke", (64, 64), 0.125, 2, 6, 2, 1, ROWS, phantom("ct", 5, (10, 48, 48))),
    Profile("quick", (96, 96), 0.25, 4, 150, 30, 1, ROWS, phantom("ct", 6, (36, 96, 96))),
    Profile("bench", (80, 80), 0.5, 16, 1000, 100, 1, (*ROWS, *CONTROLS), phantom("ct", 20, (72, 128, 128))),
    # DIFFERS: half the width, which takes a quarter of the time; slices as coarse as OpenKBP has them.
    Profile("long", (80, 80), 0.5, 16, 2000, 100, 1, (*ROWS, *CONTROLS), phantom("ct", 40, (72, 128, 128)), patience=8),
    # PAPER: 512 x 512, 124 patients, five folds, 100 epochs of about 7,112 slices. These are those of 99 patients; 89
    # of them train here, as ten validate.
    # SILENT: batch size; 8.
    Profile("paper", (512, 512), 1.0, 8, 88_900, 889, None, ROWS, phantom("ct", 124, (72, 512, 512))),
)

PAPER = Paper(
    key="luo2020",
    title="Luo et al. 2020: two-stage U-Net for organs on CT",
    methods=METHODS,
    profiles=PROFILES,
    # PAPER: five-fold.
    # DIFFERS: folds of patients, not of slices; the slice split is an experiment of its own.
    split={"kind": "k-fold", "folds": 5, "validation": 0.1},
    # Networks are compared on the same input and with the same loss.
    comparisons={
        "fcn8-plain": "dice-present",
        "mask-rcnn-enlarged": "two-stage-enlarged",
        "two-stage-long": "unet",
        "unet-tuned": "two-stage-tuned",
        "nnunet-unet-tuned": "unet-tuned",
        "nnunet-2d": "unet-tuned",
        "nnunet-3d": "unet-tuned",
        "nnunet-3d-long": "nnunet-3d",
    },
    added=tuple(method.name for method in METHODS if method.name not in ROWS),
    shortened={method.name: _shortened(method) for method in METHODS} | shorter_reference(METHODS),
)
