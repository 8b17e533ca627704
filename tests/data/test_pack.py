"""The crop cache: one file, nothing lost but what lies far from the face."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.data.duplicates import share_keys_of_duplicates
from lmedge.data.pack import check_pack, files_pack, open_pack, pack_schema, pack_sources, read_pack, write_pack
from lmedge.data.pack_cut import cut_face
from lmedge.data.samples import FaceSample, split_samples
from lmedge.data.sources import check_sources, parse_source, read_sources, source_terms
from lmedge.errors import DataError, SchemaError
from lmedge.landmarks import FaceBox
from lmedge.preprocess import PreprocessSpec, crop_face
from lmedge.schemas import IBUG_68, MMLAB_5, WFLW_98
from tests.data.faces import FIVE_POINTS, points_of, sample_of, textured_image, write_image

SOURCES = [{"kind": "own", "what": "drawn", "terms": "none"}]
POINTS = points_of(IBUG_68, side_px=60, offset_px=120)
BOX = FaceBox(110, 105, 190, 195, kind="csv")


def face_of(seed: int = 0, points_px: np.ndarray = POINTS, **changes: object) -> FaceSample:
    face = sample_of(textured_image(seed, 300, 300), points_px, photo_key=f"face_{seed}", subset=("own", "train"))
    return replace(face, boxes={"csv": BOX}, **changes)  # type: ignore[arg-type]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    return write_pack(tmp_path / "faces.lmpack", [face_of(seed) for seed in range(3)], SOURCES)


class TestContent:
    def test_what_comes_back_is_what_went_in(self, tmp_path: Path) -> None:
        faces = [face_of(0), face_of(1)]
        partial = POINTS.copy()
        partial[[3, 40]] = np.nan
        faces.append(face_of(2, partial))
        pack = open_pack(write_pack(tmp_path / "faces.lmpack", faces, SOURCES))
        assert pack.schema == IBUG_68
        assert [dict(source) for source in pack.sources] == SOURCES
        for before, after in zip(faces, pack.samples, strict=True):
            assert (after.photo_key, after.subset) == (before.photo_key, before.subset)
            np.testing.assert_array_equal(after.known, before.known)
            moved = after.points_px - before.points_px
            # One shift for all points and the box, whole pixels where nothing is reduced.
            np.testing.assert_allclose(moved[before.known], np.broadcast_to(moved[0], moved.shape)[before.known], atol=1e-4)
            np.testing.assert_allclose(after.box("csv").xyxy - BOX.xyxy, np.tile(moved[0], 2), atol=1e-4)
            assert np.allclose(moved[0], np.round(moved[0]), atol=1e-4)

    def test_a_small_face_keeps_every_pixel_of_its_photo(self, packed: Path) -> None:
        before, after = face_of(0), read_pack(packed)[0]
        left, top = np.round(before.points_px[0] - after.points_px[0]).astype(int)
        height, width = after.read_image().shape[:2]
        np.testing.assert_array_equal(after.read_image(), before.read_image()[top : top + height, left : left + width])
        # 2.4 times the extent of the points, up to the rounding to whole pixels.
        box = before.box()
        assert abs(width - 2.4 * max(box.width, box.height)) <= 1
        assert abs(width - height) <= 1

    def test_a_large_face_is_reduced_to_the_size_and_shows_the_same(self, tmp_path: Path) -> None:
        """Crops of the reduced face and of the photo agree where the network looks."""
        image = cv2.resize(textured_image(5, 150, 150), (900, 900), interpolation=cv2.INTER_CUBIC)
        before = sample_of(image, points_of(IBUG_68, side_px=300, offset_px=300))
        after = read_pack(write_pack(tmp_path / "faces.lmpack", [before], SOURCES, size_px=200))[0]
        assert after.read_image().shape == (200, 200, 3)
        spec = PreprocessSpec(input_hw=(64, 64), whole_pixels=False)
        one, other = (crop_face(face.read_image(), face.box(), spec) for face in (before, after))
        np.testing.assert_allclose(one[1].to_fractions(before.points_px), other[1].to_fractions(after.points_px), atol=1e-5)
        assert np.abs(one[0].astype(int) - other[0]).mean() < 3

    def test_no_face_is_enlarged(self, tmp_path: Path) -> None:
        face = sample_of(textured_image(0), np.array(FIVE_POINTS), MMLAB_5)
        after = read_pack(write_pack(tmp_path / "a.lmpack", [face], SOURCES, size_px=1024))[0]
        assert after.box().width == pytest.approx(face.box().width)

    @given(x=st.floats(-25, 265), y=st.floats(-25, 265), size_px=st.sampled_from([64, 400]))
    def test_points_stay_on_their_pixels_and_outside_stays_outside(self, x: float, y: float, size_px: int) -> None:
        points = POINTS - 120 + [x, y]
        image = np.full((300, 300, 3), 128, np.uint8)
        face = sample_of(image, points)
        cut = cut_face(image, face, size_px, 2.4)
        height, width = cut.image_bgr.shape[:2]
        # A point is inside the cut just when it is inside the photo, up to the pixels that a reduction rounds away.
        moved, tolerance = cut.moved(points), 1.01
        inside = ((points > -0.5) & (points < 299.5)).all(axis=1)
        beyond = np.maximum(-0.5 - moved, moved - [width - 0.5, height - 0.5]).max(axis=1)
        assert (beyond[inside] < tolerance).all()
        assert (beyond[~inside] > -tolerance).all()
        assert cut.zoom <= 1
        assert max(height, width) <= size_px
        assert (cut.image_bgr == 128).all()

    def test_more_room_cuts_more(self, tmp_path: Path) -> None:
        widths = [
            read_pack(write_pack(tmp_path / "a.lmpack", [face_of()], SOURCES, room=r))[0].read_image().shape[1]
            for r in (1.5, 3)
        ]
        assert widths[1] == pytest.approx(2 * widths[0], abs=2)

    def test_the_split_is_that_of_the_source(self, tmp_path: Path) -> None:
        """Copies share a key before they are packed, and keep it."""
        photo = textured_image(1, 300, 300)
        paths = [
            write_image(tmp_path / f"{name}.png", photo if name in "ab" else textured_image(ord(name), 300, 300))
            for name in "abcdefgh"
        ]
        faces = share_keys_of_duplicates([sample_of(path, POINTS) for path in paths])
        again = share_keys_of_duplicates(read_pack(write_pack(tmp_path / "faces.lmpack", faces, SOURCES)))
        assert [face.photo_key for face in again] == ["a", "a", *"cdefgh"]
        for before, after in zip(split_samples(faces), split_samples(again), strict=True):
            assert [face.photo_key for face in before] == [face.photo_key for face in after]

    def test_pictures_are_views_that_cannot_be_written(self, packed: Path) -> None:
        image = read_pack(packed)[0].read_image()
        assert not image.flags.owndata
        with pytest.raises(ValueError, match="read-only"):
            image[0, 0] = 0
        cv2.warpAffine(image, np.eye(2, 3), (10, 10))

    def test_the_same_faces_give_the_same_bytes(self, tmp_path: Path, packed: Path) -> None:
        again = write_pack(tmp_path / "again.lmpack", [face_of(seed) for seed in range(3)], SOURCES)
        assert again.read_bytes() == packed.read_bytes()


class TestDamage:
    @given(data=st.data())
    def test_a_flipped_bit_is_harmless_or_an_error_that_names_the_file(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.getbasetemp()
        whole = write_pack(folder / "whole.lmpack", [face_of(0), face_of(1)], SOURCES, size_px=32)
        content = bytearray(whole.read_bytes())
        # The first bytes, the header's last ones and anything between.
        place = data.draw(st.one_of(st.integers(0, 80), st.integers(0, len(content) - 1)))
        content[place] ^= 1 << data.draw(st.integers(0, 7))
        damaged = folder / "damaged.lmpack"
        damaged.write_bytes(content)
        if not 56 <= place < 64:
            with pytest.raises(DataError, match=r"damaged\.lmpack"):
                check_pack(damaged)
        else:
            # The zeros before the pixels mean nothing.
            after = check_pack(damaged)
            for one, other in zip(open_pack(whole).samples, after.samples, strict=True):
                np.testing.assert_array_equal(one.read_image(), other.read_image())
                np.testing.assert_array_equal(one.points_px, other.points_px)

    @given(data=st.data())
    def test_a_cut_file_is_an_error_when_it_is_opened(
        self, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
    ) -> None:
        folder = tmp_path_factory.getbasetemp()
        content = write_pack(folder / "whole.lmpack", [face_of()], SOURCES, size_px=32).read_bytes()
        (folder / "cut.lmpack").write_bytes(content[: data.draw(st.integers(0, len(content) - 1))])
        with pytest.raises(DataError, match=r"cut\.lmpack"):
            open_pack(folder / "cut.lmpack")

    def test_bytes_added_to_the_end_are_an_error(self, packed: Path) -> None:
        packed.write_bytes(packed.read_bytes() + b"\n")
        with pytest.raises(DataError, match="is cut or damaged"):
            open_pack(packed)

    def test_a_changed_pixel_is_found_by_check_and_names_the_face(self, packed: Path) -> None:
        content = bytearray(packed.read_bytes())
        first = read_pack(packed)[0].read_image().size
        content[64 + first + 5] ^= 1
        packed.write_bytes(content)
        open_pack(packed)
        with pytest.raises(DataError, match=r"the picture of face 2 \(face_1\) was changed"):
            check_sources([parse_source(f"pack:{packed}")])

    def test_another_file_and_no_file(self, tmp_path: Path) -> None:
        (tmp_path / "photo.lmpack").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(100))
        with pytest.raises(DataError, match=r"photo\.lmpack is not a crop cache"):
            open_pack(tmp_path / "photo.lmpack")
        with pytest.raises(DataError, match=r"Cannot read the crop cache .*gone"):
            open_pack(tmp_path / "gone.lmpack")

    def test_a_newer_format_and_a_foreign_header_are_refused(self, packed: Path) -> None:
        from lmedge.data import pack as module

        content = packed.read_bytes()
        _, offset, _, _ = module._PREFIX.unpack(content[: module._PREFIX.size])
        for change, message in (
            ({"format_version": 2}, "has version 2 of the format, this lmedge reads 1"),
            ({"faces": 3}, "header of this crop cache lacks something"),
        ):
            header = json.dumps(json.loads(content[offset:]) | change).encode()
            digest = module.hashlib.sha256(header).digest()
            prefix = module._PREFIX.pack(module._MAGIC, offset, len(header), digest)
            packed.write_bytes(prefix + content[len(prefix) : offset] + header)
            with pytest.raises(DataError, match=message):
                open_pack(packed)


class TestWriting:
    def test_a_broken_photo_leaves_the_old_file_and_no_rest(self, tmp_path: Path, packed: Path) -> None:
        before = packed.read_bytes()
        (tmp_path / "broken.jpg").write_bytes(b"nothing")
        with pytest.raises(DataError, match=r"broken\.jpg"):
            write_pack(packed, [face_of(), sample_of(tmp_path / "broken.jpg")], SOURCES)
        assert packed.read_bytes() == before
        assert sorted(path.name for path in tmp_path.iterdir()) == ["broken.jpg", "faces.lmpack"]

    def test_labels_far_outside_their_photo_are_refused(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="more than half a face outside"):
            write_pack(tmp_path / "a.lmpack", [face_of(0, POINTS + 400)], SOURCES)

    def test_no_faces_two_schemas_and_a_missing_folder(self, tmp_path: Path) -> None:
        with pytest.raises(DataError, match="at least one labelled face"):
            write_pack(tmp_path / "a.lmpack", [], SOURCES)
        with pytest.raises(SchemaError, match="IBUG_68, MMLAB_5"):
            write_pack(
                tmp_path / "a.lmpack", [face_of(), sample_of(textured_image(0), np.array(FIVE_POINTS), MMLAB_5)], SOURCES
            )
        (tmp_path / "file").write_text("")
        with pytest.raises(DataError, match="Cannot write the crop cache"):
            write_pack(tmp_path / "file" / "a.lmpack", [face_of()], SOURCES)

    def test_progress_counts_faces(self, tmp_path: Path) -> None:
        seen: list[tuple[int, int, str]] = []
        write_pack(tmp_path / "a.lmpack", [face_of(0), face_of(1)], SOURCES, progress=lambda *step: seen.append(step))
        assert seen == [(1, 2, "cutting faces"), (2, 2, "cutting faces")]


class TestAsASource:
    def test_a_pack_brings_its_schema_and_the_terms_of_its_origin(self, packed: Path) -> None:
        source = parse_source(f"pack:{packed}")
        assert source.schema == IBUG_68
        assert len(read_sources([source])) == 3
        assert source_terms([source]) == SOURCES == pack_sources(packed)
        assert (files_pack(packed), pack_schema(packed)) == ([packed], IBUG_68)
        with pytest.raises(SchemaError, match="pack has the points of IBUG_68, not WFLW_98"):
            parse_source(f"pack:{packed}", WFLW_98)

    def test_terms_travel_through_a_pack_of_packs(self, tmp_path: Path, packed: Path) -> None:
        source = parse_source(f"pack:{packed}")
        again = write_pack(tmp_path / "again.lmpack", read_sources([source]), source_terms([source]))
        assert source_terms([parse_source(f"pack:{again}")]) == SOURCES


def test_ten_thousand_faces_are_open_in_well_under_a_second(tmp_path: Path) -> None:
    face = replace(
        sample_of(textured_image(0, 80, 80), np.array(FIVE_POINTS), MMLAB_5), boxes={"csv": BOX}, subset=("train", "net")
    )
    file = write_pack(tmp_path / "faces.lmpack", [face] * 10_000, SOURCES)
    started = time.process_time()
    pack = open_pack(file)
    # Measured: 0.36 s of processor time.
    assert time.process_time() - started < 1
    assert len(pack.samples) == 10_000
