package block

import (
	"context"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	nbdMaxConnections     = 16
	nbdDefaultConnections = 4
	nbdDefaultTimeout     = 30 * time.Second
	// nbdDepth is how many commands one connection has in flight.
	nbdDepth = 256
	// nbdMaxRange is the most that one command without data covers, in bytes.
	nbdMaxRange = 1 << 30
	// nbdZeroPiece is how many zeroes go with one command to a server that has none for them.
	nbdZeroPiece = 1 << 20
	// The pause before a connection is tried again, from the first to the longest.
	nbdMinPause, nbdMaxPause = 20 * time.Millisecond, 2 * time.Second
	// nbdHello bounds how long connecting and the handshake take.
	nbdHello = 10 * time.Second
)

// NBDOptions are the choices NBD offers; the zero value is the default.
type NBDOptions struct {
	// ReadOnly never changes the export.
	ReadOnly bool
	// Connections is how many connections there are at most, 1 to 16, where the server
	// allows several; 0 means 4.
	Connections int
	// Timeout is after how long a request fails that the server has not answered, over all
	// the connections it was sent on; 0 means 30 s. Half of it without a sign of
	// life, while there are requests, ends a connection.
	Timeout time.Duration
	// Logger is told of connections that are lost and regained; nil: nobody is.
	Logger *slog.Logger

	hello time.Duration // how long connecting and the handshake may take; 0: nbdHello
}

// nbd is an export of an NBD server. Any of its connections can serve any request.
//
// Its one lock guards the queue, and which command is whose on which connection. Nobody holds
// it during a system call.
type nbd struct {
	uri     string
	address nbdAddress
	opt     NBDOptions
	info    Info
	export  nbdExport // as it was when the backend was made

	ctx     context.Context // ends when no connection is needed any more
	cancel  context.CancelFunc
	keepers sync.WaitGroup

	mu         sync.Mutex
	quiet      sync.Cond // something has ended that somebody may wait for
	head, tail *Request  // wait for a connection
	inflight   int       // requests, waiting ones included
	conns      []*nbdConn
	ticks      uint32 // the clock: sixteenths of the timeout during which there were requests
	ticker     *time.Timer
	ticking    bool
	lastErr    error // why the last connection went, or did not come
	closed     bool
}

// NBD returns a backend on an export of an NBD server:
//
//	nbd://HOST[:PORT][/EXPORT]
//	nbd+unix:///[EXPORT]?socket=PATH
//
// The parameters connections=N and timeout=DURATION of the URI go before the options. Requests
// are asynchronous; their data goes straight between the socket and the request's buffers.
//
// A connection that is lost is made again, with pauses that grow up to 2 s, and what was in
// flight on it is sent again. What fails after the timeout carries
// ETIMEDOUT. A server that breaks the protocol costs its connection. Where the export's smallest
// block is larger than SectorSize, requests that are not made of such blocks fail with EINVAL.
//
// The first connection is made before NBD returns. Errors are *OpenError.
func NBD(uri string, opt NBDOptions) (Backend, error) {
	b, err := newNBD(uri, opt)
	if err != nil {
		return nil, &OpenError{Spec: uri, Err: err}
	}
	return b, nil
}

func newNBD(uri string, opt NBDOptions) (*nbd, error) {
	address, err := parseNBD(uri, &opt)
	if err != nil {
		return nil, err
	}
	if opt.Connections == 0 {
		opt.Connections = nbdDefaultConnections
	}
	if opt.Timeout == 0 {
		opt.Timeout = nbdDefaultTimeout
	}
	if opt.hello == 0 {
		opt.hello = nbdHello
	}
	if opt.Connections < 1 || opt.Connections > nbdMaxConnections || opt.Timeout < 0 {
		return nil, because(ErrSpec, "%d connections with a timeout of %v; it is 1 to %d", opt.Connections, opt.Timeout, nbdMaxConnections)
	}
	b := &nbd{uri: uri, address: address, opt: opt}
	b.quiet.L = &b.mu
	b.ctx, b.cancel = context.WithCancel(context.Background())
	first, export, err := b.dial()
	if err != nil {
		b.cancel()
		return nil, err
	}
	b.export = export
	readOnly := opt.ReadOnly || export.flags&nbdReadOnly != 0
	b.info = Info{
		Kind:          "nbd",
		Async:         true,
		ReadOnly:      readOnly,
		VolatileCache: !readOnly && export.flags&nbdSendFlush != 0,
		// What was trimmed may read as anything. Zeroing does better where the server promises
		// not to write zeroes for it.
		CanDiscard: !readOnly && export.flags&nbdZeroesFast == nbdZeroesFast,
	}
	if export.flags&nbdCanMultiConn == 0 {
		b.opt.Connections = 1
	}
	b.ticker = time.AfterFunc(time.Hour, b.tick)
	b.ticker.Stop()
	for range b.opt.Connections {
		b.conns = append(b.conns, newNBDConn(b))
	}
	for i, c := range b.conns {
		var conn net.Conn
		if i == 0 {
			conn = first
		}
		b.keepers.Go(func() { c.keep(conn, export.structured) })
	}
	return b, nil
}

// dial makes a connection and agrees with the server on the export.
func (b *nbd) dial() (net.Conn, nbdExport, error) {
	ctx, cancel := context.WithTimeout(b.ctx, b.opt.hello)
	defer cancel()
	var dialer net.Dialer
	conn, err := dialer.DialContext(ctx, b.address.network, b.address.address)
	if err != nil {
		return nil, nbdExport{}, because(err, "cannot connect: %v; is the server running there?", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	e, err := handshake(conn, b.address.export)
	if !stop() && err == nil {
		err = ctx.Err()
	}
	if err == nil {
		err = b.same(e)
	}
	if err != nil {
		_ = conn.Close()
		return nil, e, err
	}
	b.findDead(conn)
	return conn, e, nil
}

// same says whether a new connection leads to the export that the device knows.
func (b *nbd) same(e nbdExport) error {
	const matters = nbdReadOnly | nbdSendFlush | nbdSendFUA | nbdSendTrim | nbdZeroesFast
	was := b.export
	switch {
	case was.size == 0: // the first
	case e.size != was.size:
		return because(unix.EIO, "the export had %d bytes and now has %d", was.size, e.size)
	case (e.flags^was.flags)&matters != 0, e.minBlock > was.minBlock, e.maxPayload < was.maxPayload:
		return because(unix.EIO, "the export cannot do any more what it could")
	}
	return nil
}

// findDead has the kernel end a TCP connection to a machine that has gone.
func (b *nbd) findDead(conn net.Conn) {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return
	}
	_ = tcp.SetKeepAliveConfig(net.KeepAliveConfig{Enable: true, Idle: 5 * time.Second, Interval: 2 * time.Second, Count: 3})
	if raw, err := tcp.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) {
			_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int((b.opt.Timeout / 2).Milliseconds()))
		})
	}
}

func (b *nbd) Size() int64 { return b.export.size }

func (b *nbd) Info() Info { return b.info }

func (b *nbd) Submit(r *Request) (bool, error) {
	if err := r.check(b.export.size, b.info.ReadOnly); err != nil {
		return true, err
	}
	switch {
	case r.Completer == nil:
		return true, ErrRequest
	case r.Op != Flush && (r.Offset|r.Length)&(b.export.minBlock-1) != 0 && r.Op != Discard:
		return true, &Error{r.Op, r.Offset, r.Length, because(unix.EINVAL, "the export has blocks of %d bytes", b.export.minBlock)}
	}
	r.done = 0
	ends := b.needless(r)
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return true, ErrClosed
	}
	if ends {
		b.mu.Unlock()
		return true, nil
	}
	r.born = b.ticks
	b.inflight++
	b.enqueue(r)
	if !b.ticking {
		b.ticking = true
		b.ticker.Reset(b.opt.Timeout / 16)
	}
	c := b.sender()
	b.mu.Unlock()
	if c != nil {
		c.pump(false)
	}
	return false, nil
}

// needless tells whether there is nothing that the server could do for a request.
func (b *nbd) needless(r *Request) bool {
	switch r.Op {
	case Flush:
		return !b.info.VolatileCache
	case Discard:
		// A hint, for whole blocks only.
		return !b.info.CanDiscard && b.export.flags&nbdSendTrim == 0 || r.Length == 0 || (r.Offset|r.Length)&(b.export.minBlock-1) != 0
	}
	return r.Length == 0
}

// enqueue puts a request at the end of the queue. b.mu is held.
func (b *nbd) enqueue(r *Request) {
	r.next = nil
	if b.head == nil {
		b.head = r
	} else {
		b.tail.next = r
	}
	b.tail = r
}

// sender finds a connection for what is at the head of the queue and makes the caller its
// sender, who must call pump. It is nil if there is nothing to send, or if whoever sends
// now or receives next will. b.mu is held.
func (b *nbd) sender() *nbdConn {
	if b.head == nil {
		return nil
	}
	var best *nbdConn
	for _, c := range b.conns {
		if c.up && !c.sending && len(c.free) > 0 && (best == nil || len(c.free) > len(best.free)) {
			best = c
		}
	}
	if best != nil {
		best.sending = true
	}
	return best
}

// end completes a request; b.mu is not held.
func (b *nbd) end(r *Request, err error) {
	r.Completer.CompleteBlock(r, err)
	b.mu.Lock()
	b.inflight--
	if b.closed && b.inflight == 0 {
		b.quiet.Broadcast()
	}
	b.mu.Unlock()
}

// Close waits for requests in flight, which takes no longer than the timeout, and says goodbye
// to the server.
func (b *nbd) Close() error {
	b.mu.Lock()
	b.closed = true
	for b.inflight != 0 {
		b.quiet.Wait()
	}
	b.mu.Unlock()
	b.cancel()
	b.keepers.Wait()
	b.ticker.Stop()
	return nil
}

// pause is how long to wait before the n-th attempt at a connection.
func pause(n int) time.Duration {
	d := nbdMaxPause
	if n < 8 {
		d = min(nbdMinPause<<n, nbdMaxPause)
	}
	return d/2 + rand.N(d/2)
}
