"""LNCTVSeg and HNTS-MRG 2024: lymph node target volumes on CT, tumours on MRI during radiotherapy."""

from __future__ import annotations

from pathlib import Path

from npcrepro.base.errors import InputError
from npcrepro.cohorts.cohort import CaseArrays
from npcrepro.cohorts.public.sets import Conversion, ConversionLog, Download, PublicSet
from npcrepro.cohorts.public.volumes import case_folders, case_of, contrast_ct, find, read, read_codes
from npcrepro.cohorts.structures import Structures

LEVELS: Structures = {
    **{"CTVn_II_III_Va_R": (1,), "CTVn_II_III_Va_L": (2,), "CTVn_IV_Vb_R": (3,), "CTVn_IV_Vb_L": (4,)},
    **{"CTVn_Ib_R": (5,), "CTVn_Ib_L": (6,)},
}
SCANS = {"0000": "CT", "0001": "CECT"}
LNCTV_LAYOUT = (
    "LNCTVSeg-DataSet/{Internal_Cohort/{images,labels}Tr,Testing_Cohort_<1..4>/{images,labels}Ts}/"
    "<case>_{0000,0001}.nii.gz, unpacked with 7z and the password of the challenge page"
)

# Published as GTVn; one name for nodal disease in all cohorts.
TUMOUR: Structures = {"GTVp": (1,), "GTVnd": (2,)}
HNTS_LAYOUT = "HNTSMRG24_train/<id>/{preRT,midRT}/<id>_{preRT,midRT}_{T2,mask}.nii.gz"


def _convert_lnctv(source: Path, variant: str, log: ConversionLog) -> Conversion:
    files = find(source, "*_Cohort*/images*/*_000[01].nii.gz", LNCTV_LAYOUT)
    scans: dict[str, dict[str, Path]] = {}
    for path in files:
        stem, number = path.name.removesuffix(".nii.gz").rsplit("_", 1)
        centre = path.parent.parent.name.replace("_Cohort", "")
        scans.setdefault(f"{centre}_{stem}", {})[SCANS[number]] = path

    def label_of(path: Path) -> Path:
        stem = path.name.removesuffix(".nii.gz").rsplit("_", 1)[0]
        return path.parent.parent / path.parent.name.replace("images", "labels") / f"{stem}.nii.gz"

    def single(name: str, path: Path) -> CaseArrays:
        image = read(path)
        label = read_codes(name, label_of(path), image, LEVELS, log)
        return case_of(name, image, label, patient=name.rsplit("_", 1)[0])

    def pair(name: str, plain: Path) -> CaseArrays:
        if len(scans[name]) < len(SCANS):
            raise InputError(f"one CT only ({next(iter(scans[name]))}); the variant 'single' takes it")
        image = read(plain)
        contrast = contrast_ct(name, scans[name]["CECT"], image, log)
        return case_of(name, image, read_codes(name, label_of(plain), image, LEVELS, log), contrast)

    if variant == "single":
        cases = {f"{name}_{scan}": path for name, found in scans.items() for scan, path in sorted(found.items())}
        return Conversion("LNCTVSeg_single", ("CT",), LEVELS, log.convert(cases, single))
    cases = {name: next(iter(found.values())) for name, found in scans.items()}
    return Conversion("LNCTVSeg_pairs", ("CT", "CECT"), LEVELS, log.convert(cases, pair))


def _convert_hnts(source: Path, variant: str, log: ConversionLog) -> Conversion:
    when = f"{variant}RT"
    folders = case_folders(source, f"*/{when}/*_{when}_T2.nii.gz", HNTS_LAYOUT, level=2)
    cases = {f"HNTS_{folder.name}": folder / when for folder in folders}

    def case(name: str, folder: Path) -> CaseArrays:
        stem = f"{folder.parent.name}_{when}"
        image = read(folder / f"{stem}_T2.nii.gz")
        label = read_codes(name, folder / f"{stem}_mask.nii.gz", image, TUMOUR, log)
        if not label.any():
            log.note(name, "empty mask: nothing of the tumour is left")
        return case_of(name, image, label)

    return Conversion(f"HNTS-MRG2024_{when}", ("T2",), TUMOUR, log.convert(cases, case))


LNCTVSEG = PublicSet(
    key="lnctvseg",
    title="LNCTVSeg",
    content="262 NPC of four centres: 440 plain or contrast CT, lymph node target volumes in six levels",
    licence="CC BY 4.0",
    publishable=True,
    reference="Luo et al., Scientific Data 11 (2024), doi:10.1038/s41597-024-03890-0",
    access="open, from figshare (doi:10.6084/m9.figshare.26793622); the archive asks for the password of the challenge "
    "page (SegRap2025, task 2) and needs 7z",
    layout=LNCTV_LAYOUT,
    variants={
        "single": "every CT is a case of its own, plain or contrast; both of a patient stay in one group",
        "pairs": "two channels; patients with both CTs only",
    },
    convert=_convert_lnctv,
    downloads=(
        Download(
            "https://ndownloader.figshare.com/files/48684664",
            "LNCTVSeg-DataSet.zip",
            "995215f98844f1a5718a1b963fe5615dc3723d506a889503617fcd99aea052a1",
            unpack=False,
        ),
    ),
)
HNTS_MRG = PublicSet(
    key="hnts-mrg-2024",
    title="HNTS-MRG 2024",
    content="150 head-and-neck cancers: T2 MRI before and during radiotherapy, GTVp and GTVnd",
    licence="CC BY-NC 4.0",
    publishable=False,
    reference="Wahid et al., HNTS-MRG 2024 training set, Zenodo (2024), doi:10.5281/zenodo.11199559",
    access="open, from Zenodo (record 11199559); not for commercial use",
    layout=HNTS_LAYOUT,
    variants={"pre": "before radiotherapy", "mid": "during radiotherapy; some masks are rightly empty"},
    convert=_convert_hnts,
    downloads=(
        Download(
            "https://zenodo.org/records/11199559/files/HNTSMRG24_train.zip",
            "HNTSMRG24_train.zip",
            "675e3c56509b0b5bcaad1291990dfa4a8ef054bb468a71b6cd08189a5e67bfb6",
        ),
    ),
)
