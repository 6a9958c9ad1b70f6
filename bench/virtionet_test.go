package bench

import (
	"cmp"
	"context"
	"encoding/binary"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	device "vfiouser/devices/virtio-net"
	"vfiouser/devices/virtio-net/spec"
	common "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio-net"
	"vfiouser/engine"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

const segment = 64 << 10 // bytes of a frame that is to be cut into segments

// card is a network card whose worker is pinned to core 0, attached by the driver, whose goroutine, the benchmark's, is pinned to
// core 1.
type card struct {
	nic *driver.NIC
	q   *driver.Queue
	mem *client.Memory
}

// newCards puts n cards on one worker.
func newCards(tb testing.TB, links []link.Link, packed bool, size int) []*card {
	tb.Helper()
	e, err := engine.New(engine.Config{Workers: 1, WorkerCPUs: []int{0}})
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { e.Close() })
	cards := make([]*card, len(links))
	for i, l := range links {
		cards[i] = newCard(tb, e, device.Config{Link: l, Doorbells: virtio.Mmap, MAC: address(i)}, packed, size)
	}
	return cards
}

func newCard(tb testing.TB, e *engine.Engine, cfg device.Config, packed bool, size int) *card {
	tb.Helper()
	served, err := device.New(cfg)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { served.Close() })
	ep, err := e.Register(filepath.Join(tb.TempDir(), "net"), served)
	if err != nil {
		tb.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		tb.Fatal(err)
	}
	ctx := context.Background()
	dev, err := client.Attach(ctx, ep.Path())
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { dev.Close() })
	c := &card{}
	if c.mem, err = client.NewMemory(64<<20, client.WithPopulate()); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.mem.Close() })
	o := driver.Options{Features: driver.DefaultFeatures}
	if !packed {
		o.Features &^= common.FeatureRingPacked
	}
	if size == segment {
		// Such frames are received in one piece.
		o.Features |= spec.FeatureGuestCSUM | spec.FeatureGuestTSO4
		o.Features &^= spec.FeatureMrgRxBuf
		o.QueueSize, o.BufferSize = segmentBuffers, segmentRoom
	}
	if c.nic, err = driver.Open(ctx, dev, c.mem, o); err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { c.nic.Close() })
	c.q = c.nic.Queue(0)
	return c
}

// The buffers of a queue for frames of 64 KiB.
const (
	segmentBuffers = 64
	segmentRoom    = segment + 128 // bytes
	segmentSlice   = 4096          // frames that are measured together: some 6 ms
)

// address is that of card i.
func address(i int) []byte { return []byte{2, 0, 0, 0, 0, byte(i)} }

// fill makes every transmit buffer of a card a frame of size bytes to card to, so that nothing but its length has to be set to send
// one.
func (c *card) fill(tb testing.TB, size, from, to int) vnet.Header {
	tb.Helper()
	frame, header := frameOf(size, from, to)
	buffers := make([]*driver.Buffer, 1024)
	n, err := c.q.Alloc(buffers)
	if err != nil || n == len(buffers) {
		tb.Fatal(n, err)
	}
	for _, b := range buffers[:n] {
		copy(b.Room(), frame)
	}
	c.q.Discard(buffers[:n])
	return header
}

// frameOf is a TCP segment of size bytes with its Ethernet header.
func frameOf(size, from, to int) ([]byte, vnet.Header) {
	const ethernet, ip, tcp, mss = 14, 20, 20, 1448
	f := make([]byte, size)
	copy(f, address(to))
	copy(f[6:], address(from))
	f[12], f[13] = 8, 0
	p := f[ethernet:]
	p[0], p[8], p[9] = 0x45, 64, 6
	binary.BigEndian.PutUint16(p[2:], uint16(len(p)))
	copy(p[12:], []byte{10, 0, 0, byte(from), 10, 0, 0, byte(to)})
	p[ip+12] = tcp / 4 << 4
	if size < segment {
		return f, vnet.Header{}
	}
	return f, vnet.Header{Flags: vnet.FlagNeedsChecksum, GSOType: vnet.GSOTCP4, HeaderLen: ethernet + ip + tcp, GSOSize: mss,
		ChecksumStart: ethernet + ip, ChecksumOffset: 16}
}

// send sends up to len(frames) frames that fill has made.
func (c *card) send(tb testing.TB, frames []*driver.Buffer, size int, h vnet.Header) int {
	n, err := c.q.Alloc(frames)
	if err != nil {
		tb.Fatal(err)
	}
	if n == 0 {
		return 0
	}
	for _, b := range frames[:n] {
		b.SetLen(size)
		b.Header = h
	}
	sent, err := c.q.Send(frames[:n])
	if err != nil {
		tb.Fatal(err)
	}
	c.q.Discard(frames[sent:n])
	return sent
}

// receive takes up to len(frames) frames and gives their buffers back.
func (c *card) receive(tb testing.TB, frames []*driver.Buffer, size int) int {
	n, err := c.q.Recv(frames)
	if err != nil {
		tb.Fatal(err)
	}
	if n == 0 {
		return 0
	}
	for _, b := range frames[:n] {
		if b.Next != nil || len(b.Bytes()) != size {
			tb.Fatalf("frame of %d bytes", b.Len())
		}
	}
	if err := c.q.Release(frames[:n]); err != nil {
		tb.Fatal(err)
	}
	return n
}

// source is a link that has always a frame for its card.
type source struct {
	card   link.Card
	frames []vnet.Frame
}

func newSource(size int) *source {
	data, h := frameOf(size, 1, 0)
	s := &source{frames: make([]vnet.Frame, 32)}
	for i := range s.frames {
		own := append([]byte(nil), data...)
		s.frames[i] = vnet.Frame{Header: h, Parts: [][]byte{own}, Len: size}
	}
	return s
}

func (s *source) Attach(c link.Card) (link.Port, error)  { s.card = c; return s, nil }
func (s *source) Close() error                           { return nil }
func (s *source) Send(_ int, frames []vnet.Frame) int    { return len(frames) }
func (s *source) Poll(q int) int                         { return s.card.Receive(q, s.frames) }
func (s *source) Arm(int) bool                           { return true }
func (s *source) SetOffloads(o vnet.Offloads, pairs int) {}

// traffic is one way to use cards.
type traffic struct {
	name   string
	copies bool // the card copies every frame
	links  func(size int) []link.Link
	// run sends and receives n frames.
	run func(tb testing.TB, cards []*card, h vnet.Header, size, batch, n int)
}

var traffics = []traffic{
	{"tx", false, func(int) []link.Link { return []link.Link{link.Null()} }, transmit},
	{"rx", true, func(size int) []link.Link { return []link.Link{newSource(size)} }, receive},
	{"loop", true, func(int) []link.Link { return []link.Link{link.Loop()} }, pass},
	{"switch", true, func(int) []link.Link {
		s := link.NewSwitch(link.SwitchConfig{})
		return []link.Link{s, s}
	}, pass},
}

func transmit(tb testing.TB, cards []*card, h vnet.Header, size, batch, n int) {
	frames := make([]*driver.Buffer, batch)
	for sent := 0; sent < n; {
		sent += cards[0].send(tb, frames[:min(batch, n-sent)], size, h)
	}
}

func receive(tb testing.TB, cards []*card, h vnet.Header, size, batch, n int) {
	frames := make([]*driver.Buffer, batch)
	for received := 0; received < n; {
		received += cards[0].receive(tb, frames[:min(batch, n-received)], size)
	}
}

// pass sends with the first card and receives with the last one.
func pass(tb testing.TB, cards []*card, h vnet.Header, size, batch, n int) {
	from, to := cards[0], cards[len(cards)-1]
	out, in := make([]*driver.Buffer, batch), make([]*driver.Buffer, batch)
	// A switch drops what finds no room: never have more under way than the receive queue has buffers.
	limit := 256
	if size == segment {
		limit = segmentBuffers
	}
	for sent, received := 0, 0; received < n; {
		if k := min(batch, n-sent, limit-(sent-received)); k > 0 {
			sent += from.send(tb, out[:k], size, h)
		}
		received += to.receive(tb, in, size)
	}
}

// BenchmarkVirtioNet measures packets per second with the card on one core and the driver on the other: sent to a link that takes
// everything, received from one that has always something, both by way of a loop, and from card to card by way of a switch, with
// both cards on one core and both drivers on the other. Frames of 64 KiB stand beside the memcpy of one core with a
// working set of the same size, before and after in the same run; of
// both the median counts, so that other work of the machine does not.
func BenchmarkVirtioNet(b *testing.B) {
	for _, t := range traffics {
		for _, size := range []int{64, 512, 1518, segment} {
			for _, layout := range []string{"split", "packed"} {
				for _, batch := range []int{1, 32} {
					name := fmt.Sprintf("%s/%d/%s/batch=%d", t.name, size, layout, batch)
					b.Run(name, func(b *testing.B) { measure(b, t, size, layout == "packed", batch) })
				}
			}
		}
	}
}

func measure(b *testing.B, t traffic, size int, packed bool, batch int) {
	cards := newCards(b, t.links(size), packed, size)
	pin(b, 1)
	h := cards[0].fill(b, size, 0, len(cards)-1)
	if len(cards) > 1 {
		introduce(b, cards)
	}
	t.run(b, cards, h, size, batch, 2048) // once through all buffers
	var copies *copier
	limit := 0.0 // bytes/s
	if size == segment && t.copies {
		copies = newCopier(b, cards)
		limit = copies.rate()
	}
	slice := b.N
	if size == segment {
		slice = segmentSlice
	}
	times := make([]time.Duration, 0, b.N/slice+1) // of complete slices
	b.ReportAllocs()
	b.SetBytes(int64(size))
	b.ResetTimer()
	begin := time.Now()
	for left := b.N; left > 0; left -= slice {
		begin := time.Now()
		t.run(b, cards, h, size, batch, min(slice, left))
		if left >= slice {
			times = append(times, time.Since(begin))
		}
	}
	elapsed := time.Since(begin)
	b.StopTimer()
	b.ReportMetric(float64(b.N)/elapsed.Seconds()/1e6, "Mpackets/s")
	if copies != nil && len(times) > 0 {
		limit = (limit + copies.rate()) / 2 // of what the machine does before and after
		b.ReportMetric(segmentSlice*segment/median(times).Seconds()/limit, "of-memcpy")
	}
}

// introduce has every card of a switch send a frame, so that it is known where they are.
func introduce(tb testing.TB, cards []*card) {
	tb.Helper()
	last := len(cards) - 1
	frame, _ := frameOf(64, last, 0)
	if err := cards[last].q.WriteFrame(context.Background(), frame); err != nil {
		tb.Fatal(err)
	}
	for cards[0].receive(tb, make([]*driver.Buffer, 1), 64) == 0 {
		runtime.Gosched()
	}
	cards[last].fill(tb, 64, last, 0)
}

// copier finds out how many bytes a second one core copies, from the memory of the first card to that of the last one, in as many and
// as long pieces as there are buffers.
type copier struct{ from, to client.Chunk }

func newCopier(tb testing.TB, cards []*card) *copier {
	tb.Helper()
	const all = segmentBuffers * segmentRoom
	from, err := cards[0].mem.Alloc(all, 0)
	if err != nil {
		tb.Fatal(err)
	}
	to, err := cards[len(cards)-1].mem.Alloc(all, 0)
	if err != nil {
		tb.Fatal(err)
	}
	return &copier{from, to}
}

// rate is that of the median of some passes.
func (c *copier) rate() float64 {
	passes := make([]time.Duration, 301) // 30 ms in all
	for i := range passes {
		begin := time.Now()
		for off := 0; off < len(c.from.Bytes); off += segmentRoom {
			copy(c.to.Bytes[off:off+segment], c.from.Bytes[off:])
		}
		passes[i] = time.Since(begin)
	}
	return segmentBuffers * segment / median(passes).Seconds()
}

func median[T cmp.Ordered](v []T) T {
	slices.Sort(v)
	return v[len(v)/2]
}
