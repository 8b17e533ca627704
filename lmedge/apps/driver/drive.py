"""From pictures of a driver to states and events: tracker ▶ head pose ▶ what is seen ▶ monitor ▶ log and record."""

from __future__ import annotations

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
from lmedge.runtimes.tracker import FaceTracker


class Drive:
    """Watches the driver in the pictures of one camera; the driver is the largest face.

        with EventLog("events.jsonl", DriverThresholds()) as log:
            drive = Drive(tracker, DriverMonitor(landmarker.schema), log=log)
            run_video(source, lambda frame: drive.show(frame.image_bgr, frame.time_s), sinks)
            drive.finish()

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
            monitor: for the tracker's schema; its `shut_eye_part` should be that of the tracker's network.
            camera: where it was measured; otherwise one is assumed for the size of the first picture.
            log: where events are written.
        """
        self.monitor = monitor
        self.record = DriveRecord(monitor.thresholds)
        self.state: FrameState | None = None
        self.landmarks: Landmarks | None = None
        self._tracker, self._camera, self._log = tracker, camera, log
        self._sight = SightMeter(monitor.schema)

    @property
    def thresholds(self) -> DriverThresholds:
        return self.monitor.thresholds

    def update(self, image_bgr: Image, time_s: float) -> FrameState:
        """Takes a picture in.

        Raises:
            InputError: not an image, or a time that is not a number.
        """
        faces = self._tracker.update(image_bgr, time_s)
        driver = max(faces, key=lambda face: face.landmarks.box.width * face.landmarks.box.height, default=None)
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

    def _pose(self, landmarks: Landmarks, image_bgr: Image) -> HeadPose | None:
        if self._camera is None:
            self._camera = Camera.assumed_for(image_bgr.shape[0], image_bgr.shape[1])
        try:
            return head_pose(landmarks.points_px, landmarks.schema, self._camera)
        except InputError:
            # Points that fell together are no head; the monitor then says that the eyes are not seen.
            return None
