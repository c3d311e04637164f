"""The page that tells a cluster's processes whether it leads, and `rpccluster.leadership` upon it."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

import rpccluster
from rpccluster.ipc.fdpass import memory_file
from rpccluster.leading.page import LeadPage, lead_page, use_lead_page
from rpccluster.leading.store import NOBODY, Standing, boot_ns

HOUR = 3600 * 10**9


@pytest.fixture
def page() -> Iterator[LeadPage]:
    """Make a page, and use it for this process."""
    before, descriptor = lead_page(), memory_file()
    use_lead_page(LeadPage(descriptor))
    yield lead_page()
    use_lead_page(before)
    os.close(descriptor)


def test_outside_of_a_cluster_nobody_leads() -> None:
    """The names can be used there, too."""
    assert not rpccluster.leadership.is_leader
    assert rpccluster.leadership.token == 0
    with pytest.raises(rpccluster.NotLeader) as told:
        rpccluster.leadership.check()
    assert told.value.address is None


def test_a_leader_is_one_until_its_lease_ends(page: LeadPage) -> None:
    """By the clock alone: nobody need say so, and then nobody is known to lead."""
    page.show(Standing(7, "unix:///a", boot_ns() + HOUR), 2.5)
    assert rpccluster.leadership.is_leader and rpccluster.leadership.token == 7
    rpccluster.leadership.check()
    assert (page.session_seconds, page.leader().token, page.leader().address) == (2.5, 7, "unix:///a")
    page.show(Standing(7, "unix:///a", boot_ns() - 1), 2.5)
    assert not rpccluster.leadership.is_leader and rpccluster.leadership.token == 0
    with pytest.raises(rpccluster.NotLeader, match="none"):
        rpccluster.leadership.check()


def test_elsewhere_the_leader_is_named(page: LeadPage) -> None:
    """Also with an address that is longer or shorter than the one before."""
    for address in ("tcp://a.example:1", "unix:///a", "tcp://longer.example:65535", "unix:///ä"):
        page.show(Standing(8, address), 2.5)
        with pytest.raises(rpccluster.NotLeader) as told:
            rpccluster.leadership.check()
        assert told.value.address == address
    page.show(NOBODY, 2.5)
    assert page.leader().address == ""


def test_the_lead_can_be_ended_at_once(page: LeadPage) -> None:
    """As when it is resigned."""
    page.show(Standing(7, "unix:///a", boot_ns() + HOUR), 2.5)
    page.end()
    assert not page.is_leading and page.leader().address == ""


def test_forked_and_later_processes_share_it(page: LeadPage) -> None:
    """A child by its mapping, the next master by the descriptor."""
    descriptor = memory_file()
    first = LeadPage(descriptor)
    second = LeadPage(descriptor)
    child = os.fork()
    if not child:
        first.show(Standing(9, "unix:///a", boot_ns() + HOUR), 2)
        os._exit(0)
    os.waitpid(child, 0)
    assert second.token == first.token == 9
    os.close(descriptor)


def test_a_writer_that_was_killed_in_the_middle_is_got_over(page: LeadPage) -> None:
    """Readers say nothing of the leader until the next one writes."""
    page.show(Standing(7, "unix:///a"), 2)
    page.cells[4] += 1
    assert page.leader().address == ""
    page.show(Standing(8, "unix:///b"), 2)
    assert page.leader().address == "unix:///b"
