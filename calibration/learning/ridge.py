"""Ridge regressions on one sparse matrix, each solved separately: min |y - X w - b|^2 + alpha |w|^2.

The solver is the conjugate gradient method of Hestenes and Stiefel (1952). It centres the matrix by its column means
without making it dense. The steps are those of scikit-learn's `Ridge(solver="sparse_cg")`, which copies the matrix and
solves one regression after the other. With more columns than rows, the results are equal in every digit.
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

TOLERANCE = 1e-4  # norm of the residual relative to that of the right-hand side


@dataclass(frozen=True, slots=True)
class System:
    """The part that all regressions share."""

    matrix: sp.csr_matrix  # (n, D), each row multiplied by the root of its weight
    means: Floats  # (D,) weighted means of the columns
    weights: Floats | None  # (n,) of the rows; None where all are 1
    alpha: float

    @classmethod
    def build(cls, matrix: sp.csr_matrix, alpha: float, weights: Floats | None = None) -> System:
        """The system of a matrix with row weights (n,)."""
        means = mean_variance_axis(matrix, axis=0, weights=weights)[0]
        if weights is not None:
            matrix = sp.csr_matrix(sp.diags_array(np.sqrt(weights)) @ matrix)
        return cls(matrix, means, weights, alpha)


def solve(
    system: System, columns: Callable[[int], Floats], numbers: Sequence[int], workers: Workers
) -> tuple[Floats, Floats]:
    """Coefficients (K, D) and intercepts (K,) of the regressions on `columns(k)` (n,), for each of the numbers."""
    coefficients, offsets = np.empty((len(numbers), len(system.means))), np.empty(len(numbers))
    for row, solution in enumerate(workers.map(partial(_solve_one, system, columns), numbers)):
        coefficients[row], offsets[row] = solution["coefficients"], solution["offset"]
    return coefficients, offsets - system.means @ coefficients.T


def _solve_one(system: System, columns: Callable[[int], Floats], number: int) -> Arrays:
    column = columns(number)
    offset, centred = _centre(column, system.weights)
    return {"coefficients": _solve_coefficients(system, centred), "offset": np.array(offset)}


def _centre(column: Floats, weights: Floats | None) -> tuple[float, Floats]:
    """The weighted mean of a column, and the centred column multiplied by the roots of the weights."""
    # np.cumsum adds in order, as a sum over the rows of a table does; np.sum adds pairwise, with other last digits
    if weights is None:
        offset = float(np.cumsum(column)[-1]) / len(column)
        return offset, column - offset
    offset = float(np.cumsum(column * weights)[-1]) / float(weights.sum())
    return offset, (column - offset) * np.sqrt(weights)


def _solve_coefficients(system: System, centred: Floats) -> Floats:
    matrix, means, alpha = system.matrix, system.means, system.alpha
    n, width = matrix.shape
    transposed = matrix.T
    roots = np.ones(n) if system.weights is None else np.sqrt(system.weights)

    def times(values: Floats) -> Floats:
        return np.asarray(matrix.dot(values) - roots * values.dot(means))

    def times_transposed(values: Floats) -> Floats:
        return np.asarray(transposed.dot(values) - means * values.dot(roots))

    if width > n:  # solve the smaller of the two systems
        return times_transposed(_conjugate_gradients(n, lambda v: times(times_transposed(v)) + alpha * v, centred))
    return _conjugate_gradients(width, lambda v: times_transposed(times(v)) + alpha * v, times_transposed(centred))


def _conjugate_gradients(size: int, product: Callable[[Floats], Floats], right: Floats) -> Floats:
    operator: Any = LinearOperator((size, size), matvec=product, dtype=np.float64)
    return np.asarray(cg(operator, right, rtol=TOLERANCE)[0])
