"""From an image and an affine map to the pixels of a square crop. Pixel centres are at integers.

Only the part of the image that the crop reads is touched, in these steps:

1. reduction: where the crop shrinks the image, the part is halved, as often as needed, each time to the means of 2 × 2 pixels,
   of which OpenCV rounds halves up;
2. a map from a square of whole pixels (`whole_square`): one bilinear `cv2.resize`, in a third of the time of a warp;
   any other map: a fourth channel, since OpenCV warps pixels of four bytes in half the time of three, one bilinear
   `cv2.warpAffine`, and away with the fourth channel.

With cells of k × k pixels from image position p on, cell r is centred at p + k·r + (k − 1) / 2; so that is where the map sends
it from. Cells lie where the crop lies, not where the image begins: a face in a wider image is cut out alike.
"""

from __future__ import annotations

import math

import cv2
import numpy as np
import numpy.typing as npt

Image = npt.NDArray[np.uint8]
# Where reading begins (x, y), and how many cells are read (columns, rows); in whole pixels and whole cells.
_Part = tuple[tuple[int, int], tuple[int, int]]
# The first pixel (x, y) and the side of a square of whole pixels.
Square = tuple[int, int, int]

# What is left of a reduction for the bilinear warp is at most this: beyond, it would skip pixels.
_MAX_PLAIN_REDUCTION = 1.5
# Cells are no larger than this: a face of 16 × 112 px fills most cameras.
_MAX_CELL_PX = 16
# Cells around those that the warp reads. One keeps the border away from the crop, however positions are rounded.
_MARGIN_CELLS = 1
# Of a pixel: what counts as a whole one. Matrices of float64 keep more than this for positions up to a million.
_WHOLE = 1e-6


class ResamplingMemory:
    """Memory for the steps between image and crop, kept from crop to crop. It grows by doubling and is written to at once, so
    that a process that has seen large faces does not creep up with each that is a little larger."""

    def __init__(self) -> None:
        self._flat: dict[str, Image] = {}

    def array(self, name: str, height: int, width: int, channels: int) -> Image:
        """An array (height, width, channels) uint8; the next one of this name lies in the same place."""
        count = height * width * channels
        flat = self._flat.get(name)
        if flat is None or flat.size < count:
            flat = self._flat[name] = np.full(1 << (count - 1).bit_length(), 0, np.uint8)
        return flat[:count].reshape(height, width, channels)


def whole_square(center_px: tuple[float, float], side_px: float, size_px: int) -> Square | None:
    """The square of whole pixels and whole cells next to a square, which a crop takes instead; None where it would not pay.

    It moves the framing by less than a crop's pixel, and no landmark: the map of the square that is taken leads back. Crops
    that enlarge stay where they are, since there a pixel of the image is more than one of theirs.
    """
    if not size_px <= side_px <= _MAX_PLAIN_REDUCTION * _MAX_CELL_PX * size_px:
        return None
    cell = _cell_px(side_px / size_px)
    side = max(round(side_px / cell) * cell, size_px)
    # The first pixel's edge, half a pixel before its centre.
    x, y = (round(center - (side - 1) / 2) for center in center_px)
    return x, y, side


def resample(
    image_bgr: Image,
    matrix: npt.NDArray[np.float64],
    size_px: int,
    border_value: int,
    *,
    square: Square | None = None,
    out: Image | None = None,
    memory: ResamplingMemory | None = None,
) -> Image:
    """The crop (size, size, 3) uint8 that an affine map cuts out; what lies outside the image is `border_value`.

    Args:
        image_bgr: uint8 (H, W, 3), pixels in one piece; rows may lie apart.
        matrix: (2, 3), image pixels → crop pixels, invertible.
        square: the one of `whole_square` that the map is of, where the caller has it; else it is found from the map.
        out: a contiguous array for the crop; None makes one.
        memory: for the steps between; None makes it.
    """
    memory = memory or ResamplingMemory()
    if square is not None:
        return _resized(image_bgr, square, size_px, border_value, out, memory)
    (a, b, shift_x), (c, d, shift_y) = matrix.tolist()
    if a == d and not (b or c):
        square = _square_of(a, shift_x, shift_y, size_px)
        if square is not None:
            return _resized(image_bgr, square, size_px, border_value, out, memory)
    cell = _cell_px(1 / math.sqrt(abs(a * d - b * c)))
    part = _part_read((a, b, shift_x, c, d, shift_y), size_px, cell, (image_bgr.shape[1], image_bgr.shape[0]))
    if part is None:
        crop = np.empty((size_px, size_px, 3), np.uint8) if out is None else out
        crop.fill(border_value)
        return crop
    (x, y), (columns, rows) = part
    cells = memory.array("cells", rows, columns, 4)
    cv2.cvtColor(_reduced(image_bgr, part, cell, border_value, memory), cv2.COLOR_BGR2BGRA, dst=cells)
    # The centre of the part's first cell.
    x_first, y_first = x + (cell - 1) / 2, y + (cell - 1) / 2
    from_cells = np.array(
        (
            (a * cell, b * cell, a * x_first + b * y_first + shift_x),
            (c * cell, d * cell, c * x_first + d * y_first + shift_y),
        )
    )
    warped = cv2.warpAffine(
        cells,
        from_cells,
        (size_px, size_px),
        dst=memory.array("warped", size_px, size_px, 4),
        flags=cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(border_value,) * 4,
    )
    return np.asarray(cv2.cvtColor(warped, cv2.COLOR_BGRA2BGR, dst=out), np.uint8)


def _square_of(zoom: float, shift_x: float, shift_y: float, size_px: int) -> Square | None:
    """The square of whole pixels and whole cells that a map sends to the whole crop; None where it is no such square."""
    if not 1 / (_MAX_PLAIN_REDUCTION * _MAX_CELL_PX) <= zoom <= 1:
        return None
    # The crop's edge lies half a pixel before its first pixel's centre, in the crop as in the image.
    x_exact, y_exact, side_exact = 0.5 - (shift_x + 0.5) / zoom, 0.5 - (shift_y + 0.5) / zoom, size_px / zoom
    x, y, side = round(x_exact), round(y_exact), round(side_exact)
    if max(abs(x_exact - x), abs(y_exact - y), abs(side_exact - side)) > _WHOLE or side % _cell_px(side / size_px):
        return None
    return x, y, side


def _resized(
    image_bgr: Image, square: Square, size_px: int, border_value: int, out: Image | None, memory: ResamplingMemory
) -> Image:
    """The crop of a square of whole pixels and whole cells."""
    x, y, side = square
    cell = _cell_px(side / size_px)
    height, width = image_bgr.shape[:2]
    count = side // cell
    # The cells with a part in the image.
    left, top = max(0, -x // cell), max(0, -y // cell)
    right, bottom = min(count, -((x - width) // cell)), min(count, -((y - height) // cell))
    if left >= right or top >= bottom:
        crop = np.empty((size_px, size_px, 3), np.uint8) if out is None else out
        crop.fill(border_value)
        return crop
    part = (x + left * cell, y + top * cell), (right - left, bottom - top)
    cells = _reduced(image_bgr, part, cell, border_value, memory)
    if right - left < count or bottom - top < count:
        inside = cells
        cells = memory.array("square", count, count, 3)
        sides = top, count - bottom, left, count - right
        cv2.copyMakeBorder(inside, *sides, cv2.BORDER_CONSTANT, dst=cells, value=(border_value,) * 3)
    return np.asarray(cv2.resize(cells, (size_px, size_px), dst=out, interpolation=cv2.INTER_LINEAR), np.uint8)


def _cell_px(reduction: float) -> int:
    """Side of the cells that leave a reduction of 0.75 to 1.5 to the warp: a power of 2, or 1 where nothing is reduced."""
    cell = 1
    while reduction > _MAX_PLAIN_REDUCTION * cell and cell < _MAX_CELL_PX:
        cell *= 2
    return cell


def _part_read(
    coefficients: tuple[float, float, float, float, float, float], size_px: int, cell: int, image_wh: tuple[int, int]
) -> _Part | None:
    """The cells that the crop reads and that have a part in the image; None if there is none.

    At the image's edges the outermost cells may stick out of it.
    """
    a, b, shift_x, c, d, shift_y = coefficients
    determinant, last = a * d - b * c, size_px - 1
    begins, counts = [], []
    # The inverse map's rows: image position = by_u · u + by_v · v + start, for crop pixels (u, v) of 0 to last.
    rows_of_inverse = (d / determinant, -b / determinant), (-c / determinant, a / determinant)
    for (by_u, by_v), extent in zip(rows_of_inverse, image_wh, strict=True):
        start = -by_u * shift_x - by_v * shift_y
        low = start + last * (min(by_u, 0.0) + min(by_v, 0.0))
        high = start + last * (max(by_u, 0.0) + max(by_v, 0.0))
        begin = math.floor(low - (cell - 1) / 2) - _MARGIN_CELLS * cell
        # Bilinear sampling reads the cell at or before a position and the next one.
        end_cell = math.floor((high - begin - (cell - 1) / 2) / cell) + 2 + _MARGIN_CELLS
        first_cell = max(0, -begin // cell)
        end_cell = min(end_cell, -((begin - extent) // cell))
        if first_cell >= end_cell:
            return None
        begins.append(begin + first_cell * cell)
        counts.append(end_cell - first_cell)
    return (begins[0], begins[1]), (counts[0], counts[1])


def _reduced(image_bgr: Image, part: _Part, cell: int, border_value: int, memory: ResamplingMemory) -> Image:
    """The part as means of cells (rows, columns, 3), with `border_value` where a cell sticks out of the image."""
    (x, y), (columns, rows) = part
    height, width = image_bgr.shape[:2]
    x_end, y_end = x + columns * cell, y + rows * cell
    pixels = image_bgr[max(y, 0) : y_end, max(x, 0) : x_end]
    if x < 0 or y < 0 or x_end > width or y_end > height:
        padded = memory.array("padded", rows * cell, columns * cell, 3)
        sides = max(-y, 0), max(y_end - height, 0), max(-x, 0), max(x_end - width, 0)
        cv2.copyMakeBorder(pixels, *sides, cv2.BORDER_CONSTANT, dst=padded, value=(border_value,) * 3)
        pixels = padded
    while cell > 1:
        cell //= 2
        halved = memory.array(f"means for {cell}", rows * cell, columns * cell, 3)
        cv2.resize(pixels, (columns * cell, rows * cell), dst=halved, interpolation=cv2.INTER_AREA)
        pixels = halved
    return pixels
