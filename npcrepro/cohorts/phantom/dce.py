"""Contrast agent in blood and tissue: a population arterial input and the extended Tofts model."""

from __future__ import annotations

import numpy as np

HAEMATOCRIT = 0.42
# Step of the convolution; the first pass of the bolus is about 10 s wide.
STEP_S = 0.5
# Veins of the head fill after the arteries, and the bolus has spread by then.
VENOUS_DELAY_S, VENOUS_SPREAD_S = 7.0, 5.0


def plasma_concentration(time_s: np.ndarray) -> np.ndarray:
    """Concentration in arterial plasma in mM at `time_s` after the arrival of the bolus; 0 before it.

    The functional form and parameters of Parker et al. (Magn Reson Med 2006;56:993) for 0.1 mmol/kg.
    """
    minutes = np.maximum(np.asarray(time_s, float), 0) / 60
    first_pass = 0.809 / 0.0563 * np.exp(-((minutes - 0.17046) ** 2) / (2 * 0.0563**2))
    second_pass = 0.330 / 0.132 * np.exp(-((minutes - 0.365) ** 2) / (2 * 0.132**2))
    washout = 1.050 * np.exp(-0.1685 * minutes) / (1 + np.exp(-38.078 * (minutes - 0.483)))
    blood = (first_pass + second_pass) / np.sqrt(2 * np.pi) + washout
    return np.where(np.asarray(time_s) > 0, blood / (1 - HAEMATOCRIT), 0.0)


def tissue_concentration(
    time_s: np.ndarray, transfer: np.ndarray, extracellular: np.ndarray, plasma: np.ndarray, venous: np.ndarray
) -> np.ndarray:
    """Concentration (tissue, time) in mM by the extended Tofts model, at `time_s` after the arrival of the bolus.

    Args:
        transfer: ``(tissue,)`` transfer constant Ktrans per minute.
        extracellular: ``(tissue,)`` extravascular extracellular volume fraction, 0-1.
        plasma: ``(tissue,)`` fraction of plasma, 0-1.
        venous: ``(tissue,)`` whether the plasma is that of veins.
    """
    fine = np.arange(0, max(float(np.max(time_s)), 0) + 2 * STEP_S, STEP_S)
    arterial = plasma_concentration(fine)
    delayed = plasma_concentration(fine - VENOUS_DELAY_S)
    spread = np.exp(-fine / VENOUS_SPREAD_S)
    vein = np.convolve(delayed, spread / spread.sum())[: len(fine)]
    curves = []
    for k, volume, blood, in_vein in zip(transfer, extracellular, plasma, venous):
        leaked = np.zeros_like(fine)
        if k > 0:
            leaked = k * STEP_S / 60 * np.convolve(arterial, np.exp(-k / volume * fine / 60))[: len(fine)]
        curve = leaked + blood * (vein if in_vein else arterial)
        curves.append(np.interp(time_s, fine, curve, left=0.0))
    return np.array(curves)
