package virtionet

import (
	"errors"
	"net"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// proxy stands between a driver and the card and can keep back a message of the card, as a
// client does that is slow to answer one, or has no mind to.
type proxy struct {
	t    testing.TB
	path string // where the driver attaches
	held chan struct{}
	done sync.WaitGroup

	mu      sync.Mutex
	hold    func(codec.Header) bool // the message to be kept back; nil: none
	release chan struct{}
}

// newProxy serves one driver.
func newProxy(t testing.TB, server string) *proxy {
	t.Helper()
	p := &proxy{t: t, path: filepath.Join(t.TempDir(), "proxy"), held: make(chan struct{}), release: make(chan struct{})}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p.path})
	must(t, err)
	p.done.Add(1)
	go func() {
		defer p.done.Done()
		in, err := l.AcceptUnix()
		l.Close()
		if err != nil {
			return
		}
		out, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: server})
		if err != nil {
			t.Error(err)
			in.Close()
			return
		}
		p.done.Add(1)
		go func() {
			defer p.done.Done()
			p.pump(out, in, p.forward)
		}()
		p.pump(in, out, func(b, fds []byte, to *net.UnixConn) (int, error) {
			_, _, err := to.WriteMsgUnix(b, fds, nil)
			return len(b), err
		})
	}()
	t.Cleanup(func() {
		l.Close()
		p.letGo()
		p.done.Wait()
	})
	return p
}

// pump hands on what comes from one side, with its descriptors, until a side closes.
func (p *proxy) pump(from, to *net.UnixConn, hand func(b, fds []byte, to *net.UnixConn) (int, error)) {
	defer from.Close()
	defer to.Close()
	b, oob := make([]byte, 4<<20), make([]byte, unix.CmsgSpace(64*4))
	kept := 0
	for {
		n, k, _, _, err := from.ReadMsgUnix(b[kept:], oob)
		if err != nil || n == 0 {
			return
		}
		kept += n
		used, err := hand(b[:kept], oob[:k], to)
		closeRights(oob[:k])
		if err != nil {
			return
		}
		kept = copy(b, b[used:kept])
	}
}

func closeRights(oob []byte) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return
	}
	for i := range messages {
		fds, _ := unix.ParseUnixRights(&messages[i])
		for _, fd := range fds {
			unix.Close(fd)
		}
	}
}

// forward hands on whole messages, and keeps back the one that is to be held.
func (p *proxy) forward(b, fds []byte, to *net.UnixConn) (used int, err error) {
	for {
		h, err := codec.DecodeHeader(b[used:])
		if errors.Is(err, codec.ErrShort) || err == nil && len(b)-used < int(h.Size) {
			return used, nil
		} else if err != nil {
			return used, err
		}
		p.mu.Lock()
		hold := p.hold != nil && p.hold(h)
		if hold {
			p.hold = nil
		}
		p.mu.Unlock()
		message := b[used:][:h.Size]
		used += int(h.Size)
		if !hold {
			if _, _, err := to.WriteMsgUnix(message, fds, nil); err != nil {
				return used, err
			}
			fds = nil
			continue
		}
		message = append([]byte(nil), message...)
		close(p.held)
		p.done.Add(1)
		go func() {
			defer p.done.Done()
			<-p.release
			_, _, _ = to.WriteMsgUnix(message, nil, nil) // the driver may have gone
		}()
	}
}

// holdNext keeps back the next message of which which says true.
func (p *proxy) holdNext(which func(codec.Header) bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hold = which
}

// letGo hands on what was kept back. Idempotent.
func (p *proxy) letGo() {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.release:
	default:
		close(p.release)
	}
}

// isWrite says whether a message asks the client to write at least n bytes to its memory.
func isWrite(n int) func(codec.Header) bool {
	return func(h codec.Header) bool {
		return h.Command == codec.CmdDMAWrite && h.Flags&codec.FlagTypeMask == 0 && int(h.Size) >= codec.HeaderSize+codec.DMAAccessSize+n
	}
}
