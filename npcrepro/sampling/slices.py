"""Axial slices of a cohort at one matrix, for 2-D networks."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from npcrepro.base.code_hash import code_sha256
from npcrepro.base.files import sha256_of, writing
from npcrepro.base.labels import NOT_CONTOURED
from npcrepro.cohorts.prepared import PreparedCohort
from npcrepro.cohorts.structures import mask_of
from npcrepro.models.outputs import probabilities
from npcrepro.sampling.samples import OPEN_CASES, fit_in_plane, match_names, normalise, to_native_plane


class SliceData:
    """Axial slices at one matrix, for 2-D networks.

    Training draws slices that contain a structure; testing goes through all slices of a case. Resampled slices are
    kept as memory-mapped files beside the prepared cohort, so that nothing is resampled twice and nothing has to fit
    into memory.

    Args:
        cohort: prepared.
        matrix: ``(y, x)`` of the network's input.
        channels: names of the channels wanted, in order; where exactly one is missing and the cohort has exactly one
            under another name, that one stands in.
        structures: names of the structures wanted, under the same rule.
        normalisation: see :func:`normalise`; applied last, after augmentation.
        windows: intensity ranges; each brings every channel from its range to 0-1 as a channel of its own, before the
            normalisation. Empty means that the channels go in as they are.
        slices_per_case: train on so many slices, the one with the largest area and those next to it; ``None`` means
            all that show a structure.
        background_share: share of the slices drawn that show none.

    Raises:
        InputError: a channel or structure that the cohort lacks.
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
        self.cohort, self.matrix, self.normalisation, self.windows = cohort, tuple(matrix), normalisation, windows
        self.slices_per_case, self.background_share = slices_per_case, background_share
        self.channels = match_names(channels, cohort.channels, cohort.name, "channel")
        self.structures = match_names(structures, tuple(cohort.structures), cohort.name, "structure")
        # Named after the code that resamples: slices of an older version are never read.
        version = code_sha256(["npcrepro.sampling.slices:SliceData"])[:8]
        self.folder = Path(cohort.folder) / f"slices-{'x'.join(map(str, self.matrix))}-{version}"
        self._open: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._area: dict[str, np.ndarray] = {}

    def arrays(self, case: str) -> tuple[np.ndarray, np.ndarray]:
        """Resampled image ``(z, C, y, x)`` float32 and label ``(z, S, y, x)`` uint8 of a case, memory-mapped.

        A structure that was not contoured in this case is ``NOT_CONTOURED`` everywhere.
        """
        if case in self._open:
            return self._open[case]
        # By a hash: the names of thirty organs are longer than a file name may be.
        wanted = sha256_of([self.channels, self.structures])[:8]
        image_file, label_file = (self.folder / f"{case}.{wanted}.{kind}.npy" for kind in ("image", "label"))
        if not label_file.exists():
            prepared = self.cohort.case(case)
            rows = [self.cohort.channels.index(name) for name in self.channels]
            image = torch.from_numpy(np.asarray(prepared.image[rows], dtype=np.float32)).transpose(0, 1)
            label = np.asarray(prepared.label)
            masks = [mask_of(label, self.cohort.structures, name) for name in self.structures]
            masks = torch.from_numpy(np.stack(masks, axis=1).astype(np.float32))
            # DIFFERS: the papers' slices have the network's matrix; larger ones are resampled to it, whole, without a
            # crop, and smaller ones padded, as interpolation would blur their contours and add nothing.
            image, masks = fit_in_plane(image, self.matrix), fit_in_plane(masks, self.matrix)
            label = (masks >= 0.5).to(torch.uint8)
            label[:, [name in prepared.not_contoured for name in self.structures]] = NOT_CONTOURED
            for path, array in ((image_file, image), (label_file, label)):
                with writing(path) as temporary:
                    np.save(temporary, array.numpy())
        if len(self._open) == OPEN_CASES:
            del self._open[next(iter(self._open))]
        self._open[case] = np.load(image_file, mmap_mode="r"), np.load(label_file, mmap_mode="r")
        return self._open[case]

    def samples(self, cases: list[str]) -> list[tuple[str, int]]:
        """``(case, z)`` of the slices whose resampled label is not empty."""
        # PAPER: only slices that contain tumour (Li 2018, Section 2.1).
        # SILENT: which ones, as the volumes of Table 2 need about three times the 87 slices; all of them by default.
        chosen = []
        for case in cases:
            areas = self._areas(case)
            largest = int(areas.argmax())
            nearest = sorted(np.flatnonzero(areas), key=lambda z, largest=largest: abs(int(z) - largest))
            chosen += [(case, int(z)) for z in sorted(nearest[: self.slices_per_case])]
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

    def batch(self, slices: list[tuple[str, int]]) -> tuple[Tensor, Tensor]:
        """Image ``(B, C, y, x)`` float32 and label ``(B, S, y, x)`` uint8 of the slices named, not yet normalised."""
        pairs = [(image[z], label[z]) for case, z in slices for image, label in [self.arrays(case)]]
        return tuple(torch.from_numpy(np.stack(arrays)) for arrays in zip(*pairs, strict=True))

    def finish(self, image: Tensor) -> Tensor:
        """The last step before the network, in training and testing alike."""
        if self.windows:
            image = torch.cat([((image - low) / (high - low)).clamp(0, 1) for low, high in self.windows], dim=1)
        return normalise(image, self.normalisation)

    @torch.no_grad()
    def predict(self, network, case: str, *, activation: str, batch_size: int, device) -> Tensor:
        """Probability of each structure in all slices of a case.

        Args:
            network: ``(B, C, y, x)`` to logits, in evaluation mode.
            case: its name.
            activation: see :func:`npcrepro.models.outputs.probabilities`.
            batch_size: slices in one forward pass.
            device: of the network.

        Returns:
            ``(S, z, y, x)`` float32 in [0, 1] on the grid of the case, ``nan`` where the network gave no number.
        """
        depth, native = len(self.arrays(case)[0]), tuple(self.cohort.case(case).label.shape[-2:])
        maps = []
        for start in range(0, depth, batch_size):
            image, _ = self.batch([(case, z) for z in range(start, min(depth, start + batch_size))])
            probability = probabilities(network(self.finish(image.to(device))), activation)
            # Probabilities, not logits, are brought to the native grid: a single saturated logit would spread
            # otherwise.
            maps.append(to_native_plane(probability, native).cpu())
        return torch.cat(maps).transpose(0, 1)
