from collections.abc import Collection, Sequence

import numpy as np
import numpy.typing as npt

from router.policy.prediction import Outputs
from router.policy.vocabulary import Floats

class PredictionKernel:
    """The weights of a predictor of M models and T question types, with V terms and N hand features.

    The arrays are those of `router.policy.prediction.Predictor`, in C order.
    """

    def __init__(
        self,
        models: tuple[str, ...],
        types: tuple[str, ...],
        terms: Sequence[str],  # in the order of their rows
        ignored: Collection[str],  # words that are skipped
        idf: Floats,  # (V + 1,)
        table: npt.NDArray[np.float32],  # (V, 2 M + T)
        number_mean: Floats,  # (N,)
        number_scale: Floats,  # (N,)
        number_weights: Floats,  # (N, 2 M + T)
        intercept: Floats,  # (2 M + T,)
        type_table: Floats,  # (T, 3 M + 2 + 2 M N)
        smearing: Floats,  # (M,)
        type_familiarity: Floats,  # (T,)
        familiarity_quantiles: Floats,  # (Q,) ascending
        sharpness: float,
        number_limit: float,  # standard deviations to which hand features are clipped
        material_weight: float,  # of the terms of the material
        most_tokens: float,  # of an answer
        number_characters: int,  # of a number that are read
    ) -> None:
        """Hash the terms.

        Raises:
            ValueError: the shapes do not agree, or an array has another type than is stated.
        """

    def predict(self, question: str, material: str, tools: float, tool_share: float) -> Outputs:
        """Predict for a question, its material, the number of matching tools and the share of the best one."""
