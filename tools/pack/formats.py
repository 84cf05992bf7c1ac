"""The names of what a bundle can be packed as. Standard library only: help pages list them."""

from enum import StrEnum


class Format(StrEnum):
    """What a bundle can be packed as."""

    TAR = "tar.zst"
    WHEEL = "wheel"
    OCI = "oci"
