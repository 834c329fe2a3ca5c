"""Makes the status of lanes out of what they know and what the spools have counted."""

from __future__ import annotations

import time

from resilient_exporters.delivery.attempt import described
from resilient_exporters.delivery.clock import Clock
from resilient_exporters.delivery.lane import Lane
from resilient_exporters.spool.interface import Spool
from resilient_exporters.status import LaneState, LaneStatus, Orphan

__all__ = ["orphan", "status_of"]

_LOOKS = 1000
"""So often the counters are read at most: a status that is a record off is better than none."""


def status_of(lane: Lane, clock: Clock, next_attempt: float | None) -> LaneStatus:
    """One exporter at this moment: read again as long as a batch is being settled, so that the accounts balance.

    Args:
        lane: Its lane.
        clock: Tells the time.
        next_attempt: Seconds until it is tried again, if that is planned.
    """
    for _ in range(_LOOKS):
        changes = lane.changes
        status = _read(lane, clock, next_attempt)
        if changes == lane.changes and not changes & 1:
            break
        time.sleep(0)  # let the thread that settles go on
    return status


def _read(lane: Lane, clock: Clock, next_attempt: float | None) -> LaneStatus:
    accounts = [source.spool.account(source.lane) for source in lane.sources]
    oldest = min((account.oldest for account in accounts if account.oldest is not None), default=None)
    return LaneStatus(
        name=lane.name,
        state=_state_of(lane, clock),
        owed=sum(account.records for account in accounts),
        owed_bytes=sum(account.bytes for account in accounts),
        oldest_age=None if oldest is None else max(clock.time() - oldest, 0.0),
        delivered=lane.delivered,
        dead=lane.dead,
        dropped=lane.dropped,
        last_error=None if lane.last_error is None else described(lane.last_error),
        next_attempt=next_attempt,
    )


def _state_of(lane: Lane, clock: Clock) -> LaneState:
    since = lane.since
    if since is not None and clock.now() - since > lane.target.timeout:
        return "stuck"
    if lane.state == "up" and not lane.delivered and not lane.dead:
        return "idle"
    return lane.state


def orphan(spool: Spool, name: str, clock: Clock) -> Orphan:
    """What a spool owes to an exporter that is not there."""
    account, now = spool.account(name), clock.time()
    return Orphan(name, account.records, account.bytes, max(now - (account.oldest or now), 0.0))
