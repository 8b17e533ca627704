"""Face filters: stickers and warped pictures over faces, described by a JSON file and PNG pictures.

from lmedge.apps.filters import FilterPainter, load_filter
painter = FilterPainter([load_filter("hat"), load_filter("my_filters/beard")], landmarker.schema)
painted = painter.paint(image_bgr, faces)
"""

from __future__ import annotations

from lmedge.apps.filters.definition import FaceFilter, Layer
from lmedge.apps.filters.filter_file import built_in_filters, load_filter
from lmedge.apps.filters.painter import FilterPainter
from lmedge.apps.filters.places import PLACES

__all__ = ["PLACES", "FaceFilter", "FilterPainter", "Layer", "built_in_filters", "load_filter"]
