package nvme

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/block"
	"vfiouser/devices/nvme/spec"
	"vfiouser/dma"
	"vfiouser/engine"
	"vfiouser/irq"
)

// saved is the state of a guest's controller, whose data path is held from then on.
func (g *guest) saved() []byte {
	g.t.Helper()
	g.lock(true)
	var stream bytes.Buffer
	if err := newMover(g.c.host).save(&stream); err != nil {
		g.t.Fatal(err)
	}
	return stream.Bytes()
}

// load loads a state into a guest's controller while its data path is held.
func (g *guest) load(stream []byte) error {
	return newMover(g.c.host).load(bytes.NewReader(stream))
}

// other attaches the same guest to another controller, as a client does that moves: the
// memory is the same, the session is another one. The old session ends.
func (g *guest) other(r rig) *guest {
	g.t.Helper()
	fd, err := unix.Dup(g.s.fd)
	if err != nil {
		g.t.Fatal(err)
	}
	c := newController(g.t, &r)
	d, err := c.Describe()
	if err != nil {
		g.t.Fatal(err)
	}
	e, err := engine.New(engine.Config{Workers: 2})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = e.Close() })
	n := *g
	n.c, n.byMsg = c, r.byMsg
	n.s = &fakeSession{table: dma.NewTable(dma.Config{}), irqs: irq.NewSet(irq.Config{Counts: d.IRQs}), ram: g.s.ram, fd: fd}
	n.s.ctx, n.s.cancel = context.WithCancelCause(context.Background())
	n.mapRAM(guestBase, guestSize, 0)
	if err := c.attach(n.s, func() worker { return e.PickWorker() }); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() {
		n.leave()
		_ = unix.Close(fd)
	})
	if n.admin != nil {
		admin := *n.admin
		admin.g, n.admin = &n, &admin
	}
	n.lock(true)
	return &n
}

// queue is a queue of the old controller as the driver goes on with it.
func (g *guest) queue(q *testQueue) *testQueue {
	n := *q
	n.g = g
	return &n
}

// move moves the guest to another controller of the same kind and lets it run there.
func (g *guest) move(r rig) *guest {
	g.t.Helper()
	stream := g.saved()
	n := g.other(r)
	if err := n.load(stream); err != nil {
		g.t.Fatal(err)
	}
	g.leave()
	n.lock(false)
	return n
}

func pattern(p []byte, seed byte) {
	for i := range p {
		p[i] = byte(i>>8) ^ byte(i) ^ seed
	}
}

// A controller with commands in flight, outstanding events and changed features goes on
// elsewhere as if nothing had happened, whatever its doorbells and its memory are.
func TestMove(t *testing.T) {
	for _, r := range []rig{
		{mode: Trap}, {mode: Shadow}, {mode: Mmap},
		{mode: Trap, byMsg: true}, {mode: Shadow, byMsg: true}, {mode: Mmap, byMsg: true},
	} {
		for _, dbbuf := range []bool{false, true} {
			if dbbuf && r.mode != Shadow {
				continue
			}
			t.Run(fmt.Sprintf("%v, by message %v, shadow doorbells %v", r.mode, r.byMsg, dbbuf), func(t *testing.T) {
				testMove(t, r, dbbuf)
			})
		}
	}
}

func testMove(t *testing.T, r rig, dbbuf bool) {
	g := newGuest(t, r)
	g.enable()
	if dbbuf {
		g.useDBBUF()
	}
	q := g.createQueue(1, 64)
	idle := g.createQueue(2, 4)
	data := g.alloc(1)
	pattern(g.bytes(data, pageSize), 1)
	if st := q.status(rw(spec.NVMWrite, 1, 100, 8, data, 0)); !st.OK() {
		t.Fatal(st)
	}
	g.must(spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatInterruptCoalescing, CDW11: 0x1234})
	event := g.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
	serial := g.identifyController().Serial
	var cids []uint16
	for i := range 40 { // as many as are there when the path is held
		cids = append(cids, q.submit(rw(spec.NVMWrite, 1, uint64(200+8*i), 8, data, 0)))
	}

	n := g.move(r)
	q, idle = n.queue(q), n.queue(idle)
	for _, cid := range cids {
		if st := q.result(cid).Status; !st.OK() {
			t.Fatalf("command %d: %v", cid, st)
		}
	}
	for _, lba := range []uint64{100, 200, 200 + 8*39} {
		back := n.alloc(1)
		if st := q.status(rw(spec.NVMRead, 1, lba, 8, back, 0)); !st.OK() {
			t.Fatal(st)
		}
		if !bytes.Equal(n.bytes(back, pageSize), n.bytes(data, pageSize)) {
			t.Errorf("block %d has other contents", lba)
		}
	}
	if st := idle.status(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1}); !st.OK() {
		t.Errorf("the other queue: %v", st)
	}
	if v := n.must(spec.SubmissionEntry{Opcode: spec.AdminGetFeatures, CDW10: spec.FeatInterruptCoalescing}).DW0; v != 0x1234 {
		t.Errorf("interrupt coalescing is %#x", v)
	}
	if got := n.identifyController().Serial; got != serial {
		t.Errorf("serial number %q, was %q", got, serial)
	}
	if r.mode != Mmap {
		n.write32(doorbellOffset+uint64(sqDoorbell(9)), 1) // of a queue that does not exist
		if c := n.admin.result(event); !c.Status.OK() {
			t.Errorf("the event that was asked for before the move: %v", c.Status)
		}
	}
	n.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteSQ, CDW10: 1})
	n.must(spec.SubmissionEntry{Opcode: spec.AdminDeleteCQ, CDW10: 1})
}

func (g *guest) identifyController() *spec.IdentifyController {
	g.t.Helper()
	at := g.alloc(1)
	g.must(spec.SubmissionEntry{Opcode: spec.AdminIdentify, PRP1: at, CDW10: spec.CNSController})
	id := new(spec.IdentifyController)
	id.Get(g.bytes(at, pageSize))
	return id
}

// Completions that found no room in their queue before the move are posted after it.
func TestMoveWithoutRoomForCompletions(t *testing.T) {
	for _, byMsg := range []bool{false, true} {
		t.Run(fmt.Sprintf("by message %v", byMsg), func(t *testing.T) {
			slow := holding(memory(t, 1<<20))
			g := newGuest(t, rig{mode: Trap, byMsg: byMsg, backends: []block.Backend{slow}})
			g.enable()
			q := g.newQueue(1, 16)
			g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateCQ, PRP1: q.cq, CDW10: 1 | 3<<16, CDW11: 3 | 1<<16})
			g.must(spec.SubmissionEntry{Opcode: spec.AdminCreateSQ, PRP1: q.sq, CDW10: 1 | 15<<16, CDW11: 1 | 1<<16})
			var cids []uint16
			for range 10 {
				cids = append(cids, q.submit(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1}))
			}
			g.until("ten flushes", func() bool { return slow.held() == 10 })
			slow.release()
			third := g.bytes(q.cq+2*spec.CompletionEntrySize, spec.CompletionEntrySize)
			g.until("three completions", func() bool { return dma.Load32(third, 12)>>16&1 == 1 }) // the phase
			stream := g.saved()
			state, _ := split(t, stream)
			cq := state["CQs"].([]any)[0].(map[string]any)
			if waiting, _ := cq["Waiting"].([]any); len(waiting) != 7 {
				t.Errorf("%d completions wait for room, want 7: a queue of 4 entries has room for 3", len(waiting))
			}
			after := holding(memory(t, 1<<20))
			after.hold.Store(false)
			n := g.other(rig{mode: Trap, byMsg: byMsg, backends: []block.Backend{after}})
			if err := n.load(stream); err != nil {
				t.Fatal(err)
			}
			g.leave()
			n.lock(false)
			q = n.queue(q)
			done := &testQueue{g: n, id: 1, size: 4, cq: q.cq, phase: true, completed: q.completed}
			for _, cid := range cids {
				if st := done.result(cid).Status; !st.OK() {
					t.Fatal(st)
				}
			}
		})
	}
}

// What was posted and not consumed before the move interrupts once more after it.
func TestMoveRaisesInterrupts(t *testing.T) {
	r := rig{mode: Trap}
	g := newGuest(t, r)
	g.enable()
	q := g.createQueue(1, 16)
	cid := q.submit(spec.SubmissionEntry{Opcode: spec.NVMFlush, NSID: 1})
	g.until("a completion", func() bool { return dma.Load64(g.bytes(q.cq, 16), 8)&phaseTag != 0 })
	stream := g.saved()
	n := g.other(r)
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	mine, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	if err := n.s.irqs.SetEventfds(irq.MSIX, 1, []int{mine}); err != nil {
		t.Fatal(err)
	}
	n.c.update(engine.UpdateInterrupts)
	if err := n.load(stream); err != nil {
		t.Fatal(err)
	}
	g.leave()
	n.lock(false)
	var b [8]byte
	n.until("the interrupt", func() bool { k, _ := unix.Read(fd, b[:]); return k == 8 })
	if st := n.queue(q).result(cid).Status; !st.OK() {
		t.Error(st)
	}
}

// A disabled controller moves as well, and is enabled on the other side.
func TestMoveBeforeEnable(t *testing.T) {
	g := newGuest(t, rig{})
	g.write32(spec.RegAQA, uint32(spec.NewAQA(7, 7)))
	n := g.move(rig{})
	if got := n.read32(spec.RegAQA); got != uint32(spec.NewAQA(7, 7)) {
		t.Errorf("AQA %#x", got)
	}
	n.enable()
	n.identifyController()
}

// The contents of memory travel; what was in the destination's does not survive.
func TestMoveTakesPrivateContents(t *testing.T) {
	from, to := memory(t, 5<<20), memory(t, 5<<20)
	page := make([]byte, pageSize)
	pattern(page, 7)
	write := func(b block.Backend, off int64) {
		t.Helper()
		if _, err := b.Submit(&block.Request{Op: block.Write, Offset: off, Length: pageSize, Buffers: [][]byte{page}}); err != nil {
			t.Fatal(err)
		}
	}
	write(from, 0)
	write(from, 3<<20+pageSize)
	write(from, 5<<20-pageSize)
	write(to, 2<<20)
	g := newGuest(t, rig{backends: []block.Backend{from}})
	stream := g.saved()
	if len(stream) > 4<<20 {
		t.Errorf("a stream of %d bytes for three pages", len(stream))
	}
	n := g.other(rig{backends: []block.Backend{to}})
	if err := n.load(stream); err != nil {
		t.Fatal(err)
	}
	read := func(b block.Backend) []byte {
		p := make([]byte, 5<<20)
		if _, err := b.Submit(&block.Request{Op: block.Read, Length: int64(len(p)), Buffers: [][]byte{p}}); err != nil {
			t.Fatal(err)
		}
		return p
	}
	if !bytes.Equal(read(from), read(to)) {
		t.Error("the contents differ")
	}
}

// split takes a stream apart into its state and the rest.
func split(t testing.TB, stream []byte) (state map[string]any, rest []byte) {
	n := binary.LittleEndian.Uint32(stream)
	d := json.NewDecoder(bytes.NewReader(stream[4 : 4+n]))
	d.UseNumber()
	if err := d.Decode(&state); err != nil {
		t.Fatal(err)
	}
	return state, stream[4+n:]
}

func join(t testing.TB, state any, rest []byte) []byte {
	text, err := json.Marshal(state)
	if err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	_ = writeChunk(&b, text)
	return append(b.Bytes(), rest...)
}

// enter follows a path of names and places into a state and replaces what is there.
func enter(at any, path []any, v any) {
	for ; len(path) > 1; path = path[1:] {
		switch k := path[0].(type) {
		case string:
			at = at.(map[string]any)[k]
		case int:
			at = at.([]any)[k]
		}
	}
	switch k := path[0].(type) {
	case string:
		at.(map[string]any)[k] = v
	case int:
		at.([]any)[k] = v
	}
}

// A state that this controller could not be in is refused, and what the controller is
// stays as it was.
func TestImpossibleStatesAreRefused(t *testing.T) {
	r := rig{mode: Shadow, queues: 4}
	g := newGuest(t, r)
	g.enable()
	g.useDBBUF()
	g.createQueue(1, 16)
	g.createQueue(2, 16)
	stream := g.saved()
	for _, tt := range []struct {
		name string
		path []any
		v    any
	}{
		{"another number of queues", []any{"Drive", "Queues"}, 5},
		{"larger queues", []any{"Drive", "QueueEntries"}, 8192},
		{"another largest transfer", []any{"Drive", "MaxTransfer"}, 4096},
		{"no shadow doorbells", []any{"Drive", "Shadow"}, false},
		{"no namespaces", []any{"Drive", "Namespaces"}, []any{}},
		{"a larger namespace", []any{"Drive", "Namespaces", 0, "Blocks"}, 1 << 40},
		{"another block size", []any{"Drive", "Namespaces", 0, "BlockSize"}, 4096},
		{"a long serial number", []any{"Drive", "Serial"}, "123456789012345678901"},
		{"a model that cannot be printed", []any{"Drive", "Model"}, "\x01"},
		{"few doorbells", []any{"Doorbells"}, []int{1}},
		{"a small error log", []any{"Health", "Entries"}, []byte{1}},
		{"an unknown feature", []any{"Features", "Values"}, []valueState{{ID: 200}}},
		{"a feature twice", []any{"Features", "Saved"}, []valueState{{ID: spec.FeatWriteAtomicity}, {ID: spec.FeatWriteAtomicity}}},
		{"a saved feature that cannot be saved", []any{"Features", "Saved"}, []valueState{{ID: spec.FeatKeepAlive, Number: 100}}},
		{"a vector beyond the last, configured", []any{"Features", "Values"}, []valueState{{ID: spec.FeatInterruptVector, Part: 5, Number: 5}}},
		{"an impossible threshold", []any{"Features", "Values"}, []valueState{{ID: spec.FeatTemperature, Part: 3}}},
		{"a feature of no namespace", []any{"Features", "Values"}, []valueState{{ID: spec.FeatErrorRecovery, Part: 2}}},
		{"reserved bits of a feature", []any{"Features", "Saved"}, []valueState{{ID: spec.FeatWriteAtomicity, Number: 2}}},
		{"a power state beyond the last", []any{"Features", "Values"}, []valueState{{ID: spec.FeatPowerManagement, Number: 31}}},
		{"a short data structure", []any{"Features", "Values"}, []valueState{{ID: spec.FeatAutonomousPower, Data: []byte{1}}}},
		{"a timestamp beyond 48 bits", []any{"Features", "Timestamp"}, uint64(1) << 48},
		{"a firmware slot that is empty", []any{"Slots", "Active"}, 2},
		{"half a firmware image", []any{"Download"}, map[string]any{"Image": []byte{1}}},
		{"a self-test of a reserved kind", []any{"SelfTest", "Code"}, 9},
		{"a sanitize operation in no state", []any{"Sanitize", "Status"}, 7},
		{"a sanitize operation that does nothing", []any{"Sanitize"}, map[string]int{"Status": 2}},
		{"a sanitize operation that is not offered", []any{"Sanitize"}, map[string]int{"Status": 2, "CDW10": 4}},
		{"write protection that is not possible", []any{"Protection"}, map[string]int{"1": 4}},
		{"a persistent event of no type", []any{"Journal"}, []map[string]int{{"Type": 255}}},
		{"telemetry without its data", []any{"Telemetry", "Host"}, map[string]any{"Areas": []int{1, 2, 3}}},
		{"power for less than nothing", []any{"Health", "Powered"}, -1},
		{"many events", []any{"Events", "Waiting"}, []int{1, 2, 3, 4, 5}},
		{"an unknown event", []any{"Events", "Raised"}, 1 << 20},
		{"queues of a controller that is not ready", []any{"Registers", "CSTS"}, 0},
		{"queues of a controller that is not enabled", []any{"Registers", "CC"}, 0x460000},
		{"a page size that is not offered", []any{"Registers", "CC"}, 1<<7 | 1},
		{"an admin queue that is not aligned", []any{"Registers", "ASQ"}, 1},
		{"no admin queue", []any{"Admin"}, nil},
		{"an admin queue with another number", []any{"Admin", "SQ", "ID"}, 1},
		{"an admin queue without entries", []any{"Admin", "CQ", "Size"}, 0},
		{"an admin queue of 2^32 entries", []any{"Admin", "SQ", "Size"}, uint64(1)<<32 - 1},
		{"an admin head behind the end", []any{"Admin", "SQ", "Head"}, 32},
		{"shadow doorbells that are not aligned", []any{"Shadow", "Doorbells"}, 12},
		{"a priority that there is not", []any{"SQs", 0, "Priority"}, 4},
		{"an admin queue with a priority", []any{"Admin", "SQ", "Priority"}, 1},
		{"a completion queue with number 0", []any{"CQs", 0, "ID"}, 0},
		{"a completion queue twice", []any{"CQs", 0, "ID"}, 2},
		{"a completion queue beyond the last", []any{"CQs", 0, "ID"}, 5},
		{"a vector beyond the last", []any{"CQs", 0, "Vector"}, 5},
		{"a completion queue of 1 entry", []any{"CQs", 0, "Size"}, 1},
		{"a completion queue that is not aligned", []any{"CQs", 0, "Base"}, 16},
		{"a head behind the end", []any{"CQs", 0, "Head"}, 16},
		{"a tail behind the end", []any{"CQs", 0, "Tail"}, 16},
		{"more entries in use than lie between head and tail", []any{"CQs", 0, "Used"}, 3},
		{"a completion of a queue that does not exist", []any{"CQs", 0, "Waiting"}, []any{map[string]int{"SQ": 3}}},
		{"a completion of another queue's command", []any{"CQs", 0, "Waiting"}, []any{map[string]int{"SQ": 2}}},
		{"more completions than commands", []any{"CQs", 0, "Waiting"}, slices.Repeat([]any{map[string]int{"SQ": 1}}, 17)},
		{"a submission queue with number 0", []any{"SQs", 0, "ID"}, 0},
		{"a submission queue twice", []any{"SQs", 1, "ID"}, 1},
		{"a submission queue without its completion queue", []any{"SQs", 0, "CQ"}, 3},
		{"a submission queue on the admin queue", []any{"SQs", 0, "CQ"}, 0},
		{"a submission queue of 4,097 entries", []any{"SQs", 0, "Size"}, 4097},
		{"a submission head behind the end", []any{"SQs", 0, "Head"}, 16},
		{"a submission queue that is not aligned", []any{"SQs", 0, "Base"}, 1},
		{"uncorrectable blocks beyond the capacity", []any{"Uncorrectable"}, [][]uint64{{1 << 60, 1}}},
		{"a number that does not fit", []any{"SQs", 0, "Base"}, -1},
		{"something else", []any{"Drive"}, "disk"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			state, rest := split(t, stream)
			enter(state, tt.path, tt.v)
			if err := g.load(join(t, state, rest)); !errors.Is(err, ErrState) {
				t.Errorf("got %v, want ErrState", err)
			}
		})
	}
	g.lock(false)
	g.identifyController()
}

func TestDamagedStreamsAreRefused(t *testing.T) {
	g := newGuest(t, rig{backends: []block.Backend{memory(t, 4<<20)}})
	g.lock(true)
	for _, tt := range []struct {
		name   string
		stream func(whole []byte) []byte
	}{
		{"nothing", func([]byte) []byte { return nil }},
		{"half a size", func(b []byte) []byte { return b[:2] }},
		{"half a state", func(b []byte) []byte { return b[:len(b)/2] }},
		{"no contents", func(b []byte) []byte { return b[:len(b)-4] }},
		{"a state of 4 GiB", func([]byte) []byte { return []byte{0xff, 0xff, 0xff, 0xff} }},
		{"no JSON", func([]byte) []byte { return append([]byte{4, 0, 0, 0}, "nvme"...) }},
		{"contents behind the end", func(b []byte) []byte {
			return contents(b, 4<<20, make([]byte, 512))
		}},
		{"contents at an offset that overflows", func(b []byte) []byte {
			return contents(b, 1<<63, make([]byte, 512))
		}},
		{"contents that go backwards", func(b []byte) []byte {
			return contents(contents(b, 4096, make([]byte, 512)), 0, make([]byte, 512))
		}},
		{"contents without data", func(b []byte) []byte { return contents(b, 0, nil) }},
		{"contents of too many bytes", func(b []byte) []byte {
			return contents(b, 0, make([]byte, contentsSize+1))
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := g.load(tt.stream(g.saved())); !errors.Is(err, ErrState) {
				t.Errorf("got %v, want ErrState", err)
			}
		})
	}
	g.lock(false)
	g.enable()
	g.identifyController()
}

// contents puts a chunk before the last, empty one of a stream.
func contents(stream []byte, off uint64, data []byte) []byte {
	b := bytes.NewBuffer(slices.Clone(stream[:len(stream)-4]))
	_ = writeChunk(b, append(binary.LittleEndian.AppendUint64(nil, off), data...))
	_ = writeChunk(b, nil)
	return b.Bytes()
}

// countedBackend is memory of this process that tells of each request.
type countedBackend struct {
	block.Backend
	before func(*block.Request)
}

func (b *countedBackend) Submit(r *block.Request) (bool, error) {
	b.before(r)
	return b.Backend.Submit(r)
}

// Contents of zeroes write nothing to the stream, which would tell that nobody wants it.
func TestSavingEndsWithTheSession(t *testing.T) {
	reads := 0
	b := &countedBackend{Backend: memory(t, 64<<20)}
	g := newGuest(t, rig{backends: []block.Backend{b}})
	g.lock(true)
	b.before = func(r *block.Request) {
		if reads++; reads == 3 {
			g.s.cancel(errors.New("the client has gone"))
		}
	}
	if err := newMover(g.c.host).save(io.Discard); err == nil {
		t.Error("all was saved for a client that has gone")
	}
	if reads != 3 {
		t.Errorf("%d reads, the client was gone at the third", reads)
	}
}

// A state takes memory in proportion to what it says, not to how it is written.
func TestStatesOfManyQueuesTakeNoMemory(t *testing.T) {
	g := newGuest(t, rig{})
	g.lock(true)
	for _, queue := range []string{"{},", "null,"} {
		text := `{"CQs":[` + strings.Repeat(queue, 7<<20/len(queue)) + `{}]}`
		stream := append(binary.LittleEndian.AppendUint32(nil, uint32(len(text))), text...)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if err := g.load(stream); !errors.Is(err, ErrState) {
			t.Errorf("%s got %v, want ErrState", queue, err)
		}
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; n > 64<<20 {
			t.Errorf("%s %d MiB for a state of %d", queue, n>>20, len(text)>>20)
		}
	}
}

// A defect in the controller's methods costs the client its session.
func TestPanicWhileTheStateIsMoved(t *testing.T) {
	g := newGuest(t, rig{})
	g.lock(true)
	if err := g.c.host.call(func() error { panic("defect") }); err == nil {
		t.Error("no error")
	}
	if g.s.failure() == nil {
		t.Error("the session goes on")
	}
}
