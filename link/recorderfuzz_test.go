package link_test

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"vfiouser/fuzz/choice"
	"vfiouser/link"
	"vfiouser/link/linktest"
	"vfiouser/link/vnet"
)

// FuzzRecorder has cards send and receive over a link that takes as many frames as it likes. The
// file, as readCapture reads it, has every frame that was offered or received, once, in order; but
// for those that found no room, which are counted.
//
//fuzz:covers link/recorder.go link/pcapng.go link/tape.go
func FuzzRecorder(f *testing.F) {
	choice.Corpus(f, 100, 400)
	path := filepath.Join(f.TempDir(), "record")
	f.Fuzz(func(t *testing.T, program []byte) {
		src := choice.FromBytes(program[:min(len(program), 4000)])
		m := &recorderModel{t: t, src: src, begin: time.Now()}
		m.name = strings.Repeat(choice.Pick(src, "lan", "é", "\xff", ""), choice.Pick(src, 1, 1, 100, 1+src.Intn(70_000)))
		m.snap, m.buffer = choice.Pick(src, 0, 1+src.Intn(200), 1, 1<<20), choice.Pick(src, 1<<20, 1<<16, 1+src.Intn(9000), 1)
		var err error
		m.rec, err = link.Record(m, path, link.RecordOptions{
			Name: m.name, Snap: m.snap, Buffer: m.buffer, Logger: slog.New(slog.DiscardHandler)})
		must(t, err)
		m.attach()
		for steps := 0; steps < 100 && src.More(); steps++ {
			m.step()
		}
		m.end(path)
	})
}

// recorderModel is the link that is recorded, what is behind its cards, and what is to be in the
// file.
type recorderModel struct {
	t            *testing.T
	src          *choice.Source
	begin        time.Time
	name         string
	snap, buffer int
	rec          *link.Recorder
	cards        []*recordedModelCard // nil for those that were refused
	want         []recorded
	seq, bytes   int
	takes        int // frames that the link takes next
}

// recordedModelCard is a card, as itself and as the recorded link knows it.
type recordedModelCard struct {
	linktest.Card
	port    link.Port
	inner   link.Card
	waiting map[int][]*waitingFrame // by queue: those that were refused come first
}

type waitingFrame struct {
	linktest.Frame
	recorded bool
}

// Attach takes a card, or does not.
func (m *recorderModel) Attach(c link.Card) (link.Port, error) {
	if len(m.cards) > 0 && m.src.Odds(4) {
		return nil, link.ErrBusy
	}
	m.cards[len(m.cards)-1].inner = c
	return modelPort{m}, nil
}

// Close closes nothing.
func (m *recorderModel) Close() error { return nil }

// modelPort takes as many frames as the model says.
type modelPort struct{ m *recorderModel }

func (p modelPort) Send(_ int, frames []vnet.Frame) int { return min(p.m.takes, len(frames)) }
func (modelPort) Poll(int) int                          { return 0 }
func (modelPort) Arm(int) bool                          { return false }
func (modelPort) SetOffloads(vnet.Offloads, int)        {}
func (modelPort) Close() error                          { return nil }

func (m *recorderModel) attach() {
	c := &recordedModelCard{waiting: map[int][]*waitingFrame{}}
	m.cards = append(m.cards, c)
	port, err := m.rec.Attach(c)
	if c.port = port; (err == nil) != (c.inner != nil) {
		m.t.Fatalf("Attach: %v", err)
	}
}

func (m *recorderModel) step() {
	c := m.cards[m.src.Intn(len(m.cards))]
	if c.port == nil {
		return
	}
	q := choice.Pick(m.src, 0, 0, 1, link.MaxPairs-1)
	switch m.src.Intn(16) {
	case 0:
		if len(m.cards) < 4 {
			m.attach()
		}
	case 1: // the driver goes, and with it what waits
		c.port.SetOffloads(vnet.OffloadNone, 0)
		clear(c.waiting)
	case 2, 3, 4, 5:
		m.receive(c, q)
	default:
		m.send(c, q)
	}
}

// send offers frames, behind those that were refused before.
func (m *recorderModel) send(c *recordedModelCard, q int) {
	for range m.src.Intn(5) {
		c.waiting[q] = append(c.waiting[q], &waitingFrame{Frame: m.frame()})
	}
	offered := c.waiting[q][:m.src.Intn(len(c.waiting[q])+1)]
	if m.src.Odds(4) {
		offered = c.waiting[q]
	}
	if len(offered) == 0 {
		return
	}
	var frames []vnet.Frame
	for _, w := range offered {
		frames = append(frames, m.cut(w.Frame))
		if !w.recorded {
			w.recorded = true
			m.expect(c, w.Frame, true)
		}
	}
	m.takes = m.src.Intn(len(frames) + 1)
	if m.src.Bool() {
		m.takes = len(frames)
	}
	if n := c.port.Send(q, frames); n != m.takes {
		m.t.Fatalf("%d of %d frames were taken, the link took %d", n, len(frames), m.takes)
	}
	c.waiting[q] = c.waiting[q][m.takes:]
}

// receive has the link hand over frames, of which the card takes some.
func (m *recorderModel) receive(c *recordedModelCard, q int) {
	var frames []vnet.Frame
	takes := m.src.Intn(4)
	for i := range 1 + m.src.Intn(4) {
		f := m.frame()
		frames = append(frames, m.cut(f))
		if i < takes {
			m.expect(c, f, false)
		}
	}
	takes = min(takes, len(frames))
	c.OnReceive = func(int, []vnet.Frame) int { return takes }
	if n := c.inner.Receive(q, frames); n != takes {
		m.t.Fatalf("%d frames were received, the card took %d", n, takes)
	}
}

// frame makes one that is like no other if it is long enough.
func (m *recorderModel) frame() linktest.Frame {
	m.seq++
	n := 14 + m.src.Intn(300)
	if m.src.Odds(16) {
		n = int(m.src.Edge(vnet.MaxFrame) % (vnet.MaxFrame + 1))
	}
	f := linktest.Frame{Data: make([]byte, n)}
	for i := range f.Data {
		f.Data[i] = byte(m.seq>>(8*(i%3)) + i/3)
	}
	if m.src.Odds(3) {
		f.Header = vnet.Header{Flags: m.src.Uint8(), GSOType: choice.Pick(m.src, 0, 1, 5, m.src.Uint8()), GSOSize: m.src.Uint16()}
	}
	return f
}

// cut hands a frame over in parts.
func (m *recorderModel) cut(f linktest.Frame) vnet.Frame {
	cut := vnet.Frame{Header: f.Header, Len: len(f.Data)}
	rest := f.Data
	for range m.src.Intn(3) {
		n := m.src.Intn(min(len(rest), 200) + 1)
		cut.Parts = append(cut.Parts, rest[:n])
		rest = rest[n:]
	}
	cut.Parts = append(cut.Parts, rest)
	return cut
}

func (m *recorderModel) expect(c *recordedModelCard, f linktest.Frame, outbound bool) {
	r := recorded{iface: uint32(slices.Index(m.cards, c)), length: len(f.Data), outbound: outbound, data: f.Data}
	if m.snap > 0 {
		r.data = f.Data[:min(m.snap, len(f.Data))]
	}
	if h := f.Header; h.Flags&1 != 0 || h.GSOType != 0 {
		r.comment = "checksum not filled in"
		if h.GSOType != 0 {
			r.comment += fmt.Sprintf(", segments of %d", h.GSOSize)
		}
	}
	m.want = append(m.want, r)
	m.bytes += 120 + len(r.data)
}

// end closes the recorder and reads the file.
func (m *recorderModel) end(path string) {
	must(m.t, m.rec.Close())
	end := time.Now()
	c := readCapture(m.t, path)
	if len(c.interfaces) != len(m.cards) || len(c.taken) != len(m.cards) {
		m.t.Fatalf("%d interfaces and %d of their statistics for %d cards", len(c.interfaces), len(c.taken), len(m.cards))
	}
	for i, name := range c.interfaces {
		if !utf8.ValidString(name) || name == "" || slices.Contains(c.interfaces[:i], name) {
			m.t.Fatalf("interface %d is called %q", i, name)
		}
		if whole := len(m.name) < 100 && m.name != "" && utf8.ValidString(m.name); whole && !strings.HasPrefix(name, m.name) {
			m.t.Fatalf("interface %d is called %q, its link %q", i, name, m.name)
		}
		if want := min(cmp.Or(m.snap, vnet.MaxFrame), vnet.MaxFrame); int(c.snaps[i]) != want {
			m.t.Fatalf("%d bytes of a frame are said to be recorded, want %d", c.snaps[i], want)
		}
	}
	lost := make([]uint64, len(m.cards))
	taken := make([]uint64, len(m.cards))
	rest := c.frames
	for _, w := range m.want {
		taken[w.iface]++
		if len(rest) == 0 || !w.is(rest[0]) {
			lost[w.iface]++
			continue
		}
		if when := rest[0].when; when.Before(m.begin) || when.After(end) {
			m.t.Fatalf("a frame at %v, not between %v and %v", when, m.begin, end)
		}
		rest = rest[1:]
	}
	if len(rest) > 0 {
		m.t.Fatalf("the file has %d frames; %d of them, from %+v on, are not those that came by: %+v", len(c.frames), len(rest), rest[0], m.want)
	}
	if !slices.Equal(c.taken, taken) || !slices.Equal(c.lost, lost) {
		m.t.Fatalf("%v frames are said to have come by, and %v to be lost; %v and %v are", c.taken, c.lost, taken, lost)
	}
	if m.bytes+1000*len(m.cards) <= m.buffer && slices.Max(lost) > 0 {
		m.t.Fatalf("%v frames are lost, with room for all", lost)
	}
	if st := m.rec.Stats(); st.Frames != total(taken) || st.Lost != total(lost) {
		m.t.Fatalf("%+v is told", st)
	}
}

func (r recorded) is(got recorded) bool {
	return r.iface == got.iface && bytes.Equal(r.data, got.data) && r.length == got.length && r.outbound == got.outbound && r.comment == got.comment
}

func total(list []uint64) (n uint64) {
	for _, v := range list {
		n += v
	}
	return n
}
