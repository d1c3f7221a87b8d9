"""Backbones from presets of KerasHub: by name, by address, or in a folder."""

import dataclasses
import difflib
import inspect
import pathlib
from collections.abc import Iterable, Sequence

ADDRESSES = ("hf://", "kaggle://", "modelscope://")
CONFIG = "config.json"  # in every folder of a preset


@dataclasses.dataclass(frozen=True)
class Preset:
    """A backbone, and what the image converter of its preset says of its images.

    Attributes:
        backbone: a functional `keras.Model`, from an image to features.
        scale, offset: pixels of 0 to 255 are multiplied by `scale`, then `offset` is added;
            numbers, or one per channel. Both None: nothing says so.
        image_size: height and width in pixels; None: nothing says so.
    """

    backbone: object
    scale: float | Sequence[float] | None = None
    offset: float | Sequence[float] | None = None
    image_size: tuple[int, int] | None = None

    @property
    def says_pixels(self) -> bool:
        """Whether the preset says which pixel values it takes."""
        return self.scale is not None or self.offset is not None


def is_preset(source: str) -> bool:
    """Whether a source has the form of a preset that is not built in: an address or a folder."""
    return source.startswith(ADDRESSES) or pathlib.Path(source).is_dir()


def built_in() -> list[str]:
    """Returns the names of KerasHub's presets for images; none if keras-hub is not installed."""
    try:
        import keras_hub
    except ImportError:
        return []
    backbones = [
        found
        for found in vars(keras_hub.models).values()
        if inspect.isclass(found)
        and issubclass(found, keras_hub.models.Backbone)
        and "image_shape" in inspect.signature(found).parameters
    ]
    return sorted({name for backbone in backbones for name in backbone.presets})


def load_preset(source: str, weights: bool = True) -> Preset:
    """Loads a backbone and its image converter.

    Args:
        source: the name of a preset, its address (`hf://...`, `kaggle://...`), or a folder that
            `backbone.save_to_preset` wrote.
        weights: whether to load weights; False: random ones.

    Raises:
        ImportError: keras-hub is not installed.
        ValueError: the preset cannot be loaded; the message says why.
    """
    folder = pathlib.Path(source)
    if folder.is_dir() and not (folder / CONFIG).exists():
        raise ValueError(
            f"The folder '{source}' holds no preset of KerasHub: it has no {CONFIG}. Write it with "
            "backbone.save_to_preset(folder), or give the path of a .keras or .h5 model."
        )
    try:
        import keras_hub
    except ImportError as error:
        raise ImportError(
            f"The trunk '{source}' is a preset of KerasHub, which is not installed: pip install "
            "keras-hub."
        ) from error
    found = str(folder.resolve()) if folder.is_dir() else source
    try:
        backbone = keras_hub.models.Backbone.from_preset(found, load_weights=weights)
    except Exception as error:  # KerasHub, the clients of the hubs, and the network raise many
        text = (str(error) or type(error).__name__).split("\n")[0]
        raise ValueError(
            f"Cannot load the preset '{source}' with keras-hub {keras_hub.__version__}: "
            f"{text[:200]}\nCheck its name and the network, or save it to a folder where there is "
            "one, backbone.save_to_preset(folder), and write --trunk=folder."
        ) from error
    try:
        converter = keras_hub.layers.ImageConverter.from_preset(found)
    except (ValueError, FileNotFoundError):  # the preset has none
        return Preset(backbone)
    return Preset(backbone, converter.scale, converter.offset, converter.image_size)


def unknown(name: str, others: Iterable[str]) -> ValueError:
    """Returns the error for a name that is neither a file, nor an application, nor a preset.

    Args:
        name: the name.
        others: the names of the applications.
    """
    applications, presets = list(others), built_in()
    by_lower = {known.lower(): known for known in [*applications, *presets]}
    close = difflib.get_close_matches(name.lower(), by_lower, n=3)
    meant = f" Did you mean {' or '.join(by_lower[each] for each in close)}?" if close else ""
    more = (
        f"one of the {len(presets)} presets of KerasHub for images (resnet_18_imagenet)"
        if presets
        else "a preset of KerasHub (pip install keras-hub)"
    )
    return ValueError(
        f"'{name}' is neither a .keras or .h5 file nor a network that is known by name.{meant} "
        f"Write the path of a file, {more}, its address (hf://..., kaggle://...), a folder that "
        f"backbone.save_to_preset wrote, or a model of keras.applications: "
        f"{', '.join(applications)}."
    )
