"""Waiting for a condition, with a deadline: nothing here sleeps for a fixed time and hopes."""

import time


class TimedOut(AssertionError):
    """A condition did not come true in time."""


def wait_until(condition, what, seconds=60, every=0.1):
    """Polls `condition` until it is truthy and returns its value. An AssertionError inside it counts as not yet."""
    deadline = time.monotonic() + seconds
    while True:
        last = None
        try:
            value = condition()
            if value:
                return value
        except AssertionError as error:
            last = error
        if time.monotonic() > deadline:
            raise TimedOut(f"waited {seconds} s for {what}" + (f"; last: {last}" if last else ""))
        time.sleep(every)
