package fuzz

import (
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/engine/reactor"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/internal/stacks"
	"vfiouser/test/holdings"
)

// engines are two servers of the same kind of device, and what a client needs.
type engines struct {
	devices [2]*echo
	paths   [2]string
	loop    *reactor.Reactor
	held    held
}

func newEngines(t testing.TB) *engines {
	t.Helper()
	e := &engines{}
	var err error
	if e.loop, err = reactor.New(reactor.Config{}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { e.loop.Close() })
	dir := t.TempDir()
	for i := range e.devices {
		eng, err := engine.New(engine.Config{Workers: 1, WriteMultiple: true, WriteTimeout: engineTimeout, DMATimeout: engineTimeout})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { eng.Close() })
		e.devices[i] = newEcho()
		e.paths[i] = filepath.Join(dir, string(rune('a'+i)))
		ep, err := eng.Register(e.paths[i], e.devices[i])
		if err == nil {
			err = ep.Start()
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	return e
}

// world is a client and its device, and a model of what they have to be.
type world struct {
	*engines
	t    tester
	s    *choice.Source
	ctx  *pace
	twin bool

	now int // which device it is
	dev *client.Device
	mem *client.Memory
	fds [echoVectors]*client.Eventfd

	page    [4096]byte // of the device
	ram     []byte     // memory
	maps    []mapped
	vectors [echoVectors]vector
	logged  []codec.IOVARange // nil: writes are not logged
	dirty   map[uint64]bool   // pages, by their addresses
	log     trace
}

// vector is a model of an interrupt.
type vector struct {
	assigned, masked, pending bool
	signals                   uint64
}

const (
	worldRAM   = 16 << 12
	worldSteps = 80
)

// FuzzEngines has the client library and the engine do the same as a model of them.
//
//fuzz:covers engine client dma irq
func FuzzEngines(f *testing.F) {
	e := newEngines(f)
	choice.Corpus(f, 12, 400)
	f.Fuzz(func(t *testing.T, input []byte) { e.run(t, choice.FromBytes(input)) })
}

// run is one program.
func (e *engines) run(t tester, s *choice.Source) {
	e.held.before(t)
	w := &world{engines: e, t: t, s: s, ctx: newPace(defaultHang), ram: make([]byte, worldRAM), twin: s.Bool()}
	defer func() {
		w.close()
		w.ctx.stop()
		e.held.after(t, leakAfter, &w.log)
	}()
	w.begin()
	begin := time.Now()
	for n := 0; s.More() && (s.Seeded() || n < worldSteps && time.Since(begin) < longLife); n++ {
		worldOps[s.Intn(len(worldOps))](w)
	}
	w.compare()
}

func (w *world) begin() {
	var err error
	if w.mem, err = client.NewMemory(worldRAM); err != nil {
		w.t.Fatal(err)
	}
	for i := range w.fds {
		if w.fds[i], err = client.NewEventfd(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.dev = w.attach(w.now)
	w.must("reset", w.dev.Reset(w.ctx))
}

func (w *world) attach(i int) *client.Device {
	options := []client.Option{client.WithReactor(w.loop), client.WithReattach()}
	if w.twin {
		options = append(options, client.WithTwinSocket())
	}
	d, err := client.Attach(w.ctx, w.paths[i], options...)
	if err != nil {
		w.t.Fatalf("attach: %v\n%s", err, &w.log)
	}
	return d
}

func (w *world) close() {
	if w.dev != nil {
		_ = w.dev.Close()
	}
	for _, e := range w.fds {
		if e != nil {
			_ = e.Close()
		}
	}
	if w.mem != nil {
		_ = w.mem.Close()
	}
}

func (w *world) fail(format string, args ...any) {
	w.t.Helper()
	w.log.note(format, args...)
	w.t.Fatalf("%s", &w.log)
}

// ended notes a call that has ended, and fails if it came to no end.
func (w *world) ended(what string, err error) {
	w.t.Helper()
	w.log.note("%s: %v", what, err)
	if w.ctx.hangs() {
		w.fail("it has taken %v; goroutines:\n%s", defaultHang, stacks.All())
	}
	w.ctx.step()
}

// must fails if a call failed.
func (w *world) must(what string, err error) {
	w.t.Helper()
	w.ended(what, err)
	if err != nil {
		w.fail("that had to succeed")
	}
}

// agree fails if a call did not succeed or fail as the model has it.
func (w *world) agree(what string, err error, want bool) {
	w.t.Helper()
	w.ended(what, err)
	if (err == nil) != want || errors.Is(err, client.ErrProtocol) || errors.Is(err, client.ErrDisconnected) {
		w.fail("success is %v in the model", want)
	}
}

var worldOps = [...]func(w *world){
	(*world).writeRegion, (*world).readRegion, (*world).writeMulti, (*world).mapMemory, (*world).mapMemory, (*world).unmap,
	(*world).store, (*world).deviceReads, (*world).deviceWrites, (*world).deviceWrites, (*world).deviceTriggers,
	(*world).assign, (*world).unassign, (*world).mask, (*world).unmask, (*world).clientTriggers, (*world).disable,
	(*world).startLogging, (*world).stopLogging, (*world).reportDirty, (*world).unmapDirty, (*world).reset, (*world).migrate,
	(*world).reattach, (*world).compare, (*world).unmapAll,
}

// compare looks at everything that can be seen.
func (w *world) compare() {
	var page [4096]byte
	w.must("read the page", w.dev.ReadRegion(w.ctx, 0, 0, page[:]))
	if page != w.page {
		w.fail("the page differs: %s", difference(page[:], w.page[:]))
	}
	if got := w.mem.Bytes(); string(got) != string(w.ram) {
		w.fail("memory differs: %s", difference(got, w.ram))
	}
	for i := range w.fds {
		if got := w.fds[i].Poll(); got != w.vectors[i].signals {
			w.fail("vector %d has come %d times, not %d: %+v", i, got, w.vectors[i].signals, w.vectors[i])
		}
		w.vectors[i].signals = 0
	}
}

func difference(got, want []byte) string {
	for i := range want {
		if got[i] != want[i] {
			end := min(i+16, len(want))
			return fmt.Sprintf("at %#x there is %x, not %x", i, got[i:end], want[i:end])
		}
	}
	return "no difference"
}

func (w *world) writeRegion() {
	off, n := w.span(4096)
	data := w.s.Bytes(n)
	if off == echoDo && n == 16 {
		return // see do
	}
	var err error
	if w.s.Odds(4) && off+uint64(n) <= 4096 {
		err = w.dev.PostRegion(w.ctx, 0, off, data)
	} else {
		err = w.dev.WriteRegion(w.ctx, 0, off, data)
	}
	inside := off+uint64(n) <= 4096
	w.agree("write", err, inside)
	if inside {
		copy(w.page[off:], data)
	}
}

// span chooses a part of something, mostly inside.
func (w *world) span(size uint64) (off uint64, n int) {
	off = uint64(w.s.Uint16()) % size
	n = 1 + w.s.Intn(64)
	if !w.s.Odds(16) {
		off = min(off, size-uint64(n))
	}
	return off, n
}

func (w *world) readRegion() {
	off, n := w.span(4096)
	p := make([]byte, n)
	inside := off+uint64(n) <= 4096
	w.agree("read", w.dev.ReadRegion(w.ctx, 0, off, p), inside)
	if inside && string(p) != string(w.page[off:off+uint64(n)]) {
		w.fail("%x at %#x, want %x", p, off, w.page[off:off+uint64(n)])
	}
}

func (w *world) writeMulti() {
	var writes []client.Write
	want := 0
	refused := false
	for range w.s.Intn(6) {
		data := w.s.Bytes(1 << w.s.Intn(4))
		off := uint64(w.s.Uint16()) % 4080
		if w.s.Odds(16) {
			off = 4095
		}
		writes = append(writes, client.Write{Offset: off, Data: data})
		refused = refused || off+uint64(len(data)) > 4096
		if !refused {
			want++
			copy(w.page[off:], data)
		}
	}
	n, err := w.dev.WriteMulti(w.ctx, writes...)
	w.agree("write several", err, !refused)
	if n != want {
		w.fail("%d writes were done, not %d", n, want)
	}
}

// do has the device do something, and waits for its end.
func (w *world) do(what, vector byte, addr uint64, n int) error {
	b := binary.LittleEndian.AppendUint64(nil, addr)
	b = append(binary.LittleEndian.AppendUint16(b, uint16(n)), what, vector, 0, 0, 0, 0)
	copy(w.page[echoDo:], b)
	w.must("do", w.dev.WriteRegion(w.ctx, 0, echoDo, b))
	err, ok := await(defaultHang, w.devices[w.now].done)
	if !ok {
		w.fail("the device does not come to an end; goroutines:\n%s", stacks.All())
	}
	return err
}

// TestEngines is FuzzEngines with programs that are drawn from seeds.
func TestEngines(t *testing.T) {
	holdings.CheckLeaks(t)
	e := newEngines(t)
	choice.Programs(t, 20, worldSteps, func(t *testing.T, s *choice.Source) { e.run(t, s) })
}
