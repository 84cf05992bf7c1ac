"""What a directory's image processor or feature extractor says of the arrays that it makes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import CaptureError
from .config import read_json

_FILES = ("preprocessor_config.json", "processor_config.json", "video_preprocessor_config.json")
_PARTS = ("image_processor", "feature_extractor", "video_processor", "audio_processor")
_LARGEST = 2**14  # pixels along an edge, frames or bins: beyond it a number is no size


@dataclass(frozen=True)
class Processor:
    """The settings of a processor's parts, as one object; empty where the directory has none."""

    settings: Mapping[str, Any]

    def image(self) -> tuple[int, int] | None:
        """(height, width) of every image that comes out; None where it depends on the image."""
        crops, resizes = self.settings.get("do_center_crop"), self.settings.get("do_resize", True)
        pads = self.settings.get("do_pad") and self._edges("pad_size")
        return pads or (crops and self._edges("crop_size")) or (resizes and self._edges("size")) or None

    def free_images(self) -> bool:
        """Whether it says that images keep their own proportions."""
        return "size" in self.settings and self.image() is None

    def mask(self) -> bool | None:
        """Whether a mask of samples or frames comes with features; None where nothing is said."""
        value = self.settings.get("return_attention_mask")
        return value if isinstance(value, bool) else None

    def number(self, name: str) -> int | None:
        """A size that it states.

        Raises:
            CaptureError: it is no size.
        """
        value = self.settings.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= _LARGEST:
            raise CaptureError(f"the processor's configuration gives {name} as {value!r}: a size is meant.")
        return value

    def _edges(self, name: str) -> tuple[int, int] | None:
        size = self.settings.get(name)
        if isinstance(size, Mapping):
            edges: list[Any] = [size.get("height"), size.get("width")]
            if edges == [None, None]:
                # A crop, or older files, by one number: {"shortest_edge": 224} alone says one edge only.
                return None
        elif isinstance(size, list) and len(size) == 2:
            edges = size
        elif isinstance(size, int):
            edges = [size, size]
        else:
            return None
        for edge in edges:
            if isinstance(edge, bool) or not (isinstance(edge, int) and 0 < edge <= _LARGEST):
                raise CaptureError(
                    f"the processor's configuration gives {name} as {size!r}: no size of an image."
                )
        return edges[0], edges[1]


def processor(directory: Path) -> Processor:
    """Reads the files that describe it; nothing of it is run.

    Raises:
        CaptureError: a file is broken.
    """
    settings: dict[str, Any] = {}
    for name in _FILES:
        path = directory / name
        if path.exists():
            read = read_json(path)
            settings |= {key: value for key, value in read.items() if not isinstance(value, dict)}
            settings |= {key: read[key] for key in ("size", "crop_size", "pad_size") if key in read}
            for part in _PARTS:
                settings |= read[part] if isinstance(read.get(part), dict) else {}
    return Processor(settings)
