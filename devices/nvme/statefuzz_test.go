package nvme

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"maps"
	"reflect"
	"runtime/debug"
	"slices"
	"strconv"
	"testing"

	"vfiouser/devices/nvme/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/nvmemodel"
)

var stateConfig = nvmemodel.Config{Hosts: 1, Namespaces: []nvmemodel.Namespace{
	{ID: 1, Bytes: 16 << 10, BlockSize: 512}, {ID: 2, Bytes: 32 << 10, BlockSize: 4096},
}}

// richState is the state of a controller that has something of everything.
func richState(t testing.TB, memory *modelMemory) []byte {
	d := newModelDrive(t, modelRig{mode: Shadow}, []*modelMemory{memory}, stateConfig)
	defer d.close()
	h := d.hosts[0]
	d.CreateQueue(0, 0)
	d.CreateQueue(0, 2)
	data := make([]byte, 8*512)
	pattern(data, 5)
	var list []*nvmemodel.Command
	for _, e := range []spec.SubmissionEntry{
		rw(spec.NVMWrite, 1, 4, 8, 0, 0), rw(spec.NVMWriteUncorrectable, 1, 20, 3, 0, 0), rw(spec.NVMWriteUncorrectable, 2, 1, 1, 0, 0),
		{Opcode: spec.NVMReservationRegister, NSID: 1}, {Opcode: 0x7f, NSID: 1}, // which goes into the error log
	} {
		p := data
		if e.Opcode == spec.NVMReservationRegister {
			p = make([]byte, spec.ReservationKeysSize)
			(&spec.ReservationKeys{Other: 7}).Put(p)
		}
		list = append(list, &nvmemodel.Command{Entry: e, Data: p})
	}
	d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatHostIdentifier}, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	d.Start(0, 0, list)
	d.Wait(0)
	for _, e := range []spec.SubmissionEntry{
		{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatArbitration | spec.SetFeaturesSave, CDW11: 0x01020303},
		{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatErrorRecovery, NSID: 2, CDW11: 9},
		{Opcode: spec.AdminSetFeatures, CDW10: spec.FeatWriteProtect, NSID: 2, CDW11: spec.WriteProtectOn},
		{Opcode: spec.AdminSanitize, CDW10: 0x7},
	} {
		d.Admin(0, e, nil)
	}
	// One event is reported, the next of its kind waits until the log of the first is read, and so
	// does the request of the host.
	for range 2 {
		h.admin.submit(spec.SubmissionEntry{Opcode: spec.AdminAsyncEvent})
		d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminKeepAlive}, nil)
		h.write32(doorbellOffset+uint64(sqDoorbell(MaxQueues)), 1)
		d.Admin(0, spec.SubmissionEntry{Opcode: spec.AdminKeepAlive}, nil)
	}
	return h.saved()
}

// jsonNumber is a number near another one, or near what may be a limit.
func jsonNumber(s *choice.Source, near json.Number) any {
	n, err := strconv.ParseUint(near.String(), 10, 64)
	if how := s.Intn(4); err == nil && how < 3 {
		n += []uint64{1, ^uint64(0), 16}[how]
	} else {
		n = s.Edge(choice.Pick[uint64](s, 4, 64, 256, 4096, 1<<16, 1<<32))
	}
	return json.Number(strconv.FormatUint(n, 10))
}

// jsonValue makes up what may stand in a state instead of another value, mostly of its kind.
func jsonValue(s *choice.Source, instead any) any {
	if !s.Odds(8) {
		switch at := instead.(type) {
		case bool:
			return !at
		case string:
			return choice.Pick(s, "", "AAAA", "model", "123456789012345678901", "\x01", "////", at+at)
		case json.Number:
			return jsonNumber(s, at)
		}
	}
	return choice.Pick[any](s, nil, true, "AAAA", json.Number("1"), []any{}, []any{json.Number("1")}, map[string]any{}, json.Number("-1"))
}

// spoil changes one place of a state and returns it.
func spoil(s *choice.Source, at any) any {
	switch at := at.(type) {
	case map[string]any:
		if len(at) == 0 {
			break
		}
		keys := slices.Sorted(maps.Keys(at))
		key := keys[s.Intn(len(keys))]
		switch s.Intn(12) {
		case 0:
			delete(at, key)
		case 1:
			at[keys[s.Intn(len(keys))]] = at[key]
		default:
			at[key] = spoil(s, at[key])
		}
		return at
	case []any:
		if len(at) == 0 {
			break
		}
		i := s.Intn(len(at))
		switch s.Intn(8) {
		case 0:
			return append(at, at[i])
		case 1:
			return slices.Delete(at, i, i+1)
		case 2:
			return append(at[:i:i], append([]any{jsonValue(s, at[i])}, at[i:]...)...)
		}
		at[i] = spoil(s, at[i])
		return at
	}
	return jsonValue(s, at)
}

// spoilStream changes a stream in some places.
func spoilStream(t testing.TB, s *choice.Source, stream []byte) []byte {
	if s.Odds(8) { // bytes
		stream = slices.Clone(stream)
		for range 1 + s.Intn(8) {
			stream[s.Edge(uint64(len(stream)-1))%uint64(len(stream))] = s.Uint8()
		}
		return stream[:len(stream)-s.Intn(2)*s.Intn(len(stream))]
	}
	state, rest := split(t, stream)
	for range 1 + s.Intn(4) {
		state = spoil(s, state).(map[string]any)
	}
	return join(t, state, rest)
}

// arrival is a controller that a state comes to, with its data path held.
func arrival(t testing.TB, memory *modelMemory) (*modelDrive, *modelHost) {
	d := newModelDrive(t, modelRig{mode: Shadow}, []*modelMemory{memory}, stateConfig)
	d.s.selfTest.pace = 1
	d.hosts[0].lock(true)
	return d, d.hosts[0]
}

// steady is a state without what changes by itself.
func steady(t testing.TB, stream []byte) (state map[string]any, contents []byte) {
	state, contents = split(t, stream)
	delete(state["Features"].(map[string]any), "Timestamp")
	health := state["Health"].(map[string]any)
	delete(health, "Powered")
	delete(health, "Busy")
	return state, contents
}

// FuzzRestoredState gives a controller a hostile state. Either it is refused, or the controller has a state that can
// be saved and restored; in both cases it works.
//
//fuzz:covers devices/nvme/restore.go devices/nvme/migrate.go devices/nvme/state.go devices/nvme/contents.go devices/nvme/reservestate.go
func FuzzRestoredState(f *testing.F) {
	takeTurns(f)
	choice.Corpus(f, 200, 60)
	memory := newModelMemory(f)
	good := richState(f, memory)
	f.Fuzz(func(t *testing.T, b []byte) {
		defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
		stream := good
		if len(b) > 0 {
			stream = spoilStream(t, choice.FromBytes(b), good)
		}
		d, h := arrival(t, memory)
		defer d.close()
		err := h.load(stream)
		switch {
		case err == nil:
			plausible(t, h)
			if len(b) == 0 {
				unchanged(t, stream, h.saved())
			}
			resave(t, h, memory)
		case len(b) == 0:
			t.Fatal(err)
		case !errors.Is(err, ErrState) && !errors.Is(err, io.EOF):
			t.Fatalf("refused with %v", err)
		}
		h.lock(false)
		for range 20 { // whatever the queues are
			d.worker.poll()
		}
		if h.s.failure() != nil {
			t.Fatal(h.s.failure())
		}
		works(t, d)
	})
}

// plausible sees that no client can have brought a controller into another kind of state.
func plausible(t testing.TB, h *modelHost) {
	host := h.c.host
	for i := range host.cqs {
		q := host.cqs[i].Load()
		if q != nil && (q.head >= q.size || q.tail >= q.size || q.used != q.distance(q.head, q.tail)) {
			t.Fatalf("completion queue %d of %d entries: head %d, tail %d, %d used", i, q.size, q.head, q.tail, q.used)
		}
	}
	if n := len(host.aer.waiting); n > maxAsyncEvents {
		t.Fatalf("%d Asynchronous Event Requests wait", n)
	}
}

// resave moves a state on to another controller.
func resave(t testing.TB, h *modelHost, memory *modelMemory) {
	first := h.saved()
	d, next := arrival(t, memory)
	defer d.close()
	if err := next.load(first); err != nil {
		state, _ := split(t, first)
		t.Fatalf("a state that was saved is refused: %v\n%v", err, state)
	}
	unchanged(t, first, next.saved())
}

func unchanged(t testing.TB, before, after []byte) {
	t.Helper()
	a, rest := steady(t, before)
	b, next := steady(t, after)
	if !reflect.DeepEqual(a, b) {
		t.Fatalf("a state has changed on its way from\n%v to\n%v", a, b)
	}
	if !bytes.Equal(rest, next) {
		t.Fatal("contents have changed on their way")
	}
}

// works sees that a host can use the controller after a reset.
func works(t testing.TB, d *modelDrive) {
	h := d.hosts[0]
	d.Restart(0, nvmemodel.Reset)
	d.CreateQueue(0, 1)
	h.until("the end of a sanitize operation", func() bool {
		st := d.s.sanitize.get()
		return st.Status != spec.SanitizeRuns
	})
	for _, n := range h.c.active() {
		refused := n.refusal.Load() != 0 || n.info.ReadOnly || n.barred.Load() != 0
		data := make([]byte, 1<<n.shift)
		pattern(data, 9)
		write := &nvmemodel.Command{Entry: rw(spec.NVMWrite, n.id, 1, 1, 0, 0), Data: data}
		d.Start(0, 1, []*nvmemodel.Command{write})
		d.Wait(0)
		if !write.Status.OK() && !refused {
			t.Fatalf("namespace %d: write: %v", n.id, write.Status)
		}
		read := &nvmemodel.Command{Entry: rw(spec.NVMRead, n.id, 1, 1, 0, 0), Data: make([]byte, len(data))}
		d.Start(0, 1, []*nvmemodel.Command{read})
		d.Wait(0)
		if write.Status.OK() && (!read.Status.OK() || !bytes.Equal(read.Data, data)) {
			t.Fatalf("namespace %d: read: %v", n.id, read.Status)
		}
	}
}
