"""Landmark schemas: what each point of a face is called, and how the points belong together.

"left" and "right" are the subject's own. Mirror pairs follow from the names: `right_eye_outer` and `left_eye_outer`
change places in a mirrored image, a name without a side stays. Index orders are those of the published data sets.
"""

from __future__ import annotations

import difflib
from pathlib import Path

from lmedge.errors import SchemaError
from lmedge.schemas.mappings import mapping_matrix
from lmedge.schemas.published import AFLW_19, COFW_29, IBUG_68, MMLAB_5, WFLW_98
from lmedge.schemas.schema import REGIONS, Curve, LandmarkSchema

__all__ = [
    "AFLW_19",
    "COFW_29",
    "IBUG_68",
    "MMLAB_5",
    "REGIONS",
    "SCHEMAS",
    "WFLW_98",
    "Curve",
    "LandmarkSchema",
    "get_schema",
    "mapping_matrix",
]

SCHEMAS: dict[str, LandmarkSchema] = {schema.name: schema for schema in (MMLAB_5, IBUG_68, WFLW_98, COFW_29, AFLW_19)}


def get_schema(name_or_file: str | Path) -> LandmarkSchema:
    """A published schema by name (``IBUG_68``, ``WFLW_98``, ``MMLAB_5``, ``COFW_29``, ``AFLW_19``), or an own point set from
    a TOML file.

    The file has the keys of `LandmarkSchema.to_json`; flip_indices and curves may be left out.

    Raises:
        SchemaError: no such name or file, or a file that does not define a consistent schema.
    """
    text = str(name_or_file)
    if text.upper() in SCHEMAS:
        return SCHEMAS[text.upper()]
    if not text.endswith(".toml"):
        near = difflib.get_close_matches(text.upper(), SCHEMAS, n=1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise SchemaError(f"No schema is called {text!r}; known: {', '.join(SCHEMAS)}, or a .toml file.{hint}")
    from lmedge.toml_file import read_toml

    return LandmarkSchema.from_json(read_toml(Path(text), SchemaError))
