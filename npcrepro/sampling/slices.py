"""Axial slices of a cohort at one matrix, for 2-D networks."""

import numpy as np
import torch
from torch import Tensor

from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.sampling.samples import Data, fit_in_plane, normalise, to_native_plane
from npcrepro.sampling.store import Store


class SliceData(Data):
    """Axial slices at one matrix, for 2-D networks.

    Training draws slices that contain a structure; testing goes through all slices of a case. A sample is
    ``(case, z)``.

    Args:
        cohort, channels, structures: see :class:`npcrepro.sampling.samples.Data`.
        matrix: ``(y, x)``.
        normalisation: see :func:`npcrepro.sampling.samples.normalise`; applied last, after augmentation.
        windows: intensity ranges; each brings every channel from its range to 0-1 as a channel of its own, before the
            normalisation. Empty means that the channels go in as they are.
        slices_per_case: train on so many slices, the one with the largest area and those next to it; ``None`` means
            all that show a structure.
        background_share: share of the slices drawn that show none.
    """

    def __init__(
        self,
        cohort: PreparedCohort,
        matrix: tuple[int, int],
        channels: tuple[str, ...],
        structures: tuple[str, ...],
        normalisation: str = "zscore",
        windows: tuple[tuple[float, float], ...] = (),
        slices_per_case: int | None = None,
        background_share: float = 0.0,
    ):
        super().__init__(cohort, matrix, channels, structures)
        self.normalisation, self.windows = normalisation, windows
        self.slices_per_case, self.background_share = slices_per_case, background_share
        options = [self.matrix, self.channels, self.structures]
        self.store = Store(cohort.folder, "npcrepro.sampling.slices:SliceData", options)
        self._area: dict[str, np.ndarray] = {}

    def arrays(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Resampled image ``(z, C, y, x)`` float32 and label ``(z, S, y, x)`` uint8 of a case, memory-mapped."""
        image, label = (self.store.get(case, name, lambda: self._resampled(case)) for name in ("image", "label"))
        return image, label

    def _resampled(self, name: str) -> dict[str, np.ndarray]:
        case = self.cohort.case(name)
        rows = [self.cohort.channels.index(channel) for channel in self.channels]
        image = torch.from_numpy(np.asarray(case.image[rows], dtype=np.float32)).transpose(0, 1)
        # DIFFERS: the papers' slices have the network's matrix; larger ones are resampled to it, whole, without a
        # crop, and smaller ones padded, as interpolation would blur their contours and add nothing.
        labels = [
            self._label(case, structure, lambda mask: fit_in_plane(mask[:, None], self.matrix)[:, 0])
            for structure in self.structures
        ]
        return {"image": fit_in_plane(image, self.matrix).numpy(), "label": np.stack(labels, axis=1)}

    def samples(self, cases: list[str]) -> list[tuple[str, int]]:
        """``(case, z)`` of the slices whose resampled label is not empty."""
        # PAPER: Li 2018, only slices that contain tumour (Section 2.1).
        # SILENT: Li 2018, which slices with tumour train: the volumes of Table 2 need about three times the 87; all by
        # default.
        chosen = []
        for case in cases:
            areas = self._areas(case)
            shown = np.flatnonzero(areas)
            nearest = shown[np.abs(shown - areas.argmax()).argsort(kind="stable")]
            chosen += [(case, z) for z in sorted(nearest[: self.slices_per_case].tolist())]
        return chosen

    def draw(self, samples: list[tuple[str, int]], count: int, generator: torch.Generator) -> list[tuple[str, int]]:
        """``count`` of the samples with replacement, some of them exchanged for an empty slice of the same case."""
        picked = [samples[i] for i in torch.randint(len(samples), (count,), generator=generator).tolist()]
        if self.background_share:
            exchanged, places = torch.rand((2, count), generator=generator).tolist()
            for i, (case, _) in enumerate(picked):
                empty = np.flatnonzero(self._areas(case) == 0)
                if exchanged[i] < self.background_share and len(empty):
                    picked[i] = case, int(empty[int(places[i] * len(empty))])
        return picked

    def _areas(self, case: str) -> np.ndarray:
        """Pixels with a structure in each slice of a case."""
        if case not in self._area:
            self._area[case] = (self.arrays(case)[1] == 1).sum(axis=(1, 2, 3), dtype=np.int64)
        return self._area[case]

    def batch(self, samples: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        """Image ``(B, C, y, x)`` float32 and label ``(B, S, y, x)`` uint8 of the slices, not yet normalised."""
        pairs = [(image[z], label[z]) for case, z in samples for image, label in [self.arrays(case)]]
        images, labels = zip(*pairs, strict=True)
        return torch.from_numpy(np.stack(images)), torch.from_numpy(np.stack(labels))

    def finish(self, image: Tensor) -> Tensor:
        """Intensity windows and normalisation."""
        if self.windows:
            image = torch.cat([((image - low) / (high - low)).clamp(0, 1) for low, high in self.windows], dim=1)
        return normalise(image, self.normalisation)

    @torch.no_grad()
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure in all slices of a case; see :meth:`Data.predict`."""
        depth, *native = self.cohort.case(case).label.shape
        slices = [(case, z) for z in range(depth)]
        # Probabilities, not logits, are brought to the native grid: a single saturated logit would spread otherwise.
        maps = [
            to_native_plane(probability, tuple(native)).cpu()
            for _, probability in self._predicted(network, slices, activation, batch_size, device)
        ]
        return torch.cat(maps).transpose(0, 1)
