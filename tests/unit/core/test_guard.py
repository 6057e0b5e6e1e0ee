"""Where deliveries may go, and why not elsewhere."""

from __future__ import annotations

import ipaddress

import pytest

from homing_core.guard import GATEWAY, ForbiddenTargetError, Guard, read_target

PUBLIC = Guard(hosts=[GATEWAY])
LOOPBACK = Guard(networks=[ipaddress.ip_network("127.0.0.0/8"), ipaddress.ip_network("::1/128")])

HOSTILE = [
    # Schemes, and what is no URL
    ("ftp://example.org/", "must begin with http"),
    ("file:///etc/passwd", "must begin with http"),
    ("gopher://example.org:70/_", "must begin with http"),
    ("javascript:alert(1)", "must begin with http"),
    ("//example.org/", "must begin with http"),
    ("example.org/hook", "must begin with http"),
    ("unix:///var/run/docker.sock", "must begin with http"),
    ("", "must begin with http"),
    ("http://", "has no host"),
    ("http:///hook", "has no host"),
    ("http:127.0.0.1/", "has no host"),
    ("http://:80/", "has no host"),
    # This host, in all its forms
    ("http://127.0.0.1/", "this host"),
    ("http://127.0.0.1:8080/", "this host"),
    ("http://127.255.255.254/", "this host"),
    ("http://127.1/", "four decimal numbers"),
    ("http://127.0.1/", "four decimal numbers"),
    ("http://0/", "four decimal numbers"),
    ("http://0.0.0.0/", "this network"),
    ("http://2130706433/", "four decimal numbers"),
    ("http://0x7f000001/", "four decimal numbers"),
    ("http://0x7f.0.0.1/", "four decimal numbers"),
    ("http://0x7F.1/", "four decimal numbers"),
    ("http://017700000001/", "four decimal numbers"),
    ("http://0177.0.0.1/", "four decimal numbers"),
    ("http://127.0.0.01/", "four decimal numbers"),
    ("http://127.0.0.0x1/", "four decimal numbers"),
    ("http://127.0.0.1./", "four decimal numbers"),
    ("http://256.256.256.256/", "four decimal numbers"),
    ("http://1.2.3.4.5/", "four decimal numbers"),
    ("http://localhost/", "without a domain"),
    ("http://LOCALHOST/", "without a domain"),
    ("http://api.localhost/", "which is this host"),
    ("http://localhost./", "no name of a host"),
    ("http://[::1]/", "this host"),
    ("http://[0:0:0:0:0:0:0:1]/", "this host"),
    ("http://[::]/", "no address"),
    ("http://[::127.0.0.1]/", "out of use"),
    ("http://[::ffff:127.0.0.1]/", "this host"),
    ("http://[::ffff:7f00:1]/", "this host"),
    ("http://[::ffff:0:127.0.0.1]/", "translated"),
    ("http://[64:ff9b::127.0.0.1]/", "NAT64"),
    ("http://[64:ff9b:1::a00:1]/", "NAT64"),
    ("http://[2002:7f00:1::]/", "6to4"),
    ("http://[2001:0:7f00:1::]/", "Teredo"),
    ("http://[::1%25lo]/", "cannot be read|zone"),
    ("http://[fe80::1%25eth0]/", "cannot be read|zone"),
    # Private networks, metadata, and what is special
    ("http://10.0.0.1/", "a private network"),
    ("http://10.255.255.255/", "a private network"),
    ("http://172.16.0.1/", "a private network"),
    ("http://172.31.255.254/", "a private network"),
    ("http://192.168.1.1/", "a private network"),
    ("http://169.254.169.254/latest/meta-data/", "metadata"),
    ("http://[::ffff:169.254.169.254]/", "metadata"),
    ("http://[::ffff:a9fe:a9fe]/", "metadata"),
    ("http://0xA9FEA9FE/", "four decimal numbers"),
    ("http://2852039166/", "four decimal numbers"),
    ("http://[fd00:ec2::254]/", "a private network"),
    ("http://[fc00::1]/", "a private network"),
    ("http://[fe80::1]/", "a link-local network"),
    ("http://[fec0::1]/", "a site-local network"),
    ("http://100.64.0.1/", "a carrier's network"),
    ("http://100.127.255.254/", "a carrier's network"),
    ("http://192.0.0.8/", "reserved for protocols"),
    ("http://192.0.2.1/", "reserved for documentation"),
    ("http://198.51.100.7/", "reserved for documentation"),
    ("http://203.0.113.9/", "reserved for documentation"),
    ("http://198.18.0.1/", "reserved for benchmarks"),
    ("http://198.19.255.255/", "reserved for benchmarks"),
    ("http://224.0.0.1/", "a multicast group"),
    ("http://239.255.255.250/", "a multicast group"),
    ("http://240.0.0.1/", "reserved"),
    ("http://255.255.255.255/", "reserved"),
    ("http://[ff02::1]/", "a multicast group"),
    ("http://[2001:db8::1]/", "reserved for documentation"),
    ("http://[3fff::1]/", "reserved for documentation"),
    ("http://[100::1]/", "discards"),
    ("http://[5f00::1]/", "segment routing"),
    # User information, and what parsers disagree about
    ("http://user@example.org/", "user name"),
    ("http://user:secret@example.org/", "user name"),
    ("http://example.org@127.0.0.1/", "user name"),
    ("http://example.org%40127.0.0.1/", "percent signs"),
    ("http://example.org:80@10.0.0.1/", "user name"),
    ("http://@example.org/", "user name"),
    ("http://127.0.0.1\\@example.org/", "backslash"),
    ("http:\\\\127.0.0.1/", "backslash"),
    ("http://example.org\\.127.0.0.1/", "backslash"),
    ("http://example.org#@127.0.0.1/", "fragment"),
    ("http://example.org/#hook", "fragment"),
    ("http://exam ple.org/", "a space"),
    (" http://127.0.0.1/", "a space"),
    ("http://127.0.0.1\t/", "a space"),
    ("http://example.org\r\nHost: 10.0.0.1/", "a space"),
    ("http://example.org\x00.10.0.0.1/", "a space"),
    ("http://%31%32%37.0.0.1/", "percent signs"),
    ("http://127%2e0%2e0%2e1/", "percent signs"),
    ("http://①②⑦.⓪.⓪.①/", "ASCII"),
    ("http://\uff11\uff12\uff17.0.0.1/", "ASCII"),
    ("http://127。0。0。1/", "ASCII"),
    ("http://ex\u0430mple.org/", "ASCII"),
    ("http://example..org/", "no name of a host"),
    ("http://.example.org/", "no name of a host"),
    ("http://-example.org/", "no name of a host"),
    ("http://exa,mple.org/", "no name of a host"),
    ("http://[example.org]/", "cannot be read|no IPv6"),
    ("http://[127.0.0.1]/", "cannot be read|this host|no IPv6"),
    ("http://[::1/", "cannot be read"),
    ("http://" + "a" * 64 + ".org/", "no name of a host"),
    ("http://" + "a." * 130 + "org/", "no name of a host"),
    # Ports
    ("http://example.org:22/", "has port 22"),
    ("http://example.org:25/", "has port 25"),
    ("http://example.org:2375/", "has port 2375"),
    ("http://example.org:5672/", "has port 5672"),
    ("https://example.org:6379/", "has port 6379"),
    ("http://93.184.215.14:11211/", "has port 11211"),
    ("http://[2606:2800:21f::1]:9200/", "has port 9200"),
    ("http://example.org:0/", "port 0"),
    ("http://example.org:/", "empty port"),
    ("http://example.org:65536/", "cannot be read"),
    ("http://example.org:-1/", "cannot be read"),
    ("http://example.org:80:80/", "cannot be read"),
    ("http://example.org:http/", "cannot be read"),
    # Names without a domain
    ("http://intranet/", "without a domain"),
    ("http://rabbitmq:15672/", "without a domain"),
    ("http://kubernetes/", "without a domain"),
]


@pytest.mark.parametrize(("url", "reason"), HOSTILE, ids=[repr(url) for url, _ in HOSTILE])
def test_hostile_urls_are_refused_with_a_reason(url: str, reason: str) -> None:
    with pytest.raises(ForbiddenTargetError, match=reason):
        PUBLIC.check_url(url)


@pytest.mark.parametrize(
    ("url", "receiver"),
    [
        ("https://example.org/hook", "https://example.org:443"),
        ("http://example.org/hook?a=b&c", "http://example.org:80"),
        ("https://Example.ORG:8443/", "https://example.org:8443"),
        ("https://a-b.c_d.example.xn--p1ai/", "https://a-b.c_d.example.xn--p1ai:443"),
        ("http://93.184.215.14:8080/", "http://93.184.215.14:8080"),
        ("http://172.32.0.1/", "http://172.32.0.1:80"),
        ("http://11.0.0.1/", "http://11.0.0.1:80"),
        ("http://[2606:2800:21f:cb07::1]/", "http://[2606:2800:21f:cb07::1]:80"),
        ("http://gateway:8080/async-function/next", "http://gateway:8080"),
        ("http://1e100.net/", "http://1e100.net:80"),
    ],
)
def test_public_urls_pass(url: str, receiver: str) -> None:
    assert PUBLIC.check_url(url).receiver == receiver


@pytest.mark.parametrize(
    "url",
    ["http://127.0.0.1:9000/", "http://[::1]:9000/", "http://[::ffff:127.0.0.1]:1/", "http://localhost:9000/hook"],
)
def test_allowed_networks_pass_at_any_port(url: str) -> None:
    LOOPBACK.check_url(url)


@pytest.mark.parametrize(
    "url", ["http://10.0.0.1/", "http://2130706433/", "http://user@127.0.0.1/", "http://[fe80::1]/"]
)
def test_an_allowed_network_allows_no_other(url: str) -> None:
    with pytest.raises(ForbiddenTargetError):
        LOOPBACK.check_url(url)


def test_allowed_hosts_pass_wherever_they_lead() -> None:
    guard = Guard(hosts=["hooks.internal", "*.cluster.local"])

    for host in ("hooks.internal", "a.cluster.local", "a.b.cluster.local"):
        target = guard.check_url(f"http://{host}:9000/")
        guard.check_resolved(target, ["10.1.2.3"])
    for host in ("internal", "xhooks.internal", "cluster.local", "a.cluster.local.example.org"):
        with pytest.raises(ForbiddenTargetError):
            guard.check_resolved(guard.check_url(f"http://{host}/"), ["10.1.2.3"])


@pytest.mark.parametrize(
    "address", ["127.0.0.1", "10.0.0.1", "169.254.169.254", "::1", "fe80::1%eth0", "::ffff:10.0.0.1"]
)
def test_every_address_that_a_name_has_is_checked(address: str) -> None:
    target = PUBLIC.check_url("https://example.org/")

    PUBLIC.check_resolved(target, ["93.184.215.14", "2606:2800:21f:cb07::1"])
    with pytest.raises(ForbiddenTargetError, match=r"example\.org, which is"):
        PUBLIC.check_resolved(target, ["93.184.215.14", address])


SPECIAL = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.31.196.0/24",
    "192.52.193.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "192.175.48.0/24",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/4",
    "240.0.0.0/4",
    "::/128",
    "::1/128",
    "::/96",
    "::ffff:0:0:0/96",
    "64:ff9b::/96",
    "64:ff9b:1::/48",
    "100::/64",
    "100:0:0:1::/64",
    "2001::/23",
    "2001:db8::/32",
    "2002::/16",
    "2620:4f:8000::/48",
    "3fff::/20",
    "5f00::/16",
    "fc00::/7",
    "fe80::/10",
    "fec0::/10",
    "ff00::/8",
]
"""The ranges of IANA's registries of special-purpose addresses that are not globally reachable, and their like."""


@pytest.mark.parametrize("network", SPECIAL)
def test_special_ranges_are_refused_from_end_to_end(network: str) -> None:
    target = PUBLIC.check_url("https://example.org/")
    special = ipaddress.ip_network(network)

    for address in {special[0], special[-1]}:
        with pytest.raises(ForbiddenTargetError, match=r"example\.org, which is"):
            PUBLIC.check_resolved(target, [str(address)])


@pytest.mark.parametrize(
    "address",
    [
        "1.0.0.0",
        "9.255.255.255",
        "11.0.0.0",
        "100.63.255.255",
        "100.128.0.0",
        "126.255.255.255",
        "128.0.0.0",
        "168.63.129.15",
        "168.63.129.17",
        "169.253.255.255",
        "169.255.0.0",
        "172.15.255.255",
        "172.32.0.0",
        "192.0.1.0",
        "192.0.3.0",
        "192.31.195.255",
        "192.31.197.0",
        "192.52.192.255",
        "192.52.194.0",
        "192.88.98.255",
        "192.88.100.0",
        "192.167.255.255",
        "192.169.0.0",
        "192.175.47.255",
        "192.175.49.0",
        "198.17.255.255",
        "198.20.0.0",
        "198.51.99.255",
        "198.51.101.0",
        "203.0.112.255",
        "203.0.114.0",
        "223.255.255.255",
        "2001:200::",
        "2001:db7:ffff::",
        "2001:db9::",
        "2003::",
        "2620:4f:7fff::",
        "2620:4f:8001::",
        "3ffe::",
        "4000::",
    ],
)
def test_what_lies_beside_special_ranges_is_public(address: str) -> None:
    PUBLIC.check_resolved(PUBLIC.check_url("https://example.org/"), [address])


@pytest.mark.parametrize(
    ("host", "good"),
    [
        ("a" * 63 + ".example", True),
        ("a" * 64 + ".example", False),
        (".".join(["a" * 61] * 4) + ".abcde", True),  # 253 characters
        (".".join(["a" * 61] * 4) + ".abcdef", False),
        ("a-b.example", True),
        ("-a.example", False),
        ("a-.example", False),
        ("a..example", False),
    ],
)
def test_names_of_hosts_have_the_length_and_form_of_the_domain_name_system(host: str, good: bool) -> None:  # noqa: FBT001
    if good:
        assert PUBLIC.check_url(f"https://{host}/").host == host
        return
    with pytest.raises(ForbiddenTargetError) as refused:
        PUBLIC.check_url(f"https://{host}/")
    assert str(refused.value) == f"has the host {host[:64]!r}, which is no name of a host"


def test_the_last_control_character_is_one() -> None:
    with pytest.raises(ForbiddenTargetError, match="a space, a control character or a backslash"):
        PUBLIC.check_url("https://example.org/\x7f")


def test_a_name_passes_at_an_odd_port_only_where_its_addresses_are_allowed() -> None:
    target = LOOPBACK.check_url("http://example.org:9000/")

    LOOPBACK.check_resolved(target, ["127.0.0.1", "::1"])
    with pytest.raises(ForbiddenTargetError, match="has port 9000"):
        LOOPBACK.check_resolved(target, ["127.0.0.1", "93.184.215.14"])


def test_the_ports_can_be_set() -> None:
    guard = Guard(ports=[9000])

    guard.check_url("http://example.org:9000/")
    with pytest.raises(ForbiddenTargetError, match="deliveries go to ports 9000"):
        guard.check_url("http://example.org/")


@pytest.mark.parametrize(
    "url", ["http://10.0.0.7/", "http://orders/", "http://a.localhost/", "http://example.org:9000/"]
)
def test_what_an_operator_can_allow_names_the_settings(url: str) -> None:
    with pytest.raises(ForbiddenTargetError, match=r"; HOMING_X_NETWORKS and _HOSTS allow more$"):
        Guard(settings="HOMING_X_NETWORKS and _HOSTS").check_url(url)


def test_what_nobody_can_allow_names_none() -> None:
    with pytest.raises(ForbiddenTargetError, match=r"must begin with http:// or https://$"):
        Guard(settings="HOMING_X_NETWORKS and _HOSTS").check_url("ftp://example.org/")


def test_the_ports_that_are_allowed_are_told_in_order() -> None:
    with pytest.raises(ForbiddenTargetError, match="has port 9000; deliveries go to ports 80, 443, 8080, 8443"):
        PUBLIC.check_url("http://example.org:9000/")
    # Where a network is allowed, the port of an address outside it still counts.
    with pytest.raises(ForbiddenTargetError, match="has port 9000"):
        LOOPBACK.check_url("http://93.184.215.14:9000/")


def test_any_port_may_be_allowed() -> None:
    guard = Guard(ports=None)

    guard.check_resolved(guard.check_url("http://example.org:9000/"), ["93.184.215.14"])
    with pytest.raises(ForbiddenTargetError) as refused:
        guard.check_url("http://10.0.0.7:9000/")
    assert str(refused.value) == "leads to 10.0.0.7: a private network (10.0.0.0/8)"


def test_names_of_this_host_pass_where_a_network_is_allowed() -> None:
    LOOPBACK.check_resolved(LOOPBACK.check_url("http://api.localhost/"), ["127.0.0.1"])


def test_the_zone_of_an_address_makes_no_difference() -> None:
    with pytest.raises(ForbiddenTargetError, match="a link-local network"):
        PUBLIC.check_resolved(PUBLIC.check_url("http://example.org/"), ["fe80::1%eth0"])


def test_exchanges_and_queues_are_those_that_are_named() -> None:
    guard = Guard(exchanges=["orders", "/jobs"])

    guard.check_exchange("orders", "any.key")
    guard.check_exchange("", "jobs")
    Guard(exchanges=["*"]).check_exchange("", "whatever")
    for exchange, key in (("billing", "x"), ("jobs", ""), ("", "orders")):
        with pytest.raises(ForbiddenTargetError, match="HOMING_AMQP_DESTINATIONS does not allow"):
            guard.check_exchange(exchange, key)
        with pytest.raises(ForbiddenTargetError):
            PUBLIC.check_exchange(exchange, key)


def test_an_address_is_written_without_brackets_in_a_target() -> None:
    assert read_target("http://[2606:2800::1]:80/").host == "2606:2800::1"


@pytest.mark.parametrize(
    ("spelled", "receiver"),
    [
        ("http://[0:0:0:0:0:0:0:1]:99/", "http://[::1]:99"),
        ("http://[0:0::0001]/", "http://[::1]:80"),
        ("http://[::FFFF:127.0.0.1]/", f"http://[{ipaddress.ip_address('::ffff:127.0.0.1').compressed}]:80"),
        ("HTTPS://Example.ORG", "https://example.org:443"),
        ("https://example.org:0443/?a", "https://example.org:443"),
    ],
)
def test_a_receiver_is_the_same_however_it_is_spelled(spelled: str, receiver: str) -> None:
    assert read_target(spelled).receiver == receiver
