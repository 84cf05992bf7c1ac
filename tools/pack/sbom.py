"""The list of what a package carries, as a CycloneDX SBOM (ECMA-424, version 1.6), in JSON."""

from __future__ import annotations

import os
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib import metadata
from typing import TYPE_CHECKING, Any

from .licences import Part

if TYPE_CHECKING:
    from cyclonedx.model.component import Component

_HERE = uuid.UUID("d0f1a6a5-90f1-5ad6-8b3b-6d5f60b0a9c4")  # under which contents become serial numbers


def sbom(name: str, version: str, digest: str, parts: Sequence[Part]) -> bytes:
    """A document that is the same bytes for the same content: its serial number comes of the content, and its
    time is SOURCE_DATE_EPOCH's, or the epoch itself.

    Args:
        name, version: of the package. digest: of its content.
        parts: what it carries, each with its files.
    """
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component, ComponentType
    from cyclonedx.output import make_outputter
    from cyclonedx.schema import OutputFormat, SchemaVersion

    root = Component(name=name, version=version, type=ComponentType.APPLICATION, bom_ref="package")
    maker = Component(name="graphwright", version=metadata.version("graphwright"))
    bom = Bom(serial_number=uuid.uuid5(_HERE, f"{name} {version} {digest}"))
    bom.metadata.component = root
    bom.metadata.tools.components.add(maker)
    bom.metadata.timestamp = datetime.fromtimestamp(int(os.environ.get("SOURCE_DATE_EPOCH") or 0), UTC)
    components = [_component(part) for part in parts]
    for component in components:
        bom.components.add(component)
    bom.register_dependency(root, components)
    text = make_outputter(bom, OutputFormat.JSON, SchemaVersion.V1_6).output_as_string(indent=1)
    return (text + "\n").encode()


def _component(part: Part) -> Component:
    from cyclonedx.factory.license import LicenseFactory
    from cyclonedx.model import HashAlgorithm, HashType
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    def of(name: str, kind: str, reference: str, **more: Any) -> Component:
        return Component(name=name, type=ComponentType(kind), bom_ref=reference, **more)

    files = [
        of(
            place,
            "file",
            f"{part.name}:{place}",
            hashes=[HashType(alg=HashAlgorithm.SHA_256, content=digest)],
        )
        for place, digest in sorted(part.files.items())
    ]
    return of(
        part.name,
        part.kind,
        part.name,
        version=part.version,
        purl=PackageURL.from_string(part.purl) if part.purl else None,
        licenses=[LicenseFactory().make_from_string(part.licence)] if part.licence else [],
        components=files,
    )
