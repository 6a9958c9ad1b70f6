package engine

import (
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// memoryInUse is what the process holds after a collection, in bytes. Pools give up what
// earlier tests left in them at the second one.
func memoryInUse() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc + m.StackInuse)
}

// counted is a register that knows its device.
func counted(i int) Description {
	var desc Description
	desc.Regions[0] = Region{Size: 16, Read: func(_ uint64, p []byte) error { p[0], p[1] = byte(i), byte(i>>8); return nil }}
	return desc
}

// many starts n devices of an engine.
func many(t *testing.T, e *Engine, n int) []*bed {
	t.Helper()
	dir := t.TempDir()
	beds := make([]*bed, n)
	for i := range beds {
		b := &bed{t: t, engine: e, path: filepath.Join(dir, fmt.Sprint(i))}
		var err error
		if b.ep, err = e.Register(b.path, &plainDevice{desc: counted(i), sessions: make(chan *Session, 2)}); err != nil {
			t.Fatal(err)
		}
		if err := b.ep.Start(); err != nil {
			t.Fatal(err)
		}
		beds[i] = b
	}
	return beds
}

// A thousand devices in one process: each can be attached to while all others are, and all
// are driven by one goroutine.
func TestThousandDevices(t *testing.T) {
	const n = 1000
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < 4*n {
		t.Skipf("%d descriptors allowed, %d are needed, %v", limit.Cur, 4*n, err)
	}
	base := newBed(t, Config{})
	goroutines, memory := runtime.NumGoroutine(), memoryInUse()
	beds := many(t, base.engine, n)
	idle := memoryInUse()

	conns := make([]*raw, n)
	for round := range 2 { // the second client finds what the first has left
		for i, b := range beds {
			conns[i] = b.attach()
			if got := conns[i].ok(codec.CmdRegionRead, regionRead(0, 0, 2))[16:]; int(got[0])+int(got[1])<<8 != i {
				t.Fatalf("device %d says it is %v", i, got)
			}
		}
		if got := runtime.NumGoroutine(); got > goroutines {
			t.Errorf("%d goroutines, %d before there were devices", got, goroutines)
		}
		attached := memoryInUse()
		for i, b := range beds {
			if got := conns[i].ok(codec.CmdRegionRead, regionRead(0, 0, 2))[16:]; int(got[0])+int(got[1])<<8 != i {
				t.Fatalf("device %d says it is %v", i, got)
			}
			conns[i].close()
			b.settled()
		}
		t.Logf("round %d: %d bytes for an idle device, %d more for one with a client", round, (idle-memory)/n, (attached-idle)/n)
		if per := (idle - memory) / n; per > 32<<10 {
			t.Errorf("an idle device takes %d bytes", per)
		}
	}
	for _, b := range slices.Backward(beds) {
		if err := b.ep.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := len(base.engine.Endpoints()); got != 1 {
		t.Errorf("%d endpoints are left, want the one of before", got)
	}
}

// Eight clients on eight devices, each as quick as it can: when the slowest has made its
// round trips, none has made many times as many.
func TestEightClientsStarveNobody(t *testing.T) {
	const clients, trips, limit = 8, 2000, 8
	base := newBed(t, Config{})
	var made [clients]atomic.Int64
	var done atomic.Int32
	var wait sync.WaitGroup
	for i, b := range many(t, base.engine, clients) {
		conn := b.attach()
		wait.Go(func() {
			defer done.Store(clients) // also after a failure, which ends this goroutine alone
			for done.Load() < clients {
				conn.ok(codec.CmdRegionRead, regionRead(0, 0, 2))
				if made[i].Add(1) == trips {
					done.Add(1)
				}
			}
		})
	}
	wait.Wait()
	slowest, quickest := made[0].Load(), made[0].Load()
	for i := range made {
		slowest, quickest = min(slowest, made[i].Load()), max(quickest, made[i].Load())
	}
	t.Logf("round trips: %d to %d", slowest, quickest)
	if quickest > limit*slowest {
		t.Errorf("one client made %d round trips while another made %d", quickest, slowest)
	}
}

// A client that sends as much as it can, and reads no more than it must, does not keep
// the others waiting for good.
func TestFloodStarvesNobody(t *testing.T) {
	base := newBed(t, Config{})
	beds := many(t, base.engine, 8)
	flood := beds[0].attach()
	frames := slices.Repeat(flood.frame(codec.CmdRegionRead, 0, regionRead(0, 0, 2)), 1000)
	var stop atomic.Bool
	var wait sync.WaitGroup
	wait.Go(func() {
		for !stop.Load() {
			if _, err := unix.Write(flood.fd, frames); err != nil {
				return // shut down below
			}
		}
	})
	wait.Go(func() {
		var b [64 << 10]byte
		for !stop.Load() {
			if n, err := unix.Read(flood.fd, b[:]); n == 0 || err != nil && err != unix.EINTR {
				return
			}
		}
	})
	for _, b := range beds[1:] {
		conn := b.attach()
		for range 200 {
			conn.ok(codec.CmdRegionRead, regionRead(0, 0, 2))
		}
	}
	stop.Store(true)
	_ = unix.Shutdown(flood.fd, unix.SHUT_RDWR)
	wait.Wait()
}
