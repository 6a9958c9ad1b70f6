package virtionet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/link/vnet"
)

// FuzzReceive has frames arrive, complete ones and such of which something is left to be done, for a
// driver that gives buffers of any size, some at a time. A model says which buffers each takes, what
// is written to them, and what is dropped or has to wait. What a frame is made of that the driver
// cannot finish itself is Scratch.Lower's, which has a target of its own.
//
//fuzz:covers devices/virtio-net/deliver.go devices/virtio-net/lower.go
func FuzzReceive(f *testing.F) {
	choice.Corpus(f, 300, 400)
	ring := newFuzzRing(f)
	f.Fuzz(func(t *testing.T, program []byte) {
		src := choice.FromBytes(program)
		q := ring.begin(t)
		defer ring.reader.Exit()
		m := &receiveModel{t: t, src: src, ring: ring, rx: &fuzzPair(t, &fuzzWire{}).rx}
		features := choice.Pick(src, 0, src.Uint64(), ^uint64(0))
		m.rx.q, m.rx.inUse, m.rx.can = q, true, guestOffloads(features)
		m.rx.mergeable, m.rx.header = src.Bool(), choice.Pick(src, spec.HeaderSize, spec.HeaderSizeHash)
		m.rx.longest = choice.Pick(src, vnet.MaxFrame, 1514, 500)
		for steps := 0; steps < 100 && src.More(); steps++ {
			switch src.Intn(8) {
			case 0, 1, 2:
				m.arrive()
			case 3, 4, 5:
				m.give()
			default:
				m.deliver()
			}
		}
		m.deliver()
	})
}

// receiveModel is frames that have arrived, and buffers that were given.
type receiveModel struct {
	t       *testing.T
	src     *choice.Source
	ring    *fuzzRing
	rx      *receiver
	waiting []incoming
	begun   int    // segments of the first frame that were delivered
	number  uint32 // of the next frame
	tooLong uint64
}

// incoming is a frame as it arrives, and those that it is for the driver.
type incoming struct {
	frame   vnet.Frame
	report  spec.HashReport
	results []wireFrame
	tooLong bool
}

// arrive has a frame come, which is put into the buffers later.
func (m *receiveModel) arrive() {
	src := m.src
	if len(m.waiting) >= 40 {
		return
	}
	m.number++
	in := incoming{report: spec.HashReport{Value: m.number, Report: spec.ReportTCPv4}}
	var data []byte
	h := vnet.Header{}
	switch src.Intn(6) {
	case 0:
		data, h = segments(src.Intn(4000)), segmentHeader(uint16(50+src.Intn(1500)))
		if src.Odds(12) {
			data = segments(60_000)
		}
	case 1:
		data, h = segments(src.Intn(1500)), vnet.Header{Flags: vnet.FlagNeedsChecksum, ChecksumStart: 34, ChecksumOffset: 16}
	case 2:
		data, h = segments(src.Intn(1500)), vnet.Header{Flags: vnet.FlagDataValid}
	case 3:
		data = packet{vlan: 5, payload: 1480 + src.Intn(30)}.frame()
	default:
		n := choice.Pick(src, src.Intn(300), src.Intn(1700), 1500, 1501, 1518-etherSize)
		if src.Odds(20) {
			n = 60_000
		}
		data = packet{payload: n}.frame()
	}
	if len(data) >= 58 {
		binary.BigEndian.PutUint32(data[54:], m.number)
	}
	in.frame = cut(data, sizesOf(src, len(data))...)
	in.frame.Header = h
	m.finish(&in)
	m.waiting = append(m.waiting, in)
}

// finish says what a frame is for the driver, and whether it is too long for it.
func (m *receiveModel) finish(in *incoming) {
	var s vnet.Scratch
	s.Lower(&in.frame, m.rx.can, func(frames []vnet.Frame) bool {
		for i := range frames {
			in.results = append(in.results, wireFrame{frames[i].Header, bytes.Join(frames[i].Parts, nil)})
		}
		return true
	})
	if len(in.results) == 0 {
		m.t.Fatalf("%+v of %d bytes cannot be finished", in.frame.Header, in.frame.Len)
	}
	if first := in.results[0]; first.header.GSOType == vnet.GSONone {
		longest := m.rx.longest
		if string(first.data[12:14]) == "\x81\x00" {
			longest += 4
		}
		in.tooLong = len(first.data) > longest
	}
}

// give adds buffers.
func (m *receiveModel) give() {
	for range 1 + m.src.Intn(6) {
		n := choice.Pick(m.src, 2048, 1500, 20+m.src.Intn(400), 66_000)
		m.ring.offer(true, sizesOf(m.src, n)...)
	}
}

// deliver delivers what waits, as far as it finds buffers.
func (m *receiveModel) deliver() {
	var frames []vnet.Frame
	var reports []spec.HashReport
	for i := range m.waiting {
		frames, reports = append(frames, m.waiting[i].frame), append(reports, m.waiting[i].report)
	}
	if m.rx.header == spec.HeaderSize || m.src.Odds(4) {
		reports = nil
	}
	want := m.place(reports != nil)
	n := m.rx.deliver(frames, reports)
	m.rx.q.Publish()
	if n != want.taken {
		m.t.Fatalf("%d of %d frames are taken, want %d", n, len(frames), want.taken)
	}
	m.waiting = m.waiting[n:]
	chains, written := m.ring.reap()
	if len(chains) != len(want.written) {
		m.t.Fatalf("%d buffers are used, want %d", len(chains), len(want.written))
	}
	for i, c := range chains {
		got := bytes.Join(c.parts, nil)
		if written[i] != len(want.written[i]) {
			m.t.Fatalf("%d bytes of a buffer are used, want %d", written[i], len(want.written[i]))
		}
		rest := bytes.Repeat([]byte{fuzzUntouched}, len(got)-written[i])
		if !bytes.Equal(got, append(want.written[i], rest...)) {
			m.t.Fatalf("a buffer has % x, want % x", clip(got), clip(want.written[i]))
		}
	}
	if got := m.rx.stats.tooLong.Load(); got != m.tooLong {
		m.t.Fatalf("%d frames are too long, want %d", got, m.tooLong)
	}
	if starved := want.taken < len(frames); starved && !m.rx.starved.Load() {
		m.t.Fatal("the driver is not asked for buffers")
	}
}

// placed is what a delivery does.
type placed struct {
	taken   int
	written [][]byte // by buffer
}

// place puts the frames that wait into the buffers that there are.
func (m *receiveModel) place(reported bool) (p placed) {
	free := m.ring.chains
	for ; p.taken < len(m.waiting); p.taken++ {
		in := &m.waiting[p.taken]
		if in.tooLong {
			m.tooLong++
			continue
		}
		for _, r := range in.results[m.begun:] {
			if len(free) == 0 {
				return p
			}
			m.begun++
			all := make([]byte, m.rx.header)
			if reported {
				in.report.Put(all[spec.HeaderSize:])
			}
			all = append(all, r.data...)
			count, room := 0, 0
			for room < len(all) && count < len(free) && (count == 0 || m.rx.mergeable) {
				room += free[count].bytes
				count++
			}
			if room < len(all) {
				m.tooLong++
				continue
			}
			r.header.Put(all, uint16(count))
			for _, c := range free[:count] {
				k := min(len(all), c.bytes)
				p.written = append(p.written, all[:k:k])
				all = all[k:]
			}
			free = free[count:]
		}
		m.begun = 0
	}
	return p
}
