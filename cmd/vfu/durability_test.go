package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vfiouser/block"
	"vfiouser/client"
	"vfiouser/devices/nvme/spec"
	driver "vfiouser/drivers/nvme"
)

const (
	recordSize    = 4096
	recordsEach   = 24 // of one writer
	recordWriters = 6
	// killedAfter is the most commands that a server does before it is killed.
	killedAfter = 600
)

// durabilityRounds is how often the server is killed: the number in VFIOUSER_DURABILITY, else a
// few times. `make durability` does it 200 times.
func durabilityRounds(t *testing.T, few int) int {
	text := os.Getenv("VFIOUSER_DURABILITY")
	if text == "" {
		return few
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("VFIOUSER_DURABILITY=%q is no number of rounds", text)
	}
	return n
}

// record is what a test knows of a block that it writes again and again, each time with the next
// version, from 1 on. It begins as zeroes.
type record struct {
	tried    uint32 // version that was written last, whether or not that was acknowledged
	written  uint32 // version whose write was acknowledged
	promised uint32 // version that is durable, or a later one is

}

// fillRecord makes the content of a version.
func fillRecord(p []byte, place int, version uint32) {
	rng := rand.NewPCG(uint64(place), uint64(version))
	for at := 0; at < len(p); at += 8 {
		binary.LittleEndian.PutUint64(p[at:], rng.Uint64())
	}
	binary.LittleEndian.PutUint32(p, version)
	if version == 0 {
		clear(p)
	}
}

// writer writes its records on and on. Nobody else knows of its acknowledgements.
type writer struct {
	ns      *driver.Namespace
	rng     *rand.Rand
	first   int // record
	records []record
	buf     []byte
}

// run works until the server is gone, counting commands.
func (w *writer) run(t *testing.T, commands func()) {
	for {
		var err error
		switch choice := w.rng.IntN(10); {
		case choice == 0:
			err = w.flush(t)
		case choice < 4:
			err = w.write(t, true)
		default:
			err = w.write(t, false)
		}
		if err != nil {
			return
		}
		commands()
	}
}

func (w *writer) write(t *testing.T, durable bool) error {
	i := w.rng.IntN(len(w.records))
	r := &w.records[i]
	r.tried++
	fillRecord(w.buf, w.first+i, r.tried)
	off := int64(w.first+i) * recordSize
	var err error
	if durable {
		err = w.ns.WriteDurable(t.Context(), w.buf, off)
	} else {
		_, err = w.ns.WriteAt(w.buf, off)
	}
	if err != nil {
		return err
	}
	r.written = r.tried
	if durable {
		r.promised = r.tried
	}
	return nil
}

func (w *writer) flush(t *testing.T) error {
	err := w.ns.Flush(t.Context())
	if err == nil {
		for i := range w.records {
			w.records[i].promised = w.records[i].written
		}
	}
	return err
}

// verify looks at what is there after the server was killed: no version that is older than a
// promise, none that was never written, and whole. It returns how many acknowledged writes have gone.
func (w *writer) verify(t *testing.T, ns *driver.Namespace) (lost int) {
	got, want := make([]byte, recordSize), make([]byte, recordSize)
	for i := range w.records {
		r := &w.records[i]
		if _, err := ns.ReadAt(got, int64(w.first+i)*recordSize); err != nil {
			t.Fatal(err)
		}
		version := binary.LittleEndian.Uint32(got)
		if fillRecord(want, w.first+i, version); string(got) != string(want) {
			t.Fatalf("record %d: half of one version and half of another", w.first+i)
		}
		if version < r.promised || version > r.tried {
			t.Fatalf("record %d: version %d is there, %d is durable, up to %d were written", w.first+i, version, r.promised, r.tried)
		}
		if version < r.written {
			lost++
		}
		r.written, r.promised = version, version // it is in the file
	}
	return lost
}

// A client that was told that a flush is done, or a write with FUA, or any write while the
// volatile write cache is disabled, finds its data after SIGKILL of the server at a random moment.
func TestDurableAfterSIGKILL(t *testing.T) {
	for _, c := range []struct {
		name    string
		backend string
		cache   bool // volatile write cache of the drive
		lose    bool // acknowledged writes that were not flushed
	}{
		{"file", "file:%s", true, false}, // the kernel has what was written
		{"cache that is lost", "volatile,file:%s", true, true},
		{"cache of which a part is lost", "volatile:keep=50%%,file:%s", true, true},
		{"cache that is disabled", "volatile,file:%s", false, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			rounds := durabilityRounds(t, 6)
			seed := rand.Uint64()
			t.Logf("seed %d, %d rounds", seed, rounds)
			lost := killRounds(t, c.backend, c.cache, rounds, seed)
			t.Logf("%d writes that were acknowledged and not flushed are lost", lost)
			if c.lose != (lost > 0) {
				t.Errorf("%d lost", lost)
			}
		})
	}
}

// killRounds kills servers of one file, and returns how many acknowledged writes were lost.
func killRounds(t *testing.T, backend string, cache bool, rounds int, seed uint64) (lost int) {
	dir := t.TempDir()
	img, socket := filepath.Join(dir, "img"), filepath.Join(dir, "s")
	if err := os.WriteFile(img, make([]byte, recordWriters*recordsEach*recordSize), 0o600); err != nil {
		t.Fatal(err)
	}
	rng := rand.New(rand.NewPCG(seed, 0))
	var writers [recordWriters]*writer
	for i := range writers {
		writers[i] = &writer{rng: rand.New(rand.NewPCG(seed, uint64(i+1))), first: i * recordsEach,
			records: make([]record, recordsEach), buf: make([]byte, recordSize)}
	}
	for range rounds {
		released(t, img)
		cmd := command(t, "serve", "nvme", "--socket", socket, "--namespace", fmt.Sprintf(backend, img))
		serve(t, cmd)
		ns, detach := cachedDisk(t, socket, cache)
		for _, w := range writers {
			lost += w.verify(t, ns)
		}
		last := int64(1 + rng.IntN(killedAfter))
		var done atomic.Int64
		kill := func() {
			if done.Add(1) == last {
				_ = cmd.Process.Kill()
			}
		}
		var wg sync.WaitGroup
		for _, w := range writers {
			w.ns = ns
			if !cache {
				// Whatever was written is durable.
				wg.Go(func() { w.runThrough(t, kill) })
				continue
			}
			wg.Go(func() { w.run(t, kill) })
		}
		wg.Wait()
		_ = cmd.Wait()
		detach()
	}
	released(t, img)
	cmd := command(t, "serve", "nvme", "--socket", socket, "--namespace", fmt.Sprintf(backend, img))
	serve(t, cmd)
	ns, detach := cachedDisk(t, socket, cache)
	for _, w := range writers {
		lost += w.verify(t, ns)
	}
	detach()
	terminate(t, cmd)
	return lost
}

// released waits until nobody has a file locked. The kernel ends what a killed process had
// submitted to it a moment after the process.
func released(t *testing.T, path string) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(time.Millisecond) {
		b, err := block.Open("file:" + path)
		if err == nil {
			err = b.Close()
		}
		if err == nil {
			return
		}
		if !errors.Is(err, block.ErrInUse) || time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// runThrough is run with plain writes, each of which is a promise.
func (w *writer) runThrough(t *testing.T, commands func()) {
	for w.write(t, false) == nil {
		for i := range w.records {
			w.records[i].promised = w.records[i].written
		}
		commands()
	}
}

// cachedDisk is disk with the drive's volatile write cache on or off.
func cachedDisk(t *testing.T, socket string, cache bool) (ns *driver.Namespace, detach func()) {
	t.Helper()
	dev, err := client.Attach(t.Context(), socket)
	if err != nil {
		t.Fatal(err)
	}
	mem, err := client.NewMemory(8 << 20)
	if err != nil {
		t.Fatal(err)
	}
	ctrl, err := driver.Open(t.Context(), dev, mem)
	if err != nil {
		t.Fatal(err)
	}
	if !cache {
		if _, err := ctrl.SetFeature(t.Context(), spec.FeatVolatileWriteCache, 0, 0, nil); err != nil {
			t.Fatal(err)
		}
	}
	return ctrl.Namespace(1), func() { ctrl.Close(); dev.Close(); mem.Close() }
}
