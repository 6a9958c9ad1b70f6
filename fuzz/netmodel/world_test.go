package netmodel

import (
	"context"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"vfiouser/client"
	device "vfiouser/devices/virtio-net"
	"vfiouser/devices/virtio-net/spec"
	ring "vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio-net"
	"vfiouser/engine"
	"vfiouser/fuzz/choice"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

const (
	patience   = 2 * time.Minute // for a step
	queueSize  = 64
	memorySize = 8 << 20
)

// world is one card on a loop, or a few on a switch.
type world struct {
	t   *testing.T
	src *choice.Source
	ctx context.Context
	// watchdog ends ctx if a step takes too long.
	watchdog *time.Timer
	eng      *engine.Engine
	net      link.Link
	loop     bool
	starves  bool // buffers to receive run out
	hosts    []*host
	learned  map[string]*host // addresses that the switch knows
	seq      uint32           // of the next frame
	undo     []func()
}

func (w *world) must(err error) {
	w.t.Helper()
	if err != nil {
		w.t.Fatal(err)
	}
}

// later has something undone in the end, the last first.
func (w *world) later(f func()) { w.undo = append(w.undo, f) }

func (w *world) close() {
	for len(w.undo) > 0 {
		f := w.undo[len(w.undo)-1]
		w.undo = w.undo[:len(w.undo)-1]
		f()
	}
}

// journal keeps what the engine says.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) String() string {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.String()
}

func newWorld(t *testing.T, src *choice.Source) *world {
	w := &world{t: t, src: src, learned: map[string]*host{}}
	ctx, cancel := context.WithCancel(t.Context())
	w.ctx, w.watchdog = ctx, time.AfterFunc(patience, cancel)
	w.later(func() { w.watchdog.Stop(); cancel() })
	said := &journal{}
	w.later(func() {
		if t.Failed() {
			t.Log(said)
		}
	})
	eng, err := engine.New(engine.Config{Workers: 1 + src.Intn(2), Logger: slog.New(slog.NewTextHandler(said, nil))})
	w.must(err)
	w.eng = eng
	w.later(func() { w.must(eng.Close()) })
	n := 1
	if w.loop = src.Odds(3); w.loop {
		w.net = link.Loop()
	} else {
		w.net = link.NewSwitch(link.SwitchConfig{})
		n = 2 + src.Intn(2)
	}
	w.starves = src.Odds(3)
	w.later(func() { w.must(w.net.Close()) })
	dir := t.TempDir()
	for i := range n {
		w.addHost(filepath.Join(dir, string(rune('a'+i))))
	}
	for _, h := range w.hosts {
		h.connect()
		h.open()
	}
	return w
}

// host is a card and its driver.
type host struct {
	w    *world
	mac  string
	path string
	card *device.Card
	wire *wire
	mtu  int
	dev  *client.Device
	mem  *client.Memory
	nic  *driver.NIC

	byMessage bool
	stalled   bool
	away      bool // its memory is
	up        bool
	filter    filter
	pairs     int          // in use for what is received
	expected  [][]*arrival // by queue
	flying    []int        // frames that are not known to be sent, by queue
	fresh     []*arrival   // what they make arrive
	total     totals       // since base
	base      totals
	doubtful  bool // some frames may be counted or not
}

// wire is a host's link, whose carrier and transmission tests control.
type wire struct {
	link.Link
	card  link.Card
	stuck atomic.Bool
}

func (w *wire) Attach(c link.Card) (link.Port, error) {
	w.card = c
	p, err := w.Link.Attach(c)
	return &wirePort{p, w}, err
}

type wirePort struct {
	link.Port
	w *wire
}

// Send takes nothing while the wire is stuck.
func (p *wirePort) Send(q int, frames []vnet.Frame) int {
	if p.w.stuck.Load() {
		return 0
	}
	return p.Port.Send(q, frames)
}

func (w *world) addHost(path string) {
	h := &host{w: w, path: path, wire: &wire{Link: w.net}, up: true, mac: string([]byte{2, 0, 0, 0, 1, byte(len(w.hosts))})}
	if w.src.Odds(3) {
		h.mtu = 1500
	}
	var err error
	h.card, err = device.New(device.Config{Link: h.wire, MAC: []byte(h.mac), Pairs: 1 + w.src.Intn(3), QueueSize: queueSize, MTU: h.mtu})
	w.must(err)
	w.later(func() { w.must(h.card.Close()) })
	ep, err := w.eng.Register(path, h.card)
	w.must(err)
	w.must(ep.Start())
	w.later(func() { w.must(ep.Close()) })
	w.later(func() { h.disconnect() })
	w.hosts = append(w.hosts, h)
}

// connect attaches a client, with memory that is mapped or reached by message.
func (h *host) connect() {
	w := h.w
	var err error
	h.dev, err = client.Attach(w.ctx, h.path)
	w.must(err)
	h.mem, err = client.NewMemory(memorySize)
	w.must(err)
	m := h.mem.At(1 << 32)
	if h.byMessage = w.src.Odds(4); h.byMessage {
		m = m.ByMessage()
	}
	w.must(h.dev.MapDMA(w.ctx, m))
}

// disconnect leaves without a word to the device.
func (h *host) disconnect() {
	if h.dev == nil {
		return
	}
	h.dev.Close()
	<-h.dev.Done()
	if h.nic != nil {
		_ = h.nic.Close() // says that the session is lost
	}
	h.w.must(h.mem.Close())
	h.dev, h.mem, h.nic = nil, nil, nil
}

// open brings the card up with some of its features.
func (h *host) open() {
	w, src := h.w, h.w.src
	const always = spec.FeatureMAC | spec.FeatureStatus | ring.FeatureRingReset
	known := uint64(driver.DefaultFeatures | spec.FeatureCtrlVLAN)
	some, others := src.Uint64(), src.Uint64()
	features := always | known&^(some&others)
	if src.Odds(3) {
		features = known
	}
	if src.Bool() {
		features |= ring.FeatureRingPacked
	}
	var err error
	size := choice.Pick(src, queueSize, queueSize/2)
	if w.starves {
		size = 16 // as many as are sent before the driver looks what was
	}
	h.nic, err = driver.Open(w.ctx, h.dev, h.mem, driver.Options{Pairs: 1 + src.Intn(3), QueueSize: size, Features: features})
	w.must(err)
	h.pairs = 1
	if h.nic.Has(spec.FeatureMQ) {
		h.pairs = h.nic.Pairs()
	}
	h.expected, h.flying, h.fresh = make([][]*arrival, h.nic.Pairs()), make([]int, h.nic.Pairs()), nil
	h.filter = newFilter(h)
	h.doubtful = true // as to what the last driver was still given
	if got := h.nic.MAC(); string(got[:]) != h.mac {
		w.t.Fatalf("the card's address is % x, want % x", got, h.mac)
	}
	w.learned[h.mac] = h
	h.hello(h.nic.Pairs() - 1)
	h.linkIs(h.up)
}

// hello sends a frame to the host itself. Queues are started in their order, so that all up to
// this pair's are when it is sent; and a switch knows where the host is.
func (h *host) hello(queue int) {
	h.sendTo(queue, []string{h.mac})
	h.settle()
}
