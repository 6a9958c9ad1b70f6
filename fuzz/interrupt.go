package fuzz

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// vectors chooses some of an interrupt type's, seldom of none that is there.
func (l *life) vectors() (index codec.IRQIndex, start, count uint32) {
	if sel := l.s.Uint8(); sel < 0xe0 {
		index = codec.IRQIndex(sel % codec.NumIRQIndexes)
	} else {
		index = codec.IRQIndex(l.s.Edge(codec.NumIRQIndexes))
	}
	n := uint64(1)
	if int(index) < len(l.r.shape.irqs) {
		n = uint64(l.r.shape.irqs[index].Count)
	}
	if l.s.Odds(4) {
		return index, uint32(l.s.Edge(n)), uint32(l.s.Edge(n))
	}
	start = uint32(uint64(l.s.Uint8()) % max(n, 1))
	return index, start, uint32(uint64(l.s.Uint8())%max(n-uint64(start), 1)) + 1
}

// doEventfds assigns eventfds to vectors, as drivers do.
func (l *life) doEventfds() {
	set := codec.SetIRQs{ArgSz: codec.SetIRQsSize, Flags: codec.IRQSetDataEventfd | codec.IRQSetActionTrigger}
	if sel := l.s.Uint8(); sel == exactly {
		set.Index, set.Start, set.Count = codec.IRQIndex(l.s.Uint8()), uint32(l.s.Uint8()), uint32(l.s.Uint8()&15)
	} else {
		set.Index, set.Start, set.Count = l.vectors()
		set.Count = min(set.Count, 16)
	}
	fds := make([]int, set.Count)
	for i := range fds {
		fds[i] = l.eventfd()
	}
	l.c.call(codec.CmdSetIRQs, set.Append(nil), fds...)
}

// doSetIRQs does anything that can be done to interrupts, and more.
func (l *life) doSetIRQs() {
	set := codec.SetIRQs{ArgSz: codec.SetIRQsSize}
	data := codec.IRQSetFlags(1) << (l.s.Uint8() % 3)
	action := codec.IRQSetActionMask << (l.s.Uint8() % 3)
	set.Flags = data | action
	set.Index, set.Start, set.Count = l.vectors()
	if l.s.Odds(8) {
		set.Flags = codec.IRQSetFlags(l.bits(0, 1, 2, 4, 8, 16, 32, 64))
		set.ArgSz = l.argsz(set.ArgSz)
	}
	var fds []int
	switch {
	case data == codec.IRQSetDataBool:
		set.Data = l.s.Bytes(int(min(set.Count, 256)))
		set.ArgSz += uint32(len(set.Data))
	case data == codec.IRQSetDataEventfd && !l.s.Odds(3):
		for range min(set.Count, 16) {
			fds = append(fds, l.eventfd())
		}
	case data == codec.IRQSetDataEventfd && l.s.Odds(2):
		fds = l.oddFDs()
	}
	l.c.write(l.c.message(codec.CmdSetIRQs, l.flags(), set.Append(nil)), fds...)
}

// doMischief does to the client's eventfds what an honest client does not.
func (l *life) doMischief() {
	fd := l.eventfd()
	if n := len(l.eventfds); n > 0 {
		fd = l.eventfds[l.s.Intn(min(n, 256))]
	}
	var b [8]byte
	switch l.s.Intn(4) {
	case 0: // full: whoever signals it would wait
		_ = unix.SetNonblock(fd, true)
		binary.NativeEndian.PutUint64(b[:], 1<<64-2)
		_, _ = unix.Write(fd, b[:])
		_ = unix.SetNonblock(fd, false)
		if !l.c.must {
			l.c.may = "an eventfd is full and blocks"
		}
	case 1:
		_ = unix.SetNonblock(fd, true)
		_, _ = unix.Read(fd, b[:])
	case 2:
		_ = unix.SetNonblock(fd, true)
		binary.NativeEndian.PutUint64(b[:], 1)
		_, _ = unix.Write(fd, b[:])
	case 3:
		_ = unix.SetNonblock(fd, l.s.Bool())
	}
}

// doGift uses a descriptor that the server gave: memory of the device's is written to, or
// shortened, and an area is signalled.
func (l *life) doGift() {
	how, which := l.s.Uint8(), int(l.s.Uint8())
	if n := len(l.c.eventFDs); n > 0 && how&1 == 1 {
		l.useEventfd(l.c.eventFDs[which%n], how>>1)
	} else if n := len(l.c.regionFDs); n > 0 && how&1 == 0 {
		l.useMemory(l.c.regionFDs[which%n], how>>1)
	}
}

// signal is how an eventfd is used that is only signalled.
const signal = exactly >> 1

func (l *life) useEventfd(fd int, how uint8) {
	var b [8]byte
	switch how & 7 {
	case 0:
		_ = unix.SetNonblock(fd, l.s.Bool())
	case 1:
		_ = unix.SetNonblock(fd, true)
		_, _ = unix.Read(fd, b[:])
	case 2:
		_ = unix.SetNonblock(fd, true)
		binary.NativeEndian.PutUint64(b[:], l.s.Edge(1<<63))
		_, _ = unix.Write(fd, b[:])
	default:
		_ = unix.SetNonblock(fd, true)
		binary.NativeEndian.PutUint64(b[:], 1)
		_, _ = unix.Write(fd, b[:])
	}
}

func (l *life) useMemory(fd int, how uint8) {
	var b [8]byte
	switch off := int64(l.s.Uint16()); how & 15 {
	case 0:
		_ = unix.Ftruncate(fd, off)
	case 1:
		_, _ = unix.Pread(fd, b[:], off)
	default:
		n := 1 << (how >> 4 & 3)
		l.s.Fill(b[:n])
		_, _ = unix.Pwrite(fd, b[:n], off)
	}
}
