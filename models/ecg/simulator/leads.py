"""From a dipole in the chest to twelve leads, and from ten electrodes to the same.

A heart vector is (x, y, z) in mV in Frank's directions: x to the patient's left, y to the feet,
z to the back. Dower et al. 1980 (Clin Cardiol 3:87-95) gave what each lead sees of it. No two
chests are alike, and no two technicians: each patient has a matrix of their own around Dower's.
Only the eight independent leads are ever made from a vector; the other four follow from I and II
as Einthoven and Goldberger say, so the identities hold to the last bit that float32 has.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]

#: Rows I, II, V1 to V6; columns x, y, z.
DOWER: Floats = np.array(
    [
        [0.632, -0.235, 0.059],
        [0.235, 1.066, -0.132],
        [-0.515, 0.157, -0.917],
        [0.044, 0.164, -1.387],
        [0.882, 0.098, -1.277],
        [1.213, 0.127, -0.601],
        [1.125, 0.127, -0.086],
        [0.831, 0.076, 0.230],
    ],
    np.float32,
)

#: The twelve leads, in the order of LEADS, from the eight independent ones.
FROM_INDEPENDENT: Floats = np.zeros((12, 8), np.float32)
FROM_INDEPENDENT[0, 0] = FROM_INDEPENDENT[1, 1] = 1
FROM_INDEPENDENT[2, :2] = -1, 1  # III = II - I
FROM_INDEPENDENT[3, :2] = -0.5, -0.5
FROM_INDEPENDENT[4, :2] = 1, -0.5
FROM_INDEPENDENT[5, :2] = -0.5, 1
FROM_INDEPENDENT[6:, 2:] = np.eye(6)

#: The eight independent leads from the potentials of RA, LA, LL, V1 to V6.
FROM_ELECTRODES: Floats = np.zeros((8, 9), np.float32)
FROM_ELECTRODES[0, :3] = -1, 1, 0
FROM_ELECTRODES[1, :3] = -1, 0, 1
FROM_ELECTRODES[2:, :3] = -1 / 3
FROM_ELECTRODES[2:, 3:] = np.eye(6)


def draw_leads(rng: np.random.Generator) -> Floats:
    """(8, 3): what the leads of one patient see of a heart vector.

    Electrodes of the chest sit up to an intercostal space too high or too far to a side, which
    makes a lead see partly what its neighbour should; the rest is the chest's own shape.
    """
    leads = DOWER.astype(np.float64)
    leads[2:4] *= ((0.78,), (1.25,))  # as V1 and V2 stand to each other in real recordings
    slip = np.clip(rng.normal(-0.08, 0.26) + rng.normal(0, 0.12, 6), -0.9, 0.9)
    chest = leads[2:]
    after = np.vstack([chest[1:], chest[-1] + 0.6 * (chest[-1] - chest[-2])])
    before = np.vstack([chest[:1] + 0.6 * (chest[0] - chest[1]), chest[:-1]])
    share = np.abs(slip)[:, None]
    leads[2:] = (1 - share) * chest + share * np.where(slip[:, None] > 0, after, before)
    # V1 and V2 too high look down upon the heart: they see less of what goes to the feet.
    leads[2:4, 1] -= abs(rng.normal(0, 0.2))
    leads *= np.exp(rng.normal(0, 0.10, (8, 1)))
    leads += rng.normal(0, 0.06, (8, 3))
    leads[2:] *= np.exp(rng.normal(0, 0.15))
    return leads.astype(np.float32)


def turn(
    vectors: NDArray[np.float64], frontal: float, horizontal: float, sagittal: float
) -> NDArray[np.float64]:
    """(n, 3) vectors turned about the three axes, by degrees.

    ``frontal`` turns clockwise as the frontal axis is counted (left to feet), ``horizontal`` from
    left to the back, ``sagittal`` from the feet to the back.
    """
    turned = vectors
    for degrees, (one, other) in ((frontal, (0, 1)), (horizontal, (0, 2)), (sagittal, (1, 2))):
        angle = np.deg2rad(degrees)
        matrix = np.eye(3)
        matrix[one, one] = matrix[other, other] = np.cos(angle)
        matrix[one, other] = -np.sin(angle)
        matrix[other, one] = np.sin(angle)
        turned = turned @ matrix.T
    return turned
