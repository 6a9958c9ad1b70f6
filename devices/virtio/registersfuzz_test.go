package virtio

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"testing"

	"vfiouser/devices/virtio/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/irq"
)

const (
	fuzzQueues  = 3
	fuzzMaxSize = 64
	fuzzOffered = 1<<0 | 1<<5 | Features
	pickyBit    = 1 << 5 // which the device wants together with bit 0
)

// picky is a device that does not go on with some features.
type picky struct{ BaseDevice }

func (picky) StartQueue(int, *Queue)             {}
func (picky) StopQueue(int)                      {}
func (picky) CheckFeatures(accepted uint64) bool { return accepted&pickyBit == 0 || accepted&1 != 0 }

// FuzzRegisters is a driver that writes the common configuration in any order, also in widths and
// at places that mean nothing, while resets take their time. All registers are compared with a
// model after each write, and what the device is to become.
//
//fuzz:covers devices/virtio/registers.go devices/virtio/write.go
func FuzzRegisters(f *testing.F) {
	choice.Corpus(f, 200, 400)
	f.Fuzz(func(t *testing.T, program []byte) {
		fn, err := New(Config{Type: 42, Queues: fuzzQueues, QueueSize: fuzzMaxSize, Features: fuzzOffered}, picky{})
		if err != nil {
			t.Fatal(err)
		}
		set := irq.NewSet(irq.Config{Counts: [irq.NumIndexes]int{irq.INTx: 1, irq.MSIX: fuzzQueues + 1}})
		h := &host{f: fn, regs: newRegisters(&fn.cfg), wake: make(chan struct{}, 1)}
		h.config.init(fn)
		h.interrupts.init(set, fuzzQueues)
		fn.host.Store(h)
		m := &registerModel{t: t, src: choice.FromBytes(program), h: h}
		m.clear()
		for steps := 0; steps < 300 && m.src.More(); steps++ {
			m.step()
			m.compare()
		}
		set.Close()
	})
}

// A driver that has not started the device resets it, and again while the control goroutine
// follows: both resets are done at once, and nothing is left to wait for.
func TestResetWhileAnotherIsFollowed(t *testing.T) {
	r := newRegisters(&Config{Queues: 1, QueueSize: fuzzMaxSize})
	r.set(func(r *registers) { r.status = spec.StatusAcknowledge })
	r.reset()
	var w wanted
	r.want(&w)
	r.set(func(r *registers) { r.status = spec.StatusAcknowledge })
	if r.reset() {
		t.Error("the second reset has to be waited for")
	}
	r.resetDone(w.epoch)
	if status := r.shown(); status != 0 {
		t.Errorf("the status is %v after a reset", status)
	}
}

// registerModel is the registers as 4.1.4.3 describes them.
type registerModel struct {
	t   *testing.T
	src *choice.Source
	h   *host

	deviceSelect, driverSelect uint32
	features                   uint64
	status, old                uint8
	vector, selected           uint16
	queues                     [fuzzQueues]modelQueue
	ran, resetting             bool
	resets                     int     // of the device
	following                  *wanted // what the device is made to be now
	followed                   [1 + fuzzQueues]int
}

type modelQueue struct {
	size, vector  uint16
	on, resetting bool
	resets        int // since that of the device
	addresses     [3]uint64
}

func (m *registerModel) clear() {
	m.deviceSelect, m.driverSelect, m.features, m.status, m.vector, m.selected = 0, 0, 0, 0, 0xffff, 0
	for i := range m.queues {
		m.queues[i] = modelQueue{size: fuzzMaxSize, vector: 0xffff}
	}
}

func (m *registerModel) step() {
	src := m.src
	switch src.Intn(16) {
	case 0: // the device begins to follow, or has followed
		if m.following == nil {
			m.follow()
		} else {
			m.settle()
		}
		return
	case 1:
		m.drive()
		return
	case 2: // it cannot go on
		want := m.status&4 != 0 && m.status&0x40 == 0
		if got := m.h.regs.needsReset(m.h.regs.epoch); got != want {
			m.t.Fatalf("the driver is told that the device needs a reset: %v, want %v", got, want)
		}
		if want {
			m.status |= 0x40
		}
		return
	}
	off := choice.Pick[uint64](src, 0, 8, 12, 12, 16, 20, 20, 22, 22, 24, 26, 28, 28, 32, 40, 48, 36, 58, 58, uint64(src.Intn(70)))
	width := map[uint64]int{16: 2, 20: 1, 22: 2, 24: 2, 26: 2, 28: 2, 58: 2}[off]
	if width == 0 {
		width = 4
	}
	if off == 32 || off == 40 || off == 48 || src.Odds(16) {
		width = choice.Pick(src, 8, 4, 1, 2)
	}
	m.access(off, width, m.value(off))
}

// access is a write.
func (m *registerModel) access(off uint64, width int, v uint64) {
	p := binary.LittleEndian.AppendUint64(nil, v)[:width]
	if err := m.h.f.writeBAR(commonOffset+off, p); err != nil {
		m.t.Fatal(err)
	}
	if width == 8 && off >= 32 && off < 56 && off%8 == 0 {
		m.write(off, p[:4])
		m.write(off+4, p[4:])
	} else {
		m.write(off, p)
	}
}

// drive takes the steps of a driver, as many as it likes: the last one resets a queue.
func (m *registerModel) drive() {
	some, others := m.src.Uint64(), m.src.Uint64()
	features := (fuzzOffered&^(some&others) | 1<<32 | 1)
	steps := []func(){
		func() {
			m.access(8, 4, 0)
			m.access(12, 4, features&0xffffffff)
			m.access(8, 4, 1)
			m.access(12, 4, features>>32)
		},
		func() { m.access(20, 1, 3) }, func() { m.access(20, 1, 0xb) },
		func() { m.access(22, 2, uint64(m.src.Intn(fuzzQueues))); m.access(28, 2, 1) },
		func() { m.access(20, 1, 0xf) },
		func() { m.access(58, 2, 1) },
	}
	if m.src.Bool() {
		m.access(20, 1, 0)
	}
	for _, step := range steps[:1+m.src.Intn(len(steps))] {
		step()
	}
}

// value is what a driver writes there, or anything.
func (m *registerModel) value(off uint64) uint64 {
	src := m.src
	if src.Odds(12) {
		return src.Uint64()
	}
	switch off {
	case 0, 8:
		return uint64(src.Intn(3))
	case 12:
		offered, some, others := uint64(fuzzOffered), src.Uint64(), src.Uint64()
		return offered>>(32*(m.driverSelect&1))&^(some&others) | 1
	case 20:
		return uint64(choice.Pick[uint8](src, m.status|1, m.status|3, m.status|0xb, m.status|0xb, m.status|0xf, m.status|0xf, 0, 0xf, 0x80))
	case 24:
		return uint64(choice.Pick(src, 64, 32, 1, 3, 0, 65, 128))
	default:
		return uint64(src.Intn(5))
	}
}

// write does what the register says; where the width is another one it does nothing.
func (m *registerModel) write(off uint64, p []byte) {
	v := uint32(0)
	for i, b := range p {
		v |= uint32(b) << (8 * i)
	}
	q := &modelQueue{on: true} // that nothing changes
	if m.selected < fuzzQueues {
		q = &m.queues[m.selected]
	}
	featuresOK := m.status&8 != 0
	switch at := [2]uint64{off, uint64(len(p))}; at {
	case [2]uint64{0, 4}:
		m.deviceSelect = v
	case [2]uint64{8, 4}:
		m.driverSelect = v
	case [2]uint64{12, 4}:
		if shift := 32 * m.driverSelect; m.driverSelect < 2 && !featuresOK {
			m.features = m.features&^(0xffffffff<<shift) | uint64(v)<<shift
		}
	case [2]uint64{16, 2}:
		m.vector = knownVector(v)
	case [2]uint64{20, 1}:
		m.writeStatus(uint8(v))
	case [2]uint64{22, 2}:
		m.selected = uint16(v)
	case [2]uint64{24, 2}:
		packed := m.features&(1<<34) != 0
		if !q.on && v > 0 && v <= fuzzMaxSize && (packed || bits.OnesCount32(v) == 1) {
			q.size = uint16(v)
		}
	case [2]uint64{26, 2}:
		q.vector = knownVector(v)
	case [2]uint64{28, 2}:
		q.on = q.on || v == 1 && featuresOK && !q.resetting
	case [2]uint64{32, 4}, [2]uint64{36, 4}, [2]uint64{40, 4}, [2]uint64{44, 4}, [2]uint64{48, 4}, [2]uint64{52, 4}:
		if a, shift := &q.addresses[(off-32)/8], off%8*8; !q.on {
			*a = *a&^(0xffffffff<<shift) | uint64(v)<<shift
		}
	case [2]uint64{58, 2}:
		if v == 1 && featuresOK && m.features&(1<<40) != 0 {
			if q.on = false; q.resetting || m.ran {
				q.resetting = true
				q.resets++
			}
		}
	}
}

func knownVector(v uint32) uint16 {
	if v > fuzzQueues {
		return 0xffff
	}
	return uint16(v)
}

func (m *registerModel) writeStatus(v uint8) {
	if v == 0 {
		if m.status != 0 {
			m.old = m.status
		}
		m.clear()
		m.resetting = m.resetting || m.ran
		m.ran = false
		m.resets++
		return
	}
	const byDriver, versionOne = 0x8f, 1 << 32
	v = m.status | v&byDriver
	if m.features&^fuzzOffered != 0 || m.features&versionOne == 0 || m.features&(pickyBit|1) == pickyBit {
		v &^= 8 &^ m.status
	}
	if v&8 == 0 {
		v &^= 4 &^ m.status
	}
	m.status = v
	m.ran = m.ran || v&4 != 0
}

// follow begins with what the control goroutine does, and compares what it is told.
func (m *registerModel) follow() {
	var w wanted
	m.h.regs.want(&w)
	m.following, m.followed[0] = &w, m.resets
	if run := m.status&0x84 == 4; w.run != run || w.run && w.features != m.features {
		m.t.Fatalf("the device is to run: %v with %#x, want %v with %#x", w.run, w.features, run, m.features)
	}
	for i := range m.queues {
		q, got := &m.queues[i], &w.queues[i]
		if got.enabled != q.on || got.size != q.size || [3]uint64{got.desc, got.driver, got.device} != q.addresses {
			m.t.Fatalf("queue %d is to be %+v, want %+v", i, got, q)
		}
		m.followed[1+i] = q.resets
	}
}

// settle says that it is done. What was reset meanwhile is not.
func (m *registerModel) settle() {
	r, w := m.h.regs, m.following
	m.following = nil
	same := m.followed[0] == m.resets
	for i := range m.queues {
		r.queueResetDone(w.epoch, i, w.queues[i].resets)
		if q := &m.queues[i]; same && m.followed[1+i] == q.resets {
			q.resetting = false
		}
	}
	r.resetDone(w.epoch)
	if same {
		m.resetting = false
	}
}

// compare reads all registers.
func (m *registerModel) compare() {
	want, le := make([]byte, spec.CommonSize), binary.LittleEndian
	half := func(features uint64, selector uint32) uint32 {
		return [3]uint32{uint32(features), uint32(features >> 32), 0}[min(selector, 2)]
	}
	status := m.status
	if status == 0 && m.resetting {
		status = m.old
	}
	le.PutUint32(want[0:], m.deviceSelect)
	le.PutUint32(want[4:], half(fuzzOffered, m.deviceSelect))
	le.PutUint32(want[8:], m.driverSelect)
	le.PutUint32(want[12:], half(m.features, m.driverSelect))
	le.PutUint16(want[16:], m.vector)
	le.PutUint16(want[18:], fuzzQueues)
	want[20] = status
	le.PutUint16(want[22:], m.selected)
	le.PutUint16(want[26:], 0xffff)
	if m.selected < fuzzQueues {
		q := &m.queues[m.selected]
		le.PutUint16(want[24:], q.size)
		le.PutUint16(want[26:], q.vector)
		if q.on {
			want[28] = 1
		}
		le.PutUint16(want[30:], m.selected)
		for i, a := range q.addresses {
			le.PutUint64(want[32+8*i:], a)
		}
		if negotiated := m.status&8 != 0; negotiated && m.features&(1<<39) != 0 {
			le.PutUint16(want[56:], m.selected)
		}
		if q.resetting && m.status&8 != 0 && m.features&(1<<40) != 0 {
			want[58] = 1
		}
	}
	got := make([]byte, len(want))
	if err := m.h.f.readBAR(commonOffset, got); err != nil || !bytes.Equal(got, want) {
		m.t.Fatalf("registers\n% x, want\n% x (%v)", got, want, err)
	}
}
