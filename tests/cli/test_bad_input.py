"""Everything that people get wrong, in one list: each is one clear message and an exit code, never a trace.

First what reaches the command line, then what only the Python interface can be given. For full disks see test_full_disk.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lmedge import FaceLandmarker
from lmedge.data.csv import header, write_csv
from lmedge.data.wflw import read_wflw
from lmedge.errors import InputError
from tests.bundles import SCHEMA
from tests.cli.command import DONE, ERROR, lmedge
from tests.cli.conftest import change_manifest
from tests.data.faces import FIVE_POINTS, sample_of, textured_image, write_image

IMAGE = textured_image(0)


@dataclass(frozen=True)
class Scene:
    """What a bad input is built from: a folder of its own, a good bundle and a good photo."""

    folder: Path
    bundle: Path
    photo: Path

    def file(self, name: str, content: bytes | str) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def own_bundle(self) -> Path:
        return Path(shutil.copytree(self.bundle, self.folder / "own"))

    def evaluate(self, points_px: Any = FIVE_POINTS, image: Path | None = None, box: str = ",,,") -> list[object]:
        """`lmedge evaluate` of one face, given as text so that anything can be written."""
        face = image or write_image(self.folder / "face.png", IMAGE)
        values = ",".join(str(value) for point in points_px for value in point)
        self.file("faces.csv", f"{','.join(header(SCHEMA))}\n{face.name},{box},{values}\n")
        source = f"csv:{self.folder / 'faces.csv'}"
        return ["evaluate", self.bundle, "--data", source, "--schema", SCHEMA.name, "--split", "all", "--boxes", "landmarks"]

    def cut(self, name: str) -> Path:
        """A picture whose last third is missing."""
        path = write_image(self.folder / name, IMAGE)
        path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
        return path


@pytest.fixture
def scene(tmp_path: Path, bundle: Path, photo: Path) -> Scene:
    return Scene(tmp_path, bundle, photo)


def moved(index: int, x: object, y: object) -> list[list[object]]:
    """The labels with one point elsewhere."""
    points: list[list[object]] = [list(point) for point in FIVE_POINTS]
    points[index] = [x, y]
    return points


def pts(scene: Scene, count: int) -> list[object]:
    """`data stats` of a 300-W folder with one file of `count` points."""
    write_image(scene.folder / "300w" / "a.png", IMAGE)
    lines = "\n".join(f"{index}.5 {index * 2}.5" for index in range(count))
    scene.file("300w/a.pts", f"version: 1\nn_points: 68\n{{\n{lines}\n}}\n")
    return ["data", "stats", f"300w:{scene.folder / '300w'}"]


def empty_csv(scene: Scene) -> list[object]:
    file = scene.file("faces.csv", ",".join(header(SCHEMA)) + "\n")
    return ["data", "stats", f"csv:{file}", "--schema", SCHEMA.name]


def other_artifact(scene: Scene, path: str) -> list[object]:
    """`predict` with a bundle whose manifest names a file elsewhere."""
    own = scene.own_bundle()
    document = lmedge("inspect", own, "--json").json
    change_manifest(own, artifacts=[{**document["artifacts"][0], "path": path}])
    return ["predict", own, scene.photo]


def plan(scene: Scene, *options: object) -> list[object]:
    return ["build", *options, "--out", scene.folder / "run", "--plan"]


# What is wrong → the command that meets it, and what the message must say.
BAD_INPUT: dict[str, tuple[Callable[[Scene], list[object]], tuple[str, ...]]] = {
    "a missing folder": (
        lambda scene: ["data", "stats", f"300w:{scene.folder}/nowhere"],
        ("nowhere does not exist", "expected a folder tree with .jpg or .png images and a .pts file beside each"),
    ),
    "a file where a folder is expected": (
        lambda scene: ["data", "stats", f"300w:{scene.photo}"],
        ("driver.png is not a folder",),
    ),
    "a missing list": (
        lambda scene: ["data", "stats", f"csv:{scene.folder}/no.csv", "--schema", "MMLAB_5"],
        ("Cannot read the csv file", "no.csv: No such file or directory"),
    ),
    "an image that is none": (
        lambda scene: ["predict", scene.bundle, scene.file("text.png", "no pixels here")],
        ("text.png is not a complete image", "(14 bytes)", "Replace or remove the file"),
    ),
    "a truncated JPEG": (lambda scene: ["predict", scene.bundle, scene.cut("cut.jpg")], ("cut.jpg is not a complete image",)),
    "a truncated PNG": (lambda scene: ["predict", scene.bundle, scene.cut("cut.png")], ("cut.png is not a complete image",)),
    "a truncated image of a data set": (
        lambda scene: scene.evaluate(image=scene.cut("face.jpg")),
        ("face.jpg is not a", "image that OpenCV can decode", "Replace or remove the file"),
    ),
    "an image that a list names and nobody has": (
        lambda scene: scene.evaluate(image=Path("gone.png")),
        ("faces.csv:2, field 1: the image", "gone.png does not exist"),
    ),
    "one point too few (300-W)": (lambda scene: pts(scene, 67), ("a.pts: expected 68 points, one per line, got 67",)),
    "one point too many (300-W)": (lambda scene: pts(scene, 69), ("a.pts: expected 68 points, one per line, got 69",)),
    "one point too few (csv)": (
        lambda scene: scene.evaluate(FIVE_POINTS[:4]),
        ("faces.csv:2: expected 15 fields for MMLAB_5, got 13",),
    ),
    "a label that is NaN": (
        lambda scene: scene.evaluate(moved(2, "nan", 40)),
        ("faces.csv:2, field 10: expected a finite number, got 'nan'",),
    ),
    "a label that is infinite": (lambda scene: scene.evaluate(moved(0, 30, "inf")), ("field 7: expected a finite number",)),
    "a label that is no number": (lambda scene: scene.evaluate(moved(0, "3O", 30)), ("field 6", "got '3O'")),
    "half a point": (lambda scene: scene.evaluate(moved(4, "", 30)), ("field 14: expected a finite number, got ''",)),
    "a label far outside the image": (
        lambda scene: scene.evaluate(moved(4, 400, 30)),
        ("faces.csv:2: a label at (400.0, 30.0) is more than half a face outside the image of 100 × 100 px",),
    ),
    "all points in one place": (
        lambda scene: scene.evaluate([[30, 30]] * 5),
        ("faces.csv:2: the labelled points are infinite, missing or all in one place",),
    ),
    "an empty folder": (
        lambda scene: ["data", "stats", f"300w:{scene.folder}"],
        ("has no labelled faces; expected a folder tree of .jpg or .png images with .pts files",),
    ),
    "a list without a face": (empty_csv, ("has no labelled faces; expected a .csv file with one face a line",)),
    "no rendered face": (
        lambda scene: ["data", "stats", "synthetic:0"],
        ("expected how many faces to render, e.g. synthetic:500",),
    ),
    "an unknown key of the configuration": (
        lambda scene: plan(scene, scene.file("run.toml", "[train]\nepoch = 3\n")),
        ("Unknown setting train.epoch", "Did you mean train.epochs?"),
    ),
    "an unknown key behind --set": (
        lambda scene: plan(scene, "--set", "modle.width=0.5"),
        ("Unknown setting modle", "Did you mean model"),
    ),
    "a value of another kind": (lambda scene: plan(scene, "--set", "train.epochs=many"), ("train.epochs", "'many'")),
    "an unknown target": (lambda scene: plan(scene, "--target", "openvno"), ("got openvno", "Did you mean openvino?")),
    "a configuration that is no TOML": (lambda scene: plan(scene, scene.file("run.toml", "epochs: 3")), ("is not valid TOML",)),
    "a box outside the image": (
        lambda scene: ["predict", scene.bundle, scene.photo, "--box", "200,10,50,50"],
        ("The box x 200 to 250, y 10 to 60 lies outside the image of 100 × 80 px",),
    ),
    "a box without width": (
        lambda scene: ["predict", scene.bundle, scene.photo, "--box", "10,10,0,50"],
        ("--box 10,10,0,50 is x,y,width,height, and both sizes must be above 0",),
    ),
    "a box that is NaN": (
        lambda scene: ["predict", scene.bundle, scene.photo, "--box", "nan,1,5,5"],
        ("finite x_min < x_max",),
    ),
    "a labelled box without area": (
        lambda scene: scene.evaluate(box="10,10,10,60"),
        ("faces.csv:2", "x_min < x_max and y_min < y_max; got x 10 to 10"),
    ),
    "no bundle": (lambda scene: ["predict", scene.folder, scene.photo], ("is no bundle (no manifest.json)",)),
    "a manifest that is no JSON": (
        lambda scene: ["bench", scene.file("bundle/manifest.json", "{").parent],
        ("manifest.json cannot be read as JSON",),
    ),
    "a manifest of something else": (
        lambda scene: ["bench", scene.file("bundle/manifest.json", '{"name": "npm"}').parent],
        ("has no format_version; it is no lmedge manifest",),
    ),
    "a manifest of a newer format": (
        lambda scene: ["predict", change_manifest(scene.own_bundle(), format_version=99), scene.photo],
        ("has format version 99; this lmedge reads up to 1", "pip install -U lmedge"),
    ),
    "a path that climbs out of the bundle": (
        lambda scene: other_artifact(scene, "../source/model.fp32.onnx"),
        ("names '../source/model.fp32.onnx', which leaves the bundle", "not safe to open"),
    ),
    "an absolute path in the manifest": (lambda scene: other_artifact(scene, "/etc/passwd"), ("which leaves the bundle",)),
    "a file that the manifest names and nobody has": (
        lambda scene: other_artifact(scene, "model.gone.onnx"),
        ("model.gone.onnx cannot be read (No such file or directory); the manifest names it",),
    ),
}


@pytest.mark.parametrize(("command", "parts"), BAD_INPUT.values(), ids=BAD_INPUT)
def test_bad_input_is_one_clear_error(command: Callable[[Scene], list[object]], parts: tuple[str, ...], scene: Scene) -> None:
    outcome = lmedge(*command(scene))
    outcome.assert_clear_error(ERROR, *parts)
    assert outcome.stderr.splitlines()[-1].startswith("lmedge: error: ")


def test_a_link_that_leaves_the_bundle_is_refused(scene: Scene) -> None:
    own = scene.own_bundle()
    outside = scene.file("elsewhere.onnx", (own / "model.fp32.onnx").read_bytes())
    (own / "model.fp32.onnx").unlink()
    (own / "model.fp32.onnx").symlink_to(outside)
    lmedge("predict", own, scene.photo).assert_clear_error(ERROR, "leaves the bundle")


class TestGoodInputThatLooksBad:
    """What is refused above is not refused too widely."""

    def test_a_label_just_outside_is_kept_and_counted(self, scene: Scene) -> None:
        outcome = lmedge(*scene.evaluate(moved(0, -3, 35)), "--json")
        assert outcome.code == DONE
        assert outcome.json["outside"] == 1

    def test_an_unknown_point_is_kept(self, scene: Scene) -> None:
        assert lmedge(*scene.evaluate(moved(2, "", "")), "--json").json["count"] == 1

    def test_a_box_over_the_border_is_a_face(self, scene: Scene) -> None:
        assert lmedge("predict", scene.bundle, scene.photo, "--box", "-20,-10,60,60", "--json").code == DONE

    @pytest.mark.data
    def test_points_of_wflw_that_lie_just_outside_are_kept(self, scene: Scene, data_folder: Path) -> None:
        faces = read_wflw(data_folder / "wflw")
        above = [face for face in faces if np.nanmin(face.points_px) < -0.5]
        assert above, "WFLW has such faces"
        write_csv(scene.folder / "outside.csv", [sample_of(face.image, face.points_px, face.schema) for face in above])
        source = f"csv:{scene.folder / 'outside.csv'}"
        document = lmedge("data", "stats", source, "--schema", "WFLW_98", "--json").json
        assert document["count"] == len(above)


BAD_ARRAYS: dict[str, tuple[Any, str]] = {
    "four channels": (np.zeros((80, 100, 4), np.uint8), r"shape \(H, W, 3\).*got \(80, 100, 4\).*Drop the alpha channel"),
    "16 bits": (np.zeros((80, 100, 3), np.uint16), r"must be uint8; got uint16.*image / 257"),
    "float": (np.zeros((80, 100, 3), np.float32), r"must be uint8; got float32.*astype\(np.uint8\) in 0 to 255"),
    "no pixels": (np.zeros((0, 100, 3), np.uint8), r"got \(0, 100, 3\)"),
    "no array": ([[1, 2], [3, 4]], "got list"),
}
BAD_BOXES: dict[str, tuple[Any, str]] = {
    "no area": ([[10, 10, 10, 40]], "x_min < x_max and y_min < y_max; got x 10 to 10"),
    "NaN": ([[np.nan, 10, 20, 40]], "finite"),
    "outside": ([[300, 300, 350, 350]], "lies outside the image of 100 × 80 px"),
    "one box that is no list": ([10, 10, 40, 40], r"For one box, give \[box\]"),
    "words": ([["left", "top", "right", "bottom"]], "Boxes must be numbers"),
}
GOOD_ARRAYS: dict[str, Any] = {
    "gray": IMAGE[:80, :, 0],
    "every second pixel": np.repeat(np.repeat(IMAGE[:80], 2, axis=0), 2, axis=1)[::2, ::2],
    "upside down": IMAGE[:80][::-1],
    "Fortran order": np.asfortranarray(IMAGE[:80]),
}
BOXES = [[20.0, 10.0, 60.0, 60.0]]


class TestArrays:
    """The same through `FaceLandmarker.predict`."""

    @pytest.mark.parametrize(("image", "message"), BAD_ARRAYS.values(), ids=BAD_ARRAYS)
    def test_an_image_is_refused(self, image: Any, message: str, bundle: Path) -> None:
        with FaceLandmarker.open(bundle) as landmarker, pytest.raises(InputError, match=message):
            landmarker.predict(image, BOXES)

    @pytest.mark.parametrize(("boxes", "message"), BAD_BOXES.values(), ids=BAD_BOXES)
    def test_a_box_is_refused(self, boxes: Any, message: str, bundle: Path) -> None:
        with FaceLandmarker.open(bundle) as landmarker, pytest.raises(InputError, match=message):
            landmarker.predict(IMAGE[:80], boxes)

    @pytest.mark.parametrize("image", GOOD_ARRAYS.values(), ids=GOOD_ARRAYS)
    def test_gray_and_any_stride_work(self, image: Any, bundle: Path) -> None:
        plain = np.ascontiguousarray(np.broadcast_to(image.reshape(80, 100, -1), (80, 100, 3)))
        with FaceLandmarker.open(bundle) as landmarker:
            (found,) = landmarker.predict(image, BOXES)
            (expected,) = landmarker.predict(plain, BOXES)
        assert np.array_equal(found.points_px, expected.points_px)

    @pytest.mark.parametrize("backend", ["onnxruntime", "openvino"])
    def test_a_closed_runtime_says_so(self, backend: str, bundle: Path, require: Callable[..., None]) -> None:
        require(backend)
        landmarker = FaceLandmarker.open(bundle, backend=backend)
        landmarker.close()
        with pytest.raises(InputError, match=f"This {backend} runtime is closed. Open a new one"):
            landmarker.predict(IMAGE, BOXES)
