"""YuNet boxes through OpenCV."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from lmedge.errors import InputError
from lmedge.runtimes.detector import Detector, yunet_detector


@pytest.fixture(scope="module")
def detector(data_folder: Path) -> Detector:
    model = data_folder.parent / "models" / "face_detection_yunet.onnx"
    if not model.is_file():
        pytest.skip(f"no detector at {model}")
    return yunet_detector(model)


@pytest.mark.data
def test_boxes_keep_their_place_at_any_image_size(detector: Detector, data_folder: Path) -> None:
    from lmedge.data.ibug import read_300w

    sample = read_300w(data_folder / "300w")[5]
    image = sample.read_image()
    box = detector(image)[0]
    center = sample.box().center
    assert box[0] < center[0] < box[2]
    assert box[1] < center[1] < box[3]
    assert 0.6 < box[4] <= 1
    large = cv2.resize(image, None, fx=4, fy=4, interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(detector(np.asarray(large, np.uint8))[0, :4] / 4, box[:4], atol=0.08 * (box[2] - box[0]))


@pytest.mark.data
def test_an_empty_image_has_no_face(detector: Detector) -> None:
    assert detector(np.zeros((120, 160, 3), np.uint8)).shape == (0, 5)
    assert detector(np.zeros((2000, 3, 3), np.uint8)).shape == (0, 5)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="OpenCV Zoo"):
        yunet_detector(tmp_path / "yunet.onnx")


def test_a_file_that_is_no_network_is_refused(tmp_path: Path) -> None:
    (tmp_path / "yunet.onnx").write_bytes(b"not a network")
    with pytest.raises(InputError, match="cannot load"):
        yunet_detector(tmp_path / "yunet.onnx")
