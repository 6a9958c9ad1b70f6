package guest

import (
	"fmt"
	"strconv"
	"strings"
	"testing"
)

// nic is one of the guest's network cards.
type nic struct {
	slot string  // of the PCI bus
	in   network // what it is connected to
	mac  string
}

// newCard is card number i, counted from 0, in network i+1.
func newCard(i int) nic {
	return nic{slot: slot(i), in: network(i + 1), mac: fmt.Sprintf("02:00:00:00:00:%02x", i+1)}
}

func (c nic) address() string { return fmt.Sprintf("0000:00:%04s", c.slot) }

// tap is the interface of the host that the card is connected to.
func (c nic) tap() string { return fmt.Sprintf("tap%d", c.in) }

// script puts what the card is called in the guest before a script: pci, its PCI device's
// folder, and dev, its interface. The driver may not have found it yet.
func (c nic) script(script string) string {
	return fmt.Sprintf(`
pci=/sys/bus/pci/devices/%s dev=
for i in $(seq 100); do
  for net in $pci/virtio*/net/*; do
    [ -e "$net" ] && dev=${net##*/} && break 2
  done
  sleep 0.1
done
[ "$dev" ] || { echo "no network interface of card %[1]s appears"; exit 1; }
%s`, c.address(), script)
}

// up is a script that gives the card the addresses of machine id in its network.
func (c nic) up(id int) string {
	return c.script(fmt.Sprintf(`
echo 0 > /proc/sys/net/ipv6/conf/$dev/accept_dad
ip addr replace %s/24 dev $dev
ip addr replace %s/64 dev $dev nodad
ip link set $dev up
`, c.in.v4(id), c.in.v6(id)))
}

// interfaceInfo is what `ip -json link show` prints, as far as the tests look at it.
type interfaceInfo struct {
	Address string
	MTU     int
}

func linkInfo(t *testing.T, g *Guest, c nic) interfaceInfo {
	t.Helper()
	var info []interfaceInfo
	runJSON(t, g, c.script("ip -json link show dev $dev"), &info)
	if len(info) != 1 {
		t.Fatalf("ip link shows %d interfaces", len(info))
	}
	return info[0]
}

// checkCardIdentity holds what the guest sees of the card to what was asked for.
func checkCardIdentity(t *testing.T, g *Guest, c nic, mtu, pairs int) {
	t.Helper()
	info := linkInfo(t, g, c)
	if info.Address != c.mac || info.MTU != mtu {
		t.Errorf("the guest sees address %s and MTU %d, want %s and %d", info.Address, info.MTU, c.mac, mtu)
	}
	driver := run(t, g, c.script("ethtool -i $dev"))
	if !strings.Contains(driver, "driver: virtio_net\n") || !strings.Contains(driver, "bus-info: "+c.address()+"\n") {
		t.Errorf("ethtool -i: %s", driver)
	}
	channels := run(t, g, c.script("ethtool -l $dev | awk '$1 == \"Combined:\" { print $2 }'"))
	if want := fmt.Sprintf("%d\n%d", pairs, pairs); strings.TrimSpace(channels) != want {
		t.Errorf("ethtool -l: combined channels, maximum and used: %q, want %q", channels, want)
	}
	counters := run(t, g, c.script("ethtool -S $dev"))
	for _, name := range []string{fmt.Sprintf("rx%d_drops:", pairs-1), fmt.Sprintf("tx%d_kicks:", pairs-1)} {
		if !strings.Contains(counters, name) {
			t.Errorf("ethtool -S has no %s\n%s", name, counters)
		}
	}
}

// checkOffloads wants that the guest leaves to the card what cards can do for it. (Linux does
// not turn segmentation of UDP on by itself.)
func checkOffloads(t *testing.T, g *Guest, c nic) {
	t.Helper()
	output := run(t, g, c.script("ethtool -K $dev tx-udp-segmentation on; ethtool -k $dev"))
	for _, name := range []string{"rx-checksumming", "tx-checksumming", "scatter-gather", "tcp-segmentation-offload",
		"tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-tcp-ecn-segmentation", "rx-gro-hw"} {
		if !strings.Contains(output, name+": on") {
			t.Errorf("ethtool -k: %s is not on\n%s", name, output)
		}
	}
}

// awaitAnswer is a script that has a machine that was away wait until another one answers, some
// seconds. That one has asked who has the address all the while, once a second: what it sends is
// lost until it asks the next time, if the answer to its last question was.
func awaitAnswer(address string) string {
	return fmt.Sprintf("for i in $(seq 5); do ping -c 1 -W 1 %s > /tmp/ping && exit; done; cat /tmp/ping; exit 1", address)
}

// checkPing pings a machine, with small packets and with such as take several frames.
func checkPing(t *testing.T, g *Guest, in network, id int) {
	t.Helper()
	for _, address := range []string{in.v4(id), in.v6(id)} {
		run(t, g, fmt.Sprintf("ping -c 3 -i 0.1 -w 5 %s > /tmp/ping || { cat /tmp/ping; exit 1; }; ping -c 2 -i 0.1 -s 8000 -w 5 %[1]s > /tmp/ping", address))
	}
}

// bandwidth is what `iperf3 -J` prints, as far as the tests look at it.
type bandwidth struct {
	End struct {
		Sent     iperfSum `json:"sum_sent"`
		Received iperfSum `json:"sum_received"`
	}
}

type iperfSum struct {
	Bytes       int64
	Rate        float64 `json:"bits_per_second"`
	Retransmits int64
}

// iperf runs iperf3 in the guest with the server at an address.
func iperf(t *testing.T, g *Guest, server, options string) bandwidth {
	t.Helper()
	var result bandwidth
	runJSON(t, g, fmt.Sprintf("iperf3 -J -c %s -t 1 %s", server, options), &result)
	return result
}

// checkBandwidth runs iperf3 for a second for each of the options (-P: streams, -R: to the
// guest), and logs how fast it is.
func checkBandwidth(t *testing.T, g *Guest, server string, each ...string) {
	t.Helper()
	for _, options := range each {
		result := iperf(t, g, server, options)
		if result.End.Received.Bytes < 1<<20 {
			t.Errorf("iperf3 %s: %d bytes in a second", options, result.End.Received.Bytes)
		}
		t.Logf("iperf3 %s: %.0f Mbit/s, %d retransmissions", options, result.End.Received.Rate/1e6, result.End.Sent.Retransmits)
	}
}

// snmp prints the counters of a machine's network stack, one a line: on the host and in the
// guest.
const snmp = `
awk '{ if ($1 in names) { n = split(names[$1], name); for (i = 2; i <= n; i++) print substr($1, 1, length($1) - 1) name[i], $i } else names[$1] = $0 }' /proc/net/snmp
cat /proc/net/snmp6`

// checkNoBadChecksum looks for packets with bad checksums among what a machine has counted.
func checkNoBadChecksum(t *testing.T, machine, counters string) {
	t.Helper()
	looked := 0
	for line := range strings.Lines(counters) {
		fields := strings.Fields(line)
		if len(fields) != 2 || !strings.Contains(fields[0], "Csum") {
			continue
		}
		looked++
		if n, err := strconv.Atoi(fields[1]); err != nil || n != 0 {
			t.Errorf("%s counts %s: %s", machine, fields[0], fields[1])
		}
	}
	if looked < 5 {
		t.Errorf("%s: no counters of bad checksums: %s", machine, counters)
	}
}

// checkNoBadChecksums does so in the guest and at the host.
func checkNoBadChecksums(t *testing.T, g *Guest, h *host) {
	t.Helper()
	checkNoBadChecksum(t, "the guest", run(t, g, snmp))
	output, err := h.Run("sh", "-c", snmp)
	if err != nil {
		t.Fatal(err)
	}
	checkNoBadChecksum(t, "the host", output)
}
