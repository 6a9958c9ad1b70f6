package guest

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// member is a card in a network that only guests are in. Each has a namespace of its own in
// its guest, so that even those of the same guest reach each other only by their cards.
type member struct {
	nic
	id int
	g  *Guest
}

// transfer is how many bytes checkTransfer sends.
const transfer = 6 << 20

// name is what the card's namespace and its interface are called in the guest.
func (m member) name() string { return fmt.Sprintf("card%d", m.id) }

func (m member) v4() string { return m.in.v4(m.id) }
func (m member) v6() string { return m.in.v6(m.id) }

// join puts the card into its namespace.
func (m member) join(t *testing.T) {
	t.Helper()
	run(t, m.g, m.script(fmt.Sprintf(`
mkdir -p /var/run
ip netns add %[1]s
ip link set $dev name %[1]s netns %[1]s`, m.name())))
	m.run(t, fmt.Sprintf(`
ip link set lo up
ip addr add %[2]s/24 dev %[1]s
ip addr add %[3]s/64 dev %[1]s nodad
ip link set %[1]s mtu %[4]d
ip link set %[1]s up`, m.name(), m.v4(), m.v6(), standard))
}

// run runs a script in the card's namespace.
func (m member) run(t *testing.T, script string) string {
	t.Helper()
	return run(t, m.g, fmt.Sprintf("ip netns exec %s sh -e <<'END'\n%s\nEND", m.name(), script))
}

// checkReach pings other members, twice each, once with packets that take several frames.
func (m member) checkReach(t *testing.T, others ...member) {
	t.Helper()
	var script strings.Builder
	for _, other := range others {
		fmt.Fprintf(&script, "ping -c 1 -W 5 %[1]s > /tmp/ping || { cat /tmp/ping; exit 1; }\n"+
			"ping -c 1 -W 5 -s 4000 %[2]s > /tmp/ping || { cat /tmp/ping; exit 1; }\n", other.v4(), other.v6())
	}
	m.run(t, script.String())
}

// checkTransfer sends some MiB from one member to another by TCP, and compares checksums.
func (m member) checkTransfer(t *testing.T, to member) {
	t.Helper()
	const port = 5011
	to.run(t, fmt.Sprintf(`
rm -f /tmp/sum
{ socat -u -b 65536 TCP6-LISTEN:%d,reuseaddr,ipv6only=0 STDOUT | md5sum > /tmp/sum; } 2> /dev/null &
for i in $(seq 100); do [ "$(ss -Hltn 'sport = %[1]d')" ] && exit; sleep 0.02; done; exit 1`, port))
	sent := m.run(t, fmt.Sprintf(`
[ -e /tmp/data ] || { head -c %d /dev/urandom > /tmp/data; md5sum < /tmp/data > /tmp/data.sum; }
socat -u -b 65536 OPEN:/tmp/data TCP4:%s:%d
cat /tmp/data.sum`, transfer, to.v4(), port))
	came := to.run(t, "for i in $(seq 100); do [ -s /tmp/sum ] && break; sleep 0.02; done; cat /tmp/sum")
	if sent != came {
		t.Errorf("%s sent data with the checksum %s, %s received %s", m.name(), strings.TrimSpace(sent), to.name(), strings.TrimSpace(came))
	}
}

// checkPairBandwidth has iperf3 send between two members both ways, with one and four streams.
func checkPairBandwidth(t *testing.T, client, server member) {
	t.Helper()
	server.run(t, "iperf3 -s > /dev/null 2>&1 & echo $! > /tmp/iperf3\nfor i in $(seq 50); do [ \"$(ss -Hltn 'sport = 5201')\" ] && break; sleep 0.1; done")
	for _, options := range []string{"-P 1", "-P 1 -R", "-P 4", "-P 4 -R"} {
		output := client.run(t, fmt.Sprintf("iperf3 -f m -t 1 %s -c %s | grep receiver | tail -n 1", options, server.v4()))
		fields := strings.Fields(output)
		t.Logf("iperf3 %s: %s", options, strings.Join(fields[max(0, len(fields)-3):], " "))
	}
	server.run(t, "kill $(cat /tmp/iperf3)")
}

// checkMemberVLAN has two members use a VLAN, which a third one is not in.
func checkMemberVLAN(t *testing.T, in network, a, b, stranger member) {
	t.Helper()
	for id, vlan := range map[member]int{a: 5, b: 5, stranger: 6} {
		id.run(t, fmt.Sprintf(`
ip link add link %[1]s name %[1]s.5 type vlan id %[2]d
ip addr add %[3]s/24 dev %[1]s.5
ip link set %[1]s.5 up`, id.name(), vlan, in.v4(id.id)))
	}
	a.run(t, fmt.Sprintf("ping -c 1 -W 5 %s\nping -c 1 -W 5 -s 4000 %[1]s\n! ping -c 1 -W 1 %[2]s", in.v4(b.id), in.v4(stranger.id)))
	inVLAN := b
	inVLAN.in = in
	a.checkTransfer(t, inVLAN)
	for _, m := range []member{a, b, stranger} {
		m.run(t, fmt.Sprintf("ip link del %s.5", m.name()))
	}
}

// checkMemberMulticast has some members join a group, and another one send to it.
func checkMemberMulticast(t *testing.T, from member, members ...member) {
	t.Helper()
	const group, port = "239.9.9.9", 5009
	for _, m := range members {
		m.run(t, fmt.Sprintf(`
socat -u UDP4-RECV:%d,ip-add-membership=%s:%s OPEN:/tmp/heard%d,creat,trunc > /dev/null 2>&1 &
for i in $(seq 50); do ip maddr show dev %[5]s | grep -q %[2]s && exit; sleep 0.1; done; exit 1`, port, group, m.v4(), m.id, m.name()))
	}
	from.run(t, fmt.Sprintf("ip route add %s/32 dev %s", group, from.name()))
	for _, m := range members {
		eventually(t, func() error { // (a guest sets a card's filter in the background)
			from.run(t, fmt.Sprintf("echo to all | socat -u - UDP4-SENDTO:%s:%d", group, port))
			if heard := m.run(t, fmt.Sprintf("cat /tmp/heard%d", m.id)); !strings.HasPrefix(heard, "to all\n") {
				return fmt.Errorf("%s heard %q", m.name(), heard)
			}
			return nil
		})
	}
}

// checkMemberChecksums looks for bad checksums in the members' namespaces.
func checkMemberChecksums(t *testing.T, members ...member) {
	t.Helper()
	for _, m := range members {
		checkNoBadChecksum(t, m.name(), m.run(t, snmp))
	}
}

// TestSwitch connects two guests with four cards each by one switch.
func TestSwitch(t *testing.T) {
	const each = 4
	h := newHost(t)
	var members []member
	var cards []servedCard
	options := [][]string{ // the first card of a guest does all it can, the others less
		{"--mtu", "9000", "--queues", "2"},
		{"--features", "mac,status"},
		{"--features", "mac,status,csum,guest_csum,mrg_rxbuf,ring_packed"},
		{"--doorbells", "mmap"},
	}
	for i := range 2 * each {
		c := nic{slot: slot(i % each), in: 50, mac: newCard(i).mac}
		members = append(members, member{nic: c, id: i + 1})
		cards = append(cards, servedCard{nic: c, link: "switch:lan", options: options[i%each]})
	}
	s := serveCards(t, h, cards...)
	before := s.holdings(t)
	one := boot(t, Config{Sockets: s.sockets[:each], CPUs: 2, Network: true})
	two := boot(t, Config{Sockets: s.sockets[each:], CPUs: 2, Network: true})
	for i := range members {
		members[i].g = []*Guest{one, two}[i/each]
		members[i].join(t)
	}
	a, b := members[:each], members[each:]

	t.Run("all reach all", func(t *testing.T) {
		for i, m := range members {
			m.checkReach(t, append(members[:i:i], members[i+1:]...)...)
		}
	})
	t.Run("TCP loses nothing", func(t *testing.T) {
		for _, m := range b {
			a[0].checkTransfer(t, m) // (to a card without segmentation its segments are made for it)
			m.checkTransfer(t, a[0])
		}
		a[1].checkTransfer(t, a[2])
	})
	t.Run("jumbo frames", func(t *testing.T) {
		setMTU := func(mtu int) {
			for _, m := range []member{a[0], b[0]} {
				m.run(t, fmt.Sprintf("ip link set %s mtu %d", m.name(), mtu))
			}
		}
		setMTU(jumbo)
		a[0].run(t, fmt.Sprintf("ping -c 2 -i 0.1 -w 5 -s %d %s\n[ $(nstat -asz IpFragCreates | awk '/IpFrag/ { print $2 }') = 0 ]", jumbo-28, b[0].v4()))
		a[0].checkTransfer(t, b[0])
		setMTU(standard)
	})
	t.Run("iperf3", func(t *testing.T) { checkPairBandwidth(t, a[0], b[0]) })
	t.Run("VLAN", func(t *testing.T) { checkMemberVLAN(t, 51, a[0], b[0], b[3]) })
	t.Run("multicast", func(t *testing.T) { checkMemberMulticast(t, a[0], b[0], b[1], a[3]) })
	checkMemberChecksums(t, members...)
	t.Run("a guest reboots", func(t *testing.T) {
		started := time.Now()
		a[0].run(t, fmt.Sprintf("iperf3 -s > /dev/null 2>&1 &\nping -i 0.01 -c 100000 %s > /dev/null 2>&1 &", b[0].v4()))
		b[0].run(t, fmt.Sprintf("iperf3 -t 100 --bidir -c %s > /dev/null 2>&1 & sleep 0.5", a[0].v4()))
		reboot(t, two)
		a[1].checkTransfer(t, a[2]) // (the others go on)
		for _, m := range b {
			m.join(t)
			m.run(t, awaitAnswer(a[0].v4()))
			m.checkReach(t, a[0])
		}
		a[0].checkTransfer(t, b[0])
		t.Logf("after %v", time.Since(started).Round(100*time.Millisecond))
	})
	two.Kill()
	a[0].checkReach(t, a[1])
	powerOff(t, one)
	s.checkReleased(t, before)
}
