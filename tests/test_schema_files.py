"""Schemas from JSON, from names and from the TOML files that users write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.errors import SchemaError
from lmedge.schemas import IBUG_68, SCHEMAS, LandmarkSchema, get_schema


@pytest.mark.parametrize("schema", SCHEMAS.values(), ids=list(SCHEMAS))
def test_json_round_trip(schema: LandmarkSchema) -> None:
    assert LandmarkSchema.from_json(json.loads(json.dumps(schema.to_json()))) == schema


@pytest.mark.parametrize("name", ["IBUG_68", "ibug_68", "Ibug_68"])
def test_names_are_found_in_any_case(name: str) -> None:
    assert get_schema(name) is IBUG_68


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(
        SchemaError, match=r"known: MMLAB_5, IBUG_68, WFLW_98, COFW_29, AFLW_19, or a \.toml file\. Did you mean IBUG_68\?"
    ):
        get_schema("IBUG68")


EYES_TOML = """
name = "EYES"
point_names = ["right_eye", "left_eye", "right_lid", "left_lid", "nose"]
normalizer = [[0], [1]]

[groups]
eyes = [0, 1, 2, 3]
nose = [4]
"""


@pytest.fixture
def schema_file(tmp_path: Path) -> Path:
    pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    file = tmp_path / "eyes.toml"
    file.write_text(EYES_TOML)
    return file


def test_an_own_point_set_from_toml(schema_file: Path) -> None:
    schema = get_schema(schema_file)
    assert schema.name == "EYES"
    assert schema.flip_indices == (1, 0, 3, 2, 4)
    assert schema.groups == {"eyes": (0, 1, 2, 3), "nose": (4,)}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"left_lid"', '"lid"', "'right_lid' has no mirror partner 'left_lid'. Name both sides, or give flip_indices"),
        ('"nose"]', '"right_eye"]', "each different"),
        ("nose = [4]", "nose = [5]", "group nose must name points 0 to 4; got (5,)"),
        ("nose = [4]", "nose = []", "group nose must name points 0 to 4; got ()"),
        ("[[0], [1]]", "[[0], [-1]]", "normalizer, second must name points"),
        ("[[0], [1]]", "[[0]]", "needs name, point_names, groups and normalizer"),
        ("[[0], [1]]", "[0, 1]", "needs name, point_names, groups and normalizer"),
        ('name = "EYES"', "", "failed at KeyError('name')"),
        ('name = "EYES"', 'name = "EYES"\nflip_indices = [1, 0, 3, 2, 0]', "swap points in pairs"),
        ('name = "EYES"', 'name = "EYES"\nflip_indices = [1, 2, 0, 3, 4]', "swap points in pairs"),
        ('name = "EYES"', 'name = "EYES"\nflip_indices = [1, 0]', "must be 5 indices"),
        ("[groups]", '[[curves]]\nname = "lid"\nindices = [0, 9]\n[groups]', "curve lid must name points"),
        ("[groups]", "[groups", "is not valid TOML"),
    ],
)
def test_a_bad_schema_file_is_refused(schema_file: Path, old: str, new: str, message: str) -> None:
    assert old in EYES_TOML
    schema_file.write_text(EYES_TOML.replace(old, new, 1))
    with pytest.raises(SchemaError) as caught:
        get_schema(schema_file)
    assert message in str(caught.value)


def test_a_missing_schema_file_is_named(tmp_path: Path) -> None:
    pytest.importorskip("tomllib", reason="Python 3.10 reads no TOML")
    with pytest.raises(SchemaError, match=r"Cannot read .*none\.toml: No such file"):
        get_schema(tmp_path / "none.toml")


@given(sides=st.lists(st.sampled_from(["left", "right", ""]), min_size=1, max_size=8), data=st.data())
def test_mirror_partners_follow_from_names(sides: list[str], data: st.DataObject) -> None:
    """Any set of names that has both sides of everything gives pairs of one left and one right point."""
    stems = [f"point_{index}" for index in range(len(sides))]
    names = [
        name
        for side, stem in zip(sides, stems, strict=True)
        for name in ([f"left_{stem}", f"right_{stem}"] if side else [stem])
    ]
    names = data.draw(st.permutations(names))
    schema = LandmarkSchema("ANY", tuple(names), {"eyes": (0,)}, ((0,), (0,)), "none")
    for index, flip in enumerate(schema.flip_indices):
        assert {names[index].partition("_")[0], names[flip].partition("_")[0]} in ({"left", "right"}, {"point"})
        assert names[index].partition("point_")[2] == names[flip].partition("point_")[2]
