package virtionet

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"

	"vfiouser/client"
	"vfiouser/devices/virtio-net/spec"
	"vfiouser/drivers/virtio"
)

// NIC is a network card that is up. Its methods may be called from any goroutine; what Queue returns may not.
type NIC struct {
	d          *virtio.Device
	mem        *client.Memory
	options    Options
	features   uint64
	bufferSize int
	header     uint32 // bytes before a frame
	mergeable  bool
	config     spec.Config // as of Open
	queues     []*Queue
	control    *control // nil: no CTRL_VQ

	link    atomic.Pointer[spec.Config] // as of now
	changed chan struct{}
	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	once    sync.Once
}

// Open brings the card up with the features that it offers, the driver knows and the options allow. mem is where queues and
// buffers come from (client.Memory.Alloc); it is mapped to the device if it is not yet. ctx bounds only the opening. Close the
// card in the end; dev and mem stay the caller's. A card that is in use is reset.
//
// Errors: ErrInvalid for an option, ErrUnsupported if it is no network card or lacks what the options ask for, and those of packages
// drivers/virtio and client.
func Open(ctx context.Context, dev *client.Device, mem *client.Memory, o Options) (*NIC, error) {
	if err := o.check(); err != nil {
		return nil, err
	}
	n := &NIC{mem: mem, options: o, changed: make(chan struct{}, 1)}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	n.link.Store(&spec.Config{})
	d, err := virtio.Open(ctx, dev, mem, virtio.Options{Type: spec.DeviceType, IOVA: o.IOVA, Timeout: o.Timeout, Notify: o.Notify,
		ConfigChanged: n.configChanged})
	if err != nil {
		n.cancel()
		return nil, err
	}
	n.d = d
	if err := n.open(ctx); err != nil {
		_ = n.Close()
		return nil, err
	}
	return n, nil
}

func (n *NIC) open(ctx context.Context) error {
	offered := n.d.Offered()
	if err := n.readConfig(ctx, n.d, &n.config); err != nil {
		return err
	}
	mtu := 1500
	if offered&spec.FeatureMTU != 0 {
		mtu = int(n.config.MTU)
	}
	var err error
	if n.features, n.bufferSize, err = n.options.choose(offered, mtu); err != nil {
		return err
	}
	n.mergeable, n.header = n.features&spec.FeatureMrgRxBuf != 0, spec.HeaderSize
	if n.features&spec.FeatureHashReport != 0 {
		n.header = spec.HeaderSizeHash
	}
	if err := n.d.Negotiate(ctx, n.features); err != nil {
		return err
	}
	pairs := 1
	if n.features&(spec.FeatureMQ|spec.FeatureRSS) != 0 {
		if n.config.Pairs < 1 || n.config.Pairs > spec.MaxPairs {
			return fmt.Errorf("%w: %d queue pairs", ErrDevice, n.config.Pairs)
		}
		pairs = min(n.options.Pairs, int(n.config.Pairs))
	}
	for i := range pairs {
		if _, err := n.newQueue(ctx, i); err != nil {
			return err
		}
	}
	if n.features&spec.FeatureCtrlVQ != 0 {
		if err := n.openControl(ctx); err != nil {
			return err
		}
	}
	if err := n.d.Ready(ctx); err != nil {
		return err
	}
	for _, q := range n.queues {
		if err := q.post(); err != nil {
			return err
		}
	}
	n.look(ctx, n.d)
	if pairs > 1 && n.features&spec.FeatureMQ != 0 {
		return n.SetPairs(ctx, pairs)
	}
	return nil
}

// queueSize is how many entries a queue gets.
func (n *NIC) queueSize(ctx context.Context, index int) int {
	if n.options.QueueSize != 0 {
		return n.options.QueueSize
	}
	size, err := n.d.MaxQueueSize(ctx, index)
	if err != nil {
		return 0 // NewQueue fails for the same reason
	}
	size = min(size, defaultQueueSize)
	for size&(size-1) != 0 {
		size &= size - 1
	}
	return size
}

// readConfig reads as much of the configuration as the device has.
func (n *NIC) readConfig(ctx context.Context, d *virtio.Device, c *spec.Config) error {
	var b [spec.ConfigSize]byte
	if err := d.ReadConfig(ctx, 0, b[:min(len(b), d.ConfigSize())]); err != nil {
		return err
	}
	c.Get(b[:])
	return nil
}

// configChanged is called after a configuration change interrupt.
func (n *NIC) configChanged(d *virtio.Device) {
	ctx, cancel := context.WithTimeout(n.ctx, n.options.Timeout)
	defer cancel()
	n.look(ctx, d)
}

// look takes note of the configuration as it is now.
func (n *NIC) look(ctx context.Context, d *virtio.Device) {
	var c spec.Config
	if n.readConfig(ctx, d, &c) != nil {
		return // the session is lost, or will be, or the card is at fault
	}
	n.link.Store(&c)
	select {
	case n.changed <- struct{}{}:
	default:
	}
}

// Close resets the card and frees everything of the driver; no Queue may be in use any more. After the session's end it only frees.
// Closing again does nothing.
func (n *NIC) Close() (err error) {
	n.once.Do(func() {
		n.cancel() // nobody waits for a configuration that does not settle
		err = n.d.Close()
		// If the reset failed the device may still write to the buffers: nobody gets them again.
		if err == nil {
			for _, q := range n.queues {
				n.mem.Free(q.memory)
			}
			if n.control != nil {
				n.mem.Free(n.control.memory)
			}
		}
	})
	return err
}

// Err is nil while the card can be used, then ErrClosed, ErrNeedsReset, or why the session has ended.
func (n *NIC) Err() error { return n.d.Err() }

// Features are the features that were negotiated.
func (n *NIC) Features() uint64 { return n.features }

// Offered are the features that the card offers.
func (n *NIC) Offered() uint64 { return n.d.Offered() }

// Has says whether all of features were negotiated.
func (n *NIC) Has(features uint64) bool { return n.features&features == features }

// MAC is the address that the card had when it was opened; zero if it does not tell (MAC).
func (n *NIC) MAC() (mac [6]byte) {
	if n.Has(spec.FeatureMAC) {
		mac = n.config.MAC
	}
	return mac
}

// MTU is the card's MTU in bytes; 1,500 if it does not tell (MTU).
func (n *NIC) MTU() int {
	if n.Has(spec.FeatureMTU) {
		return int(n.config.MTU)
	}
	return 1500
}

// LinkUp says whether the link is up, as of the last interrupt; always if the card does not tell (STATUS).
func (n *NIC) LinkUp() bool {
	return !n.Has(spec.FeatureStatus) || n.link.Load().Status&spec.StatusLinkUp != 0
}

// AnnounceWanted says that the program is to make itself known to its neighbours, and then to call AnnounceAck (GUEST_ANNOUNCE).
func (n *NIC) AnnounceWanted() bool {
	return n.Has(spec.FeatureGuestAnnounce) && n.link.Load().Status&spec.StatusAnnounce != 0
}

// Speed is the speed in Mbit/s and whether the link is full duplex; spec.SpeedUnknown if the card does not tell (SPEED_DUPLEX).
func (n *NIC) Speed() (mbit uint32, full bool) {
	if !n.Has(spec.FeatureSpeedDuplex) {
		return spec.SpeedUnknown, false
	}
	c := n.link.Load()
	return c.Speed, c.Duplex == spec.DuplexFull
}

// Changed receives a value after the configuration has changed: LinkUp, AnnounceWanted and Speed may differ. Several changes may
// come as one.
func (n *NIC) Changed() <-chan struct{} { return n.changed }

// Pairs is how many queue pairs there are.
func (n *NIC) Pairs() int { return len(n.queues) }

// MaxPairs is how many the card has.
func (n *NIC) MaxPairs() int {
	if n.Offered()&(spec.FeatureMQ|spec.FeatureRSS) == 0 {
		return 1
	}
	return int(n.config.Pairs)
}

// Queue is pair i, from 0 on. It panics if there is none.
func (n *NIC) Queue(i int) *Queue { return n.queues[i] }

// Device is the device below, for what this package does not cover.
func (n *NIC) Device() *virtio.Device { return n.d }

func (n *NIC) need(feature uint64, what string) error {
	if n.control == nil || !n.Has(feature) {
		return fmt.Errorf("%w: %s", ErrUnsupported, what)
	}
	return nil
}

var errNoAnswer = errors.New("virtio-net: the card has not answered an earlier command")
