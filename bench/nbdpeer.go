package bench

import (
	"encoding/binary"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// nbdSocket is where the NBD server listens, in its folder.
const nbdSocket = "nbd"

// spawnNBD starts an NBD server with so many bytes of memory, and returns when it listens. It has
// a CPU of its own if there are three. With two it shares the driver's, with a driver that only
// polls while it waits, and not the device's, on which is all that is measured. So it is for the
// limit, whose client is on the device's CPU.
func spawnNBD(env *Env, size int) error {
	if n := len(env.DeviceCPUs); n > 1 {
		if err := env.pin(env.DeviceCPUs[n-1]); err != nil { // workers begin with the first one
			return err
		}
		defer func() { _ = env.pin(env.DriverCPU) }()
	}
	fd, err := spawn(env, "nbd", size)
	if err != nil {
		return err
	}
	return recvAll(fd, make([]byte, 1))
}

// playNBD is an NBD server with one client, and so many bytes of memory. It says when it listens.
func playNBD(fd int, args []int) error {
	if len(args) != 1 || args[0] < nbdLongest {
		return errRole
	}
	debug.SetGCPercent(-1)
	storage, err := anonymous(new(Env), args[0])
	if err != nil {
		return err
	}
	listening, err := listen(nbdSocket)
	if err != nil {
		return err
	}
	if err := sendAll(fd, []byte{0}); err != nil {
		return err
	}
	either := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}, {Fd: int32(listening), Events: unix.POLLIN}}
	for {
		_, err := unix.Poll(either, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return err
		case either[0].Revents != 0: // who started it has ended it
			return nil
		}
		break
	}
	client, _, err := unix.Accept4(listening, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	if err := nbdGreet(client, len(storage)); err != nil {
		return err
	}
	s := nbdServer{fd: client, storage: storage}
	return s.serve()
}

// nbdGreet makes a handshake: all options are unknown but GO, whatever export it names.
func nbdGreet(fd, size int) error {
	hello := binary.BigEndian.AppendUint64(nil, nbdMagic)
	hello = binary.BigEndian.AppendUint64(hello, nbdOptionMagic)
	hello = binary.BigEndian.AppendUint16(hello, nbdFixedNewstyle|nbdNoZeroes)
	if err := sendAll(fd, hello); err != nil {
		return err
	}
	if err := recvAll(fd, make([]byte, 4)); err != nil { // its flags
		return err
	}
	for {
		var head [16]byte
		if err := recvAll(fd, head[:]); err != nil {
			return err
		}
		option, n := binary.BigEndian.Uint32(head[8:]), binary.BigEndian.Uint32(head[12:])
		if binary.BigEndian.Uint64(head[:]) != nbdOptionMagic || n > 4096 {
			return errNBD
		}
		if err := recvAll(fd, make([]byte, n)); err != nil {
			return err
		}
		if option != nbdOptGo {
			if err := sendAll(fd, nbdAnswer(option, nbdUnsupported)); err != nil {
				return err
			}
			continue
		}
		export := binary.BigEndian.AppendUint16(nil, 0) // the information that is the export's
		export = binary.BigEndian.AppendUint64(export, uint64(size))
		export = binary.BigEndian.AppendUint16(export, nbdHasFlags|nbdSendFlush)
		return sendAll(fd, append(nbdAnswer(nbdOptGo, nbdInfo, export...), nbdAnswer(nbdOptGo, nbdAck)...))
	}
}

// nbdServer answers requests: it takes as many as there are with one recvmsg(2), and answers
// them with one writev(2), from its memory.
type nbdServer struct {
	fd      int
	storage []byte
	heads   [nbdBatch * nbdReplySize]byte
	out     []unix.Iovec
	replies int
}

// nbdBatch is how many replies go into one call, of two parts each: the kernel takes 1,024 parts.
const nbdBatch = 256

// serve ends without an error when the client disconnects.
func (s *nbdServer) serve() error {
	in := make([]byte, 1<<20)
	var m rawMessage
	for have := 0; ; {
		n, e := m.call(unix.SYS_RECVMSG, s.fd, in[have:], 0)
		switch {
		case e == unix.EINTR:
			continue
		case e != 0 || n == 0:
			return hungUp(e)
		}
		have += n
		used, end, err := s.take(in[:have])
		if err == nil {
			err = s.flush()
		}
		if end || err != nil {
			return err
		}
		have = copy(in, in[used:have])
	}
}

// take does the requests that have come in full, and says how many bytes they are.
func (s *nbdServer) take(in []byte) (used int, end bool, err error) {
	for len(in)-used >= nbdRequestSize {
		b := in[used:]
		command := binary.BigEndian.Uint16(b[6:])
		off, n := binary.BigEndian.Uint64(b[16:]), uint64(binary.BigEndian.Uint32(b[24:]))
		if binary.BigEndian.Uint32(b) != nbdRequestMagic || n > nbdLongest || off > uint64(len(s.storage))-n {
			return used, false, errNBD
		}
		block := s.storage[off:][:n]
		size := nbdRequestSize
		switch command {
		case nbdRead:
		case nbdWrite:
			if size += int(n); len(b) < size {
				return used, false, nil
			}
			copy(block, b[nbdRequestSize:])
			block = nil
		case nbdFlush:
			block = nil
		case nbdDisconnect:
			return used, true, s.flush()
		default:
			return used, false, errNBD
		}
		if err := s.reply(b[8:16], block); err != nil {
			return used, false, err
		}
		used += size
	}
	return used, false, nil
}

// reply adds a reply with the cookie of its request to those that are sent next.
func (s *nbdServer) reply(cookie, data []byte) error {
	head := s.heads[s.replies*nbdReplySize:][:nbdReplySize]
	binary.BigEndian.PutUint32(head, nbdReplyMagic)
	copy(head[8:], cookie) // the error between them stays 0
	for _, part := range [][]byte{head, data} {
		if len(part) > 0 {
			v := unix.Iovec{Base: &part[0]}
			v.SetLen(len(part))
			s.out = append(s.out, v)
		}
	}
	if s.replies++; s.replies == nbdBatch {
		return s.flush()
	}
	return nil
}

// flush sends what there is to be sent.
func (s *nbdServer) flush() error {
	left := s.out
	for len(left) > 0 {
		n, e := rawWritev(s.fd, left)
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return e
		}
		left = afterBytes(left, n)
	}
	s.out, s.replies = s.out[:0], 0
	return nil
}
