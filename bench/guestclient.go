package bench

import (
	"context"
	"fmt"
	"path/filepath"

	"vfiouser/client"
	"vfiouser/engine"
)

// talker is a device that hands out its session.
type talker struct {
	*registers
	session chan *engine.Session
}

func (d *talker) NewDevice(s *engine.Session) error { d.session <- s; return nil }

// guestClientDepths are how many reads are under way.
var guestClientDepths = []int{1, 32}

// guestClientEcho is a read, depth of them under way.
func guestClientEcho(depth int) echo { return guestMessage{size: guestClientSize, depth: depth}.echo() }

const guestClientSize = 4096 // bytes that are read

// guestClientCases are reads of 4 KiB by message with package client at the other end, in the
// same process, so that all allocations are seen: on the client's socket and on a twin socket.
func guestClientCases() (cases []Case) {
	const size = guestClientSize
	for _, twin := range []bool{false, true} {
		socket, opts := "shared", []client.Option(nil)
		if twin {
			socket, opts = "twin", []client.Option{client.WithTwinSocket()}
		}
		for _, depth := range guestClientDepths {
			cases = append(cases, Case{
				Name: fmt.Sprintf("dma-client/%s/size=%d/depth=%d", socket, size, depth), Full: twin != (depth > 1), Bytes: size, Limit: guestClientEcho(depth).limit(),
				Setup: func(env *Env) (Subject, error) {
					s, err := talk(env, opts...)
					if err != nil {
						return Subject{}, err
					}
					return Subject{Run: unlocked(asynchronous(s, size, depth)), UnderWay: depth}, nil
				},
			})
		}
	}
	return append(cases, Case{
		Name: fmt.Sprintf("dma-client/blocking/size=%d", size), Full: true, Bytes: size, Limit: guestClientEcho(1).limit(),
		Setup: func(env *Env) (Subject, error) {
			s, err := talk(env)
			if err != nil {
				return Subject{}, err
			}
			p := make([]byte, size)
			return Subject{Run: unlocked(repeat(func() error { return s.ReadDMA(s.Context(), guestIOVA, p) }))}, nil
		},
	})
}

// asynchronous keeps depth reads under way.
func asynchronous(s *engine.Session, size, depth int) func(n int) error {
	type end struct {
		i   int
		err error
	}
	ends := make(chan end, depth)
	bufs, done := make([][]byte, depth), make([]func(error), depth)
	for i := range bufs {
		bufs[i] = make([]byte, size)
		done[i] = func(err error) { ends <- end{i, err} }
	}
	begin := func(i int) { s.StartReadDMA(guestIOVA+uint64(i*size), bufs[i], done[i]) }
	return func(n int) (err error) {
		begun := min(depth, n)
		for i := range begun {
			begin(i)
		}
		for range n {
			e := <-ends
			if e.err != nil {
				err = e.err
			}
			if begun < n {
				begin(e.i)
				begun++
			}
		}
		return err
	}
}

// talk attaches a client whose memory is reached by message.
func talk(env *Env, opts ...client.Option) (*engine.Session, error) {
	e, err := engine.New(engine.Config{})
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { e.Close() })
	d := &talker{registers: newRegisters(smallBAR), session: make(chan *engine.Session, 1)}
	ep, err := e.Register(filepath.Join(env.Dir, "talker"), d)
	if err != nil {
		return nil, err
	}
	if err := ep.Start(); err != nil {
		return nil, err
	}
	ctx := context.Background()
	dev, err := client.Attach(ctx, ep.Path(), opts...)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { dev.Close() })
	mem, err := client.NewMemory(1 << 20)
	if err != nil {
		return nil, err
	}
	env.Cleanup(func() { mem.Close() })
	if err := dev.MapDMA(ctx, mem.At(guestIOVA).ByMessage()); err != nil {
		return nil, err
	}
	return <-d.session, nil
}
