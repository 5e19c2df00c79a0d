"""The files of a policy: documents and arrays that are checked when they are read, and what is wrong with a file."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, TypeVar

import msgspec
import numpy as np

_LARGEST = 1e9  # that an array may hold: sums and products of far larger numbers are no numbers
Arrays = dict[str, np.ndarray[Any, Any]]


class PolicyError(ValueError):
    """The policy does not parse; says the file and what is wrong with it."""

    def __init__(self, file: str, problem: str) -> None:
        super().__init__(f"{file}: {problem}")
        self.file = file
        self.problem = problem


class _Form(Protocol):
    format: int


F = TypeVar("F", bound=_Form)


def parsed(file: str, content: bytes, form: type[F], version: int) -> F:
    """A JSON document of a form, and of this version of its format.

    Raises:
        PolicyError: it does not fit the form, or has another format.
    """
    try:
        document = msgspec.json.decode(content, type=form)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise PolicyError(file, f"does not parse: {error}") from error
    if document.format != version:
        raise PolicyError(file, f"has format {document.format}; this version reads format {version}")
    return document


def npz(arrays: Mapping[str, Any]) -> bytes:
    """A .npz with fixed dates, so that the same weights give the same bytes (and so the same policy version)."""
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
    """The arrays of these names; nothing is unpickled.

    Raises:
        PolicyError: the archive is damaged, or lacks one of them.
    """
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in names}
    except KeyError as error:
        raise PolicyError(file, f"lacks an array: {error.args[0]}") from error
    except Exception as error:  # an archive can be damaged in more ways than its readers have names for
        raise PolicyError(file, f"does not parse: {type(error).__name__}: {error}") from error
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            raise PolicyError(file, f"{name} is no array")
    return arrays


def check_arrays(
    file: str, arrays: Arrays, shapes: Mapping[str, tuple[int, ...]], may_be_infinite: Sequence[str] = ()
) -> None:
    """Check shapes, and that every array holds finite numbers of a usable size.

    Raises:
        PolicyError: an array does not fit; names it.
    """
    for name, shape in shapes.items():
        if arrays[name].shape != shape:
            raise PolicyError(file, f"{name} has the shape {arrays[name].shape}, not {shape}")
    for name, array in arrays.items():
        if array.dtype.kind != "f" or not (np.isfinite(array).all() or name in may_be_infinite):
            raise PolicyError(file, f"{name} holds something that is not a finite number")
        if float(np.abs(array[np.isfinite(array)]).max(initial=0.0)) > _LARGEST:
            raise PolicyError(file, f"{name} holds a number beyond {_LARGEST:g}")
