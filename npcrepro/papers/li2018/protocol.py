"""Li et al. 2018: a two-phase 2-D network on contrast-enhanced MRI, trained in three steps, tested patient by patient.

Li Q, Xu Y, Chen Z, et al. Tumor segmentation in contrast-enhanced magnetic resonance imaging for nasopharyngeal
carcinoma: deep learning with convolutional neural network. BioMed Research International 2018:9128527.

The paper's printed numbers, its claims, and its gaps with our choices are in ``li2018.yaml``.
"""

from __future__ import annotations

from dataclasses import replace

from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage

# SILENT: the loss. Sigmoid cross-entropy fits a linear one-channel score; mean over pixels.
CROSS_ENTROPY = Component("npcrepro.losses.cross_entropy:CrossEntropyLoss")


def _sgd(rate: float) -> Component:
    # SILENT: the optimiser. Momentum 0.9 implies stochastic gradient descent.
    # PAPER: momentum 0.9; weight decay 5e-4 (its exponent is lost in our copy of the text).
    return Component("torch.optim:SGD", {"lr": rate, "momentum": 0.9, "weight_decay": 5e-4})


# PAPER: rate x 0.1 every 1e5 iterations (Section 2.3).
# SILENT: how many iterations there are; no step has 1e5 of them here, at no profile, so that the rate stays.
DECAY = {"decay_every": 100_000, "decay": 0.1}


# Outputs of the three steps of Section 2.3, and the layers that each adds.
STEPS = {
    "score 1/4": ("score_quarter", ("conv1", "conv2", "conv3", "conv4", "conv5", "conv6")),
    "score 1/2": ("score_half", ("deconv1", "conv7")),
    "score 1/1": ("score_full", ("deconv2", "conv8")),
}

# DIFFERS: learning rates found on validation patients; the printed 1e-7 is in the method "literal". A step that moves
# only its own few hundred weights is a convex problem and bears a higher rate.
RATE, RATE_OF_FEW = 0.05, 1.0


def _stages(
    loss: Component = CROSS_ENTROPY,
    rate: float = RATE,
    rate_of_few: float = RATE_OF_FEW,
    freeze: bool = True,
    joint: bool = False,
) -> tuple[Stage, ...]:
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
    return tuple(stages)


def _tuned(rate: float) -> tuple[Stage, ...]:
    """The loss and the optimiser of today; a network with normalisation bears the higher rate."""
    loss, adam = (
        Component("npcrepro.losses.cross_entropy:DiceCrossEntropyLoss"),
        Component("torch.optim:Adam", {"lr": rate}),
    )
    return (Stage("all layers", loss, adam, decay=0.88, decays=24),)


def _augmentation(**options) -> Component:
    return Component("npcrepro.sampling.augment:RotationContrastNoise", options)


NETWORK = "npcrepro.papers.li2018.network:Li2018Network"
DATA = "npcrepro.sampling.slices:SliceData"

STEPWISE = Method(
    paper="li2018",
    name="stepwise",
    title="Stepwise, ReLU scores",
    summary="The paper's network, trained in three steps with earlier steps frozen",
    # SILENT: which series exactly; one contrast-enhanced phase, for which a CE-T1 series stands in elsewhere.
    channels=("CET1",),
    # SILENT: whether nodes belong to the target; the primary tumour.
    structures=("GTVp",),
    network=Component(NETWORK),
    data=Component(DATA, {"normalisation": "zscore"}),
    augmentation=_augmentation(),
    stages=_stages(),
    # SILENT: the threshold; 0.5, never tuned on the patient left out.
    threshold=0.5,
)


def _variant(name: str, title: str, summary: str, **changes) -> Method:
    return replace(STEPWISE, name=name, title=title, summary=summary, **changes)


LINEAR = {"relu_on_scores": False}
ONE_SHOT = (Stage("all layers", CROSS_ENTROPY, _sgd(RATE), **DECAY),)

METHODS = (
    STEPWISE,
    _variant(
        "linear-scores",
        "Stepwise, linear scores",
        "Stepwise, without Relu6 and Relu7 on the one-channel scores",
        network=Component(NETWORK, LINEAR),
    ),
    _variant(
        "linear-one-shot",
        "One-shot, linear scores",
        "Linear scores, all layers trained from the start in as many updates",
        network=Component(NETWORK, LINEAR),
        stages=ONE_SHOT,
    ),
    _variant(
        "linear-unfused",
        "No fusion, linear scores",
        "Linear scores, without Concat1 and Concat2: no fine features reach the score",
        network=Component(NETWORK, LINEAR | {"fused": False}),
    ),
    # What the paper cannot have: the loss and the network of today, on the same images in as many updates.
    _variant(
        "one-shot-tuned",
        "One-shot, tuned",
        "Linear scores, all layers trained from the start, by Dice with cross-entropy and Adam",
        network=Component(NETWORK, LINEAR),
        stages=_tuned(1e-3),
    ),
    _variant(
        "nnunet-unet",
        "U-Net of nnU-Net",
        "The reference of today, MONAI's DynUNet with residual blocks, by Dice with cross-entropy and Adam",
        network=Component("npcrepro.models.baselines.nnunet:nnunet_unet"),
        stages=_tuned(3e-3),
    ),
    _variant(
        "one-shot",
        "One-shot",
        "The printed network, all layers trained from the start in as many updates",
        stages=ONE_SHOT,
    ),
    _variant(
        "unfused",
        "No fusion",
        "Stepwise, without Concat1 and Concat2",
        network=Component(NETWORK, {"fused": False}),
    ),
    _variant(
        "fine-tune",
        "Stepwise, fine-tuned",
        "Stepwise, with all layers moving in every step",
        stages=_stages(freeze=False),
    ),
    _variant(
        "joint",
        "Stepwise, then joint",
        "Stepwise with frozen steps, then a fourth step for all layers",
        stages=_stages(joint=True),
    ),
    _variant(
        "mean-division",
        "Divided by the mean",
        "Linear scores, each slice divided by its mean (above its minimum), as the text describes its z-score",
        network=Component(NETWORK, LINEAR),
        data=Component(DATA, {"normalisation": "mean"}),
    ),
    _variant(
        "percentiles",
        "Between percentiles",
        "Linear scores, each slice brought to 0-1 between its percentiles 1 and 99",
        network=Component(NETWORK, LINEAR),
        data=Component(DATA, {"normalisation": "percentiles"}),
    ),
    _variant(
        "rotations-only",
        "Rotations only",
        "Linear scores, with the 11 rotations but without contrast and noise",
        network=Component(NETWORK, LINEAR),
        augmentation=_augmentation(gammas=(1.0,), clipped=(0.0,), noise_variances=(0.0,)),
    ),
    _variant(
        "three-slices",
        "Three slices a patient",
        "Stepwise, trained on the largest tumour slice of each patient and its neighbours, as 87 slices suggest",
        data=Component(DATA, {"normalisation": "zscore", "slices_per_case": 3}),
    ),
    _variant(
        "unaugmented",
        "No augmentation",
        "Linear scores, without augmentation",
        network=Component(NETWORK, LINEAR),
        augmentation=None,
    ),
    _variant(
        "nearest-targets",
        "Nearest targets",
        "Stepwise, with nearest-neighbour instead of soft targets for the inner scores",
        stages=_stages(Component("npcrepro.losses.cross_entropy:CrossEntropyLoss", {"target": "nearest"})),
    ),
    _variant(
        "euclidean",
        "Euclidean loss",
        "Stepwise, with half the squared distance instead of cross-entropy",
        stages=_stages(Component("npcrepro.papers.li2018.losses:EuclideanLoss"), rate=0.003, rate_of_few=0.1),
        activation="identity",
    ),
    _variant(
        "small-weights",
        "Initial sd 0.01",
        "Stepwise, from normal weights with sd 0.01",
        network=Component(NETWORK, {"initialisation": 0.01}),
    ),
    _variant(
        "literal",
        "Printed settings, literally",
        "Initial weights with sd 1 and a learning rate of 1e-7, both as printed, and a loss summed over pixels",
        network=Component(NETWORK, {"initialisation": 1.0}),
        # SILENT: the loss that the printed rate goes with; cross-entropy, summed so that the rate moves something.
        stages=_stages(
            Component("npcrepro.losses.cross_entropy:CrossEntropyLoss", {"reduction": "sum"}),
            rate=1e-7,
            rate_of_few=1e-7,
        ),
    ),
)


def _phantom(patients: int, matrix: tuple[int, int, int], thickness_mm: float = 3.0) -> dict:
    # PAPER: 20 slices of 3 mm, field of view 220 mm, matrix 144 x 144.
    spacing_mm = (thickness_mm, 220 / matrix[1], 220 / matrix[2])
    return {"kind": "mri", "channels": ("CET1",), "patients": patients, "matrix": matrix, "spacing_mm": spacing_mm}


PAPER = Paper(
    key="li2018",
    title="Li et al. 2018: stepwise 2-D network on contrast-enhanced MRI",
    methods=METHODS,
    profiles=(
        Profile(
            name="smoke", matrix=(48, 48), width=0.1, batch_size=2, updates=6, check_every=2, folds=1,
            methods=("stepwise", "linear-scores"),
            phantom=_phantom(4, (6, 48, 48), 10.0),
        ),
        Profile(
            name="quick", matrix=(96, 96), width=0.25, batch_size=4, updates=330, check_every=22, folds=2,
            methods=("stepwise", "linear-scores", "linear-one-shot", "linear-unfused"),
            phantom=_phantom(5, (20, 96, 96)),
        ),
        # Fewer pixels than the paper's, as leave-one-out has a run for each patient.
        Profile(
            name="bench", matrix=(96, 96), width=0.25, batch_size=4, updates=1800, check_every=60, folds=None,
            methods=("stepwise", "linear-scores", "linear-one-shot", "linear-unfused"),
            phantom=_phantom(29, (20, 144, 144)),
        ),
        # PAPER: matrix, widths, 29 patients, leave-one-out.
        # SILENT: batch size and iterations; 8, and as many updates as show each of the 60,984 augmented slices of a
        # fold twice in each of the three steps.
        Profile(
            name="paper", matrix=(144, 144), width=1.0, batch_size=8, updates=45_738, check_every=500, folds=None,
            methods=("stepwise", "linear-scores", "linear-one-shot", "linear-unfused"),
            phantom=_phantom(29, (20, 144, 144)),
        ),
    ),
    # PAPER: leave-one-out by patient.
    # DIFFERS: the paper has no validation set; one inner validation patient in each fold shows the learning curve.
    split={"kind": "leave-one-out", "validation": 1},
    comparisons={
        "linear-one-shot": "linear-scores",
        "linear-unfused": "linear-scores",
        "mean-division": "linear-scores",
        "percentiles": "linear-scores",
        "rotations-only": "linear-scores",
        "unaugmented": "linear-scores",
        "one-shot-tuned": "linear-one-shot",
        "nnunet-unet": "one-shot-tuned",
    },
    # The paper prints numbers of one network.
    added=tuple(method.name for method in METHODS[1:]),
)  # fmt: skip
