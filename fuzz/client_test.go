package fuzz

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/client"
	"vfiouser/codec"
	"vfiouser/dma"
	"vfiouser/engine"
	"vfiouser/engine/reactor"
	"vfiouser/fuzz/choice"
	"vfiouser/fuzz/internal/stacks"
	"vfiouser/test/holdings"
)

// victims is what clients need that are lied to.
type victims struct {
	engine  *engine.Engine
	loop    *reactor.Reactor
	journal *journal
	held    held
}

// FuzzClient has the client library talk to a server that lies: to ours, with some of what it
// says changed on the way.
//
//fuzz:covers client
func FuzzClient(f *testing.F) {
	v := newVictims(f)
	choice.Corpus(f, 40, 200)
	truths := make([]byte, 0, 3*len(victimCalls))
	for i := range victimCalls { // every call, and nothing but the truth
		truths = append(truths, 0, byte(i), 0, 0, 0, 0, 0, 0)
	}
	f.Add(truths)
	f.Fuzz(func(t *testing.T, input []byte) { v.run(t, choice.FromBytes(input)) })
}

func newVictims(t testing.TB) *victims {
	t.Helper()
	v := &victims{journal: &journal{}}
	var err error
	if v.loop, err = reactor.New(reactor.Config{Logger: slog.New(v.journal)}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.loop.Close() })
	v.engine, err = engine.New(engine.Config{Workers: 1, WriteMultiple: true, WriteTimeout: engineTimeout, DMATimeout: engineTimeout})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { v.engine.Close() })
	return v
}

// victim is a client that calls what it likes.
type victim struct {
	*victims
	t   tester
	s   *choice.Source
	mem *client.Memory
	log trace

	device   *plenty
	endpoint *engine.Endpoint
	liar     *liar
	dev      *client.Device
	sessions int
}

const (
	victimSteps    = 60
	victimSessions = 4
	victimMemory   = 16 << 12
)

// run is one program.
func (v *victims) run(t tester, s *choice.Source) {
	v.held.before(t)
	c := &victim{victims: v, t: t, s: s}
	defer func() {
		c.leave()
		if c.mem != nil {
			_ = c.mem.Close()
		}
		v.held.after(t, leakAfter, &c.log)
	}()
	var err error
	if c.mem, err = client.NewMemory(victimMemory); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	for n := 0; s.More() && (s.Seeded() || n < victimSteps && time.Since(begin) < longLife); n++ {
		if c.dev == nil || c.dev.Err() != nil {
			if c.sessions >= victimSessions && !s.Seeded() {
				break
			}
			c.attach()
			continue
		}
		c.call(victimCalls[s.Intn(len(victimCalls))])
	}
	c.leave()
	if defects, _, _ := v.journal.take(); len(defects) > 0 {
		c.fail("%v", defects)
	}
}

func (c *victim) fail(format string, args ...any) {
	c.t.Helper()
	c.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), &c.log)
}

// plan draws what is done to the messages that come next.
func (c *victim) plan() []lie {
	var lies []lie
	for range c.s.Intn(4) {
		lies = append(lies, chooseLie(c.s))
	}
	return lies
}

// attach begins a session with a new device.
func (c *victim) attach() {
	c.leave()
	c.sessions++
	var outer, inner [2]int
	var err error
	if outer, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		c.t.Fatal(err)
	}
	if inner, err = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		c.t.Fatal(err)
	}
	if c.device, err = newPlenty(); err != nil {
		c.t.Fatal(err)
	}
	if c.endpoint, err = c.engine.RegisterFD(inner[1], c.device); err != nil {
		c.t.Fatal(err)
	}
	if err = c.endpoint.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.liar = newLiar(outer[1], inner[0], nil)
	options := []client.Option{client.WithReactor(c.loop)}
	if c.s.Odds(3) {
		options = append(options, client.WithTwinSocket())
	}
	c.bounded("attach", func(ctx context.Context) (err error) {
		c.dev, err = client.AttachFD(ctx, outer[0], options...)
		if err != nil {
			c.dev = nil
		}
		return err
	})
}

// leave ends the session.
func (c *victim) leave() {
	if c.dev != nil {
		_ = c.dev.Close()
		c.dev = nil
	}
	if c.liar != nil {
		c.liar.hangUp()
		<-c.liar.done
		_ = c.endpoint.Close()
		_ = c.device.Close()
		c.liar = nil
	}
}

// call makes one call, or two at a time.
func (c *victim) call(f victimCall) {
	if c.s.Odds(8) {
		g := victimCalls[c.s.Intn(len(victimCalls))]
		a, b := c.s.Uint16(), c.s.Uint16()
		var one, two error
		c.bounded(f.name+" and "+g.name, func(ctx context.Context) error {
			var wg sync.WaitGroup
			wg.Go(func() { one = f.do(c, ctx, a) })
			wg.Go(func() { two = g.do(c, ctx, b) })
			wg.Wait()
			return two
		})
		c.typed(one)
		return
	}
	a := c.s.Uint16()
	c.bounded(f.name, func(ctx context.Context) error { return f.do(c, ctx, a) })
}

// bounded makes a call while some lies are told. It ends by itself, or soon after it is given up,
// with an error that has a type.
func (c *victim) bounded(what string, f func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	lies := c.plan()
	c.log.note("%s, lies %v", what, lies)
	c.liar.next(lies, cancel)
	done := make(chan error, 1)
	go func() { done <- f(ctx) }()
	patience := time.NewTicker(victimPatience)
	defer patience.Stop()
	for range defaultHang / victimPatience {
		select {
		case err := <-done:
			c.log.note("%v", err)
			c.typed(err)
			return
		case <-patience.C:
			switch {
			case ctx.Err() != nil: // what has to be undone is not answered either
				c.liar.hangUp()
			case !c.liar.honest(): // what comes next may never come: a size may be wrong
				cancel()
			}
		}
	}
	cancel()
	c.fail("%s takes %v; goroutines:\n%s", what, defaultHang, stacks.All())
}

// victimPatience is how long a client waits for a server that has lied.
const victimPatience = 5 * time.Millisecond

// typed fails if an error is not of those that are documented, or if there is one that an
// honest server gives no reason for.
func (c *victim) typed(err error) {
	var refused *codec.Error
	var errno unix.Errno
	var protocol *client.ProtocolError
	switch {
	case errors.Is(err, client.ErrProtocol):
		if !errors.As(err, &protocol) {
			c.fail("%T has no ProtocolError", err)
		}
	case errors.Is(err, client.ErrDisconnected), errors.Is(err, client.ErrUndo):
	case err == nil, errors.Is(err, client.ErrShortTransfer), errors.Is(err, client.ErrInvalid), errors.Is(err, client.ErrOverlap),
		errors.Is(err, client.ErrNotMappable), errors.Is(err, client.ErrClosed), errors.Is(err, context.Canceled), errors.Is(err, errors.ErrUnsupported), errors.Is(err, io.EOF):
		return
	case errors.As(err, &refused) && errors.As(err, &errno) && errno != 0:
		return
	default:
		c.fail("%T %v", err, err)
	}
	if c.liar.honest() {
		c.fail("the server is honest")
	}
}

// touch uses a mapping, of which a server may have made less.
func touch(m *client.MappedRegion, at uint16) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil {
			if _, ok := dma.IsFault(v); !ok {
				panic(v)
			}
		}
	}()
	if off := uint64(at) % m.Size() &^ 3; off+4 <= m.Size() {
		_ = m.Load32(m.Offset + off)
	}
	var b [4]byte
	n, err := m.ReadAt(b[:], int64(m.Offset+uint64(at)%m.Size()))
	if err == nil && n == len(b) {
		_, _ = m.WriteAt(b[:], int64(m.Offset)) // it may be read-only
	}
}

// TestClient is FuzzClient with programs that are drawn from seeds.
func TestClient(t *testing.T) {
	holdings.CheckLeaks(t)
	v := newVictims(t)
	choice.Programs(t, 20, victimSteps, func(t *testing.T, s *choice.Source) { v.run(t, s) })
}
