"""Guo et al. 2021: a coarse 3-D U-Net and behind it a dense network with atrous pyramids, for the tumour on MRI.

Guo Y, Cui Z, Li X, et al. MRI image segmentation of nasopharyngeal carcinoma using multi-scale cascaded fully
convolutional network. Intelligent Automation & Soft Computing 2021;31(3):1771-1782.
"""

from dataclasses import replace
from typing import Any

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage, Use
from npcrepro.protocol.rows import Row, methods_of, network, phantom, shorter_reference, todays_reference

ACDNET = "npcrepro.papers.guo2021.network:ACDNet"
BUNET = "npcrepro.papers.guo2021.network:BUNet"
CASCADE = "npcrepro.papers.guo2021.network:JointCascade"
DEEPLAB = "npcrepro.models.baselines.deeplab3d:DeepLabV3"
VNET = "npcrepro.models.baselines.vnet:VNet"

# SILENT: whether the networks that are compared have the same loss; they have.
LOSS = Component("npcrepro.papers.guo2021.losses:DistanceFocalLoss")


def _stages(decays: int = 99) -> dict[str, Any]:
    """One stage of training; the learning rate falls ``decays`` times, each time to nine tenths."""
    stage = Stage(
        "all layers",
        LOSS,
        # PAPER: Adam, 0.001 (Section 4.2).
        # SILENT: weight decay; none.
        Component("torch.optim:Adam", {"lr": 1e-3}),
        # PAPER: x 0.9 every 500 of 50,000 iterations.
        # SILENT: in steps or continuously; in steps, 99 of them.
        decay=0.9,
        decays=decays,
        # SILENT: what the 9 validation patients are for; they choose the weights that are kept.
        # DIFFERS: the validation patients choose by blocks, half of which hold tumour, and by the network that is
        # trained, for CSCN the map of ACDNet before fusion. It is the fused map of whole volumes that is tested.
        monitor="validation_dsc",
        keep_best=True,
    )
    return {"stages": (stage,)}


def _data(distance_weight: str = "core", **options: Any) -> dict[str, Any]:
    # PAPER: equation 7, the distance to the boundary plus one inside the tumour, which weighs the core most.
    options = {"distance_weight": distance_weight, "cut": "own structures", **options}
    return {"data": Component("npcrepro.sampling.blocks:BlockData", options)}


def _acdnet(**options: Any) -> dict[str, Any]:
    # PAPER: the blocks of ACDNet are densely connected with each other (Section 3.2).
    return network(ACDNET, **{"connections": "dense", **options})


# SILENT: order of training, and what the second network is trained on; BUNet first, and its maps of patients that it
# did not see, as those of its own training patients are too good.
# SILENT: in how many parts these patients are split for it; two, as each costs a training. So ACDNet learns from maps
# of networks that had half of the patients and kept their last weights. It is tested on maps of a network that had all
# patients and kept its best weights. Methods cscn-four-parts, cscn-in-sample and cscn-averaged measure what this
# difference does.
MAPS = Use("bunet", maps=2)

CSCN = Method(
    paper="guo2021",
    name="cscn",
    title="CSCN",
    summary="ACDNet on the image and the map of BUNet, fused with that map",
    # SILENT: contrast agent; THRIVE as one series under its own name, CE-T1 or T1 elsewhere by --modalities.
    channels=("THRIVE",),
    # SILENT: primary tumour with or without nodes; the primary tumour.
    structures=("GTVp",),
    # PAPER: softmax output.
    # SILENT: threshold and post-processing; the more probable class, none.
    activation="softmax",
    threshold=None,
    uses=(MAPS,),
    **_acdnet(),
    # SILENT: what probability fusion is; the mean of both maps.
    **_data(fusion="mean"),
    **_stages(),
)


def _fused(fusion: str) -> dict[str, Any]:
    """The trained networks of CSCN, with another fusion in testing."""
    return {**_data(fusion=fusion), "stages": (), "uses": (Use("cscn", weights={"": ""}), MAPS)}


def _alone(target: str, **options: Any) -> dict[str, Any]:
    """One network on the image, without a second."""
    built = _acdnet(**options) if target == ACDNET else network(target, **options)
    return {**built, **_data(), "uses": ()}


# DIFFERS: V-Net on its own terms, blocks of 48 x 48 x 16 (as x, y, z), where the paper gives it 24 x 24 x 8.
LARGE_BLOCKS = _data(enlarge=2)
THREE_VIEWS = _data(fusion="mean", views="three")

# Name, title, summary, and what is not as in CSCN.
VARIANTS: tuple[Row, ...] = (
    # Table 1
    ("cnn", "CNN", "3-D encoder and decoder without skip connections", _alone(BUNET, skips=False)),
    # SILENT: what ACDNet sees where it is compared as a network of its own; the image alone.
    ("acdnet", "ACDNet", "Dense blocks with atrous pyramids on the image alone", _alone(ACDNET)),
    ("deeplab", "Deeplab", "3-D DeepLabv3, output stride 8", _alone(DEEPLAB)),
    ("vnet", "V-Net", "V-Net with three halvings", _alone(VNET, halvings=3, act="prelu")),
    # The row that the table lacks
    ("bunet", "BUNet", "The first network alone: a 3-D U-Net", _alone(BUNET)),
    # CSCN is two networks, each trained as long as those that it is compared with.
    ("acdnet-long", "ACDNet, twice the updates", "ACDNet with as many updates as BUNet and ACDNet",
     _alone(ACDNET) | {"budget": 2.0}),
    # The cascade, and the shift of its maps between training and testing
    ("cscn-four-parts", "CSCN, four parts", "Maps of training patients from networks with three quarters of the others",
     {"uses": (Use("bunet", maps=4),)}),
    ("cscn-in-sample", "CSCN, maps in-sample", "Maps of training patients from a network that was trained on them",
     {"uses": (Use("bunet", maps=1),)}),
    ("cscn-averaged", "CSCN, maps averaged", "CSCN, tested on the mean of the maps of the networks that made those of "
     "training", {"stages": (), "uses": (Use("cscn", weights={"": ""}), Use("bunet", maps=2, averaged=True))}),
    # Fusion. Mean and product of the odds mark the same voxels of the block grid: both say tumour where the two
    # probabilities add up to more than 1. After resampling to the case a few voxels differ. What moves is the order of
    # the probabilities, and so the average precision.
    ("cascade-unfused", "CSCN, not fused", "The second network's map alone", _fused("fine")),
    ("fusion-product", "CSCN, product", "Odds of both maps multiplied, which marks nearly what the mean marks",
     _fused("product")),
    ("fusion-maximum", "CSCN, maximum", "The larger of both probabilities", _fused("maximum")),
    # Weights of the loss, tried on BUNet alone: in the cascade the second network would hide part of their effect
    ("bunet-boundary-weight", "BUNet, weight at the boundary",
     "BUNet, voxels at the boundary weigh most, as one sentence wants", _alone(BUNET) | _data("boundary")),
    ("bunet-exponential-weight", "BUNet, exponential weight",
     "BUNet, weight falls exponentially with the distance to the boundary", _alone(BUNET) | _data("exponential")),
    ("bunet-unweighted", "BUNet, no weight", "BUNet, focal loss without weights", _alone(BUNET) | _data("none")),
    ("bunet-printed-decay", "BUNet, printed decay",
     "BUNet, the learning rate falls 99 times in every profile, as in profile paper", _alone(BUNET)),
    # The second network
    ("map-only", "Map only", "ACDNet on the map of BUNet alone", _acdnet(uses_image=False)),
    ("joint", "Joint", "BUNet and ACDNet as one network, trained together on the mean of their maps",
     _alone(CASCADE, connections="dense")),
    # DIFFERS: blocks of three directions are trained on (Sections 4.2 and 5), and the features of the views are fused
    # in upsampling (abstract only). Both are left out of CSCN. These two methods have the blocks, in both networks, and
    # the mean of the probabilities of the views in place of fused features.
    ("bunet-three-views", "BUNet, three views", "BUNet on axial, coronal and sagittal blocks, the mean of their maps",
     _alone(BUNET) | THREE_VIEWS),
    ("three-views", "Three views", "CSCN on axial, coronal and sagittal blocks, the mean of their maps",
     THREE_VIEWS | {"uses": (Use("bunet-three-views", maps=2),)}),
    # The pyramid, in ACDNet on the image alone, where no other network hides what it does
    ("acdnet-pyramids-as-layers", "Pyramids as layers",
     "A pyramid in place of each convolution of the dense blocks", _alone(ACDNET, position="replaces convolutions")),
    ("acdnet-1x1-branch", "1 x 1 branch", "A branch of 1 x 1 x 1 convolutions in each pyramid, as in DeepLabv3",
     _alone(ACDNET, rates=(0, 1, 2, 3))),
    ("acdnet-no-rates", "No rates", "Pyramids of three equal rates of 1", _alone(ACDNET, rates=(1, 1, 1))),
    ("acdnet-large-rates", "Rates 6, 12, 18", "Pyramids of DeepLab's rates", _alone(ACDNET, rates=(6, 12, 18))),
    ("acdnet-rate-0", "Rate 0", "1 x 1 x 1 convolutions in place of pyramids", _alone(ACDNET, rates=(0, 0, 0))),
    # The blocks
    ("acdnet-blocks-in-sequence", "Blocks in sequence", "Dense connections inside the blocks alone",
     _alone(ACDNET, connections="sequence")),
    ("acdnet-blocks-as-layers", "Blocks as layers",
     "Each block one layer of a dense block: pyramid, 1 x 1 x 1 bottleneck, convolution; nine of them",
     _alone(ACDNET, position="within layers", blocks=1, layers=9)),
    # Sizes
    ("bunet-wide", "BUNet, 32 channels", "BUNet of twice the width", _alone(BUNET, base=32)),
    ("deeplab-stride-4", "Deeplab, stride 4", "3-D DeepLabv3 on maps twice as fine", _alone(DEEPLAB, output_stride=4)),
    ("vnet-large-blocks", "V-Net, large blocks", "V-Net with its four halvings, on blocks of twice the side",
     _alone(VNET, act="prelu") | LARGE_BLOCKS),
    ("bunet-large-blocks", "BUNet, large blocks", "BUNet on blocks of twice the side", _alone(BUNET) | LARGE_BLOCKS),
    # An update on large blocks sees eight times the voxels.
    ("bunet-long", "BUNet, eight times the updates", "BUNet with as many voxels in training as on large blocks",
     _alone(BUNET) | {"budget": 8.0}),
    # What the paper cannot have; patches of as many voxels as the large blocks have.
    todays_reference(CSCN, dimensions=3, enlarge=2),
)  # fmt: skip

METHODS = methods_of(CSCN, VARIANTS)

# DIFFERS: 21 falls of the learning rate in place of 99 in the profiles smaller than paper, to a tenth of the rate. The
# printed schedule is at an eighth of it after a fifth of the iterations, and the other four fifths move little, which
# short trainings cannot afford (method bunet-printed-decay has it all the same).
SHORTENED = {
    method.name: replace(method, **_stages(decays=21))
    for method in METHODS
    if method.stages == CSCN.stages and method.name != "bunet-printed-decay"
}

PRINTED = ("cscn", "cnn", "acdnet", "deeplab", "vnet")
ROWS = (*PRINTED, "bunet")
FULL = (*ROWS, "cascade-unfused", "fusion-product", "fusion-maximum", "acdnet-long", "nnunet-3d")

# The table with the two rows that it needs: the first network alone, and the second with the updates of both.
COMPARED = (*ROWS, "acdnet-long")


# Name, matrix, width, batch size, updates, check every, folds, methods, phantom.
PROFILES = (
    Profile("smoke", (8, 24, 24), 0.125, 2, 4, 2, 1, ROWS, phantom("thrive", 5, (8, 32, 32))),
    Profile("quick", (8, 24, 24), 0.25, 4, 120, 30, 1, (*ROWS, "cascade-unfused"), phantom("thrive", 11, (12, 48, 48))),
    Profile("bench", (8, 24, 24), 0.25, 8, 600, 60, 1, FULL, phantom("thrive", 20, (24, 96, 96))),
    # PAPER: matrix and patients.
    # DIFFERS: half the width, which takes a quarter of the time.
    Profile("long", (8, 24, 24), 0.5, 8, 2500, 125, 1, FULL, phantom("thrive", 120, (24, 96, 96)), patience=10),
    # PAPER: 24 x 24 x 8, 120 patients, five folds, 50,000 iterations of each network.
    # SILENT: batch size; 16.
    # DIFFERS: the phantom covers 154 x 154 x 72 mm (x, y, z), where the paper's volumes have 160 x 198 x 103 mm.
    Profile("paper", (8, 24, 24), 1.0, 16, 50_000, 500, None, FULL, phantom("thrive", 120, (24, 256, 256))),
)

PAPER = Paper(
    key="guo2021",
    title="Guo et al. 2021: cascade of BUNet and ACDNet for the tumour on MRI",
    methods=METHODS,
    profiles=PROFILES,
    # PAPER: 24 of 120 patients test, 9 of the others validate.
    # DIFFERS: five random splits would not give predictions of all 120; five folds do.
    split={"kind": "k-fold", "folds": 5, "validation": 9 / 96},
    comparisons={
        "acdnet-pyramids-as-layers": "acdnet",
        **{f"acdnet-{name}": "acdnet" for name in ("no-rates", "1x1-branch", "blocks-in-sequence", "blocks-as-layers")},
        "acdnet-large-rates": "acdnet-rate-0",
        "acdnet-rate-0": "acdnet",
        **{f"bunet-{name}-weight": "bunet" for name in ("boundary", "exponential")},
        **{f"bunet-{name}": "bunet" for name in ("unweighted", "printed-decay", "wide", "large-blocks", "long")},
        "bunet-three-views": "bunet",
        "deeplab-stride-4": "deeplab",
        "vnet-large-blocks": "bunet-large-blocks",
        "nnunet-3d": "bunet-large-blocks",
    },
    shortened=SHORTENED | shorter_reference(METHODS),
    added=tuple(method.name for method in METHODS if method.name not in PRINTED),
)
