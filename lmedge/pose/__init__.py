"""Where a head is and where it looks, from the points of its face. NumPy and OpenCV alone.

camera = Camera.assumed_for(height, width)
pose = head_pose(landmarks.points_px, landmarks.schema, camera)
pose.yaw_deg, pose.pitch_deg, pose.roll_deg
"""

from __future__ import annotations

from lmedge.pose.angles import head_angles, rotation_matrix
from lmedge.pose.camera import Camera
from lmedge.pose.head_points import generic_points
from lmedge.pose.solve import HeadFit, HeadPose, fit_head, head_pose
from lmedge.pose.weak_perspective import head_poses

__all__ = [
    "Camera",
    "HeadFit",
    "HeadPose",
    "fit_head",
    "generic_points",
    "head_angles",
    "head_pose",
    "head_poses",
    "rotation_matrix",
]
