package link

import (
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// What finds a stream its peer, and loses it. The loop calls all of it.

// maxAccepts is how many peers are taken or refused for one event.
const maxAccepts = 16

// begin looks for a peer.
func (p *streamPort) begin() {
	p.resting = false
	if p.closed {
		return
	}
	if p.link.listener >= 0 {
		_ = p.watch.arm(p.link.listener, newPeer, unix.EPOLLIN)
		return
	}
	if known := p.link.known; known != nil {
		p.left = known
		p.next(nil)
		return
	}
	p.asking.Go(func() {
		ctx, cancel := context.WithTimeout(p.ctx, dialTimeout)
		defer cancel()
		found, err := p.link.place.resolve(ctx)
		p.link.opt.Reactor.PostFunc(func() {
			if !p.closed {
				p.left = found
				p.next(err)
			}
		})
	})
}

// next tries the next address; why is what was wrong with the last one.
func (p *streamPort) next(why error) {
	for len(p.left) > 0 {
		to := p.left[0]
		p.left = p.left[1:]
		fd, err := dial(to)
		switch {
		case err == nil:
			p.key++
			if why = p.watch.add(fd, p.key); why == nil {
				p.establish(fd)
				return
			}
			_ = unix.Close(fd)
		case errors.Is(err, unix.EINPROGRESS):
			p.key++
			if why = p.watch.add(fd, p.key); why == nil {
				if why = p.watch.arm(fd, p.key, unix.EPOLLOUT); why == nil {
					p.dialing = fd
					p.after(dialTimeout)
					return
				}
			}
			_ = unix.Close(fd)
		default:
			why = err
		}
	}
	if !p.warned {
		p.warned = true
		p.link.opt.Logger.Warn("the peer of a stream cannot be reached", "stream", p.link.place.String(), "error", why)
	}
	p.again()
}

// dialed is called when a socket is connected, or cannot be.
func (p *streamPort) dialed() {
	fd := p.dialing
	p.dialing = -1
	p.timer.Stop()
	errno, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err == nil && errno == 0 {
		p.establish(fd)
		return
	}
	if err == nil {
		err = unix.Errno(errno)
	}
	p.watch.remove(fd)
	_ = unix.Close(fd)
	p.next(err)
}

// after has tick called when d has passed.
func (p *streamPort) after(d time.Duration) {
	if p.timer == nil {
		p.timer = p.link.opt.Reactor.AfterFunc(d, p.tick)
		return
	}
	p.timer.Reset(d)
}

// tick is the end of a pause, or of the patience with a peer that does not answer.
func (p *streamPort) tick() {
	switch {
	case p.closed:
	case p.conn.Load() != nil:
		p.failed.Run()
	case p.dialing >= 0:
		p.watch.remove(p.dialing)
		_ = unix.Close(p.dialing)
		p.dialing = -1
		p.next(unix.ETIMEDOUT)
	default:
		p.begin()
	}
}

// again looks for a peer after a pause, unless that is not wanted.
func (p *streamPort) again() {
	longest := p.link.opt.Reconnect
	if longest < 0 {
		return
	}
	if p.pause == 0 {
		p.pause = firstPause
	}
	p.resting = true
	p.after(p.pause)
	p.pause = min(2*p.pause, longest)
}

// accept takes a peer, and refuses others. Those that did not wait for it count for nothing.
func (p *streamPort) accept() {
	for range maxAccepts {
		fd, _, err := unix.Accept4(p.link.listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
		if err != nil {
			if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOMEM) || errors.Is(err, unix.ENOBUFS) {
				p.resting = true
				p.after(firstPause)
				return
			}
			break
		}
		if p.conn.Load() != nil || p.peers > 0 && p.link.opt.Reconnect < 0 || hasLeft(fd) || p.watch.add(fd, p.key+1) != nil {
			_ = unix.Close(fd)
			continue
		}
		p.key++
		p.establish(fd)
	}
	_ = p.watch.arm(p.link.listener, newPeer, unix.EPOLLIN)
}

// hasLeft tells whether a peer has closed its connection and sent nothing.
func hasLeft(fd int) bool {
	var b [1]byte
	n, _, err := unix.Recvfrom(fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
	}
	return n == 0
}

// establish begins to use a connection that the watcher knows by p.key.
func (p *streamPort) establish(fd int) {
	if p.link.place.network == "tcp" {
		tune(fd)
	}
	c := &ready{watch: p.watch, fd: fd, key: p.key}
	p.conn.Store(c)
	p.live.Store(true)
	p.since, p.warned = time.Now(), false
	c.arm(unix.EPOLLIN)
	p.link.opt.Logger.Info("the peer of a stream is there", "stream", p.link.place.String())
	p.card.SetCarrier(true)
	if p.peers++; p.peers > 1 {
		p.announceSoon()
	}
}
