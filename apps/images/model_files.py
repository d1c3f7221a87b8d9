"""Reads model files of Keras 3 and Keras 2, with clear errors."""

import contextlib
import json
import pathlib
import shutil
import tempfile
import zipfile

from packnet_tf.backend.text import quoted

SUFFIXES = (".keras", ".h5", ".hdf5")
HDF5 = b"\x89HDF"  # the first bytes of an HDF5 file


def read_model(source: str):
    """Reads a model file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: Keras cannot read it; the message names the Keras version that wrote it.
    """
    import keras

    path = pathlib.Path(source)
    if not path.is_file():
        raise FileNotFoundError(
            f"There is no trunk '{source}'. Write the path of a .keras or .h5 model, or the name "
            "of a keras.applications model, for instance --trunk=MobileNetV2."
        )
    with contextlib.ExitStack() as stack:
        with path.open("rb") as file:
            is_hdf5 = file.read(len(HDF5)) == HDF5
        if is_hdf5 and path.suffix == ".keras":  # tf.keras 2 wrote HDF5 under this suffix
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            path = pathlib.Path(shutil.copy(path, pathlib.Path(folder) / "trunk.h5"))
        try:
            _check(path)
            return keras.saving.load_model(path, compile=False)
        except Exception as error:  # Keras raises many classes
            raise ValueError(
                f"Cannot read the trunk '{source}', which {_writer(path)} wrote, with Keras "
                f"{keras.__version__}: {quoted(error)}\nLoad it with the Keras that wrote it, "
                "build the same network in Keras 3, give that the weights "
                "(set_weights(get_weights())), and save it as a .keras file."
            ) from error


def _check(path: pathlib.Path) -> None:
    """Refuses a file that would become much larger in memory.

    Raises:
        ValueError: the message says why.
    """
    from packnet_tf.backend.archives import EXPANSION, check_hdf5, check_keras_file

    if zipfile.is_zipfile(path):
        check_keras_file(path)
    else:
        check_hdf5(path, EXPANSION * path.stat().st_size)


def _writer(path: pathlib.Path) -> str:
    """Returns the Keras version that a model file names as its writer."""
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                return f"Keras {json.loads(file.read('metadata.json'))['keras_version']}"
        import h5py

        with h5py.File(path) as file:
            version = file.attrs["keras_version"]
            return f"Keras {version.decode() if isinstance(version, bytes) else version}"
    except Exception:  # it is damaged, or names no version
        return "an unknown program"
