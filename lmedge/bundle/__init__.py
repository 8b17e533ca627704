"""The bundle: a small, hashed folder with everything a device needs to find landmarks. Its reader and its writer.

Every file is named in `manifest.json` with its sha256. Opening checks the manifest (format version, paths that stay inside),
each artifact is checked against its digest before an engine sees it, and `verify_digests` checks all of them.
"""

from lmedge.bundle.artifact import (
    ANY_ARCH,
    CONFIDENCE,
    IMAGE,
    LANDMARKS,
    PRECISIONS,
    Artifact,
    Digests,
    TensorSpec,
    check_digest,
    machine_arch,
    network_specs,
)
from lmedge.bundle.files import file_digest, replace_folder, write_atomically
from lmedge.bundle.folder import ADDED_BOX_FITS, Bundle, add_artifacts, add_box_fit, write_bundle
from lmedge.bundle.install import install_artifacts
from lmedge.bundle.manifest import FORMAT_VERSION, GOLDEN, MANIFEST, Manifest
from lmedge.bundle.one_writer import WRITER, one_writer
from lmedge.bundle.zoo import resolve_bundle, zoo_bundles

__all__ = [
    "ADDED_BOX_FITS",
    "ANY_ARCH",
    "CONFIDENCE",
    "FORMAT_VERSION",
    "GOLDEN",
    "IMAGE",
    "LANDMARKS",
    "MANIFEST",
    "PRECISIONS",
    "WRITER",
    "Artifact",
    "Bundle",
    "Digests",
    "Manifest",
    "TensorSpec",
    "add_artifacts",
    "add_box_fit",
    "check_digest",
    "file_digest",
    "install_artifacts",
    "machine_arch",
    "network_specs",
    "one_writer",
    "replace_folder",
    "resolve_bundle",
    "write_atomically",
    "write_bundle",
    "zoo_bundles",
]
