package virtionet

import (
	"context"
	"encoding/binary"
	"errors"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"vfiouser/client"
	"vfiouser/devices/virtio"
	netspec "vfiouser/devices/virtio-net/spec"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/engine"
	"vfiouser/test/holdings"
)

// liar is a network card that fills receive buffers as a test wants it, and answers commands so.
type liar struct {
	virtio.BaseDevice
	config  netspec.Config
	receive virtio.Handler
	control virtio.Handler
	servers [3]*virtio.Server

	function *virtio.Function
	restless atomic.Bool   // every look at the configuration finds another one
	reads    atomic.Uint32 // of it
}

func (l *liar) ReadConfig(off int, p []byte) {
	var b [netspec.ConfigSize]byte
	l.config.Put(b[:])
	if n := l.reads.Add(1); l.restless.Load() {
		b[0] = byte(n)
	}
	copy(p, b[off:])
}

func (l *liar) StartQueue(i int, q *virtio.Queue) {
	handlers := [3]virtio.Handler{l.receive, func(context.Context, *virtqueue.Chain) uint32 { return 0 }, l.control}
	l.servers[i] = virtio.Serve(q, handlers[i])
}

func (l *liar) StopQueue(i int) { l.servers[i].Stop() }

func newLiar(t *testing.T, l *liar, features uint64) (*client.Device, *client.Memory) {
	t.Helper()
	eng, err := engine.New(engine.Config{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { eng.Close() })
	f, err := virtio.New(virtio.Config{Type: netspec.DeviceType, Class: 0x020000, Queues: 3, QueueSize: 8,
		Features: features | virtio.Features, ConfigSize: netspec.ConfigSize}, l)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	l.function = f
	ep, err := eng.Register(filepath.Join(t.TempDir(), "liar"), f)
	if err != nil {
		t.Fatal(err)
	}
	if err := ep.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ep.Close() })
	dev, err := client.Attach(testContext(t), ep.Path())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dev.Close() })
	mem, err := client.NewMemory(4 << 20)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	return dev, mem
}

// header has the device write a header with a number of buffers, and say that it has written n bytes.
func header(buffers uint16, n uint32) virtio.Handler {
	return func(_ context.Context, c *virtqueue.Chain) uint32 {
		clear(c.Writable[0][:netspec.HeaderSizeHash])
		binary.LittleEndian.PutUint16(c.Writable[0][10:], buffers)
		return n
	}
}

func TestCardThatLies(t *testing.T) {
	for name, c := range map[string]struct {
		features uint64
		receive  virtio.Handler
		want     error
	}{
		"frame shorter than its header":           {0, header(1, 11), ErrDevice},
		"nothing at all":                          {0, header(1, 0), ErrDevice},
		"no buffers":                              {netspec.FeatureMrgRxBuf, header(0, 100), ErrDevice},
		"more buffers than there are":             {netspec.FeatureMrgRxBuf, header(9, 100), ErrDevice},
		"number of buffers that means nothing":    {0, header(99, 72), nil},
		"shorter than its header with the report": {netspec.FeatureCtrlVQ | netspec.FeatureHashReport, header(1, 19), ErrDevice},
	} {
		t.Run(name, func(t *testing.T) {
			holdings.CheckLeaks(t)
			dev, mem := newLiar(t, &liar{receive: c.receive}, c.features)
			n, err := Open(testContext(t), dev, mem, Options{Features: c.features | spec.FeatureVersion1, QueueSize: 8})
			if err != nil {
				t.Fatal(err)
			}
			defer n.Close()
			p := make([]byte, 100)
			if _, err = n.Queue(0).ReadFrame(testContext(t), p); !errors.Is(err, c.want) {
				t.Error(err)
			}
			if c.want == nil {
				return
			}
			if _, again := n.Queue(0).ReadFrame(testContext(t), p); again != err {
				t.Error("not for good:", again)
			}
		})
	}
}

func TestCardThatDoesNotAnswerCommands(t *testing.T) {
	holdings.CheckLeaks(t)
	answer := make(chan uint8)
	l := &liar{receive: header(1, 72), control: func(ctx context.Context, c *virtqueue.Chain) uint32 {
		select {
		case c.Writable[0][0] = <-answer:
			return 1
		case <-ctx.Done():
			return 0
		}
	}}
	dev, mem := newLiar(t, l, netspec.FeatureCtrlVQ|netspec.FeatureCtrlRx)
	n, err := Open(testContext(t), dev, mem, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer n.Close()
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	if err := n.SetPromiscuous(gone, true); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	// The command is still under way: the next one has to wait for it.
	if err := n.SetPromiscuous(gone, true); !errors.Is(err, context.Canceled) || !errors.Is(err, errNoAnswer) {
		t.Error(err)
	}
	go func() {
		answer <- netspec.AckOK
		answer <- 7
		answer <- netspec.AckOK
	}()
	if err := n.SetPromiscuous(testContext(t), true); !errors.Is(err, ErrRefused) {
		t.Error(err)
	}
	if err := n.SetPromiscuous(testContext(t), true); err != nil {
		t.Error(err)
	}
}

// A card that offers several pairs and has none, or more than there can be, is refused.
func TestCardWithABadNumberOfPairs(t *testing.T) {
	for _, pairs := range []uint16{0, netspec.MaxPairs + 1, 0xffff} {
		t.Run(strconv.Itoa(int(pairs)), func(t *testing.T) {
			holdings.CheckLeaks(t)
			l := &liar{config: netspec.Config{Pairs: pairs}, receive: header(1, 72)}
			dev, mem := newLiar(t, l, netspec.FeatureCtrlVQ|netspec.FeatureMQ)
			n, err := Open(testContext(t), dev, mem, Options{Pairs: 2, QueueSize: 8})
			if err == nil {
				n.Close()
			}
			if !errors.Is(err, ErrDevice) {
				t.Error(err)
			}
		})
	}
}

// A configuration that never stands still holds up whoever reads it, and no Close.
func TestCardWhoseConfigurationNeverSettles(t *testing.T) {
	holdings.CheckLeaks(t)
	l := &liar{receive: header(1, 72)}
	dev, mem := newLiar(t, l, netspec.FeatureStatus)
	n, err := Open(testContext(t), dev, mem, Options{})
	if err != nil {
		t.Fatal(err)
	}
	l.restless.Store(true)
	l.function.ConfigChanged()
	for l.reads.Load() < 100 {
		time.Sleep(time.Millisecond)
	}
	began := time.Now()
	if err := n.Close(); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Error("Close took", took)
	}
}
