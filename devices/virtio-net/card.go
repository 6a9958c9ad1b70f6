package virtionet

import (
	"errors"
	"net"
	"sync"
	"sync/atomic"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

// pciClass is the class code of an Ethernet card.
const pciClass = 0x020000

// Card is a network card: an engine.Device. Register it with an engine, and Close it after
// its endpoint.
type Card struct {
	*virtio.Function
	c *card
}

// New makes a card and attaches it to its link. Errors are ErrConfig, what package virtio
// says of its part of the configuration, and what the link says.
func New(cfg Config) (*Card, error) {
	if err := cfg.complete(); err != nil {
		return nil, err
	}
	c := newCard(&cfg)
	fn, err := virtio.New(virtio.Config{
		Type:       spec.DeviceType,
		Class:      pciClass,
		Queues:     2*cfg.Pairs + 1,
		QueueSize:  cfg.QueueSize,
		Features:   cfg.offered(),
		ConfigSize: spec.ConfigSize,
		Doorbells:  cfg.Doorbells,
		IdlePoll:   cfg.IdlePoll,
	}, c)
	if err != nil {
		return nil, err
	}
	c.fn = fn
	if c.port, err = cfg.Link.Attach(c); err != nil {
		return nil, errors.Join(err, fn.Close())
	}
	return &Card{fn, c}, nil
}

// Close detaches the card from its link. Close the endpoint before. Idempotent.
func (c *Card) Close() error {
	// The queues are polled until the last client has gone.
	return errors.Join(c.Function.Close(), c.c.port.Close())
}

// MAC is the card's address. Its driver may use another one.
func (c *Card) MAC() net.HardwareAddr { return append(net.HardwareAddr(nil), c.c.mac[:]...) }

// Stats counts what each queue pair did since the card was made. It costs the data path
// nothing. Any goroutine.
func (c *Card) Stats() []QueueStats {
	stats := make([]QueueStats, len(c.c.pairs))
	for i, p := range c.c.pairs {
		stats[i] = QueueStats{p.tx.stats.read(), p.rx.stats.read()}
	}
	return stats
}

// card is what the transport and the link see of a Card.
type card struct {
	mac        [6]byte // as configured
	fn         *virtio.Function
	port       link.Port
	pairs      []*pair
	flows      flowTable
	reception  atomic.Pointer[reception] // nil: no driver
	control    control
	coalescing coalescing

	mu       sync.Mutex
	config   spec.Config
	announce bool // the driver may be asked to announce itself
}

func newCard(cfg *Config) *card {
	c := &card{mac: [6]byte(cfg.MAC)}
	c.config = spec.Config{
		MAC: c.mac, Status: spec.StatusLinkUp, Pairs: uint16(cfg.Pairs), MTU: uint16(cfg.MTU),
		Speed: spec.SpeedUnknown, Duplex: spec.DuplexUnknown,
		KeySize: spec.KeySize, TableSize: tableSize, HashTypes: spec.HashAll,
	}
	if cfg.Speed != 0 {
		c.config.Speed, c.config.Duplex = cfg.Speed, spec.DuplexFull
	}
	if cfg.HalfDuplex {
		c.config.Duplex = spec.DuplexHalf
	}
	for i := range cfg.Pairs {
		p := &pair{card: c, index: i}
		p.tx.p, p.rx.p = p, p
		p.tx.coalescer.interrupts, p.rx.coalescer.interrupts = &p.tx.stats.interrupts, &p.rx.stats.interrupts
		c.pairs = append(c.pairs, p)
	}
	c.control.c = c
	return c
}

// ReadConfig gives the device configuration.
func (c *card) ReadConfig(off int, p []byte) {
	var b [spec.ConfigSize]byte
	c.mu.Lock()
	c.config.Put(b[:])
	c.mu.Unlock()
	clear(p)
	if off < len(b) {
		copy(p, b[off:])
	}
}

// WriteConfig ignores the write: all fields are read-only (5.1.4.2).
func (c *card) WriteConfig(int, []byte) {}

// CheckFeatures refuses what does not go together.
func (c *card) CheckFeatures(accepted uint64) bool { return consistent(accepted) }

// Start begins with a driver.
func (c *card) Start(s *virtio.Session, features uint64) error {
	longest := vnet.MaxFrame
	c.mu.Lock()
	c.announce = features&spec.FeatureGuestAnnounce != 0
	if features&spec.FeatureMTU != 0 {
		longest = int(c.config.MTU) + etherSize
	}
	c.mu.Unlock()
	for _, p := range c.pairs {
		p.s, p.worker = s, nil
		p.tx.header, p.tx.can = headerSize(features), hostOffloads(features)
		p.rx.mu.Lock()
		p.rx.header, p.rx.longest = headerSize(features), longest
		p.rx.mergeable = features&spec.FeatureMrgRxBuf != 0
		p.rx.mu.Unlock()
	}
	c.flows.clear()
	c.coalescing.reset()
	c.control.reset(features)
	return nil
}

// Stop ends with it.
func (c *card) Stop() {
	c.reception.Store(nil)
	c.port.SetOffloads(vnet.OffloadNone, 0)
	c.ClientGone()
}

// ClientGone takes back what a driver has changed in the configuration.
func (c *card) ClientGone() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.announce = false
	c.config.MAC = c.mac
	c.config.Status &^= spec.StatusAnnounce
}

// StartQueue lets a queue run. One that does not exist with these features does nothing.
func (c *card) StartQueue(i int, q *virtio.Queue) {
	if i == c.control.index {
		c.control.server = virtio.Serve(q, c.control.serve)
		return
	}
	if i/2 >= len(c.pairs) {
		return
	}
	p := c.pairs[i/2]
	p.pause()
	c.startCoalescing(i, q)
	if i == spec.TransmitQueue(i/2) {
		p.tx.q, p.tx.blocked, p.tx.away = q, false, false
		p.tx.disarm() // the worker may be awake for good
	} else {
		p.rx.start(q)
	}
	p.resume()
}

// StopQueue returns when nobody uses the queue any more.
func (c *card) StopQueue(i int) {
	if i == c.control.index {
		c.control.server.Stop()
		return
	}
	if i/2 >= len(c.pairs) {
		return
	}
	p := c.pairs[i/2]
	p.pause()
	if i == spec.TransmitQueue(i/2) {
		p.tx.q = nil
	} else {
		p.rx.stop()
	}
	c.coalescer(i).stop()
	p.resume()
}

// Notify has the pair of a queue polled.
func (c *card) Notify(i int) {
	if i/2 < len(c.pairs) {
		c.pairs[i/2].kick()
	}
}

// Wake has a pair polled.
func (c *card) Wake(q int) { c.pairs[q].wake() }

// SetCarrier tells the driver whether there is anybody at the other end.
func (c *card) SetCarrier(up bool) {
	var status uint16
	if up {
		status = spec.StatusLinkUp
	}
	c.setStatus(spec.StatusLinkUp, status)
}

// Announce asks the driver to make itself known, if it can.
func (c *card) Announce() {
	c.mu.Lock()
	can := c.announce
	c.mu.Unlock()
	if can {
		c.setStatus(spec.StatusAnnounce, spec.StatusAnnounce)
	}
}

// setStatus changes bits of the status, and tells the driver.
func (c *card) setStatus(mask, bits uint16) {
	c.mu.Lock()
	before := c.config.Status
	c.config.Status = before&^mask | bits
	changed := c.config.Status != before
	c.mu.Unlock()
	if changed {
		c.fn.ConfigChanged()
	}
}
