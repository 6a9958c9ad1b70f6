package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"text/tabwriter"
	"time"

	"github.com/docker/go-units"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	virtionet "vfiouser/devices/virtio-net"
	"vfiouser/devices/virtio/spec"
	driver "vfiouser/drivers/virtio-net"
	"vfiouser/link"
)

const (
	// frameTime is for how long frames of one size are sent.
	frameTime = 300 * time.Millisecond
	// frameTimeout is how long a frame may take to come back.
	frameTimeout = 5 * time.Second
	// frameWindow is how many frames are under way, at most: as many as a queue has
	// buffers, so that there is room for each.
	frameWindow = 256
	frameBatch  = 64

	etherHeader = 14     // bytes
	etherType   = 0x88b5 // for local experiments (IEEE 802)
)

// frameSizes are in bytes, as Ethernet counts them: with the 4 bytes of a checksum that are
// on no virtual cable.
var frameSizes = [...]int{64, 1518}

const frameCheck = 4

// serveDemoCard serves a card that gets back what it sends until stop is called.
func serveDemoCard(socket string) (stop func() error, err error) {
	card, err := virtionet.New(virtionet.Config{Link: link.Loop(), Doorbells: virtio.Mmap})
	if err != nil {
		return nil, err
	}
	return serveDemo(socket, card, card.Close)
}

// useCard attaches to the card and sends frames through it.
func useCard(ctx context.Context, out io.Writer, socket string) (err error) {
	closing := func(c io.Closer) { err = errors.Join(err, c.Close()) }
	dev, err := client.Attach(ctx, socket)
	if err != nil {
		return err
	}
	defer closing(dev)
	mem, err := client.NewMemory(8 << 20)
	if err != nil {
		return err
	}
	defer closing(mem)
	nic, err := driver.Open(ctx, dev, mem, driver.Options{QueueSize: frameWindow})
	if err != nil {
		return err
	}
	defer closing(nic)
	rings := "split"
	if nic.Has(spec.FeatureRingPacked) {
		rings = "packed"
	}
	mac := nic.MAC()
	fmt.Fprintf(out, "The driver is attached: address %v, %s rings.\n\n", net.HardwareAddr(mac[:]), rings)
	var results []traffic
	for _, size := range frameSizes {
		x := exchange{queue: nic.Queue(0), size: size - frameCheck}
		copy(x.header[:], mac[:]) // to the card itself
		copy(x.header[6:], mac[:])
		binary.BigEndian.PutUint16(x.header[12:], etherType)
		t, err := x.run(ctx)
		if err != nil {
			return fmt.Errorf("frames of %d bytes: %w", size, err)
		}
		t.size = size
		results = append(results, t)
	}
	fmt.Fprintf(out, "Frames there and back on one queue pair, up to %d under way\n", frameWindow)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "bytes\tframes\tframes/s\tMiB/s\t")
	for _, t := range results {
		rate := float64(t.frames) / t.elapsed.Seconds()
		fmt.Fprintf(w, "%d\t%d\t%.0f\t%.0f\t\n", t.size, t.frames, rate, rate*float64(t.size)/units.MiB)
	}
	_ = w.Flush()
	fmt.Fprintln(out, "\nEvery frame came back as it was sent.")
	return nil
}

// traffic is what frames of a size did.
type traffic struct {
	size    int
	frames  uint64
	elapsed time.Duration
}

// exchange sends frames of a size and takes them back. Each has a number, by which all of
// its bytes are told.
type exchange struct {
	queue          *driver.Queue
	size           int // bytes, without the checksum
	header         [etherHeader]byte
	sent, received uint64
	frames         [frameBatch]*driver.Buffer
}

func (x *exchange) run(ctx context.Context) (t traffic, err error) {
	begin := time.Now()
	last := begin // when a frame came
	for now := begin; ; now = time.Now() {
		if now.Sub(begin) < frameTime {
			if err := x.send(); err != nil {
				return t, err
			}
		} else if x.sent == x.received {
			return traffic{frames: x.received, elapsed: now.Sub(begin)}, nil
		}
		n, err := x.receive()
		switch {
		case err != nil:
			return t, err
		case n > 0:
			last = now
		case now.Sub(last) > frameTimeout:
			return t, fmt.Errorf("%d of %d have not come back within %v", x.sent-x.received, x.sent, frameTimeout)
		case ctx.Err() != nil:
			return t, context.Cause(ctx)
		}
	}
}

func (x *exchange) send() error {
	room := min(frameBatch, frameWindow-int(x.sent-x.received))
	n, err := x.queue.Alloc(x.frames[:room])
	if err != nil {
		return err
	}
	for i, b := range x.frames[:n] {
		p := b.Room()[:x.size]
		copy(p, x.header[:])
		fillPattern(p[etherHeader:], x.sent+uint64(i))
		b.SetLen(x.size)
	}
	taken, err := x.queue.Send(x.frames[:n])
	x.queue.Discard(x.frames[taken:n])
	x.sent += uint64(taken)
	return err
}

func (x *exchange) receive() (int, error) {
	n, err := x.queue.Recv(x.frames[:])
	if err != nil {
		return 0, err
	}
	for _, b := range x.frames[:n] {
		p := b.Bytes()
		if len(p) != x.size || [etherHeader]byte(p) != x.header {
			return 0, fmt.Errorf("frame %d has come back as one of %d bytes that begins with % x", x.received, b.Len(), p[:min(len(p), etherHeader)])
		}
		if wrong := wrongPattern(p[etherHeader:], x.received); wrong >= 0 {
			return 0, fmt.Errorf("frame %d has come back with wrong data at byte %d", x.received, etherHeader+wrong)
		}
		x.received++
	}
	return n, x.queue.Release(x.frames[:n])
}
