package virtionet

import (
	"errors"
	"math/rand/v2"
	"runtime"
	"sync"
	"testing"

	"vfiouser/client"
	device "vfiouser/devices/virtio-net"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
	"vfiouser/drivers/virtio"
	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/vnet"

	transport "vfiouser/devices/virtio"
	"vfiouser/test/holdings"
)

// TestLoop sends frames of random sizes through a card whose link gives them back, with every combination of the features of rings and
// receive buffers.
func TestLoop(t *testing.T) {
	holdings.CheckLeaks(t)
	frames := 1000
	if testing.Short() {
		frames = 200
	}
	bits := []struct {
		name    string
		feature uint64
	}{
		{"packed", spec.FeatureRingPacked}, {"indirect", spec.FeatureIndirectDesc}, {"eventidx", spec.FeatureEventIdx},
		{"inorder", spec.FeatureInOrder}, {"data", spec.FeatureNotificationData}, {"mergeable", netspec.FeatureMrgRxBuf},
	}
	for _, doorbells := range []transport.Doorbells{transport.Trap, transport.Mmap} {
		m := newMachine(t, device.Config{MTU: 9000, Doorbells: doorbells})
		for set := range 1 << len(bits) {
			features, name := uint64(spec.FeatureVersion1)|netspec.FeatureMTU, doorbells.String()
			for i, b := range bits {
				if set>>i&1 != 0 {
					features |= b.feature
					name += "," + b.name
				}
			}
			t.Run(name, func(t *testing.T) {
				n := m.open(t, Options{Features: features, QueueSize: 64})
				if n.Features() != features {
					t.Errorf("features %#x", n.Features())
				}
				x := exchange{q: n.Queue(0), rng: rand.New(rand.NewPCG(1, uint64(set))), longest: 9014, frames: frames, batch: 8}
				x.run(t)
				if err := n.Close(); err != nil {
					t.Error(err)
				}
				m.checkFreed(t)
			})
		}
	}
}

// TestLargeFrames sends frames of up to 64 KiB, which the device may deliver as they are: in merged buffers, or in large ones.
func TestLargeFrames(t *testing.T) {
	for name, o := range map[string]Options{
		"merged":                {Features: netspec.FeatureMrgRxBuf, QueueSize: 64},
		"merged, packed":        {Features: netspec.FeatureMrgRxBuf | spec.FeatureRingPacked, QueueSize: 256},
		"merged, indirect":      {Features: netspec.FeatureMrgRxBuf | spec.FeatureIndirectDesc | spec.FeatureEventIdx, QueueSize: 64},
		"large":                 {BufferSize: maxBufferSize, QueueSize: 64},
		"large, in order":       {BufferSize: maxBufferSize, QueueSize: 64, Features: spec.FeatureInOrder},
		"merged, hash reported": {Features: netspec.FeatureMrgRxBuf | netspec.FeatureHashReport | netspec.FeatureCtrlVQ},
	} {
		t.Run(name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			m := newMachine(t, device.Config{})
			o.Features |= spec.FeatureVersion1
			n := m.open(t, o)
			x := exchange{q: n.Queue(0), rng: rand.New(rand.NewPCG(1, 2)), longest: vnet.MaxFrame, frames: 300, batch: 4}
			x.run(t)
			if s := n.Queue(0).Stats(); s.Sent != 300 || s.Received != 300 || s.SentBytes != s.ReceivedBytes {
				t.Errorf("%+v", s)
			}
		})
	}
}

func TestSeveralPairs(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{Pairs: 4})
	for _, pairs := range []int{4, 2, 9} {
		n := m.open(t, Options{Pairs: pairs, QueueSize: 64})
		if n.Pairs() != min(pairs, 4) || n.MaxPairs() != 4 {
			t.Fatal(n.Pairs(), n.MaxPairs())
		}
		var wg sync.WaitGroup
		for i := range n.Pairs() {
			wg.Go(func() {
				x := exchange{q: n.Queue(i), rng: rand.New(rand.NewPCG(1, uint64(i))), longest: 1514, frames: 2000, batch: 8}
				x.run(t)
			})
		}
		wg.Wait()
		if err := n.Close(); err != nil {
			t.Error(err)
		}
	}
}

// TestHalves has one goroutine send and another receive on the same pair, with calls that wait.
func TestHalves(t *testing.T) {
	for name, features := range map[string]uint64{"split": DefaultFeatures &^ spec.FeatureRingPacked, "packed": DefaultFeatures, "least": spec.FeatureVersion1} {
		t.Run(name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			m := newMachine(t, device.Config{})
			n := m.open(t, Options{Features: features, QueueSize: 64})
			q := n.Queue(0)
			const frames = 3000
			size := func(i int) int { return leastFrame + i%1455 }
			var wg sync.WaitGroup
			wg.Go(func() {
				p := make([]byte, 1514)
				for i := range frames {
					fill(p[:size(i)], i)
					if err := q.WriteFrame(testContext(t), p[:size(i)]); err != nil {
						t.Error(err)
						return
					}
				}
			})
			got, want := make([]byte, 1514), make([]byte, 1514)
			for i := range frames {
				k, err := q.ReadFrame(testContext(t), got)
				if err != nil {
					t.Fatal(err)
				}
				fill(want[:size(i)], i)
				if k != size(i) || string(got[:k]) != string(want[:k]) {
					t.Fatalf("frame %d: %d bytes, want %d", i, k, size(i))
				}
			}
			wg.Wait()
		})
	}
}

func TestReadAndWriteFrames(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{})
	n := m.open(t, Options{QueueSize: 64})
	q, p := n.Queue(0), make([]byte, vnet.MaxFrame)
	for _, size := range []int{leastFrame, 2036, 2037, 4096, vnet.MaxFrame} {
		fill(p[:size], size)
		if err := q.WriteFrame(testContext(t), p[:size]); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, size)
		if k, err := q.ReadFrame(testContext(t), got); err != nil || k != size || string(got) != string(p[:size]) {
			t.Errorf("%d bytes: %d, %v", size, k, err)
		}
		if err := q.WriteFrame(testContext(t), p[:size]); err != nil {
			t.Fatal(err)
		}
		if _, err := q.ReadFrame(testContext(t), got[:size-1]); !errors.Is(err, ErrSize) {
			t.Error(err)
		}
	}
	if err := q.WriteFrame(testContext(t), make([]byte, vnet.MaxFrame+1)); !errors.Is(err, ErrSize) {
		t.Error(err)
	}
}

// TestForwarding sends what was received without a copy.
func TestForwarding(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{})
	q := m.open(t, Options{QueueSize: 64}).Queue(0)
	p := make([]byte, 5000)
	fill(p, 1)
	if err := q.WriteFrame(testContext(t), p); err != nil {
		t.Fatal(err)
	}
	frames := make([]*Buffer, 1)
	for range 500 {
		for {
			k, err := q.Recv(frames)
			if err != nil {
				t.Fatal(err)
			}
			if k == 1 {
				break
			}
			if err := q.WaitRecv(testContext(t)); err != nil {
				t.Fatal(err)
			}
		}
		if frames[0].Len() != len(p) {
			t.Fatal(frames[0].Len())
		}
		if k, err := q.Send(frames); k != 1 || err != nil {
			t.Fatal(k, err)
		}
	}
	got := make([]byte, len(p))
	if k, err := q.ReadFrame(testContext(t), got); err != nil || k != len(p) || string(got) != string(p) {
		t.Error(k, err)
	}
}

func TestQueueReset(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{})
	for _, packed := range []uint64{0, spec.FeatureRingPacked} {
		n := m.open(t, Options{QueueSize: 64, Features: DefaultFeatures&^spec.FeatureRingPacked | packed})
		q, p := n.Queue(0), make([]byte, 1000)
		for round := range 20 {
			fill(p, round)
			// Frames are under way in both directions, and some are the program's.
			for range 40 {
				if err := q.WriteFrame(testContext(t), p); err != nil {
					t.Fatal(err)
				}
			}
			held := make([]*Buffer, 3)
			if _, err := q.Recv(held); err != nil {
				t.Fatal(err)
			}
			if err := q.Reset(testContext(t)); err != nil {
				t.Fatal(err)
			}
			x := exchange{q: q, rng: rand.New(rand.NewPCG(1, 2)), longest: 1514, frames: 100, batch: 8}
			x.run(t)
		}
		n.Close()
	}
	q := m.open(t, Options{Features: spec.FeatureVersion1}).Queue(0)
	if err := q.Reset(testContext(t)); !errors.Is(err, ErrUnsupported) {
		t.Error(err)
	}
}

// TestMemoryChangesUnderTraffic maps and unmaps other memory, for which the device holds its queues.
func TestMemoryChangesUnderTraffic(t *testing.T) {
	holdings.CheckLeaks(t)
	m := newMachine(t, device.Config{})
	q := m.open(t, Options{QueueSize: 64}).Queue(0)
	other, err := client.NewMemory(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if err := errors.Join(m.dev.MapDMA(testContext(t), other.At(1<<40)), m.dev.UnmapDMA(testContext(t), 1<<40, other.Size())); err != nil {
				t.Error(err)
				return
			}
		}
	})
	x := exchange{q: q, rng: rand.New(rand.NewPCG(1, 2)), longest: 1514, frames: 5000, batch: 16}
	x.run(t)
	close(stop)
	wg.Wait()
}

// TestNotificationsOnlyWhenNeeded: while the device is awake it wants none.
func TestNotificationsOnlyWhenNeeded(t *testing.T) {
	for name, features := range map[string]uint64{
		"split": spec.FeatureEventIdx, "packed": spec.FeatureEventIdx | spec.FeatureRingPacked, "flags": 0, "packed, flags": spec.FeatureRingPacked,
	} {
		t.Run(name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			eng, err := engine.New(engine.Config{SpinTime: testTimeout})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { eng.Close() })
			m := serve(t, eng, device.Config{Link: link.Loop()})
			q := m.open(t, Options{Features: spec.FeatureVersion1 | features, Notify: virtio.Trap}).Queue(0)
			const rounds, batch = 1000, 16
			round(t, q, make([]*Buffer, batch), rounds)
			// With indexes, the device's is passed by chance once in 65,536 chains.
			if s := q.Stats(); s.Sent != rounds*batch || s.Received != s.Sent || s.Notifications > 10 {
				t.Errorf("%+v in %d rounds", s, rounds)
			}
		})
	}
}

// TestPathAllocatesNothing counts what the whole process allocates, the device's side included.
func TestPathAllocatesNothing(t *testing.T) {
	for name, features := range map[string]uint64{"split": DefaultFeatures &^ spec.FeatureRingPacked, "packed": DefaultFeatures} {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t, device.Config{Doorbells: transport.Mmap})
			q := m.open(t, Options{Features: features}).Queue(0)
			frames := make([]*Buffer, 32)
			round(t, q, frames, 100) // once through all buffers
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			const rounds = 1000
			round(t, q, frames, rounds)
			runtime.ReadMemStats(&after)
			// The runtime's own goroutines allocate now and then.
			if n := after.Mallocs - before.Mallocs; n > rounds/100 {
				t.Errorf("%d allocations in %d frames both ways", n, rounds*len(frames))
			}
		})
	}
}

// round sends as many short frames as there is room for in frames through a loop, again and again.
func round(t testing.TB, q *Queue, frames []*Buffer, times int) {
	t.Helper()
	for range times {
		for sent := 0; sent < len(frames); {
			k, err := q.Alloc(frames[:len(frames)-sent])
			for _, b := range frames[:k] {
				fill(b.Room()[:64], 0)
				b.SetLen(64)
			}
			if err == nil {
				_, err = q.Send(frames[:k])
			}
			if err != nil {
				t.Fatal(err)
			}
			sent += k
		}
		for got := 0; got < len(frames); {
			k, err := q.Recv(frames)
			if err == nil {
				err = q.Release(frames[:k])
			}
			if err != nil {
				t.Fatal(err)
			}
			got += k
		}
	}
}
