"""Patients to look around in on a page of the book: three planes, a 3-D view, outlines, and thresholds to move.

The output of `show` carries still images and small volumes. When the book is built, `volume_files.unpack` makes the
volumes files of the book, which ``book/_static/viewer.js`` loads when a reader comes to them. Slices, outlines, the DSC
and the error map are computed in the browser, on a plain canvas; the 3-D view is NiiVue's, loaded when it is asked for.
Where no script runs, in a notebook and on paper, the still images stay.
"""

import base64
import json
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from npcrepro.base.errors import InputError
from npcrepro.base.wording import DASH
from npcrepro.book.figures import style
from npcrepro.book.figures.slices import ERRORS, planes, show_slice
from npcrepro.book.html.volume_files import HIGHEST, LOWEST, VOLUMES_TYPE, Patient, marked, pack, stored
from npcrepro.book.parts import data_uri, fill, number_text
from npcrepro.metrics import overlap

PLANES = ("Axial", "Coronal", "Sagittal")
START = 0.5  # threshold of a method that has none


def show(
    patients: Sequence[Patient], colours: Mapping[str, str], thresholds: Mapping[str, float | None] | None = None
) -> None:
    """Display patients in a notebook, to look around in once the notebook is a page of the book.

    Images of a cohort that may not be published do not belong here: ``slices.show_images(cohort, settings, show,
    patients, colours)`` leaves them out.

    Args:
        patients: the first is shown first; the first of its methods, too.
        colours: title of each outline to its colour, ``"#E69F00"``: structures, or with methods ``"Reference"`` and
            these.
        thresholds: title of a method to the threshold that its slider starts at; 0.5 where there is none.

    Raises:
        InputError: no patients, or patients that do not fit together; see `volume_files.pack`.
    """
    from IPython.display import display

    display(bundle(patients, colours, thresholds), raw=True)


def bundle(
    patients: Sequence[Patient], colours: Mapping[str, str], thresholds: Mapping[str, float | None] | None = None
) -> dict:
    """The output of `show`: content by its type, ``text/html`` and the volumes (file name to base64) among them."""
    if not patients:
        raise InputError("viewer: no patients to show: the fold may test none")
    packed = [pack(patient) for patient in patients]
    described = [about for about, _ in packed]
    volumes = {name: base64.b64encode(content).decode() for _, files in packed for name, content in files.items()}
    methods = list(dict.fromkeys(method for patient in patients for method in patient.probabilities))
    given = thresholds or {}
    start = {method: float(np.clip(given.get(method) or START, LOWEST, HIGHEST)) for method in methods}
    titles = dict.fromkeys(t for one in described for names in one["structures"].values() for t in names)
    shown = {
        "colours": {title: colours[title] for title in titles},
        "errors": ERRORS,
        "millilitres": not np.isnan([patient.spacing_mm for patient in patients]).any(),
    }
    rows = pd.DataFrame([_row(patient, start) for patient in patients])
    # "</" would end the element early.
    data = json.dumps({"patients": described, "thresholds": start, **shown}, ensure_ascii=False).replace("</", "<\\/")
    page = fill(
        "viewer",
        data=data,
        table=rows.to_html(index=False, border=0, justify="left", na_rep=DASH),
        stills=[_still(patient, colours, start) for patient in patients],
        methods=methods,
        planes=PLANES,
        views={view: view for view in ("All", *PLANES, "3-D")},
        ends=(LOWEST, HIGHEST),
        step=max(one["step"] for one in described),
        **shown,
    )
    names = ", ".join(patient.name for patient in patients)
    return {"text/plain": f"Volumes of {names}, to be seen in the book.", "text/html": page, VOLUMES_TYPE: volumes}


def _row(patient: Patient, thresholds: Mapping[str, float]) -> dict[str, str]:
    """Cells of the table: the patient, what is told of it, and if no DSC is, that of the first method at its start."""
    row = {"patient": patient.name} | dict(patient.about)
    if patient.probabilities and not any(name.startswith("DSC") for name in row):
        method, maps = next(iter(patient.probabilities.items()))
        structure, truth = next(iter(patient.masks.items()))
        found = overlap.count(marked(stored(maps[structure]), thresholds[method]), truth > 0)
        of = f" of {structure}" if len(patient.masks) > 1 else ""
        row[f"DSC{of}, {method}"] = number_text(found.dsc, 2)
    return row


def _still(patient: Patient, colours: Mapping[str, str], thresholds: Mapping[str, float]) -> tuple[str, str]:
    """The first series through the first structure, with methods at their thresholds: in words, and as an image."""
    title, image = next(iter(patient.series.items()))
    layers = next(iter(patient.structures().values()))
    outlines = {
        name: (marked(layer, thresholds[name]) if name in thresholds else layer > 0, colours[name])
        for name, layer in layers.items()
    }
    cut = "an axial, a coronal and a sagittal slice"
    if len(image) == 1:
        cut = "an axial slice"
        figure, axes = style.grid(1, 1)
        show_slice(axes[0, 0], image[0], [(colour, mask[0]) for mask, colour in outlines.values()], patient.limits)
        style.legend(figure, {name: colour for name, (_, colour) in outlines.items()})
    else:
        figure = planes(image, outlines, patient.spacing_mm, patient.limits)
    data = data_uri(figure.savefig, "webp", dpi=100, pil_kwargs={"quality": 80})
    plt.close(figure)
    through = next(iter(patient.masks))
    return f"{patient.name}, {title}: {cut} through {through}, with the outlines of {', '.join(outlines)}", data
