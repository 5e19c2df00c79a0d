"""Reads and checks the JSON documents and arrays in the files of a policy."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np

_MAX_ABSOLUTE = 1e9  # of a number in an array, so that sums and products stay finite
Arrays = dict[str, np.ndarray[Any, Any]]


class PolicyError(ValueError):
    """A file of the policy is invalid. The message names the file and the problem."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


class _Versioned(Protocol):
    format: int


D = TypeVar("D", bound=_Versioned)


def decode_document(file: str, content: bytes, document_type: type[D], version: int) -> D:
    """Decode a JSON document of a type and of a version of its format.

    Raises:
        PolicyError: the document is invalid, or has another format.
    """
    try:
        document = msgspec.json.decode(content, type=document_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(file, f"does not parse: {error}") from error
    if document.format != version:
        raise PolicyError(file, f"has format {document.format}; this version reads format {version}")
    return document


def encode_npz(arrays: Mapping[str, Any]) -> bytes:
    """Encode arrays as .npz with fixed dates, so that equal arrays give equal bytes and equal policy versions."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in sorted(arrays):
            file = io.BytesIO()
            np.lib.format.write_array(file, np.ascontiguousarray(arrays[name]), allow_pickle=False)
            archive.writestr(
                zipfile.ZipInfo(f"{name}.npy", (1980, 1, 1, 0, 0, 0)), file.getvalue(), zipfile.ZIP_DEFLATED
            )
    return buffer.getvalue()


def read_npz(file: str, content: bytes, names: Sequence[str]) -> Arrays:
    """Read the named arrays without unpickling.

    Raises:
        PolicyError: the archive is damaged, or lacks an array.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names}
    except KeyError as error:
        raise PolicyError(file, f"lacks an array: {error.args[0]}") from error
    except Exception as error:  # a damaged archive can raise any error
        raise PolicyError(file, f"does not parse: {type(error).__name__}: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise PolicyError(file, f"{name} is not an array")
    return arrays


def check_arrays(
    file: str, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], may_be_infinite: Sequence[str] = ()
) -> None:
    """Check the shapes of arrays, and that their numbers are finite and not too large.

    Raises:
        PolicyError: an array is invalid. The message names it.
    """
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise PolicyError(file, f"{name} has the shape {arrays[name].shape}, not {shape}")
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not (np.isfinite(array).all() or name in may_be_infinite):
            raise PolicyError(file, f"{name} contains a value that is not a finite number")
        if float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) > _MAX_ABSOLUTE:
            raise PolicyError(file, f"{name} contains a number beyond {_MAX_ABSOLUTE:g}")
