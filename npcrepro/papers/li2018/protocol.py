"""Li et al. 2018: a two-phase 2-D network on contrast-enhanced MRI, trained in three steps, tested patient by patient.

Li Q, Xu Y, Chen Z, et al. Tumor segmentation in contrast-enhanced magnetic resonance imaging for nasopharyngeal
carcinoma: deep learning with convolutional neural network. BioMed Research International 2018:9128527.
"""

from dataclasses import replace
from typing import Any

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage
from npcrepro.protocol.rows import Row, methods_of, network, shorter_reference, todays_reference

NETWORK = "npcrepro.papers.li2018.network:Li2018Network"
NNUNET = "npcrepro.models.baselines.nnunet:nnunet_unet"
SUPPORT_VECTORS = "npcrepro.papers.li2018.network:SupportVectors"

# SILENT: the loss. Sigmoid cross-entropy fits a linear one-channel score; mean over pixels.
CROSS_ENTROPY = Component("npcrepro.losses.cross_entropy:CrossEntropyLoss")
NEAREST_TARGETS = replace(CROSS_ENTROPY, options={"target": "nearest"})
SUMMED = replace(CROSS_ENTROPY, options={"reduction": "sum"})
EUCLIDEAN = Component("npcrepro.papers.li2018.losses:EuclideanLoss")

# PAPER: rate x 0.1 every 1e5 iterations (Section 2.3).
# SILENT: how many iterations there are; no step has 1e5 of them here, at no profile, so that the rate stays.
DECAY: dict[str, Any] = {"decay_every": 100_000, "decay": 0.1}

# Outputs of the three steps of Section 2.3, and the layers that each adds.
STEPS = {
    "score 1/4": ("score_quarter", ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")),
    "score 1/2": ("score_half", ("deconv1", "conv7")),
    "score 1/1": ("score_full", ("deconv2", "conv8")),
}

# DIFFERS: learning rates found on validation patients; the printed 1e-7 is in the method "literal". Steps 2 and 3 train
# only about a hundred weights, and take a higher rate. Of 0.05, 0.2 and 1 the validation patients of six folds of
# sarcomas chose 0.2; with 1 trainings diverge.
RATE, RATE_OF_FEW = 0.05, 0.2


def _sgd(rate: float) -> Component:
    # SILENT: the optimiser; stochastic gradient descent, which momentum 0.9 implies.
    # PAPER: momentum 0.9.
    # SILENT: the sign in the exponent of the weight decay, "5x104" in our copy of the text; 5e-4.
    return Component("torch.optim:SGD", {"lr": rate, "momentum": 0.9, "weight_decay": 5e-4})


def _steps(
    loss: Component = CROSS_ENTROPY,
    rate: float = RATE,
    rate_of_few: float = RATE_OF_FEW,
    freeze: bool = True,
    joint: bool = False,
) -> dict[str, Any]:
    """The three steps of Section 2.3, equal in updates.

    Args:
        loss: of every step.
        rate: learning rate of steps that move the whole feature phase.
        rate_of_few: learning rate of steps that move only the layers they add.
        freeze: later steps move only the layers they add.
        joint: a last step moves all layers.
    """
    share = 1 / (len(STEPS) + joint)
    stages = []
    for number, (name, (output, layers)) in enumerate(STEPS.items()):
        # SILENT: iterations of each step, and whether the rate starts again; equal updates, each from its base rate.
        # SILENT: whether earlier steps are frozen; frozen by default, "fine-tune" and "joint" as variants.
        few = freeze and number > 0
        optimiser = _sgd(rate_of_few if few else rate)
        stages.append(Stage(name, loss, optimiser, share, {"output": output}, layers if freeze else (), **DECAY))
    if joint:
        stages.append(Stage("all layers", loss, _sgd(rate), share, **DECAY))
    return {"stages": tuple(stages)}


def _tuned(rate: float) -> dict[str, Any]:
    """A modern loss and optimiser; a network with normalisation bears the higher rate."""
    loss = Component("npcrepro.losses.cross_entropy:DiceCrossEntropyLoss")
    return {"stages": (Stage("all layers", loss, Component("torch.optim:Adam", {"lr": rate}), decay=0.88, decays=24),)}


# DIFFERS: Table 3 sets the network beside support vectors (Zhou, reference 7) and a hidden Markov random field (Huang,
# reference 14), each on patients of its own study; here all see the same images, in as many updates.
# SILENT: features, kernel and settings of these rivals; intensities and slopes at three scales, place, a Gaussian
# kernel, both classes of pixels weighed alike, and a field over four neighbours. The worth of place and the length of
# the kernel were found on a phantom. As both classes weigh the same, too many pixels come out above 0: compare by
# AP, or at a threshold that validation patients choose.
HINGE = Component("npcrepro.papers.li2018.losses:HingeLoss")
CLASSIFIER = Component("torch.optim:Adam", {"lr": 0.01, "weight_decay": 1e-4})
MACHINE = {"stages": (Stage("classifier", HINGE, CLASSIFIER, decay=0.88, decays=24),)}


def _data(normalisation: str = "zscore", **options: Any) -> dict[str, Any]:
    options = {"normalisation": normalisation, **options}
    return {"data": Component("npcrepro.sampling.slices:SliceData", options)}


def _augmentation(**options: Any) -> dict[str, Any]:
    return {"augmentation": Component("npcrepro.sampling.augment:RotationContrastNoise", options)}


STEPWISE = Method(
    paper="li2018",
    name="stepwise",
    title="Stepwise, ReLU scores",
    summary="The paper's network, trained in three steps with earlier steps frozen",
    # DIFFERS: the paper takes the 35th scan of a dynamic series and leaves out lesions below 1 cm (Section 2.1); a
    # CE-T1 series stands in for that scan, and small lesions stay in.
    channels=("CET1",),
    # SILENT: whether nodes belong to the target; the primary tumour.
    structures=("GTVp",),
    # SILENT: the threshold; 0.5, never tuned on the patient left out.
    threshold=0.5,
    **network(NETWORK),
    **_data(),
    **_augmentation(),
    **_steps(),
)

LINEAR = network(NETWORK, relu_on_scores=False)
ONE_SHOT = {"stages": (Stage("all layers", CROSS_ENTROPY, _sgd(RATE), **DECAY),)}

# Name, title, summary, and what is not as in STEPWISE.
# SILENT: the loss that the printed rate goes with; cross-entropy, summed over pixels as old frameworks do (literal), or
# averaged (literal-mean). The score of step 1 has 36 x 36 = 1,296 pixels, so the mean makes its first updates that
# many times smaller.
VARIANTS: tuple[Row, ...] = (
    ("linear-scores", "Stepwise, linear scores", "Stepwise, without Relu6 and Relu7 on the one-channel scores", LINEAR),
    ("linear-one-shot", "One-shot, linear scores",
     "Linear scores, all layers trained from the start in as many updates", LINEAR | ONE_SHOT),
    ("linear-unfused", "No fusion, linear scores",
     "Linear scores, without Concat1 and Concat2: no fine features reach the score",
     network(NETWORK, relu_on_scores=False, fused=False)),
    # What the paper cannot have: a modern loss and network, on the same images in as many updates.
    ("one-shot-tuned", "One-shot, tuned",
     "Linear scores, all layers trained from the start, by Dice with cross-entropy and Adam", LINEAR | _tuned(1e-3)),
    ("nnunet-unet", "U-Net of nnU-Net",
     "A modern reference, MONAI's DynUNet with residual blocks, by Dice with cross-entropy and Adam",
     network(NNUNET) | _tuned(3e-3)),
    # The paper's rivals, on the same images.
    ("support-vectors", "Support vectors", "Support vector machine on fixed features of each pixel",
     network(SUPPORT_VECTORS) | MACHINE),
    ("support-vectors-field", "Support vectors, random field",
     "The same, with a random field that smooths what is found", network(SUPPORT_VECTORS, field=0.5) | MACHINE),
    todays_reference(STEPWISE, dimensions=2),
    ("one-shot", "One-shot", "The printed network, all layers trained from the start in as many updates", ONE_SHOT),
    ("unfused", "No fusion", "Stepwise, without Concat1 and Concat2", network(NETWORK, fused=False)),
    ("fine-tune", "Stepwise, fine-tuned", "Stepwise, with all layers moving in every step", _steps(freeze=False)),
    ("joint", "Stepwise, then joint",
     "Stepwise with frozen steps, then a fourth step for all layers", _steps(joint=True)),
    ("mean-division", "Divided by the mean",
     "Linear scores, each slice divided by its mean (above its minimum), as the text describes its z-score",
     LINEAR | _data("mean")),
    ("percentiles", "Between percentiles",
     "Linear scores, each slice brought to 0-1 between its percentiles 1 and 99", LINEAR | _data("percentiles")),
    ("rotations-only", "Rotations only", "Linear scores, with the 11 rotations but without contrast and noise",
     LINEAR | _augmentation(gammas=(1.0,), clipped=(0.0,), noise_variances=(0.0,))),
    ("three-slices", "Three slices a patient",
     "Stepwise, trained on the largest tumour slice of each patient and its neighbours, as 87 slices suggest",
     _data(slices_per_case=3)),
    ("unaugmented", "No augmentation", "Linear scores, without augmentation", LINEAR | {"augmentation": None}),
    ("nearest-targets", "Nearest targets",
     "Stepwise, with nearest-neighbour instead of soft targets for the inner scores", _steps(NEAREST_TARGETS)),
    ("euclidean", "Euclidean loss", "Stepwise, with half the squared distance instead of cross-entropy",
     _steps(EUCLIDEAN, rate=0.003, rate_of_few=0.1) | {"activation": "identity"}),
    ("small-weights", "Initial sd 0.01", "Stepwise, from normal weights with sd 0.01",
     network(NETWORK, initialisation=0.01)),
    ("literal", "Printed settings, literally",
     "Initial weights with sd 1 and a learning rate of 1e-7, both as printed, and a loss summed over pixels",
     network(NETWORK, initialisation=1.0) | _steps(SUMMED, rate=1e-7, rate_of_few=1e-7)),
    ("literal-mean", "Printed settings, averaged loss", "The same, with a loss averaged over pixels",
     network(NETWORK, initialisation=1.0) | _steps(rate=1e-7, rate_of_few=1e-7)),
)  # fmt: skip

METHODS = methods_of(STEPWISE, VARIANTS)

FEW = ("stepwise", "linear-scores", "linear-one-shot", "linear-unfused")


def _phantom(patients: int, matrix: tuple[int, int, int], thickness_mm: float = 3.0) -> dict[str, Any]:
    # PAPER: 20 slices, field of view 220 x 220 x 60 mm, matrix 144 x 144; so slices are 3 mm thick.
    spacing_mm = (thickness_mm, 220 / matrix[1], 220 / matrix[2])
    return {"kind": "mri", "channels": ("CET1",), "patients": patients, "matrix": matrix, "spacing_mm": spacing_mm}


# Name, matrix, width, batch size, updates, check every, folds, methods, phantom.
PROFILES = (
    Profile("smoke", (48, 48), 0.1, 2, 6, 2, 1, FEW[:2], _phantom(4, (6, 48, 48), 10.0)),
    Profile("quick", (96, 96), 0.25, 4, 330, 22, 2, FEW, _phantom(5, (20, 96, 96))),
    # Fewer pixels than the paper's, as leave-one-out has a run for each patient.
    Profile("bench", (96, 96), 0.25, 4, 1800, 60, None, FEW, _phantom(29, (20, 144, 144))),
    # DIFFERS: half the width, which takes a quarter of the time.
    Profile("long", (144, 144), 0.5, 8, 900, 60, None, FEW, _phantom(29, (20, 144, 144))),
    # PAPER: matrix, widths, 29 patients, leave-one-out.
    # SILENT: batch size and iterations; 8, and as many updates as show each of the 60,984 augmented slices of 28
    # patients twice in each of the three steps; 27 train here, as one validates.
    Profile("paper", (144, 144), 1.0, 8, 45_738, 500, None, (*FEW, "literal"), _phantom(29, (20, 144, 144))),
)

PAPER = Paper(
    key="li2018",
    title="Li et al. 2018: stepwise 2-D network on contrast-enhanced MRI",
    methods=METHODS,
    profiles=PROFILES,
    # PAPER: leave-one-out by patient.
    # DIFFERS: the paper has no validation set; one inner validation patient in each fold shows the learning curve.
    split={"kind": "leave-one-out", "validation": 1},
    comparisons={
        **dict.fromkeys(
            ("linear-one-shot", "linear-unfused", "mean-division", "percentiles", "rotations-only", "unaugmented"),
            "linear-scores",
        ),
        "one-shot-tuned": "linear-one-shot",
        "nnunet-unet": "one-shot-tuned",
        "support-vectors-field": "support-vectors",
        "nnunet-2d": "one-shot-tuned",
    },
    # The paper prints numbers of one network.
    shortened=shorter_reference(METHODS),
    added=tuple(method.name for method in METHODS[1:]),
)
