"""A patient of two series: a bright block to the left, in front and above, and what a method finds of it."""

import base64
import json
import re

import nbformat
import numpy as np

from npcrepro.book.html.volume_files import VOLUMES_TYPE, Patient

SPACING_MM = (3.0, 1.0, 1.25)
NET, OTHER = "U-Net <2-D>", "Other"
COLOURS = {"Reference": "#E69F00", NET: "#56B4E9", OTHER: "#CC79A7"}
THRESHOLDS = {NET: 0.3, OTHER: None}


def block(*corner: int) -> np.ndarray:
    mask = np.zeros((8, 24, 32), bool)
    z, y, x = corner
    mask[z : z + 3, y : y + 6, x : x + 8] = True
    return mask


def probability(reference: np.ndarray, seed: int = 0) -> np.ndarray:
    """High where the reference is, a column beside it as well; noise makes every threshold mark something else."""
    noise = np.random.default_rng(seed).random(reference.shape)
    return np.clip(0.55 * reference + 0.25 * np.roll(reference, 1, axis=2) + 0.14 * noise, 0, 1)


def patient(name: str = "P0", corner=(4, 3, 18), methods=(NET, OTHER), second=False) -> Patient:
    """Of one structure, or with a second one behind it."""
    masks = {"GTVp": block(*corner)} | ({"GTVnd": block(0, 12, 4)} if second else {})
    bright = 40 + 900 * masks["GTVp"] + np.arange(32) % 2  # not of one grey, as no image is
    series = {"T1": bright.astype(np.float32), "T2": -bright.astype(np.int16)}
    maps = {m: {s: probability(mask, seed) for s, mask in masks.items()} for seed, m in enumerate(methods)}
    return Patient(name, series, masks, SPACING_MM, {"stage": "T2"}, None, maps)


def volumes(content: dict) -> dict[str, bytes]:
    return {name: base64.b64decode(text) for name, text in content[VOLUMES_TYPE].items()}


def described(content: dict) -> dict:
    return json.loads(re.search(r'<script type="application/json">(.*?)</script>', content["text/html"])[1])


def notebook_with(content: dict) -> bytes:
    output = nbformat.v4.new_output("display_data", content)
    cell = nbformat.v4.new_code_cell("viewer.show(patients, colours)", outputs=[output], execution_count=1)
    title = nbformat.v4.new_markdown_cell("# Volumes – all")
    language = {"language_info": {"name": "python", "pygments_lexer": "ipython3"}}
    return nbformat.writes(nbformat.v4.new_notebook(cells=[title, cell], metadata=language)).encode()
