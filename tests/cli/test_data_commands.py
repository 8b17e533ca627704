"""`lmedge data stats`, `show`, `pack` and `synth`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from lmedge.data.csv import read_csv, write_csv
from lmedge.data.pack import open_pack
from lmedge.data.pictures import contact_sheet
from lmedge.data.samples import read_image
from lmedge.data.statistics_picture import PANEL_WIDTH_PX
from lmedge.schemas import get_schema
from tests.cli.command import DONE, ERROR, USAGE, lmedge
from tests.cli.conftest import FACES
from tests.data.faces import FIVE_POINTS, sample_of, textured_image, write_image
from tests.data.test_ibug import write_face

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
        outcome.assert_clear_error(
            ERROR, "synthetic, 300w, wflw, mmlab5, cofw, aflw19, csv, pack, mixed; got '300v:faces'. Did you mean 300w?"
        )

    def test_a_file_of_any_points_needs_a_schema(self, faces: str) -> None:
        lmedge("data", "stats", faces).assert_clear_error(ERROR, "say which with --schema NAME or --schema FILE.toml")

    def test_an_unknown_schema_is_told_with_the_nearest(self, faces: str) -> None:
        outcome = lmedge("data", "stats", faces, "--schema", "MMLAB_6")
        outcome.assert_clear_error(ERROR, "No schema is called 'MMLAB_6'", "Did you mean MMLAB_5?")

    def test_a_schema_that_is_not_that_of_the_kind_is_refused(self) -> None:
        outcome = lmedge("data", "stats", "300w:faces", *FIVE)
        outcome.assert_clear_error(ERROR, "300w has the points of IBUG_68, not MMLAB_5. Leave --schema out")

    def test_pose_and_sizes_are_shown_and_drawn(self, faces: str, tmp_path: Path) -> None:
        picture = tmp_path / "stats.png"
        outcome = lmedge("data", "stats", faces, *FIVE, "--show", picture)
        assert outcome.code == DONE
        assert "yaw, deg: faces" in outcome.stdout
        assert f"The histograms are in {picture}" in outcome.stdout
        assert read_image(picture).shape[1] == 2 * PANEL_WIDTH_PX
        document = lmedge("data", "stats", faces, *FIVE, "--json").json
        assert sum(document["pose"]["yaw_deg"]["counts"]) == sum(document["face_px"]["counts"]) == FACES
        assert {"photo_key", "origin", "deviation", "reason", "index"} == set(document["suspicious"][0])

    def test_a_damaged_crop_cache_is_named(self, faces: str, tmp_path: Path) -> None:
        file = tmp_path / "faces.lmpack"
        lmedge("data", "pack", faces, *FIVE, "--out", file)
        content = bytearray(file.read_bytes())
        content[100] ^= 1
        file.write_bytes(content)
        lmedge("data", "stats", f"pack:{file}").assert_clear_error(ERROR, "faces.lmpack: the picture of face 1", "was changed")


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

    def test_suspicious_labels_come_first_with_their_reason(self, faces: str, tmp_path: Path) -> None:
        ranked = lmedge("data", "stats", faces, *FIVE, "--json").json["suspicious"]
        outcome = lmedge("data", "show", faces, *FIVE, "--suspicious", "--count", 1, "--out", tmp_path / "a.png")
        assert outcome.code == DONE
        samples = read_csv(faces.removeprefix("csv:"), get_schema("MMLAB_5"))
        expected = contact_sheet([samples[ranked[0]["index"]]], captions=[ranked[0]["reason"]])
        assert (read_image(tmp_path / "a.png") == expected).all()

    def test_copies_are_shown_in_pairs(self, tmp_path: Path) -> None:
        photo = textured_image(5, 120, 120)
        samples = [
            sample_of(write_image(tmp_path / f"{name}.png", photo), np.array(FIVE_POINTS) + shift, get_schema("MMLAB_5"))
            for name, shift in (("a", 0), ("b", [[3, 0], [0, 0], [0, 0], [0, 0], [0, 0]]))
        ]
        write_csv(tmp_path / "faces.csv", samples)
        sheet = tmp_path / "sheet.png"
        outcome = lmedge("data", "show", f"csv:{tmp_path / 'faces.csv'}", *FIVE, "--duplicates", "--out", sheet)
        assert (outcome.code, f"2 of 2 faces on {sheet}" in outcome.stdout) == (DONE, True)

    def test_without_copies_there_are_no_pairs(self, tmp_path: Path) -> None:
        image = write_image(tmp_path / "a.png", textured_image(5, 120, 120))
        write_csv(tmp_path / "faces.csv", [sample_of(image, np.array(FIVE_POINTS), get_schema("MMLAB_5"))])
        outcome = lmedge("data", "show", f"csv:{tmp_path / 'faces.csv'}", *FIVE, "--duplicates", "--out", tmp_path / "a.png")
        outcome.assert_clear_error(ERROR, "no near-duplicate photos were found")

    def test_a_subset_is_picked_and_an_unknown_one_answered_with_the_known(self, tmp_path: Path) -> None:
        for subset in ("afw", "helen"):
            write_face(tmp_path / subset / "face_1")
        outcome = lmedge("data", "show", f"300w:{tmp_path}", "--subset", "afw", "--out", tmp_path / "a.png")
        assert "1 of 1 faces" in outcome.stdout
        outcome = lmedge("data", "show", f"300w:{tmp_path}", "--subset", "ibug", "--out", tmp_path / "a.png")
        outcome.assert_clear_error(ERROR, "no face has the tag 'ibug'; there are afw, helen")

    def test_names_are_listed_on_demand(self, faces: str, tmp_path: Path) -> None:
        for name, options in (("plain", []), ("named", ["--names"])):
            lmedge("data", "show", faces, *FIVE, "--count", 1, "--out", tmp_path / f"{name}.png", *options)
        assert read_image(tmp_path / "named.png").shape[1] > read_image(tmp_path / "plain.png").shape[1] + 100

    def test_two_sheets_at_a_time_are_a_usage_error(self, faces: str) -> None:
        lmedge("data", "show", faces, *FIVE, "--suspicious", "--duplicates").assert_clear_error(USAGE, "ask for one at a time")


class TestPack:
    def test_sources_become_one_file_that_is_used_like_any_source(self, faces: str, tmp_path: Path) -> None:
        file = tmp_path / "faces.lmpack"
        outcome = lmedge("data", "pack", faces, "synthetic:2", *FIVE, "--out", file, "--size", 48)
        assert outcome.code == DONE
        assert f"{FACES + 2} faces of MMLAB_5 in {file}" in outcome.stdout
        assert f"lmedge build --data pack:{file}" in outcome.stdout
        assert lmedge("data", "stats", f"pack:{file}", "--json").json["count"] == FACES + 2
        assert max(max(sample.read_image().shape) for sample in open_pack(file).samples) <= 48
        assert [source["kind"] for source in open_pack(file).sources] == ["csv", "synthetic"]

    def test_sources_of_two_schemas_are_refused(self, tmp_path: Path) -> None:
        outcome = lmedge("data", "pack", "300w:nowhere", "wflw:nowhere", "--out", tmp_path / "a.lmpack")
        outcome.assert_clear_error(ERROR, "300w:nowhere has IBUG_68, wflw:nowhere has WFLW_98")

    @pytest.mark.parametrize("options", [["--size", "4"], ["--room", "0.5"]], ids=" ".join)
    def test_what_no_cut_can_be_is_a_usage_error(self, options: list[str], faces: str) -> None:
        lmedge("data", "pack", faces, *FIVE, *options).assert_clear_error(USAGE, options[0])


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
