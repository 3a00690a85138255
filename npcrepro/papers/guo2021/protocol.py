"""Guo et al. 2021: a coarse 3-D U-Net and behind it a dense network with atrous pyramids, for the tumour on MRI.

Guo Y, Cui Z, Li X, et al. MRI image segmentation of nasopharyngeal carcinoma using multi-scale cascaded fully
convolutional network. Intelligent Automation & Soft Computing 2021;31(3):1771-1782.

The paper's printed numbers, its claims, and its gaps with our choices are in ``guo2021.yaml``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage, Use

ACDNET = "npcrepro.papers.guo2021.network:ACDNet"
BUNET = "npcrepro.papers.guo2021.network:BUNet"

# SILENT: whether the networks that are compared have the same loss; they have.
LOSS = Component("npcrepro.papers.guo2021.losses:DistanceFocalLoss")


def _stage(name: str = "all layers", **changes: Any) -> tuple[Stage, ...]:
    usual = {
        # PAPER: Adam, 0.001 (Section 4.2). SILENT: weight decay; none.
        "optimiser": Component("torch.optim:Adam", {"lr": 1e-3}),
        # PAPER: x 0.9 every 500 of 50,000 iterations.
        # DIFFERS: 21 such steps in place of 99, to a tenth of the rate. The printed schedule is at an eighth of it
        # after a fifth of the iterations, and the other four fifths move little, which trainings of any length here
        # cannot afford (method bunet-printed-decay has it).
        "decay": 0.9,
        "decays": 21,
        # SILENT: what the 9 validation patients are for; they choose the weights that are kept.
        # DIFFERS: they choose by blocks, and by the network that is trained, for CSCN the map of ACDNet before fusion.
        # It is the fused map of whole volumes that is tested.
        "monitor": "validation_dsc",
        "keep_best": True,
    }
    return (Stage(name, LOSS, **{**usual, **changes}),)


def _data(**options: Any) -> Component:
    # PAPER: equation 7, the distance to the boundary plus one inside the tumour, which weighs the core most.
    return Component("npcrepro.sampling.blocks:BlockData", {"distance_weight": "core", **options})


# SILENT: order of training, and what the second network is trained on; BUNet first, and its maps of patients that it
# did not see, as those of its own training patients are too good.
# SILENT: in how many parts these patients are split for it; two, as each costs a training. Networks behind such maps
# have half of the patients, those behind the maps of test patients all of them.
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
    network=Component(ACDNET),
    # SILENT: what probability fusion is; the mean of both maps.
    data=_data(fusion="mean"),
    stages=_stage(),
    # PAPER: softmax output.
    # SILENT: threshold and post-processing; the more probable class, none.
    activation="softmax",
    threshold=None,
    uses=(MAPS,),
)


def _cascade(name: str, title: str, summary: str, **changes: Any) -> Method:
    """CSCN with something else in it."""
    return replace(CSCN, name=name, title=title, summary=summary, **changes)


def _fused_otherwise(name: str, title: str, summary: str, fusion: str) -> Method:
    """The trained networks of CSCN, with another fusion in testing."""
    return _cascade(
        name, title, summary, data=_data(fusion=fusion), stages=(), uses=(Use("cscn", weights={"": ""}), MAPS)
    )


def _alone(name: str, title: str, summary: str, target: str, data: Component | None = None, **options: Any) -> Method:
    """One network on the image, without a second."""
    return _cascade(name, title, summary, network=Component(target, options), data=data or _data(), uses=())


# DIFFERS: V-Net on its own terms, blocks of 48 x 48 x 16 (as x, y, z), where the paper gives it 24 x 24 x 8.
LARGE_BLOCKS = {"enlarge": 2}

METHODS = (
    CSCN,
    # Table 1
    _alone("cnn", "CNN", "3-D encoder and decoder without skip connections", BUNET, skips=False),
    # SILENT: what ACDNet sees where it is compared as a network of its own; the image alone.
    _alone("acdnet", "ACDNet", "Dense blocks with atrous pyramids on the image alone", ACDNET),
    _alone("deeplab", "Deeplab", "3-D DeepLabv3, output stride 8", "npcrepro.models.baselines.deeplab3d:DeepLabV3"),
    _alone("vnet", "V-Net", "V-Net with three halvings", "npcrepro.models.baselines.vnet:VNet", halvings=3),
    # The row that the table lacks
    _alone("bunet", "BUNet", "The first network alone: a 3-D U-Net", BUNET),
    # CSCN is two networks, each trained as long as those that it is compared with.
    replace(
        _alone("acdnet-long", "ACDNet, twice the updates", "ACDNet with as many updates as BUNet and ACDNet", ACDNET),
        budget=2.0,
    ),
    # Fusion. Where the decision is the more probable class, the product of the odds finds what the mean finds: both are
    # tumour where the two probabilities add up to more than 1.
    _fused_otherwise("cascade-unfused", "Not fused", "The second network's map alone", "fine"),
    _fused_otherwise("fusion-product", "Product", "Odds of both maps multiplied", "product"),
    _fused_otherwise("fusion-maximum", "Maximum", "The larger of both probabilities", "maximum"),
    # The weight of the loss, in BUNet, of which the second network does not take half away again
    _alone(
        "bunet-boundary-weight",
        "Weight at the boundary",
        "BUNet, voxels at the boundary weigh most, as the text wants",
        BUNET,
        _data(distance_weight="boundary"),
    ),
    _alone(
        "bunet-exponential-weight",
        "Exponential weight",
        "BUNet, weight falls exponentially with the distance to the boundary",
        BUNET,
        _data(distance_weight="exponential"),
    ),
    _alone("bunet-unweighted", "No weight", "BUNet, focal loss without weights", BUNET, _data(distance_weight="none")),
    replace(
        _alone("bunet-printed-decay", "Printed decay", "BUNet, the learning rate falls 99 times as printed", BUNET),
        stages=_stage(decays=99),
    ),
    # The second network
    _cascade(
        "map-only", "Map only", "ACDNet on the map of BUNet alone", network=Component(ACDNET, {"uses_image": False})
    ),
    _cascade(
        "joint",
        "Joint",
        "BUNet and ACDNet as one network, trained together on the mean of their maps",
        network=Component("npcrepro.papers.guo2021.network:JointCascade"),
        data=_data(),
        uses=(),
    ),
    # DIFFERS: blocks of three directions are trained on (Sections 4.2 and 5) and their maps fused (abstract only); both
    # are left out of CSCN, and both are in this method, which does not tell one from the other.
    _cascade(
        "three-views",
        "Three views",
        "Axial, coronal and sagittal blocks, the mean of their maps",
        data=_data(fusion="mean", views="three"),
    ),
    # The pyramid, in ACDNet on the image alone, where no other network hides what it does
    _alone(
        "acdnet-pyramids-as-layers",
        "Pyramids as layers",
        "A pyramid in place of each convolution of the dense blocks",
        ACDNET,
        position="replaces convolutions",
    ),
    _alone("acdnet-no-rates", "No rates", "Pyramids of three equal rates of 1", ACDNET, rates=(1, 1, 1)),
    _alone("acdnet-large-rates", "Rates 6, 12, 18", "Pyramids of DeepLab's rates", ACDNET, rates=(6, 12, 18)),
    _alone("acdnet-rate-0", "Rate 0", "1 x 1 x 1 convolutions in place of pyramids", ACDNET, rates=(0, 0, 0)),
    # Sizes
    _alone("bunet-wide", "BUNet, 32 channels", "BUNet of twice the width", BUNET, base=32),
    _alone(
        "deeplab-stride-4",
        "Deeplab, stride 4",
        "3-D DeepLabv3 on maps twice as fine",
        "npcrepro.models.baselines.deeplab3d:DeepLabV3",
        output_stride=4,
    ),
    _alone(
        "vnet-large-blocks",
        "V-Net, large blocks",
        "V-Net as it was published, on blocks of twice the side",
        "npcrepro.models.baselines.vnet:VNet",
        _data(**LARGE_BLOCKS),
    ),
    _alone(
        "bunet-large-blocks", "BUNet, large blocks", "BUNet on blocks of twice the side", BUNET, _data(**LARGE_BLOCKS)
    ),
)

PRINTED = ("cscn", "cnn", "acdnet", "deeplab", "vnet")
ROWS = (*PRINTED, "bunet")
FUSIONS = ("cascade-unfused", "fusion-product", "fusion-maximum")
CONTROL = "acdnet-long"


def _phantom(patients: int, matrix: tuple[int, int, int]) -> dict[str, Any]:
    return {"kind": "thrive", "patients": patients, "matrix": matrix}


PAPER = Paper(
    key="guo2021",
    title="Guo et al. 2021: cascade of BUNet and ACDNet for the tumour on MRI",
    methods=METHODS,
    profiles=(
        Profile(
            name="smoke", matrix=(8, 24, 24), width=0.125, batch_size=2, updates=4, check_every=2, folds=1,
            methods=ROWS, phantom=_phantom(5, (8, 32, 32)),
        ),
        Profile(
            name="quick", matrix=(8, 24, 24), width=0.25, batch_size=4, updates=120, check_every=30, folds=1,
            methods=(*ROWS, "cascade-unfused"), phantom=_phantom(11, (12, 48, 48)),
        ),
        Profile(
            name="bench", matrix=(8, 24, 24), width=0.25, batch_size=8, updates=600, check_every=60, folds=1,
            methods=(*ROWS, *FUSIONS, CONTROL), phantom=_phantom(20, (24, 96, 96)),
        ),
        # PAPER: 24 x 24 x 8, 120 patients, five folds, 50,000 iterations of each network.
        # SILENT: batch size; 16.
        Profile(
            name="paper", matrix=(8, 24, 24), width=1.0, batch_size=16, updates=50_000, check_every=500, folds=None,
            methods=(*ROWS, *FUSIONS, CONTROL), phantom=_phantom(120, (24, 256, 256)),
        ),
    ),
    # PAPER: 24 of 120 patients test, 9 of the others validate.
    # DIFFERS: five random splits would not give predictions of all 120; five folds do.
    split={"kind": "k-fold", "folds": 5, "validation": 9 / 96},
    comparisons={
        "acdnet-pyramids-as-layers": "acdnet",
        "acdnet-no-rates": "acdnet",
        "acdnet-large-rates": "acdnet-rate-0",
        "acdnet-rate-0": "acdnet",
        "bunet-boundary-weight": "bunet",
        "bunet-exponential-weight": "bunet",
        "bunet-unweighted": "bunet",
        "bunet-printed-decay": "bunet",
        "bunet-wide": "bunet",
        "bunet-large-blocks": "bunet",
        "deeplab-stride-4": "deeplab",
        "vnet-large-blocks": "bunet-large-blocks",
    },
    added=tuple(method.name for method in METHODS if method.name not in PRINTED),
)  # fmt: skip
