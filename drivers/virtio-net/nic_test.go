package virtionet

import (
	"context"
	"errors"
	"sync"
	"testing"

	"vfiouser/client"
	device "vfiouser/devices/virtio-net"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
	"vfiouser/link/linktest"

	transport "vfiouser/devices/virtio"
	"vfiouser/test/holdings"
)

func TestOpen(t *testing.T) {
	holdings.CheckLeaks(t)
	mac := [6]byte{2, 3, 4, 5, 6, 7}
	m := newMachine(t, device.Config{MAC: mac[:], MTU: 4000, Pairs: 2, Speed: 10_000})
	for range 3 {
		n := m.open(t, Options{})
		mbit, full := n.Speed()
		if n.MAC() != mac || n.MTU() != 4000 || !n.LinkUp() || mbit != 10_000 || !full || n.Pairs() != 1 || n.AnnounceWanted() || n.Err() != nil {
			t.Error(n.MAC(), n.MTU(), n.LinkUp(), mbit, full, n.Pairs())
		}
		if want := n.Offered() & DefaultFeatures &^ netspec.FeatureMQ; n.Features() != want || !n.Has(spec.FeatureRingPacked) {
			t.Errorf("%#x, want %#x", n.Features(), want)
		}
		if err := errors.Join(n.Close(), n.Close()); err != nil {
			t.Error(err)
		}
		m.checkFreed(t)
		if err := n.Queue(0).WriteFrame(testContext(t), make([]byte, 60)); err == nil {
			err = n.Queue(0).WaitSend(testContext(t))
			if !errors.Is(err, ErrClosed) {
				t.Error(err)
			}
		}
	}
	// A card that somebody left running is reset.
	m.open(t, Options{})
	second := m.open(t, Options{})
	if err := second.Queue(0).WriteFrame(testContext(t), make([]byte, 60)); err != nil {
		t.Error(err)
	}
}

func TestOptions(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{MTU: 9000, QueueSize: 128})
	for name, c := range map[string]struct {
		o    Options
		want error
	}{
		"pairs":               {Options{Pairs: -1}, ErrInvalid},
		"queue size":          {Options{QueueSize: 100}, ErrInvalid},
		"more than it has":    {Options{QueueSize: 256}, ErrInvalid},
		"buffers":             {Options{BufferSize: 100}, ErrInvalid},
		"huge buffers":        {Options{BufferSize: 1 << 20}, ErrInvalid},
		"too small":           {Options{BufferSize: 2048, Features: spec.FeatureVersion1}, ErrInvalid},
		"unknown features":    {Options{Features: 1 << 49}, ErrInvalid},
		"time-out":            {Options{Timeout: -1}, ErrInvalid},
		"no room for buffers": {Options{BufferSize: maxBufferSize, QueueSize: 128, IOVA: 1 << 40}, nil},
	} {
		n, err := Open(testContext(t), m.dev, m.mem, c.o)
		if err == nil {
			n.Close()
		}
		if !errors.Is(err, c.want) {
			t.Errorf("%s: %v", name, err)
		}
		m.checkFreed(t)
	}
	small, err := client.NewMemory(64 << 10)
	if err != nil {
		t.Fatal(err)
	}
	defer small.Close()
	if _, err := Open(testContext(t), m.dev, small, Options{}); !errors.Is(err, client.ErrNoSpace) {
		t.Error(err)
	}
	// Without merged buffers, segments of 64 KiB need buffers of that size.
	for size, want := range map[int]uint64{16384: 0, maxBufferSize: netspec.FeatureGuestTSO4} {
		n := m.open(t, Options{BufferSize: size, QueueSize: 64, Features: netspec.FeatureGuestCSUM | netspec.FeatureGuestTSO4})
		if n.Features()&netspec.FeatureGuestTSO4 != want {
			t.Errorf("%d bytes: %#x", size, n.Features())
		}
		n.Close()
	}
}

func TestLink(t *testing.T) {
	holdings.CheckLeaks(t)
	l := &linktest.Link{}
	m := newMachine(t, device.Config{Link: l})
	n := m.open(t, Options{})
	await := func(what string, ok func() bool) {
		t.Helper()
		for !ok() {
			select {
			case <-n.Changed():
			case <-testContext(t).Done():
				t.Fatal(what)
			}
		}
	}
	for range 3 {
		l.Card().SetCarrier(false)
		await("the link does not go down", func() bool { return !n.LinkUp() })
		l.Card().SetCarrier(true)
		await("the link does not come up", n.LinkUp)
		l.Card().Announce()
		await("no announcement", n.AnnounceWanted)
		if err := n.AnnounceAck(testContext(t)); err != nil {
			t.Error(err)
		}
		await("announcement is not taken back", func() bool { return !n.AnnounceWanted() })
	}
}

func TestCommands(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{Pairs: 4})
	ctx := testContext(t)
	table := netspec.MACTable{Unicast: [][6]byte{{2, 0, 0, 0, 0, 9}}, Multicast: [][6]byte{{1, 0, 94, 0, 0, 1}}}
	rss := netspec.RSSConfig{HashTypes: netspec.HashIPv4, Table: make([]uint16, 128), MaxTx: 4, Key: make([]byte, netspec.KeySize)}
	hash := netspec.HashConfig{HashTypes: netspec.HashIPv4, Key: make([]byte, netspec.KeySize)}
	coalesce := netspec.Coalesce{MaxPackets: 4, MaxUsecs: 50}
	commands := []struct {
		name string
		do   func(n *NIC) error
		want error
	}{
		{"promiscuous", func(n *NIC) error { return n.SetPromiscuous(ctx, true) }, nil},
		{"all multicast", func(n *NIC) error { return n.SetAllMulticast(ctx, true) }, nil},
		{"no broadcast", func(n *NIC) error { return n.SetReceiveMode(ctx, netspec.RxNoBcast, false) }, nil},
		{"table", func(n *NIC) error { return n.SetMACTable(ctx, table) }, nil},
		{"address", func(n *NIC) error { return n.SetMAC(ctx, [6]byte{2, 0, 0, 0, 0, 8}) }, nil},
		{"address of a group", func(n *NIC) error { return n.SetMAC(ctx, [6]byte{1, 0, 0, 0, 0, 8}) }, ErrRefused},
		{"add VLAN", func(n *NIC) error { return n.AddVLAN(ctx, 100) }, nil},
		{"remove VLAN", func(n *NIC) error { return n.RemoveVLAN(ctx, 100) }, nil},
		{"no VLAN", func(n *NIC) error { return n.AddVLAN(ctx, 5000) }, ErrRefused},
		{"pairs", func(n *NIC) error { return n.SetPairs(ctx, 2) }, nil},
		{"no pairs", func(n *NIC) error { return n.SetPairs(ctx, 0) }, ErrInvalid},
		{"too many pairs", func(n *NIC) error { return n.SetPairs(ctx, 5) }, ErrInvalid},
		{"RSS", func(n *NIC) error { return n.SetRSS(ctx, rss) }, nil},
		{"hash", func(n *NIC) error { return n.SetHash(ctx, hash) }, nil},
		{"offloads", func(n *NIC) error { return n.SetOffloads(ctx, netspec.FeatureGuestCSUM) }, nil},
		{"offload that was not negotiated", func(n *NIC) error { return n.SetOffloads(ctx, netspec.FeatureGuestUFO) }, ErrRefused},
		{"coalescing", func(n *NIC) error { return n.SetCoalescing(ctx, true, coalesce) }, nil},
		{"coalescing of a queue", func(n *NIC) error {
			return n.SetQueueCoalescing(ctx, netspec.CoalesceVQ{Queue: 1, Coalesce: coalesce})
		}, nil},
		{"coalescing of a queue is read", func(n *NIC) error {
			got, err := n.QueueCoalescing(ctx, 1)
			if err == nil && got != coalesce {
				t.Errorf("coalescing is read as %v", got)
			}
			return err
		}, nil},
		{"coalescing of a queue that is not there", func(n *NIC) error { _, err := n.QueueCoalescing(ctx, 99); return err }, ErrRefused},
		{"promiscuous no more", func(n *NIC) error { return n.SetPromiscuous(ctx, false) }, nil},
	}
	for _, ring := range []uint64{0, spec.FeatureRingPacked} {
		n := m.open(t, Options{Pairs: 4, Features: AllFeatures&^spec.FeatureRingPacked | ring})
		for _, c := range commands {
			if err := c.do(n); !errors.Is(err, c.want) {
				t.Errorf("%s: %v", c.name, err)
			}
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for i := range 50 {
					if err := n.SetPromiscuous(ctx, i%2 == 0); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
		n.Close()
		m.checkFreed(t)
	}
	n := m.open(t, Options{Features: spec.FeatureVersion1})
	for _, c := range commands {
		if err := c.do(n); !errors.Is(err, ErrUnsupported) {
			t.Errorf("%s without a control queue: %v", c.name, err)
		}
	}
}

func TestSessionLoss(t *testing.T) {
	for name, use := range map[string]func(n *NIC, lose func()) error{
		"while polling": func(n *NIC, lose func()) error {
			lose()
			for frames := make([]*Buffer, 1); ; {
				if _, err := n.Queue(0).Recv(frames); err != nil {
					return err
				}
			}
		},
		"while reading": func(n *NIC, lose func()) error {
			lose()
			_, err := n.Queue(0).ReadFrame(context.Background(), make([]byte, 60))
			return err
		},
		"while writing": func(n *NIC, lose func()) error {
			lose()
			for {
				if err := n.Queue(0).WriteFrame(context.Background(), make([]byte, 60)); err != nil {
					return err
				}
			}
		},
		"in commands": func(n *NIC, lose func()) error {
			lose()
			for {
				if err := n.SetPromiscuous(context.Background(), true); err != nil {
					return err
				}
			}
		},
	} {
		for _, mode := range []transport.Doorbells{transport.Trap, transport.Mmap} {
			t.Run(name+", "+mode.String(), func(t *testing.T) {
				holdings.CheckLeaks(t)
				m := newMachine(t, device.Config{Doorbells: mode})
				n := m.open(t, Options{})
				var wg sync.WaitGroup
				err := use(n, func() { wg.Go(func() { m.endpoint.Close() }) })
				wg.Wait()
				if !errors.Is(err, client.ErrDisconnected) || !errors.Is(n.Err(), client.ErrDisconnected) {
					t.Error(err, n.Err())
				}
				if err := n.Close(); err != nil {
					t.Error(err)
				}
				m.checkFreed(t)
			})
		}
	}
}
