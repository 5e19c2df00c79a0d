"""Ridge regressions on one sparse matrix, each solved by itself: min |y - X w - b|^2 + alpha |w|^2.

The conjugate gradients of Hestenes and Stiefel (1952), on the matrix centred by its column means without making it
dense. The steps are those of scikit-learn's `Ridge(solver="sparse_cg")`, which solves one after the other with copies
of the matrix; where there are more columns than rows, the digits are the same too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import scipy.sparse as sp
from scipy.sparse.linalg import LinearOperator, cg
from sklearn.utils.sparsefuncs import mean_variance_axis

from calibration.workers import Arrays, Workers
from router.policy.vocabulary import Floats

TOLERANCE = 1e-4  # of the residual, as a share of the right side's length


@dataclass(frozen=True, slots=True)
class System:
    """What all regressions share."""

    matrix: sp.csr_matrix  # (n, D), each row times the root of its weight
    means: Floats  # (D,) of the columns, weighted
    weights: Floats | None  # (n,) of the rows; None where all are 1
    alpha: float

    @classmethod
    def of(cls, matrix: sp.csr_matrix, alpha: float, weights: Floats | None = None) -> System:
        """The system of a matrix whose rows have weights."""
        means = mean_variance_axis(matrix, axis=0, weights=weights)[0]
        if weights is not None:
            matrix = sp.csr_matrix(sp.diags_array(np.sqrt(weights)) @ matrix)
        return cls(matrix, means, weights, alpha)


def solve(
    system: System, columns: Callable[[int], Floats], numbers: Sequence[int], workers: Workers
) -> tuple[Floats, Floats]:
    """Coefficients (K, D) and intercepts (K,) of the regressions on `columns(k)` (n,), for each of the numbers."""
    solved = list(workers.map(partial(_solved, system, columns), numbers))
    coefficients = np.array([each["coefficients"] for each in solved])
    offsets = np.array([float(each["offset"]) for each in solved])
    return coefficients, offsets - system.means @ coefficients.T


def _solved(system: System, columns: Callable[[int], Floats], number: int) -> Arrays:
    column = columns(number)
    offset, centred = _centred(column, system.weights)
    return {"coefficients": _coefficients(system, centred), "offset": np.array(offset)}


def _centred(column: Floats, weights: Floats | None) -> tuple[float, Floats]:
    """The mean of a column, and the column less it, times the roots of the weights."""
    # np.cumsum sums from the first to the last, as a sum over the rows of a table does, where np.sum halves and halves
    if weights is None:
        offset = float(np.cumsum(column)[-1]) / len(column)
        return offset, column - offset
    offset = float(np.cumsum(column * weights)[-1]) / float(weights.sum())
    return offset, (column - offset) * np.sqrt(weights)


def _coefficients(system: System, centred: Floats) -> Floats:
    matrix, means, alpha = system.matrix, system.means, system.alpha
    n, width = matrix.shape
    turned = matrix.T
    roots = np.ones(n) if system.weights is None else np.sqrt(system.weights)

    def times(values: Floats) -> Floats:
        return np.asarray(matrix.dot(values) - roots * values.dot(means))

    def turned_times(values: Floats) -> Floats:
        return np.asarray(turned.dot(values) - means * values.dot(roots))

    if width > n:  # the smaller of the two systems
        return turned_times(_conjugate(n, lambda v: times(turned_times(v)) + alpha * v, centred))
    return _conjugate(width, lambda v: turned_times(times(v)) + alpha * v, turned_times(centred))


def _conjugate(size: int, product: Callable[[Floats], Floats], right: Floats) -> Floats:
    operator: Any = LinearOperator((size, size), matvec=product, dtype=np.float64)
    return np.asarray(cg(operator, right, rtol=TOLERANCE)[0])
