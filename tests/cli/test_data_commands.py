"""`lmedge data stats`, `show` and `synth`."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmedge.data.csv import read_csv
from lmedge.data.samples import read_image
from lmedge.schemas import get_schema
from tests.cli.command import DONE, ERROR, USAGE, lmedge
from tests.cli.conftest import FACES

FIVE = ["--schema", "MMLAB_5"]


class TestStats:
    def test_counts_are_shown(self, faces: str) -> None:
        outcome = lmedge("data", "stats", faces, *FIVE)
        assert (outcome.code, outcome.stderr) == (DONE, "")
        rows = dict(line.split() for line in outcome.stdout.splitlines() if len(line.split()) == 2)
        assert rows["count"] == str(FACES)

    def test_rendered_faces_need_no_folder(self) -> None:
        assert lmedge("data", "stats", "synthetic:3", *FIVE, "--json").json["count"] == 3

    def test_an_unknown_kind_lists_the_known_ones(self) -> None:
        outcome = lmedge("data", "stats", "300v:faces")
        outcome.assert_clear_error(ERROR, "synthetic, 300w, wflw, mmlab5, csv; got '300v:faces'. Did you mean 300w?")

    def test_a_file_of_any_points_needs_a_schema(self, faces: str) -> None:
        lmedge("data", "stats", faces).assert_clear_error(ERROR, "say which with --schema NAME or --schema FILE.toml")

    def test_an_unknown_schema_is_told_with_the_nearest(self, faces: str) -> None:
        outcome = lmedge("data", "stats", faces, "--schema", "MMLAB_6")
        outcome.assert_clear_error(ERROR, "No schema is called 'MMLAB_6'", "Did you mean MMLAB_5?")

    def test_a_schema_that_is_not_that_of_the_kind_is_refused(self) -> None:
        outcome = lmedge("data", "stats", "300w:faces", *FIVE)
        outcome.assert_clear_error(ERROR, "300w has the points of IBUG_68, not MMLAB_5. Leave --schema out")


class TestShow:
    def test_a_sheet_with_labels_in_red_is_written(self, faces: str, tmp_path: Path) -> None:
        outcome = lmedge("data", "show", faces, *FIVE, "--out", tmp_path / "new" / "sheet.png")
        assert outcome.code == DONE
        assert f"{FACES} of {FACES} faces on {tmp_path / 'new' / 'sheet.png'}" in outcome.stdout
        sheet = read_image(tmp_path / "new" / "sheet.png").astype(int)
        assert ((sheet[:, :, 2] > 200) & (sheet[:, :, 1] < 100)).any()

    def test_fewer_faces_make_a_smaller_sheet(self, faces: str, tmp_path: Path) -> None:
        for count in (1, FACES):
            lmedge("data", "show", faces, *FIVE, "--out", tmp_path / f"{count}.png", "--count", count)
        assert read_image(tmp_path / "1.png").size < read_image(tmp_path / f"{FACES}.png").size

    def test_a_seed_chooses_the_same_faces_again(self, faces: str, tmp_path: Path) -> None:
        for name, seed in (("a", 1), ("b", 1), ("c", 2)):
            lmedge("data", "show", faces, *FIVE, "--out", tmp_path / f"{name}.png", "--count", 2, "--seed", seed)
        first, again, other = ((tmp_path / f"{name}.png").read_bytes() for name in "abc")
        assert first == again
        assert first != other

    def test_a_sheet_that_is_no_picture_is_refused(self, faces: str, tmp_path: Path) -> None:
        outcome = lmedge("data", "show", faces, *FIVE, "--out", tmp_path / "sheet.txt")
        outcome.assert_clear_error(ERROR, "sheet.txt: a picture needs the suffix .png, .jpg or .jpeg")


class TestSynth:
    def test_what_it_writes_can_be_read_as_it_says(self, tmp_path: Path) -> None:
        outcome = lmedge("data", "synth", tmp_path / "faces", "--count", 3, "--schema", "WFLW_98", "--size", 96)
        assert outcome.code == DONE
        file = tmp_path / "faces" / "faces.csv"
        assert f"lmedge build --data csv:{file} --schema WFLW_98" in outcome.stdout
        samples = read_csv(file, get_schema("WFLW_98"))
        assert len(samples) == 3
        for sample in samples:
            assert sample.read_image().shape == (96, 96, 3)
            assert sample.known.all()
            assert set(sample.boxes) == {"csv"}
        assert lmedge("data", "stats", f"csv:{file}", "--schema", "WFLW_98", "--json").json["count"] == 3

    def test_the_same_seed_gives_the_same_files(self, tmp_path: Path) -> None:
        def content(name: str, seed: int) -> dict[str, bytes]:
            lmedge("data", "synth", tmp_path / name, "--count", 1, "--size", 64, "--seed", seed)
            return {path.name.replace(str(seed), "#", 1): path.read_bytes() for path in (tmp_path / name).iterdir()}

        assert content("a", 1) == content("b", 1)
        assert content("a", 1)["synthetic_#_0.png"] != content("c", 2)["synthetic_#_0.png"]

    @pytest.mark.parametrize("options", [["--count", "0"], ["--size", "8"]], ids=" ".join)
    def test_what_cannot_be_rendered_is_a_usage_error(self, options: list[str], tmp_path: Path) -> None:
        lmedge("data", "synth", tmp_path, *options).assert_clear_error(USAGE, options[0])
