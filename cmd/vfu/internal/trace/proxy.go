package trace

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Proxy stands between clients and a server.
type Proxy struct {
	listen, connect string
	listener        *net.UnixListener
	queue           *queue
	warn            func(error)

	mu      sync.Mutex
	current *session // nil between clients
	closed  bool
}

// Listen makes a Proxy that clients reach at the socket listen and whose server is at
// connect. Everything that happens is shown in order, by one goroutine; warn is told of
// what is worth a word to who runs it.
func Listen(listen, connect string, show func([]Event), warn func(error)) (*Proxy, error) {
	l, err := listenUnix(listen)
	if err != nil {
		return nil, err
	}
	return &Proxy{listen: listen, connect: connect, listener: l, queue: newQueue(show), warn: warn}, nil
}

// listenUnix takes the place of a socket that nobody listens on any more.
func listenUnix(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if !errors.Is(err, unix.EADDRINUSE) {
		if err != nil {
			return nil, fmt.Errorf("cannot listen on %s: %w", path, err)
		}
		return l, nil
	}
	// A connection to a file that is no socket is refused, too.
	if info, err := os.Lstat(path); err != nil || info.Mode()&os.ModeSocket == 0 {
		return nil, fmt.Errorf("cannot listen on %s: what is there is no socket: name another path", path)
	}
	if conn, err := net.DialUnix("unix", nil, addr); !errors.Is(err, unix.ECONNREFUSED) {
		if err == nil {
			conn.Close()
		}
		return nil, fmt.Errorf("cannot listen on %s: another server listens there: end it, or name another path", path)
	}
	if err := os.Remove(path); err != nil {
		return nil, fmt.Errorf("cannot listen on %s: a socket is left over there: %w", path, err)
	}
	return listenUnix(path)
}

// Serve passes on the sessions of one client after the other until the context ends, then
// shows what there is left to be shown.
func (p *Proxy) Serve(ctx context.Context) error {
	defer p.queue.close()
	stop := context.AfterFunc(ctx, p.end)
	defer stop()
	var sessions sync.WaitGroup
	defer sessions.Wait()
	defer p.end()
	for n := 1; ; {
		conn, err := p.listener.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("cannot accept clients on %s any more: %w", p.listen, err)
		}
		s, ok := p.admit(ctx, conn, n)
		if !ok {
			continue
		}
		n++
		sessions.Go(func() {
			if err := s.run(); err != nil {
				p.warn(err)
			}
			p.mu.Lock()
			p.current = nil
			p.mu.Unlock()
			close(s.over)
		})
	}
}

// end makes all that goes on come to its end.
func (p *Proxy) end() {
	_ = p.listener.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	if p.current != nil {
		p.current.abort()
	}
}

// admit connects a client to the server. While another is there it is refused; one that
// has hung up is waited for.
func (p *Proxy) admit(ctx context.Context, conn *net.UnixConn, n int) (*session, bool) {
	client, err := take(conn)
	if err != nil {
		p.warn(fmt.Errorf("a client came and was lost: %w", err))
		return nil, false
	}
	p.mu.Lock()
	before := p.current
	p.mu.Unlock()
	if before != nil {
		if !before.clientGone() {
			client.close()
			p.warn(errors.New("a second client came while the first is there, and was turned away"))
			return nil, false
		}
		<-before.over
	}
	server, err := dial(ctx, p.connect)
	if err != nil {
		client.close()
		if ctx.Err() == nil {
			p.warn(fmt.Errorf("a client came, but no server answers at %s: start one there, or correct --connect: %w", p.connect, err))
		}
		return nil, false
	}
	s := newSession(n, client, server, p.queue.put)
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		client.close()
		server.close()
		return nil, false
	}
	p.current = s
	return s, true
}
