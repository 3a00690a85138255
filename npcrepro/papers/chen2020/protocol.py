"""Chen et al. 2020: MMFNet, one 3-D encoder for each MRI sequence, fused by attention, for the primary tumour.

Chen H, Qi Y, Yin Y, et al. MMFNet: a multi-modality MRI fusion network for segmentation of nasopharyngeal carcinoma.
Neurocomputing 2020;394:27-40.
"""

import re
from dataclasses import replace
from itertools import combinations
from typing import Any

from npcrepro.base.errors import InputError
from npcrepro.protocol.method import Component, Method, Paper, Profile, Stage, Use
from npcrepro.protocol.rows import Row, methods_of, network, phantom, shorter_reference, todays_reference

SERIES = ("T1", "T2", "CET1")
FULL = "MMFNet+multi-MLP+stdPool+self-transfer"

BASE_NETWORK = "npcrepro.papers.chen2020.network:BaseNetwork"
MMFNET = "npcrepro.papers.chen2020.network:MMFNet"
PATCH_NETWORK = "npcrepro.models.baselines.patch_cnn:PatchNetwork"
NNUNET = "npcrepro.models.baselines.nnunet:nnunet_unet"

# The fusion block in its steps from Table II.
BASE = {"separate_mlps": False, "std_in_channel_attention": False, "std_in_spatial_attention": False}
MULTI_MLP = {"std_in_channel_attention": False, "std_in_spatial_attention": False}
STD_CHANNEL = {"std_in_spatial_attention": False}
STD_SPATIAL = {"std_in_channel_attention": False}
CONCATENATION: dict[str, Any] = {"skips": "concat"}

# PAPER: epsilon is 1 and stands inside the factor 2 (equation 1), so that a correct empty window has a loss of -1.
# SILENT: Dice over the batch or for each window; for each window, mean over the batch.
# SILENT: what the 2-D U-Net is trained on; the same windows of 16 slices, so its Dice loss is a sum over 16 slices, not
# over one.
PRINTED_LOSS = Component("npcrepro.papers.chen2020.losses:ChenDiceLoss")
LOSS = Component("npcrepro.losses.dice:DiceLoss", {"pooled": "image"})

# PAPER: vertical flips, and rotations from -5 to 5 degrees (Section IV-A).
# SILENT: axis and probability of the flip; y (front and back), 0.5.
AUGMENTATION = Component("npcrepro.sampling.augment:VolumeAffine", {"degrees": 5.0, "flip": 0.5, "flip_axis": "y"})

# PAPER: slices are resampled first, then normalised, then clipped (Section IV-A).
DATA = Component("npcrepro.sampling.windows:WindowData", {"resampled_first": True})

# PAPER: 5 epochs at the higher rate, with frozen encoders, and at most 100 epochs (Section IV-C).
# SILENT: whether the five are among the hundred; they are.
WARM_UP = 5 / 100

# PAPER: stop when the validation loss has not fallen for ten epochs, and keep the best (Section IV-C); a check is an
# epoch.
PATIENCE = 10


def _stage(name: str, rate: float, share: float = 1.0, **options: Any) -> Stage:
    # SILENT: betas and weight decay of Adam; the defaults, none.
    optimiser = Component("torch.optim:Adam", {"lr": rate})
    return Stage(name, PRINTED_LOSS, optimiser, share, **options)


# PAPER: the networks that give their encoders, with a rate of 0.001 (Section IV-C).
# SILENT: the rate of the other networks of one series; the same.
ONE_RATE = (_stage("all layers", 1e-3, patience=PATIENCE),)

# SILENT: rates of the networks of several series without self-transfer; those of the paper one after the other, each as
# long as with self-transfer, so that only the start and the freezing differ. They end at a lower rate than the networks
# of one series; a network of one series with both rates is the control.
TWO_RATES = (
    _stage("rate 0.001", 1e-3, WARM_UP, patience=PATIENCE),
    _stage("rate 0.0001", 1e-4, 1 - WARM_UP, patience=PATIENCE),
)


def _warmed_up(*trainable: str) -> tuple[Stage, ...]:
    """Stages of a network that takes over encoders; ``trainable`` is what moves in the warm-up."""
    # PAPER: encoders frozen at 0.001, then everything at 0.0001 (Section IV-C).
    # SILENT: whether the fusion blocks move in the warm-up, and the encoders' running statistics; they do, these not.
    # SILENT: whether the patience runs over both stages; it starts anew behind the warm-up.
    # SILENT: what the second stage starts from; the best check of the warm-up, with a new Adam.
    # SILENT: which check is kept; the best of both stages.
    return (
        _stage("warm-up", 1e-3, WARM_UP, trainable=trainable, patience=PATIENCE),
        _stage("all layers", 1e-4, 1 - WARM_UP, patience=PATIENCE),
    )


# In profiles smaller than "paper" MMFNet departs from the paper in three settings. Each of these methods keeps one of
# them as printed. In profile "paper" MMFNet itself has all three, so that these are not trained by default.
KEEP_WARM_UP, KEEP_LOSS, KEEP_FLIP = KEEPING = "mmfnet-printed-warm-up", "mmfnet-printed-loss", "mmfnet-vertical-flip"


def _shortened(method: Method) -> Method:
    """The method as profiles smaller than ``paper`` train it."""
    stages, augmentation, data = method.stages, method.augmentation, method.data
    # DIFFERS: profiles smaller than "paper" have the higher rate, and frozen encoders, for three quarters of the
    # updates, not for 5 of 100 epochs (method mmfnet-printed-warm-up has these). A twentieth of a short run is a
    # handful of updates at 0.001 for random layers, and at 0.0001 little moves in one.
    if [stage.share for stage in stages] == [WARM_UP, 1 - WARM_UP] and method.name != KEEP_WARM_UP:
        stages = tuple(replace(stage, share=share) for stage, share in zip(stages, (0.75, 0.25), strict=True))
    # DIFFERS: profiles smaller than "paper" have epsilon outside the factor 2, so that a correct empty window has a
    # loss of 0 (method mmfnet-printed-loss has the printed form).
    if method.name != KEEP_LOSS:
        stages = tuple(replace(stage, loss=LOSS) if stage.loss == PRINTED_LOSS else stage for stage in stages)
    # DIFFERS: profiles smaller than "paper" mirror left and right, as a vertical flip exchanges front and back of a
    # head (method mmfnet-vertical-flip has the printed flip).
    if augmentation == AUGMENTATION and method.name != KEEP_FLIP:
        augmentation = replace(AUGMENTATION, options={"degrees": 5.0, "flip": 0.5})
    # DIFFERS: profiles smaller than "paper" normalise and clip slices as they were acquired and resample them then, as
    # in the published records. Pixels of their coarser matrix mix body and air before the body is looked for.
    if data == DATA:
        data = replace(DATA, options={})
    return replace(method, stages=stages, augmentation=augmentation, data=data)


def _slug(series: str) -> str:
    return re.sub("[^a-z0-9]+", "-", series.lower()).strip("-")


def _from_scratch(target: str, **options: Any) -> dict[str, Any]:
    """A network of several series that takes nothing over."""
    return {**network(target, **options), "stages": TWO_RATES, "uses": ()}


def _transferred(**options: Any) -> dict[str, Any]:
    """MMFNet with other options, which takes over trained encoders like the proposed method."""
    trainable = ("decoder",) if options == CONCATENATION else ("fusions", "decoder")
    return {**network(MMFNET, **options), "stages": _warmed_up(*trainable)}


def _of_pair(pair: tuple[str, ...]) -> dict[str, Any]:
    return {"channels": pair, "uses": _transfer(*pair)}


def _transfer(*series: str) -> tuple[Use, ...]:
    # Section III-C: E_s starts as the encoder of the network that was trained on sequence s alone
    # PAPER: the encoders start from those of the networks of one series (Section III-C).
    # SILENT: whether these saw the same patients; the same fold, or test patients would have been trained on.
    return tuple(
        Use(f"unet-3d-{_slug(name)}", {"encoder.": f"encoders.{number}."}) for number, name in enumerate(series)
    )


def _proposed(series: tuple[str, ...]) -> Method:
    return Method(
        paper="chen2020",
        name="mmfnet",
        title=FULL,
        summary="An encoder for each series, trained alone first, with fusion blocks on the skips",
        channels=series,
        # SILENT: primary tumour with or without nodes; the primary tumour.
        structures=("GTVp",),
        network=Component(MMFNET),
        data=DATA,
        augmentation=AUGMENTATION,
        stages=_warmed_up("fusions", "decoder"),
        # SILENT: the threshold; 0.5.
        # SILENT: AP, for which thresholds and voxels; 256 levels of the stored probabilities, all voxels of a patient.
        threshold=0.5,
        uses=_transfer(*series),
    )


def _variants(series: tuple[str, ...]) -> tuple[Row, ...]:
    """All rows of both tables, each once, then the rows that the paper leaves out and variants."""

    def one_series(
        kind: str, title: str, summary: str, target: str, stages: tuple[Stage, ...] = ONE_RATE, **options: Any
    ) -> list[Row]:
        behind = "-two-rates" if stages == TWO_RATES else ""
        return [
            (f"{kind}-{_slug(name)}{behind}", f"{title} ({name})", f"{summary}: {name}",
             {**network(target, **options), "channels": (name,), "stages": stages, "uses": ()})
            for name in series
        ]  # fmt: skip

    return (
        # Table I
        *one_series("patch-cnn", "Patch-based CNN", "Classifier of patches of slices, of one series", PATCH_NETWORK),
        ("patch-cnn", "Multi-modality patch-based CNN", "Classifier of patches, Siamese over series",
         _from_scratch(PATCH_NETWORK)),
        # DIFFERS: the paper compares with the U-net of its reference 33 (Section IV-D); here it is the paper's base
        # network with kernels in the plane, from 16 channels on.
        *one_series("unet-2d", "U-net", "2-D U-Net of one series", BASE_NETWORK, base=16, in_plane=True),
        # DIFFERS: the paper compares with the 3D U-net of its reference 42 (Section IV-D); here it is the paper's base
        # network, which also gives the encoders.
        *one_series("unet-3d", "3D U-net", "Base network of one series", BASE_NETWORK),
        ("single-encoder", "Single-encoder multi-modality network",
         "The series as channels of one encoder, as many times as wide",
         _from_scratch(BASE_NETWORK, encoder_width=len(series))),
        ("multi-encoder", "Multi-encoder multi-modality network",
         "An encoder for each series, their maps concatenated", _from_scratch(MMFNET, **CONCATENATION)),
        # Table II
        ("mmfnet-base", "Base MMFNet", "Fusion blocks with average and maximum, one MLP",
         _from_scratch(MMFNET, **BASE)),
        ("mmfnet-multi-mlp", "MMFNet+multi-MLP", "Fusion blocks with an MLP for each statistic",
         _from_scratch(MMFNET, **MULTI_MLP)),
        ("mmfnet-std-channel", "MMFNet+multi-MLP+stdPool (channel-attention)",
         "Standard deviation in the channel attention alone", _from_scratch(MMFNET, **STD_CHANNEL)),
        ("mmfnet-std-spatial", "MMFNet+multi-MLP+stdPool (spatial-attention)",
         "Standard deviation in the spatial attention alone", _from_scratch(MMFNET, **STD_SPATIAL)),
        ("mmfnet-no-transfer", "MMFNet+multi-MLP+stdPool", "All fusion, random encoders", _from_scratch(MMFNET)),
        ("mmfnet-base-transfer", "Base MMFNet+self-transfer", "Base with trained encoders", _transferred(**BASE)),
        ("mmfnet-multi-mlp-transfer", "MMFNet+multi-MLP+self-transfer",
         "An MLP for each statistic, with trained encoders", _transferred(**MULTI_MLP)),
        *((_name_of_pair(pair), f"{FULL}({'&'.join(pair)})", f"MMFNet of {' and '.join(pair)}", _of_pair(pair))
          for pair in _pairs(series)),
        # The paper shows self-transfer in three configurations, and has no row for these.
        ("multi-encoder-transfer", "Multi-encoder multi-modality network+self-transfer",
         "Concatenation, with trained encoders", _transferred(**CONCATENATION)),
        ("mmfnet-std-channel-transfer", "MMFNet+multi-MLP+stdPool (channel-attention)+self-transfer",
         "Standard deviation in the channel attention alone, with trained encoders", _transferred(**STD_CHANNEL)),
        ("mmfnet-std-spatial-transfer", "MMFNet+multi-MLP+stdPool (spatial-attention)+self-transfer",
         "Standard deviation in the spatial attention alone, with trained encoders", _transferred(**STD_SPATIAL)),
        # At most the updates of the networks that give the encoders, for the network that takes none over; at profile
        # "paper" each may stop early.
        ("mmfnet-no-transfer-long", "No transfer, as many updates in all",
         "All fusion, random encoders, as many updates as MMFNet and the networks that it builds on",
         _from_scratch(MMFNET) | {"budget": 1.0 + len(series)}),
        # A control: fusion against one series, both at the rates of the networks of several series.
        *one_series("unet-3d", "3D U-net, two rates", "Base network of one series, ending at the lower rate",
                    BASE_NETWORK, TWO_RATES),
        # What the paper cannot have: the network that is hard to beat today, in the same training.
        ("nnunet-unet", "U-Net of nnU-Net",
         "A modern reference, MONAI's DynUNet with residual blocks, the series as its channels",
         _from_scratch(NNUNET, dimensions=3, levels=4)),
        # Variants
        (KEEP_WARM_UP, "Printed warm-up", "MMFNet with encoders frozen for a twentieth of the updates", {}),
        ("single-encoder-narrow", "Single encoder, narrow", "The series as channels of one encoder",
         _from_scratch(BASE_NETWORK)),
        (KEEP_LOSS, "Printed loss", "MMFNet with epsilon inside the factor 2 of the Dice loss", {}),
        (KEEP_FLIP, "Vertical flip", "MMFNet with front and back mirrored, as printed", {}),
        ("mmfnet-bottom-sum", "Bottom summed", "MMFNet with the maps at the bottom summed", _transferred(bottom="sum")),
        ("mmfnet-bottom-block", "Bottom fused", "MMFNet with a fusion block at the bottom",
         _transferred(bottom="block")),
        todays_reference(_proposed(series), dimensions=3),
    )  # fmt: skip


def _pairs(series: tuple[str, ...]) -> list[tuple[str, ...]]:
    """Two of more than two series."""
    return list(combinations(series, 2)) if len(series) > 2 else []


def _name_of_pair(pair: tuple[str, ...]) -> str:
    return "-".join(["mmfnet", *map(_slug, pair)])


def _comparisons(series: tuple[str, ...]) -> dict[str, str]:
    """What each method is compared with; the networks of one series in 3-D and the Siamese one have no partner."""
    each = [_slug(name) for name in series]
    variants = ["printed-loss", "printed-warm-up", "vertical-flip", "bottom-sum", "bottom-block", "no-transfer"]
    return {
        **{f"patch-cnn-{name}": f"unet-2d-{name}" for name in each},
        **{f"unet-2d-{name}": f"unet-3d-{name}" for name in each},
        **{f"unet-3d-{name}-two-rates": f"unet-3d-{name}" for name in each},
        **dict.fromkeys([*map(_name_of_pair, _pairs(series)), *(f"mmfnet-{name}" for name in variants)], "mmfnet"),
        "single-encoder": "multi-encoder",
        "single-encoder-narrow": "single-encoder",
        "nnunet-unet": "single-encoder",
        "nnunet-3d": "single-encoder",
        "multi-encoder": "mmfnet-no-transfer",
        "mmfnet-base": "multi-encoder",
        "mmfnet-multi-mlp": "mmfnet-base",
        "mmfnet-std-channel": "mmfnet-multi-mlp",
        "mmfnet-std-spatial": "mmfnet-multi-mlp",
        "mmfnet-base-transfer": "mmfnet-base",
        "mmfnet-multi-mlp-transfer": "mmfnet-multi-mlp",
        "multi-encoder-transfer": "multi-encoder",
        "mmfnet-std-channel-transfer": "mmfnet-std-channel",
        "mmfnet-std-spatial-transfer": "mmfnet-std-spatial",
        "mmfnet-no-transfer-long": "mmfnet",
    }


def with_modalities(series: tuple[str, ...]) -> Paper:
    """The paper on two or more MRI sequences under other names; rows of two sequences are there for three or more.

    Raises:
        InputError: a single sequence, or names that cannot be told apart in the names of methods.
    """
    if len(series) < 2:
        raise InputError(f"chen2020 fuses several series, so modalities={list(series)} has to name two or more")
    if len({_slug(name) for name in series}) < len(series):
        raise InputError(f"modalities={list(series)} have to differ in letters or digits; they name the methods")
    written = methods_of(_proposed(series), _variants(series))
    methods = tuple(_shortened(method) if method.name in KEEPING else method for method in written)
    rows = tuple(method.name for method in methods)
    printed = tuple(name for name in rows if name not in KEEPING)
    alone = tuple(f"unet-3d-{_slug(name)}" for name in series)
    few = ("mmfnet", *alone, "single-encoder", "multi-encoder", "mmfnet-no-transfer")
    # Name, matrix, width, batch size, updates, check every, folds, methods, phantom.
    profiles = (
        Profile("smoke", (16, 32, 32), 0.125, 2, 4, 2, 1, few, phantom("mri", 5, (16, 48, 48))),
        Profile("quick", (16, 48, 48), 0.5, 2, 125, 25, 1, few, phantom("mri", 6, (20, 96, 96))),
        Profile("bench", (16, 64, 64), 0.5, 2, 800, 40, 1, rows, phantom("mri", 20, (20, 160, 160))),
        # PAPER: width.
        # DIFFERS: a sixteenth of the printed pixels; as many patients as leave 40 to test in a fold.
        Profile("long", (16, 64, 64), 1.0, 2, 800, 100, 1, rows, phantom("mri", 200, (20, 160, 160))),
        # PAPER: 16 x 256 x 256, 149 patients, five folds, batch of 8, 100 epochs of 75 updates.
        Profile("paper", (16, 256, 256), 1.0, 8, 7500, 75, None, printed, phantom("mri", 149, (18, 512, 512))),
    )
    return Paper(
        key="chen2020",
        title="Chen et al. 2020: fusion of T1, T2 and contrast-enhanced T1 MRI",
        methods=methods,
        profiles=profiles,
        # PAPER: five folds, a quarter of the training part for validation.
        # SILENT: validation by patient, and the same for all networks or drawn anew; by patient, fixed for each fold.
        split={"kind": "k-fold", "folds": 5, "validation": 0.25},
        comparisons=_comparisons(series),
        # The first that neither table has, and all behind it.
        added=rows[rows.index("multi-encoder-transfer") :],
        shortened={method.name: _shortened(method) for method in written} | shorter_reference(written),
    )


PAPER = with_modalities(SERIES)
