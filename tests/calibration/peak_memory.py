"""The peak of a process that calibrates: `python -m tests.calibration.peak_memory COUNT FOLDER [STEP]` prints it in KiB.

STEP images (the default): writes pictures of COUNT faces into FOLDER, chooses COUNT crops from them and goes through the crops
once. STEP quantize: writes both int8 files of a small network, calibrated on COUNT crops, into FOLDER.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2

from lmedge.calibration.crop_store import CropStore
from lmedge.calibration.images import calibration_images
from lmedge.data.samples import FaceSample, is_validation
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import MMLAB_5
from tests.calibration.pictures import picture, points_px

SPEC = PreprocessSpec(input_hw=(64, 64))
CROP_PX = 96

_FACES_PER_PICTURE = 10


def write_faces(count: int, folder: Path) -> list[FaceSample]:
    """Labelled faces, all of them in the training split."""
    keys = (key for key in map("photo_{}".format, itertools.count()) if not is_validation(key))
    faces: list[FaceSample] = []
    for number, key in zip(range(0, count, _FACES_PER_PICTURE), keys, strict=False):
        file = folder / f"{key}.bmp"
        cv2.imwrite(str(file), picture(number))
        seeds = range(number, min(count, number + _FACES_PER_PICTURE))
        faces += [FaceSample(file, points_px(seed), MMLAB_5, photo_key=key) for seed in seeds]
    return faces


def peak_kib() -> int:
    """The peak of this process: of its own memory map, so that the process that started it does not count (in
    `getrusage` it does)."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmHWM:")))


def choose_images(count: int, folder: Path) -> None:
    faces = write_faces(count, folder)
    with calibration_images(faces, SPEC, count=count, seed=0) as images:
        assert images.crops.shape == (count, *SPEC.input_hw, 3)
        assert sum(len(batch) for batch in images.crops.batches()) == count


def quantize(count: int, folder: Path) -> None:
    """With every step: equalisation, extremes, histograms and bias correction."""
    import onnx

    from lmedge.calibration.quantize import quantize_int8
    from lmedge.calibration.recipe import Recipe
    from tests.calibration.graph_writer import GraphWriter

    writer = GraphWriter(CROP_PX)
    stem = writer.clip("stem.clip", writer.conv("stem", writer.image, 8, 3, stride=4))
    filtered = writer.clip("filter.clip", writer.depthwise("filter", stem, stride=2))
    expanded = writer.relu("expand.relu", writer.conv("expand", writer.conv("project", filtered, 6), 16))
    onnx.save(writer.model(expanded), folder / "model.fp32.onnx")
    with CropStore((CROP_PX, CROP_PX), folder=folder) as crops:
        for seed in range(count):
            crops.append(picture(seed, side_px=CROP_PX))
        fp32, portable, x86 = (folder / f"model.{name}.onnx" for name in ("fp32", "int8", "int8-x86"))
        assert quantize_int8(fp32, crops, portable, x86, recipe=Recipe(ranges="mse")).count == count


if __name__ == "__main__":
    step = {"images": choose_images, "quantize": quantize}[sys.argv[3] if len(sys.argv) > 3 else "images"]
    step(int(sys.argv[1]), Path(sys.argv[2]))
    sys.stdout.write(f"{peak_kib()}\n")
