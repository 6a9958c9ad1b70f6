package hostile

import (
	"os"
	"slices"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/devices/nvme"
	"vfiouser/engine/reactor"
)

// readCAP is a REGION_READ of the first register.
var readCAP = (&codec.RegionAccess{Count: 8}).AppendHead(nil)

func TestDescriptorsWhereNoneBelong(t *testing.T) {
	l := newLab(t, nvme.Trap)
	for _, n := range []int{1, 16, 17, reactor.MaxFDs} {
		name := strconv.Itoa(n) + " descriptors"
		l.attack(t, name+" with REGION_READ", func(a *attack) {
			s := a.session()
			fds := slices.Repeat([]int{a.eventfd()}, n)
			for range 20 {
				if _, err := s.try(codec.CmdRegionRead, readCAP, fds...); err != nil && err != unix.EINVAL {
					a.Fatal(err)
				}
			}
			s.alive()
		})
		l.attack(t, name+" with every command", func(a *attack) {
			fds := slices.Repeat([]int{a.eventfd()}, n)
			s := a.dial()
			_, _ = s.try(codec.CmdVersion, nil, fds...)
			s.ended()
			s = a.session()
			for cmd := codec.CmdVersion; cmd < codec.NumCommands; cmd++ {
				for _, size := range []int{0, 16, 20, 24, 32, 40} {
					_, _ = s.try(cmd, make([]byte, size), fds...)
				}
			}
			s.alive()
		})
		l.attack(t, name+" with a reply", func(a *attack) {
			s := a.session()
			s.must(header(16, codec.FlagReply), slices.Repeat([]int{a.eventfd()}, n)...)
			s.ended()
		})
		l.attack(t, name+" with the end of a message", func(a *attack) {
			s := a.session()
			fds := slices.Repeat([]int{a.eventfd()}, n)
			b := s.message(codec.CmdRegionRead, 0, readCAP)
			s.must(b[:20])
			s.must(b[20:], fds...)
			if _, _, err := s.reply(); err != nil {
				a.Fatal(err)
			}
			s.alive()
		})
		l.attack(t, name+" with a message that never ends", func(a *attack) {
			s := a.session()
			s.must(s.message(codec.CmdRegionRead, 0, readCAP)[:20], slices.Repeat([]int{a.eventfd()}, n)...)
		})
		l.attack(t, name+" before VERSION", func(a *attack) {
			s := a.dial()
			s.must([]byte{1}, slices.Repeat([]int{a.eventfd()}, n)...)
		})
	}
}

// The process may have open only so many descriptors; nobody may bring it there.
func TestDescriptorsAreNotHoarded(t *testing.T) {
	l := newLab(t, nvme.Trap)
	const bound = 1000 // descriptors that the server may hold for a client
	hoards := func(a *attack, before int) {
		a.Helper()
		if now := count(a.T).descriptors; now > before+bound {
			a.Errorf("the server holds %d descriptors", now-before)
		}
	}
	l.attack(t, "16 with every byte of one message", func(a *attack) {
		s := a.session()
		fds := slices.Repeat([]int{a.eventfd()}, 16)
		before := count(a.T).descriptors
		b := s.message(codec.CmdRegionWrite, 0, make([]byte, 4096))
		for i := range b[:len(b)-1] {
			if s.send(b[i:i+1], fds...) != nil {
				return // it may hang up
			}
		}
		hoards(a, before)
	})
	l.attack(t, "with commands that wait for one that does not end", func(a *attack) {
		g, p := a.started(64)
		a.lab.gate.shut()
		defer a.lab.gate.open()
		p.flood(fileNS, ramBase+g.ram.alloc(pageSize))
		g.until("reads are in flight", func() bool { return a.lab.gate.waiting() > 0 })
		g.must(g.message(codec.CmdDMAUnmap, 0, unmapping(ramBase, g.ram.size)))
		fds := slices.Repeat([]int{a.eventfd()}, 16)
		before := count(a.T).descriptors
		if err := unix.SetNonblock(g.fd, true); err != nil {
			a.Fatal(err)
		}
		for range 2000 {
			if g.send(g.message(codec.CmdGetInfo, 0, nil), fds...) != nil {
				break // it is not read any more
			}
		}
		hoards(a, before)
	})
}

// foreign makes descriptors of all kinds. They are closed when the attack is over.
func (a *attack) foreign() map[string]int {
	a.Helper()
	fds := make(map[string]int)
	add := func(name string, fd int, err error) {
		if err != nil {
			a.Fatalf("%s: %v", name, err)
		}
		fds[name] = fd
		a.atEnd(func() { _ = unix.Close(fd) })
	}
	var pipe [2]int
	err := unix.Pipe2(pipe[:], unix.O_CLOEXEC)
	add("the end of a pipe to read", pipe[0], err)
	add("the end of a pipe to write", pipe[1], err)
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	add("a socket", pair[0], err)
	add("its peer", pair[1], err)
	fd, err := unix.Open("/dev/zero", unix.O_RDWR|unix.O_CLOEXEC, 0)
	add("/dev/zero", fd, err)
	fd, err = unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	add("a folder", fd, err)
	fd, err = unix.Open(os.TempDir(), unix.O_PATH|unix.O_CLOEXEC, 0)
	add("a path", fd, err)
	fd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	add("an epoll instance", fd, err)
	fd, err = unix.TimerfdCreate(unix.CLOCK_MONOTONIC, unix.TFD_CLOEXEC)
	add("a timer", fd, err)
	fd, err = unix.InotifyInit1(unix.IN_CLOEXEC)
	add("an inotify instance", fd, err)
	return fds
}

func TestDescriptorsOfTheWrongKind(t *testing.T) {
	l := newLab(t, nvme.Trap)
	l.attack(t, "as memory", func(a *attack) {
		s := a.session()
		fds := a.foreign()
		fds["an eventfd"], fds["the connection itself"] = a.eventfd(), s.fd
		before := takeCensus(a.T)
		for name, fd := range fds {
			if _, err := s.try(codec.CmdDMAMap, mapping(ramBase, pageSize, 0, readWrite), fd); err != unix.EINVAL {
				a.Errorf("%s: %v", name, err)
			}
		}
		before.wait(a.T) // as long as the server has the connection itself, it does not end
		s.alive()
	})
	l.attack(t, "as eventfd", func(a *attack) {
		s := a.session()
		fds := a.foreign()
		fds["a memfd"], fds["the connection itself"] = a.newRAM(pageSize).fd, s.fd
		before := takeCensus(a.T)
		for name, fd := range fds {
			for index := range codec.IRQIndex(codec.NumIRQIndexes) {
				for _, action := range []codec.IRQSetFlags{codec.IRQSetActionTrigger, codec.IRQSetActionMask, codec.IRQSetActionUnmask} {
					set := codec.SetIRQs{ArgSz: codec.SetIRQsSize, Flags: codec.IRQSetDataEventfd | action, Index: index, Count: 1}
					if _, err := s.try(codec.CmdSetIRQs, set.Append(nil), fd); err != unix.EINVAL {
						a.Errorf("%s for index %d: %v", name, index, err)
					}
				}
			}
		}
		before.wait(a.T)
		s.alive()
	})
	l.attack(t, "one among eventfds", func(a *attack) {
		s := a.session()
		fds := slices.Repeat([]int{a.eventfd()}, 16)
		fds[15] = a.foreign()["a socket"]
		set := codec.SetIRQs{ArgSz: codec.SetIRQsSize, Flags: codec.IRQSetDataEventfd | codec.IRQSetActionTrigger, Index: 2, Count: 16}
		s.refused(unix.EINVAL, codec.CmdSetIRQs, set.Append(nil), fds...)
		s.alive()
	})
}

// A socket that lingers keeps whoever closes it last until its peer has taken all data.
func TestDescriptorsThatAreSlowToClose(t *testing.T) {
	l := newLab(t, nvme.Trap)
	irqs := codec.SetIRQs{ArgSz: codec.SetIRQsSize, Flags: codec.IRQSetDataEventfd | codec.IRQSetActionTrigger, Index: 2, Count: 1}
	for _, c := range []struct {
		name    string
		command codec.Command
		payload []byte
		count   int
	}{
		{"with REGION_READ", codec.CmdRegionRead, readCAP, 1},
		{"as memory", codec.CmdDMAMap, mapping(ramBase, pageSize, 0, readWrite), 1},
		{"as eventfd", codec.CmdSetIRQs, irqs.Append(nil), 1},
		{"and too many", codec.CmdRegionRead, readCAP, 17},
		{"and far too many", codec.CmdRegionRead, readCAP, reactor.MaxFDs},
	} {
		l.attack(t, c.name, func(a *attack) {
			s := a.session()
			b := s.message(c.command, 0, c.payload)
			s.sendLingering(b[:20], c.count)
			s.must(b[20:])
			if _, _, err := s.reply(); err != nil {
				a.Error(err)
			}
			s.alive()
		})
	}
	l.attack(t, "in a message that never ends", func(a *attack) {
		s := a.session()
		s.sendLingering(s.message(codec.CmdRegionRead, 0, readCAP)[:20], 1)
		s.close()
	})
	l.attack(t, "that nobody receives", func(a *attack) {
		s := a.session()
		s.must(header(3, 0)) // for which the server hangs up
		s.sendLingering(s.message(codec.CmdRegionRead, 0, readCAP), 1)
		s.close()
	})
}

// sendLingering sends a part of a message with a socket that takes long to close, count
// times, and closes its own descriptor. When the attack is over the peer goes away, which
// ends it.
func (c *raw) sendLingering(b []byte, count int) {
	c.a.Helper()
	near, far := c.a.tcp()
	closed := make(chan struct{})
	c.a.atEnd(func() {
		_ = unix.Close(far)
		<-closed
	})
	must := func(err error) {
		c.a.Helper()
		if err != nil {
			c.a.Fatal(err)
		}
	}
	must(unix.SetNonblock(near, true))
	for buf := make([]byte, 1<<20); ; {
		if _, err := unix.Write(near, buf); err == unix.EAGAIN {
			break // full: the peer does not read
		} else {
			must(err)
		}
	}
	must(unix.SetsockoptLinger(near, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3600}))
	must(unix.SetNonblock(near, false))
	_ = c.send(b, slices.Repeat([]int{near}, count)...) // it may have hung up
	// The server has another one, or it is on its way. If it is quicker, though, this is
	// the one that takes long.
	go func() {
		_ = unix.Close(near)
		close(closed)
	}()
}

// tcp is a connected pair of TCP sockets.
func (a *attack) tcp() (near, far int) {
	a.Helper()
	must := func(err error) {
		a.Helper()
		if err != nil {
			a.Fatal(err)
		}
	}
	l, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	defer unix.Close(l)
	must(unix.Bind(l, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}))
	must(unix.Listen(l, 1))
	name, err := unix.Getsockname(l)
	must(err)
	near, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	must(err)
	must(unix.Connect(near, name))
	far, _, err = unix.Accept4(l, unix.SOCK_CLOEXEC)
	must(err)
	return near, far
}
