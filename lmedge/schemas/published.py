"""The point sets of published face data, in their index orders."""

from __future__ import annotations

from lmedge.schemas.schema import Curve, LandmarkSchema


def _sided(side: str, names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(f"{side}_{name}" for name in names)


def _numbered(name: str, count: int) -> tuple[str, ...]:
    return tuple(f"{name}_{index}" for index in range(count))


def _mirrored_run(names: tuple[str, ...], *middle: str) -> tuple[str, ...]:
    """The subject's right side in order, the middle, then the left side in the reverse order."""
    return _sided("right", names) + middle + _sided("left", names[::-1])


_NOSE_BASE = _mirrored_run(("nostril_0", "nostril_1"), "nose_base")
_OUTER_LIP = _mirrored_run(("mouth_corner", "upper_lip_0", "upper_lip_1"), "upper_lip_top") + tuple(
    reversed(_mirrored_run(("lower_lip_0", "lower_lip_1"), "lower_lip_bottom"))
)
_INNER_LIP = _mirrored_run(("inner_mouth_corner", "inner_upper_lip"), "inner_upper_lip_middle") + tuple(
    reversed(_mirrored_run(("inner_lower_lip",), "inner_lower_lip_middle"))
)

MMLAB_5 = LandmarkSchema(
    name="MMLAB_5",
    point_names=("right_eye", "left_eye", "nose_tip", "right_mouth_corner", "left_mouth_corner"),
    groups={"eyes": (0, 1), "nose": (2,), "mouth": (3, 4)},
    normalizer=((0,), (1,)),
    normalizer_name="inter-ocular (eye centres)",
    curves=(Curve("eyes", (0, 1)), Curve("mouth", (3, 4)), Curve("right_nose", (0, 2, 3)), Curve("left_nose", (1, 2, 4))),
)

IBUG_68 = LandmarkSchema(
    name="IBUG_68",
    point_names=(
        *_mirrored_run(_numbered("contour", 8), "chin"),
        *_mirrored_run(_numbered("brow", 5)),
        *_numbered("nose_ridge", 4),
        *_NOSE_BASE,
        *_sided("right_eye", ("outer", "upper_outer", "upper_inner", "inner", "lower_inner", "lower_outer")),
        *_sided("left_eye", ("inner", "upper_inner", "upper_outer", "outer", "lower_outer", "lower_inner")),
        *_OUTER_LIP,
        *_INNER_LIP,
    ),
    groups={
        "contour": tuple(range(17)),
        "brows": tuple(range(17, 27)),
        "nose": tuple(range(27, 36)),
        "eyes": tuple(range(36, 48)),
        "mouth": tuple(range(48, 68)),
    },
    normalizer=((36,), (45,)),
    normalizer_name="inter-ocular (outer eye corners)",
    curves=(
        Curve("contour", tuple(range(17))),
        Curve("right_brow", tuple(range(17, 22))),
        Curve("left_brow", tuple(range(22, 27))),
        Curve("nose_ridge", tuple(range(27, 31))),
        Curve("nose_base", tuple(range(31, 36))),
        Curve("right_eye", tuple(range(36, 42)), closed=True),
        Curve("left_eye", tuple(range(42, 48)), closed=True),
        Curve("outer_lip", tuple(range(48, 60)), closed=True),
        Curve("inner_lip", tuple(range(60, 68)), closed=True),
    ),
)

WFLW_98 = LandmarkSchema(
    name="WFLW_98",
    point_names=(
        *_mirrored_run(_numbered("contour", 16), "chin"),
        *_sided("right", _numbered("brow_upper", 5) + _numbered("brow_lower", 4)[::-1]),
        *_sided("left", _numbered("brow_upper", 5)[::-1] + _numbered("brow_lower", 4)),
        *_numbered("nose_ridge", 4),
        *_NOSE_BASE,
        *_sided("right_eye", ("outer", "upper_0", "upper_1", "upper_2", "inner", "lower_2", "lower_1", "lower_0")),
        *_sided("left_eye", ("inner", "upper_2", "upper_1", "upper_0", "outer", "lower_0", "lower_1", "lower_2")),
        *_OUTER_LIP,
        *_INNER_LIP,
        "right_pupil",
        "left_pupil",
    ),
    groups={
        "contour": tuple(range(33)),
        "brows": tuple(range(33, 51)),
        "nose": tuple(range(51, 60)),
        "eyes": (*range(60, 76), 96, 97),
        "mouth": tuple(range(76, 96)),
    },
    normalizer=((60,), (72,)),
    normalizer_name="inter-ocular (outer eye corners)",
    curves=(
        Curve("contour", tuple(range(33))),
        Curve("right_brow", tuple(range(33, 42)), closed=True),
        Curve("left_brow", tuple(range(42, 51)), closed=True),
        Curve("nose_ridge", tuple(range(51, 55))),
        Curve("nose_base", tuple(range(55, 60))),
        Curve("right_eye", tuple(range(60, 68)), closed=True),
        Curve("left_eye", tuple(range(68, 76)), closed=True),
        Curve("outer_lip", tuple(range(76, 88)), closed=True),
        Curve("inner_lip", tuple(range(88, 96)), closed=True),
    ),
)

# The order of LFPW (Belhumeur et al., CVPR 2011), which COFW took over: first the right, then the left of each pair.
COFW_29 = LandmarkSchema(
    name="COFW_29",
    point_names=(
        *("right_brow_outer", "left_brow_outer", "right_brow_inner", "left_brow_inner"),
        *("right_brow_top", "right_brow_bottom", "left_brow_top", "left_brow_bottom"),
        *("right_eye_outer", "left_eye_outer", "right_eye_inner", "left_eye_inner"),
        *("right_eye_top", "right_eye_bottom", "left_eye_top", "left_eye_bottom"),
        *("right_pupil", "left_pupil", "right_nostril", "left_nostril", "nose_tip", "nose_base"),
        *("right_mouth_corner", "left_mouth_corner", "upper_lip_top", "upper_lip_bottom", "lower_lip_top", "lower_lip_bottom"),
        "chin",
    ),
    groups={
        "contour": (28,),
        "brows": tuple(range(8)),
        "nose": tuple(range(18, 22)),
        "eyes": tuple(range(8, 18)),
        "mouth": tuple(range(22, 28)),
    },
    normalizer=((8,), (9,)),
    normalizer_name="inter-ocular (outer eye corners)",
    curves=(
        Curve("right_brow", (0, 4, 2, 5), closed=True),
        Curve("left_brow", (1, 6, 3, 7), closed=True),
        Curve("nose_base", (18, 21, 19)),
        Curve("right_eye", (8, 12, 10, 13), closed=True),
        Curve("left_eye", (9, 14, 11, 15), closed=True),
        Curve("outer_lip", (22, 24, 23, 27), closed=True),
        Curve("inner_lip", (22, 25, 23, 26), closed=True),
    ),
)

# AFLW's 21 points without the ears (Zhu et al., CVPR 2016). Papers divide by the size of the annotated box, which is no
# distance of points. Eyes do not do for it: one is hidden in half of the set. Nose and chin lie on the midline, are seen in
# both profiles, and a turn of the head hardly changes their distance, which is 0.85 of the outer eye corners'.
AFLW_19 = LandmarkSchema(
    name="AFLW_19",
    point_names=(
        *_mirrored_run(("brow_outer", "brow_middle", "brow_inner")),
        *_mirrored_run(("eye_outer", "eye_middle", "eye_inner")),
        *_mirrored_run(("nostril",), "nose_tip"),
        *_mirrored_run(("mouth_corner",), "mouth_middle"),
        "chin",
    ),
    groups={
        "contour": (18,),
        "brows": tuple(range(6)),
        "nose": tuple(range(12, 15)),
        "eyes": tuple(range(6, 12)),
        "mouth": tuple(range(15, 18)),
    },
    normalizer=((13,), (18,)),
    normalizer_name="height of the lower face (nose tip to chin)",
    curves=(
        Curve("right_brow", (0, 1, 2)),
        Curve("left_brow", (3, 4, 5)),
        Curve("right_eye", (6, 7, 8)),
        Curve("left_eye", (9, 10, 11)),
        Curve("nose_base", (12, 13, 14)),
        Curve("mouth", (15, 16, 17)),
    ),
)
