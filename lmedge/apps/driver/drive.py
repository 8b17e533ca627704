"""From pictures of a driver to states and events: tracker ▶ head pose ▶ what is seen ▶ monitor ▶ log and record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from lmedge.apps.driver.dashboard import draw_dashboard
from lmedge.apps.driver.events import EventLog
from lmedge.apps.driver.monitor import DriverMonitor, FrameState
from lmedge.apps.driver.record import DriveRecord
from lmedge.apps.driver.sight import SightMeter
from lmedge.apps.driver.thresholds import DriverThresholds
from lmedge.data.drawing import Image
from lmedge.errors import InputError
from lmedge.landmarks import Landmarks
from lmedge.pose import Camera, HeadPose, head_pose
from lmedge.runtimes.tracker import FaceTracker, TrackedFace

# Another face has to be this many times as large as the driver's to be taken for the driver's.
_TAKES_OVER = 2.0
# After its clock was set back the tracker goes on so much later; what it follows is near where it was.
_STEP_S = 0.1


class Drive:
    """Watches the driver in the pictures of one camera: the largest face, and the same one for as long as it is followed.

        with EventLog("events.jsonl", DriverThresholds()) as log:
            drive = Drive(tracker, DriverMonitor(landmarker.schema), log=log)
            run_video(source, lambda frame: drive.show(frame.image_bgr, frame.time_s), sinks)
            drive.finish()
        drive_picture(drive.record, drive.thresholds)

    Attributes:
        monitor: what decides.
        record: what has happened.
        state: of the last frame, None before the first.
        landmarks: of the driver in the last frame, None where there was no face.
    """

    def __init__(
        self,
        tracker: FaceTracker,
        monitor: DriverMonitor,
        *,
        camera: Camera | None = None,
        log: EventLog | None = None,
    ) -> None:
        """
        Args:
            tracker: finds the faces; its points as the network gave them are used, for smoothed ones would blink late.
            monitor: for the tracker's schema, with the network's own `shut_eye_part` (`network_lids.shut_eye_part_of`).
            camera: where it was measured; otherwise one is assumed for the size of the picture.
            log: where events are written.
        """
        self.monitor = monitor
        self.record = DriveRecord(monitor.thresholds)
        self.state: FrameState | None = None
        self.landmarks: Landmarks | None = None
        self._tracker, self._camera, self._log = tracker, camera, log
        self._sight = SightMeter(monitor.schema)
        self._identity: int | None = None
        # What is added to the camera's clock so that the tracker's never runs back.
        self._ahead_s = 0.0

    @property
    def thresholds(self) -> DriverThresholds:
        return self.monitor.thresholds

    def update(self, image_bgr: Image, time_s: float) -> FrameState:
        """Takes a picture in.

        Args:
            image_bgr: uint8 (H, W, 3), or gray (H, W).
            time_s: as in `DriverMonitor.update`; it may be set back.

        Raises:
            InputError: not an image, or a time that is not a number.
            DataError: the log cannot be written.
        """
        if self.state is not None and time_s == self.state.time_s:
            return replace(self.state, events=())
        if self.state is not None and time_s < self.state.time_s:
            self._ahead_s += self.state.time_s - time_s + _STEP_S
        driver = self._driver(self._tracker.update(image_bgr, time_s + self._ahead_s))
        self.landmarks = None if driver is None else driver.landmarks
        if self.landmarks is None:
            self.state = self.monitor.update(time_s, None)
        else:
            pose = self._pose(self.landmarks, image_bgr)
            self.state = self.monitor.update(time_s, self.landmarks, pose, self._sight.read(image_bgr, self.landmarks))
        self.record.add(self.state)
        if self._log is not None:
            self._log.write(*self.state.events)
        return self.state

    def show(self, image_bgr: Image, time_s: float) -> Image:
        """`update`, and the picture with points and dashboard; see `draw_dashboard`."""
        state = self.update(image_bgr, time_s)
        return draw_dashboard(image_bgr, state, self.landmarks, self.thresholds)

    def finish(self) -> None:
        """Ends what is raised, in the record and in the log."""
        events = self.monitor.finish()
        self.record.add_events(events)
        if self._log is not None:
            self._log.write(*events)

    def _driver(self, faces: Sequence[TrackedFace]) -> TrackedFace | None:
        def size(face: TrackedFace) -> float:
            box = face.landmarks.box
            return box.width * box.height * (_TAKES_OVER if face.identity == self._identity else 1.0)

        driver = max(faces, key=size, default=None)
        self._identity = self._identity if driver is None else driver.identity
        return driver

    def _pose(self, landmarks: Landmarks, image_bgr: Image) -> HeadPose | None:
        camera = self._camera or Camera.assumed_for(image_bgr.shape[0], image_bgr.shape[1])
        try:
            return head_pose(landmarks.points_px, landmarks.schema, camera)
        except InputError:
            # Points that fell together are no head; the monitor then says that the eyes are not seen.
            return None
