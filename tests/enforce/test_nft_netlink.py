"""The netlink element path against the kernel, with the nft program as the oracle."""

from __future__ import annotations

import errno
import ipaddress
import json
import platform
import re
import socket
import struct
import threading
from collections.abc import Callable
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.enforce.nft.events import Events
from gateway.enforce.nft.inbox import FEW, SLOT, Inbox
from gateway.enforce.nft.messages import (
    HEADER,
    MAX_ELEMENTS,
    NFT_MSG_DELSETELEM,
    NFT_MSG_DESTROYSETELEM,
    NFT_MSG_NEWSETELEM,
    NLM_F_REQUEST,
    Element,
    SetName,
    attribute,
    attributes,
    chain_request,
    element,
    element_messages,
    generation_request,
    table_request,
)
from gateway.enforce.nft.netlink import MAX_REQUESTS, NetlinkError, NetlinkSocket
from tests.netns import in_namespaces, run

ADD, DELETE, DESTROY = NFT_MSG_NEWSETELEM, NFT_MSG_DELSETELEM, NFT_MSG_DESTROYSETELEM
FOUR, SIX = SetName("ragate", "four", 4), SetName("ragate", "six", 16)
TIMED = SetName("ragate", "timed", 4)
SMALL = SetName("ragate", "small", 4)
TABLE = """
add table inet ragate
add set inet ragate four { type ipv4_addr; size 5000; }
add set inet ragate six { type ipv6_addr; size 5000; }
add set inet ragate timed { type ipv4_addr; size 5000; flags timeout; gc-interval 1s; }
add set inet ragate small { type ipv4_addr; size 2; }
add chain inet ragate some
add rule inet ragate some ip saddr @four accept
"""


def key(number: int) -> bytes:
    return (0x0A00_0000 + number).to_bytes(4, "big")


def with_kernel(story: Callable[[NetlinkSocket], None]) -> None:
    def body() -> None:
        run("nft", "-f", "-", stdin=TABLE)
        netlink = NetlinkSocket()
        story(netlink)
        netlink.close()

    in_namespaces(body)


def listed(name: str) -> set[bytes]:
    """The keys of a set as the nft program lists them."""
    answer = json.loads(run("nft", "-j", "list", "set", "inet", "ragate", name))
    (found,) = [one["set"] for one in answer["nftables"] if "set" in one]
    values = [one["elem"]["val"] if isinstance(one, dict) else one for one in found.get("elem", [])]
    return {ipaddress.ip_address(value).packed for value in values}


def refusal(act: Callable[[], object]) -> NetlinkError:
    with pytest.raises(NetlinkError) as caught:
        act()
    return caught.value


@given(st.lists(st.tuples(st.integers(0, 0x3FFF), st.binary(max_size=64)), max_size=8))
def test_attributes_are_read_as_they_were_written(pairs: list[tuple[int, bytes]]) -> None:
    assert list(attributes(b"".join(attribute(kind, value) for kind, value in pairs))) == pairs


@given(st.binary(max_size=200))
def test_any_bytes_can_be_read_as_attributes(data: bytes) -> None:
    assert sum(4 + len(value) for _, value in attributes(data)) <= len(data)


def test_no_element_stands_for_ever_by_rounding() -> None:
    for timeout in (0, -5):
        with pytest.raises(ValueError, match="for ever"):
            element(key(1), timeout)


@pytest.mark.netns
@pytest.mark.parametrize(
    ("where", "make"), [(FOUR, key), (SIX, lambda number: bytes.fromhex("fd77") + number.to_bytes(14, "big"))]
)
def test_what_is_added_is_listed_and_what_is_deleted_is_not(where: SetName, make: Callable[[int], bytes]) -> None:
    def story(netlink: NetlinkSocket) -> None:
        keys = [make(number) for number in range(MAX_ELEMENTS + 100)]
        netlink.transact(element_messages(ADD, where, [element(one) for one in keys]))
        assert listed(where.name) == set(keys)
        assert sorted(netlink.dump_keys(where)) == sorted(keys)
        assert netlink.get_elements([(where, one) for one in keys]) == [Element(None, None)] * len(keys)
        netlink.transact(element_messages(DELETE, where, [element(one) for one in keys[::2]]))
        assert listed(where.name) == set(keys[1::2])
        assert netlink.get_elements([(where, keys[0]), (where, keys[1])]) == [None, Element(None, None)]

    with_kernel(story)


@pytest.mark.netns
def test_timeouts_are_in_milliseconds_and_run_in_the_kernel() -> None:
    def story(netlink: NetlinkSocket) -> None:
        netlink.transact(element_messages(ADD, TIMED, [element(key(1), 90_000), element(key(2), 1)]))
        one = netlink.get_element(TIMED, key(1))
        assert one is not None
        assert one.timeout_ms is not None
        assert one.remaining_ms is not None
        # the kernel keeps whole ticks of at most 10 ms
        assert 89_980 <= one.timeout_ms <= 90_000
        assert 60_000 < one.remaining_ms <= 90_000
        while netlink.get_element(TIMED, key(2)) is not None:
            pass
        assert key(2) not in listed("timed")

    with_kernel(story)


@pytest.mark.netns
def test_add_delete_add_in_one_transaction_renews_the_end() -> None:
    def story(netlink: NetlinkSocket) -> None:
        for timeout in (5_000_000, 50_000, 9_000_000):
            netlink.transact(
                element_messages(ADD, TIMED, [element(key(1))])
                + element_messages(DELETE, TIMED, [element(key(1))])
                + element_messages(ADD, TIMED, [element(key(1), timeout)])
            )
            one = netlink.get_element(TIMED, key(1))
            assert one is not None
            assert one.remaining_ms is not None
            assert timeout - 40_000 < one.remaining_ms <= timeout

    with_kernel(story)


@pytest.mark.netns
def test_a_kernel_that_destroys_is_content_with_nothing_to_delete() -> None:
    def story(netlink: NetlinkSocket) -> None:
        release = tuple(map(int, re.findall(r"\d+", platform.release())[:2]))
        assert netlink.can_destroy(FOUR) or release < (6, 3)
        assert not netlink.can_destroy(SetName("ragate", "nowhere", 4))
        if netlink.can_destroy(FOUR):
            netlink.transact(element_messages(ADD, FOUR, [element(key(1)), element(key(3))]))
            netlink.transact(element_messages(DESTROY, FOUR, [element(key(number)) for number in (1, 2)]))
            assert netlink.dump_keys(FOUR) == [key(3)]

    with_kernel(story)


@pytest.mark.netns
def test_a_refused_message_is_named_and_nothing_was_changed() -> None:
    def story(netlink: NetlinkSocket) -> None:
        messages = [
            *element_messages(ADD, FOUR, [element(key(1))]),
            *element_messages(ADD, FOUR, [element(key(2))]),
            *element_messages(DELETE, FOUR, [element(key(3))]),
            *element_messages(ADD, FOUR, [element(key(4))]),
        ]
        error = refusal(lambda: netlink.transact(messages))
        assert (error.code, error.index, error.transient) == (errno.ENOENT, 2, False)
        assert "ENOENT" in str(error)
        assert listed("four") == set()
        netlink.transact(messages[:2])  # the socket is in order after a refusal
        assert listed("four") == {key(1), key(2)}

    with_kernel(story)


@pytest.mark.netns
def test_a_full_set_says_so() -> None:
    def story(netlink: NetlinkSocket) -> None:
        error = refusal(lambda: netlink.transact(element_messages(ADD, SMALL, [element(key(n)) for n in range(3)])))
        assert (error.code, error.transient) == (errno.ENFILE, True)
        assert listed("small") == set()

    with_kernel(story)


@pytest.mark.netns
def test_missing_sets_and_tables() -> None:
    def story(netlink: NetlinkSocket) -> None:
        for table, name in (("ragate", "nowhere"), ("nowhere", "four")):
            where = SetName(table, name, 4)
            messages = element_messages(ADD, where, [element(key(1))])
            error = refusal(partial(netlink.transact, messages))
            assert (error.code, error.index) == (errno.ENOENT, 0)
            assert netlink.get_element(where, key(1)) is None
        assert netlink.ask([table_request("nowhere"), chain_request("ragate", "nowhere")]) == [errno.ENOENT] * 2
        assert netlink.get_element(FOUR, key(9)) is None
        netlink.transact([])

    with_kernel(story)


@pytest.mark.netns
def test_probes_see_every_change() -> None:
    def story(netlink: NetlinkSocket) -> None:
        questions = [table_request("ragate"), chain_request("ragate", "some")]
        generation = netlink.ask([generation_request()])
        before = netlink.ask(questions)
        assert netlink.ask(questions) == before
        assert netlink.ask([generation_request()]) == generation
        run("nft", "add rule inet ragate some accept")
        assert netlink.ask(questions)[0] == before[0]
        assert netlink.ask(questions)[1] != before[1]
        assert netlink.ask([generation_request()]) != generation
        run("nft", "add chain inet ragate more")
        assert netlink.ask(questions)[0] != before[0]
        run("nft", "flush ruleset")
        assert netlink.ask(questions) == [errno.ENOENT] * 2

    with_kernel(story)


@pytest.mark.netns
def test_awaiting_commits_changes_nothing_and_leaves_no_answer_behind() -> None:
    def story(netlink: NetlinkSocket) -> None:
        before = netlink.ask([generation_request()])
        netlink.await_commits()
        assert netlink.ask([generation_request()]) == before
        netlink.transact(element_messages(ADD, FOUR, [element(key(1))]))  # would take a stray answer
        assert netlink.get_elements([(FOUR, key(1))]) != [None]

    with_kernel(story)


@pytest.mark.netns
def test_after_awaiting_commits_whatever_is_seen_to_be_gone_has_been_told() -> None:
    def story(netlink: NetlinkSocket) -> None:
        everything = [element(key(number)) for number in range(2_000)]
        add, delete = element_messages(ADD, FOUR, everything), element_messages(DELETE, FOUR, everything)
        other = NetlinkSocket()
        events = Events([netlink.port])
        for _ in range(30):
            netlink.transact(add)
            harm = threading.Thread(target=other.transact, args=(delete,))
            harm.start()
            while netlink.get_elements([(FOUR, key(1_999))]) != [None]:
                pass
            # Gone from here on, while the kernel may still be telling of it.
            netlink.await_commits()
            told = events.take()
            assert told.lost or (FOUR.name, key(1_999)) in told.elements
            harm.join()
            events.drop()
        events.close()
        other.close()

    with_kernel(story)


def swapped(inbox: Inbox) -> None:
    first, second = bytes(inbox.buffer[:SLOT]), bytes(inbox.buffer[SLOT : 2 * SLOT])
    inbox.buffer[: 2 * SLOT] = second + first


def of_another_set(inbox: Inbox) -> None:
    inbox.buffer[:SLOT] = inbox.buffer[:SLOT].replace(b"four", b"five")


def cut_short(inbox: Inbox) -> None:
    inbox.lengths[1] -= 1


def numbered_otherwise(inbox: Inbox) -> None:
    inbox.buffer[8] ^= 1


@pytest.mark.netns
@pytest.mark.parametrize("count", [FEW, FEW + 1])
@pytest.mark.parametrize("harm", [swapped, of_another_set, cut_short, numbered_otherwise])
def test_an_answer_that_is_not_exactly_to_its_question_is_refused(
    harm: Callable[[Inbox], None], count: int
) -> None:
    class Harmed(Inbox):
        def receive(self, origin: socket.socket, count: int) -> None:
            super().receive(origin, count)
            harm(self)

    def story(netlink: NetlinkSocket) -> None:
        netlink.transact(element_messages(ADD, FOUR, [element(key(1)), element(key(2))]))
        wanted = [(FOUR, key(number)) for number in range(1, count + 1)]
        sound = netlink._inbox
        netlink._inbox = Harmed(MAX_REQUESTS)
        netlink._buffer = netlink._inbox.buffer
        assert refusal(lambda: netlink.get_elements(wanted)).code == errno.EBADMSG
        netlink._inbox, netlink._buffer = sound, sound.buffer
        assert netlink.get_elements(wanted) == [Element(None, None)] * 2 + [None] * (count - 2)

    with_kernel(story)


@pytest.mark.netns
def test_of_answers_that_found_no_room_none_is_believed_then_or_later() -> None:
    def story(netlink: NetlinkSocket) -> None:
        netlink.transact(element_messages(ADD, FOUR, [element(key(number)) for number in range(0, 200, 2)]))
        wanted = [(FOUR, key(number)) for number in range(100)]
        other = NetlinkSocket()
        other._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, struct.pack("@ll", 0, 10_000))
        other._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)  # the least that there is: a few answers
        assert refusal(lambda: other.get_elements(wanted)).code in (errno.ETIMEDOUT, errno.ENOBUFS)
        assert other.get_elements([(FOUR, key(1)), (FOUR, key(2))]) == [None, Element(None, None)]
        other.close()

    with_kernel(story)


@pytest.mark.netns
def test_an_element_with_the_longest_comment_is_read_back() -> None:
    def story(netlink: NetlinkSocket) -> None:
        for number, more in enumerate(("", "timeout 1h ")):
            words = f'10.0.0.{number} {more}comment "{"a" * 128}"'
            run("nft", f"add element inet ragate timed {{ {words} }}")
        plain, timed = netlink.get_elements([(TIMED, key(0)), (TIMED, key(1))])
        assert plain == Element(None, None)
        assert timed is not None
        assert timed.timeout_ms == 3_600_000

    with_kernel(story)


@pytest.mark.netns
def test_each_key_is_looked_up_in_each_of_its_sets() -> None:
    def story(netlink: NetlinkSocket) -> None:
        netlink.transact(element_messages(ADD, FOUR, [element(key(number)) for number in range(0, 300, 3)]))
        netlink.transact(element_messages(ADD, TIMED, [element(key(number)) for number in range(0, 300, 2)]))
        found = netlink.look_up([((FOUR, TIMED, SMALL), key(number)) for number in range(300)])
        stands = [there for number in range(300) for there in (number % 3 == 0, number % 2 == 0, False)]
        assert [one is not None for one in found] == stands

    with_kernel(story)


@pytest.mark.netns
def test_answers_to_older_requests_are_not_taken_for_new_ones() -> None:
    def story(netlink: NetlinkSocket) -> None:
        netlink.transact(element_messages(ADD, FOUR, [element(key(1))]))
        # a question whose answer nobody fetched: as after a wait that was given up
        kind, body = table_request("ragate")
        netlink._send(HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST, netlink._reserve(1), 0) + body)
        assert netlink.get_elements([(FOUR, key(2)), (FOUR, key(1))]) == [None, Element(None, None)]

    with_kernel(story)
