"""What every store promises: one suite, which each store's own tests run against it."""

from __future__ import annotations

import json
import time
from multiprocessing.connection import wait
from typing import Callable

from rpccluster.leading.store import Standing, Store, boot_ns
from rpccluster.testing import wait_until

SESSION_SECONDS = 1.0

#: Makes a store of one cluster whose only address is given, or of its next process, which gets what was remembered.
MakeStore = Callable[..., Store]


def stand(store: Store, *, leads: bool) -> Standing:
    """Attend until the store says what is expected."""

    def look() -> Standing | None:
        standing = store.attend()
        return standing if standing.is_ours is leads else None

    return wait_until(look, what="the lead changes hands")


class StorePromises:
    """The promises; a subclass has the fixture ``make``."""

    def test_the_first_leads_and_the_second_learns_who(self, make: MakeStore) -> None:
        """One leads, with a token and an end of its lease; the other one is told both."""
        first, second = make("unix:///a"), make("unix:///b")
        asked_ns = boot_ns()
        lead = first.attend()
        assert lead.is_ours and lead.token > 0 and lead.leader == "unix:///a"
        assert asked_ns < lead.ends_ns <= boot_ns() + first.session_seconds * 1e9
        assert second.attend() == Standing(lead.token, "unix:///a")

    def test_a_lead_is_kept_with_its_token_as_long_as_it_is_renewed(self, make: MakeStore) -> None:
        """Each renewal moves the end on; the other one never leads."""
        first, second = make("unix:///a"), make("unix:///b")
        before = first.attend()
        until = time.monotonic() + 1.3 * SESSION_SECONDS
        while time.monotonic() < until:
            lead = first.attend()
            assert lead.token == before.token and lead.ends_ns > before.ends_ns
            assert not second.attend().is_ours
            before = lead
            time.sleep(0.1)

    def test_a_lead_that_is_not_renewed_ends_before_another_begins(self, make: MakeStore) -> None:
        """By the clock; and the token grows."""
        first, second = make("unix:///a"), make("unix:///b")
        lead = first.attend()
        second.attend()
        first.close()
        following = stand(second, leads=True)
        assert boot_ns() > lead.ends_ns
        assert following.token > lead.token

    def test_a_former_leader_learns_that_it_is_no_more(self, make: MakeStore) -> None:
        """However late it asks."""
        first, second = make("unix:///a"), make("unix:///b")
        first.attend()
        first.resign()
        lead = stand(second, leads=True)
        assert first.attend() == Standing(lead.token, "unix:///b")

    def test_resigning_frees_the_lead_at_once(self, make: MakeStore) -> None:
        """The other one leads on its next question, and was told to ask."""
        first, second = make("unix:///a"), make("unix:///b")
        before = first.attend()
        second.attend()
        second.drain()
        first.resign()
        assert wait([second.fileno()], 5), "nobody was told"
        assert stand(second, leads=True).token > before.token

    def test_who_has_resigned_does_not_take_the_lead_back_at_once(self, make: MakeStore) -> None:
        """Another one gets the chance; where there is none, it leads again after a session."""
        store = make("unix:///a")
        before = store.attend()
        store.resign()
        assert not store.attend().is_ours
        assert stand(store, leads=True).token > before.token

    def test_leaving_frees_the_lead_and_the_members(self, make: MakeStore) -> None:
        """At once, not after a session."""
        first, second = make("unix:///a"), make("unix:///b")
        before = first.attend()
        second.attend()
        first.set_member("a", b"{}")
        first.leave()
        assert stand(second, leads=True).token > before.token
        assert second.members() == {}

    def test_a_successor_goes_on_with_lead_and_token(self, make: MakeStore) -> None:
        """What is remembered makes it the same cluster; nobody else notices."""
        first, second = make("unix:///a"), make("unix:///b")
        before = first.attend()
        second.attend()
        first.set_member("a", b'{"n": 1}')
        remembered = first.remembered
        first.close()
        successor = make("unix:///a", remembered=remembered)
        lead = stand(successor, leads=True)
        assert lead.token == before.token
        assert not second.attend().is_ours
        assert second.members() == {"a": b'{"n": 1}'}

    def test_what_is_remembered_for_too_long_is_worth_nothing(self, make: MakeStore) -> None:
        """If another one leads meanwhile, the successor stands in line."""
        first, second = make("unix:///a"), make("unix:///b")
        before = first.attend()
        remembered = first.remembered
        first.close()
        second.attend()
        lead = stand(second, leads=True)
        successor = make("unix:///a", remembered=remembered)
        assert successor.attend() == Standing(lead.token, "unix:///b")
        assert lead.token > before.token

    def test_members_are_shown_changed_and_removed(self, make: MakeStore) -> None:
        """Every cluster sees all of them."""
        first, second = make("unix:///a"), make("unix:///b")
        first.set_member("a", b'{"state": "serving"}')
        second.set_member("b", b'{"state": "serving"}')
        shown = {name: json.loads(value) for name, value in first.members().items()}
        assert shown == {"a": {"state": "serving"}, "b": {"state": "serving"}}
        first.set_member("a", b'{"state": "leaving"}')
        assert json.loads(second.members()["a"]) == {"state": "leaving"}
        first.remove_member("a")
        first.remove_member("a")
        assert list(second.members()) == ["b"]

    def test_members_live_as_long_as_their_session(self, make: MakeStore) -> None:
        """Who attends keeps them; who has died loses them."""
        first, second = make("unix:///a"), make("unix:///b")
        first.set_member("a", b"{}")
        second.set_member("b", b"{}")
        first.close()

        def is_alone() -> bool:
            second.attend()
            return list(second.members()) == ["b"]

        wait_until(is_alone, what="the dead member goes")
