"""Where requests to strangers may go."""

import pytest

from darknet_face.negatives.guard import literal_address, network_of, networks_of


@pytest.mark.parametrize("network, addresses", [
    ("public", ["8.8.8.8", "208.80.154.224", "2620:0:861:ed1a::1", "::ffff:8.8.8.8",
                "64:ff9b::808:808"]),
    ("loopback", ["127.0.0.1", "127.255.1.2", "::1", "0.0.0.0", "::", "::ffff:127.0.0.1",
                  "64:ff9b::7f00:1", "2002:7f00:1::", "::127.0.0.1"]),
    ("link-local", ["169.254.169.254", "fe80::1", "fe80::1%eth0", "::ffff:a9fe:a9fe"]),
    ("private", ["10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "100.64.0.1",
                 "224.0.0.1", "240.0.0.1", "255.255.255.255", "fd00::1", "fec0::1", "ff02::1",
                 "::ffff:10.0.0.1", "0.1.2.3"]),
])
def test_networks(network, addresses):
    assert {network_of(address) for address in addresses} == {network}


def test_literal_addresses_in_any_notation():
    for host in ("127.0.0.1", "127.1", "2130706433", "0x7f.1", "0177.0.0.1", "127.0.0.1.",
                 "\u2460\u2461\u2466.0.0.1"):
        assert literal_address(host) == "127.0.0.1"
    assert literal_address("FE80::1%eth0") == "fe80::1"
    for host in ("example.org", "localhost", "1.2.3.4.5", "a.1", "", "1.2.3.4.example.org"):
        assert literal_address(host) is None


def test_networks_of_a_host():
    assert networks_of("127.0.0.1") == {"loopback"}
    assert networks_of("10.1.2.3") == {"private"}
    assert networks_of("x" * 70) == networks_of("a..b") == set()
