package guest

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"
)

// during calls change while the host sends to the guest all the time: data that the guest
// sends back, which must come back whole as long as whole is set, and frames that it ignores.
func during(t *testing.T, h *host, c nic, whole bool, change func()) {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	var done sync.WaitGroup
	echoes := 0
	if whole {
		done.Go(func() {
			for ctx.Err() == nil {
				if err := h.echo(c.in.v4(guestID), uint64(echoes), 4<<20); err != nil {
					t.Error(err)
					return
				}
				echoes++
			}
		})
	}
	w := h.wire(t, c, 0)
	ignored := frame(t, c.mac, 0, etherTypeTests, make([]byte, 1000))
	done.Go(func() {
		for tick := time.Tick(time.Millisecond); ctx.Err() == nil; <-tick {
			for range 10 {
				w.Send(ignored) // (the interface may be down or full)
			}
		}
	})
	change()
	stop()
	done.Wait()
	if whole && echoes == 0 {
		t.Error("no data came back meanwhile")
	}
}

// checkChannels has the guest use one and two queue pairs in turn.
func checkChannels(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	during(t, h, c, true, func() {
		run(t, g, c.script(`
for i in $(seq 10); do
  for n in 1 2; do
    ethtool -L $dev combined $n
    [ "$(ls -d $net/queues/tx-* | wc -l)" = $n ]
    sleep 0.1
  done
done`))
	})
	checkEcho(t, h, c.in.v4(guestID), 4, 4<<20)
}

// checkRSS has the guest direct all flows to one of its two queues and then to the other one.
func checkRSS(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	interrupts := func() (n [2]int) {
		output := run(t, g, c.script(`
name=$(basename $pci/virtio*)
for q in 0 1; do awk "/$name-input.$q\$/ { print \$2 + \$3 }" /proc/interrupts; done`))
		if _, err := fmt.Sscan(output, &n[0], &n[1]); err != nil {
			t.Fatalf("interrupts of the receive queues: %v: %s", err, output)
		}
		return n
	}
	for q, weights := range []string{"1 0", "0 1"} {
		run(t, g, c.script("ethtool -X $dev weight "+weights))
		was := interrupts()
		checkEcho(t, h, c.in.v4(guestID), 4, 1<<20)
		checkEcho(t, h, c.in.v6(guestID), 4, 1<<20)
		is := interrupts()
		if here, there := is[q]-was[q], is[1-q]-was[1-q]; here <= 2*there {
			t.Errorf("all flows are for queue %d: it has %d interrupts, the other one %d", q, here, there)
		}
	}
	run(t, g, c.script("ethtool -X $dev equal 2"))
}

// checkOtherEnd sets the host's interface down and up, which the guest sees.
func checkOtherEnd(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	for range 3 {
		checkCarrier(t, g, c, true)
		h.ip(t, "link set "+c.tap()+" down")
		checkCarrier(t, g, c, false)
		h.ip(t, "link set "+c.tap()+" up")
	}
	checkCarrier(t, g, c, true)
	h.ip(t, fmt.Sprintf("addr replace %s/64 dev %s", c.in.v6(hostID), c.tap())) // (gone with the interface)
	checkPing(t, g, c.in, hostID)
	checkEcho(t, h, c.in.v6(guestID), 1, 1<<20)
}

// Ways to take a card from its driver and to give it back.
const (
	rebind = "echo %[1]s > /sys/bus/pci/drivers/virtio-pci/unbind; echo %[1]s > /sys/bus/pci/drivers/virtio-pci/bind"
	rescan = "echo 1 > /sys/bus/pci/devices/%[1]s/remove; echo 1 > /sys/bus/pci/rescan"
)

// checkTaken takes the card from its driver and gives it back, several times. The guest
// sends all the while.
func checkTaken(t *testing.T, g *Guest, h *host, c nic, way string, rounds int) {
	t.Helper()
	started := time.Now()
	run(t, g, fmt.Sprintf(`
while :; do
  head -c 1000000 /dev/zero | socat -u -b 1400 - UDP-SENDTO:%s:9 || sleep 0.01
done > /dev/null 2>&1 &
echo $! > /tmp/sender`, c.in.v4(hostID)))
	during(t, h, c, false, func() {
		run(t, g, fmt.Sprintf("for round in $(seq %d); do\n%s\n%s\ndone", rounds, fmt.Sprintf(way, c.address()), c.up(guestID)))
	})
	run(t, g, "kill $(cat /tmp/sender)")
	t.Logf("%d times in %v", rounds, time.Since(started).Round(100*time.Millisecond))
	checkPing(t, g, c.in, hostID)
	checkEcho(t, h, c.in.v4(guestID), 4, 1<<20)
	checkNoBadChecksums(t, g, h)
}

// checkReboot reboots the guest.
func checkReboot(t *testing.T, g *Guest, h *host, c nic) {
	t.Helper()
	during(t, h, c, false, func() {
		run(t, g, "iperf3 -t 100 -P 2 --bidir -c "+c.in.v4(hostID)+" > /dev/null 2>&1 & sleep 0.5")
		reboot(t, g)
	})
	run(t, g, c.up(guestID))
	startEcho(t, g)
	run(t, g, awaitAnswer(c.in.v4(hostID)))
	checkPing(t, g, c.in, hostID)
	checkEcho(t, h, c.in.v4(guestID), 1, 4<<20)
}
