"""LatestFrame: one place, the newest frame wins, and what was dropped is counted."""

from __future__ import annotations

import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmedge.errors import InputError
from lmedge.runtimes.latest_frame import LatestFrame


def test_the_newest_frame_is_taken_and_older_ones_are_counted() -> None:
    frames: LatestFrame[int] = LatestFrame()
    assert [frames.put(number) for number in range(5)] == [False, True, True, True, True]
    assert frames.take(0) == 4
    assert (frames.count, frames.dropped) == (5, 4)


@given(st.lists(st.booleans(), max_size=50))
def test_every_frame_is_taken_dropped_or_waiting(puts: list[bool]) -> None:
    frames: LatestFrame[int] = LatestFrame()
    put, taken = 0, []
    for is_put in puts:
        if is_put:
            frames.put(put)
            put += 1
        else:
            try:
                taken.append(frames.take(0))
            except TimeoutError:
                assert not taken or taken[-1] == put - 1
    frames.close()
    left = [frame for frame in (frames.take(), frames.take()) if frame is not None]
    assert len(left) <= 1
    assert len(taken) + frames.dropped + len(left) == put == frames.count
    assert taken + left == sorted(set(taken + left))


def test_no_frame_in_time_is_a_timeout() -> None:
    with pytest.raises(TimeoutError, match="No frame came"):
        LatestFrame().take(0.01)


def test_closing_lets_the_last_frame_through_and_then_ends() -> None:
    frames: LatestFrame[str] = LatestFrame()
    frames.put("last")
    frames.close()
    frames.close()
    assert frames.take() == "last"
    assert frames.take() is None
    with pytest.raises(InputError, match="closed"):
        frames.put("more")


def test_closing_wakes_a_loop_that_waits() -> None:
    frames: LatestFrame[str] = LatestFrame()
    ended = []
    loop = threading.Thread(target=lambda: ended.append(frames.take()))
    loop.start()
    frames.close()
    loop.join(10)
    assert ended == [None]


def test_a_camera_never_waits_for_a_slow_loop() -> None:
    frames: LatestFrame[int] = LatestFrame()
    seen: list[int] = []

    def loop() -> None:
        while (frame := frames.take()) is not None:
            seen.append(frame)

    thread = threading.Thread(target=loop)
    thread.start()
    for number in range(2000):
        frames.put(number)
    frames.close()
    thread.join(10)
    assert seen == sorted(seen)
    assert seen[-1] == 1999
    assert len(seen) + frames.dropped == 2000
