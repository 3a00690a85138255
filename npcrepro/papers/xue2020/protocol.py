"""Xue et al. 2020: DeepLabv3+ with MobileNetV2 for the primary tumour (GTVp) on planning CT, against U-Net.

Xue X, Hao X, Shi J, et al. Auto-segmentation of high-risk primary tumor gross target volume for the radiotherapy of
nasopharyngeal carcinoma. Journal of Image and Graphics 2020;25(10):2151-2158 (in Chinese).
"""

from typing import Any

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage
from npcrepro.protocol.rows import Row, methods_of, network, phantom, shorter_reference, todays_reference

DEEPLAB = "npcrepro.papers.xue2020.network:DeepLabV3Plus"
UNET = "npcrepro.models.unet:UNet"

# SILENT: the intensity window; soft tissue.
SOFT_TISSUE_HU = (-160.0, 240.0)


def _stages(rate: float = 0.005) -> dict[str, Any]:
    # PAPER: Adam, rate 0.005, multiplied by 0.8 after five checks without improvement (Section 1.3).
    # DIFFERS: the paper watches a "training index"; here it is the validation loss, over slices that show the target.
    # SILENT: which weights are kept; the best.
    # SILENT: the least improvement that counts, and a cooldown after the rate is lowered; any improvement, and none.
    optimiser = Component("torch.optim:Adam", {"lr": rate})
    # PAPER: the loss is 1 - DSC.
    loss = Component("npcrepro.losses.dice:DiceLoss")
    return {"stages": (Stage("all layers", loss, optimiser, plateau=5, decay=0.8, keep_best=True),)}


def _data(background_share: float = 0.25) -> dict[str, Any]:
    # SILENT: which slices train; the times fit tumour slices only, to which a share of others is added.
    options = {"normalisation": "none", "windows": (SOFT_TISSUE_HU,), "background_share": background_share}
    return {"data": Component("npcrepro.sampling.slices:SliceData", options)}


DEEPLABV3PLUS = Method(
    paper="xue2020",
    name="deeplabv3plus",
    title="DeepLabv3+",
    summary="DeepLabv3+ with a MobileNetV2 trunk, output stride 16",
    channels=("CT",),
    # DIFFERS: the paper counts retropharyngeal nodes in; here GTVp is what the cohort draws (the phantom: not).
    structures=("GTVp",),
    # PAPER: flips, rotation, zoom and shift.
    # SILENT: their ranges and the axis of the flip; 10 degrees, 0.9 to 1.1, a tenth of the side, left and right.
    augmentation=Component("npcrepro.sampling.augment:Affine", {"flip": 0.5}),
    # SILENT: the threshold; 0.5.
    threshold=0.5,
    **network(DEEPLAB),
    **_data(),
    **_stages(),
)

# Name, title, summary, and what is not as in DEEPLABV3PLUS.
VARIANTS: tuple[Row, ...] = (
    # SILENT: width, normalisation and training of the U-Net; 64 channels at the finest level, the same loss, schedule
    # and augmentation, and batch normalisation as in the network it is held against. The U-Net that is cited has none
    # (method unet-plain, not published here). Narrower ones are methods unet-32 and unet-16.
    ("unet", "U-Net", "U-Net with 64 channels at the finest level", network(UNET, base=64, batch_norm=True)),
    ("unet-plain", "U-Net without normalisation", "U-Net without batch normalisation, at the printed learning rate",
     network(UNET, base=64, batch_norm=False)),
    ("unet-32", "U-Net, 32 channels", "U-Net of half the width", network(UNET, base=32, batch_norm=True)),
    ("unet-16", "U-Net, 16 channels", "U-Net of a quarter of the width", network(UNET, base=16, batch_norm=True)),
    ("stride-8", "Output stride 8", "DeepLabv3+ whose trunk is reduced eight times only",
     network(DEEPLAB, output_stride=8)),
    # DIFFERS: on slices of 96 pixels or fewer the rates 6, 12 and 18 reach beyond a map of a sixteenth of the side, and
    # all but the middle of each kernel reads padding. Rates 1, 2, 3 cover as large a share of the map of an 80-pixel
    # slice (5 x 5) as 6, 12, 18 of that of a 512-pixel slice (32 x 32).
    ("rates-1-2-3", "Rates 1, 2, 3", "DeepLabv3+ with a pyramid whose rates fit maps of a few pixels",
     network(DEEPLAB, rates=(1, 2, 3))),
    ("full-convolutions", "Full convolutions", "DeepLabv3+ without separable convolutions in pyramid and decoder",
     network(DEEPLAB, separable=False)),
    ("tumour-slices", "Tumour slices only",
     "DeepLabv3+ trained on slices with tumour alone, as the printed times suggest", _data(background_share=0.0)),
    ("rate-0.001", "Rate 0.001", "DeepLabv3+ from a learning rate of 0.001", _stages(0.001)),
    ("unaugmented", "No augmentation", "DeepLabv3+ without augmentation", {"augmentation": None}),
    # PAPER: the gain is given to the pyramid, to several rates in the trunk, and to encoder and decoder (Sections 3
    # and 4); no network without one of them is printed.
    ("no-pyramid", "No pyramid", "DeepLabv3+ with one 1 x 1 convolution in place of the pyramid",
     network(DEEPLAB, pyramid=False)),
    # What the paper cannot have.
    todays_reference(DEEPLABV3PLUS, dimensions=2, windows=(SOFT_TISSUE_HU,)),
)  # fmt: skip

METHODS = methods_of(DEEPLABV3PLUS, VARIANTS)

ROWS = ("deeplabv3plus", "unet")
FULL = (*ROWS, "unet-32", "unet-16")


# Name, matrix, width, batch size, updates, check every, folds, methods, phantom.
PROFILES = (
    Profile("smoke", (64, 64), 0.125, 2, 6, 2, 1, ROWS, phantom("ct", 5, (10, 48, 48))),
    Profile("quick", (96, 96), 0.25, 4, 200, 20, 1, ROWS, phantom("ct", 6, (36, 96, 96))),
    Profile("bench", (80, 80), 0.5, 16, 800, 40, 1, ROWS, phantom("ct", 20, (72, 128, 128))),
    # PAPER: batch of 8, 150 patients.
    # SILENT: the width; that of the standard network.
    # DIFFERS: coarser slices, 8,000 updates with early stopping; 108 patients train, 12 validate and 30 test.
    Profile("long", (80, 80), 1.0, 8, 8000, 200, 1, FULL, phantom("ct", 150, (72, 128, 128)), patience=15),
    # PAPER: 512 x 512, 150 patients, batch of 8, 200 epochs.
    # SILENT: how many slices an epoch has; some 2,340 of 120 patients by X12, which makes 58,500 updates. Here
    # 108 train, and a quarter of the slices shows no tumour.
    Profile("paper", (512, 512), 1.0, 8, 58_500, 293, None, FULL, phantom("ct", 150, (72, 512, 512))),
)

PAPER = Paper(
    key="xue2020",
    title="Xue et al. 2020: DeepLabv3+ for the primary tumour on CT",
    methods=METHODS,
    profiles=PROFILES,
    # PAPER: 120 patients train, 15 validate, 15 test, one random split.
    # DIFFERS: five folds of patients; whether 15 test patients rank two networks depends on how closely these agree
    # from patient to patient (X14).
    split={"kind": "k-fold", "folds": 5, "validation": 0.1},
    shortened=shorter_reference(METHODS),
    added=tuple(method.name for method in METHODS if method.name not in ROWS),
)
