"""The peak of a process that calibrates: `python -m tests.calibration.peak_memory COUNT FOLDER` prints it in KiB.

It writes pictures of COUNT faces into FOLDER, chooses COUNT crops from them and goes through the crops once.
"""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import cv2

from lmedge.calibration.images import calibration_images
from lmedge.data.samples import FaceSample, is_validation
from lmedge.preprocess import PreprocessSpec
from lmedge.schemas import MMLAB_5
from tests.calibration.pictures import picture, points_px

SPEC = PreprocessSpec(input_hw=(64, 64))

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


def main(count: int, folder: Path) -> None:
    faces = write_faces(count, folder)
    with calibration_images(faces, SPEC, count=count, seed=0) as images:
        assert images.crops.shape == (count, *SPEC.input_hw, 3)
        assert sum(len(batch) for batch in images.crops.batches()) == count
    sys.stdout.write(f"{peak_kib()}\n")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
