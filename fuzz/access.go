package fuzz

import (
	"encoding/binary"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// doWrite writes a region.
func (l *life) doWrite() {
	flags := l.flags()
	p := l.place()
	n := l.width(p)
	if n > 1<<20+1 || !l.spend(int(n)) {
		n &= 63
	}
	a := codec.RegionAccess{Offset: p.offset, Region: p.region, Count: n, Data: l.data(n)}
	l.c.write(l.c.message(codec.CmdRegionWrite, flags, a.Append(nil)))
}

// doRead reads a region.
func (l *life) doRead() {
	flags := l.flags()
	p := l.place()
	a := codec.RegionAccess{Offset: p.offset, Region: p.region, Count: l.width(p)}
	l.c.write(l.c.message(codec.CmdRegionRead, flags, a.AppendHead(nil)))
}

// doWriteMulti writes several places with one message.
func (l *life) doWriteMulti() {
	flags := l.flags()
	var m codec.WriteMulti
	for range l.s.Intn(8) {
		p := l.place()
		n := 1 << (l.s.Uint8() & 3)
		m.Writes = codec.AppendWrite(m.Writes, codec.RegionAccess{
			Offset: p.offset, Region: p.region, Count: uint32(n), Data: l.data(uint32(n))})
		m.Count++
	}
	if l.s.Odds(8) {
		m.Count = l.s.Edge(m.Count)
	}
	l.c.write(l.c.message(codec.CmdRegionWriteMulti, flags, m.Append(nil)))
}

// doStore changes memory that the client has mapped, or had.
func (l *life) doStore() {
	sel := l.s.Uint8()
	addr := uint64(0)
	if sel == exactly {
		addr = l.s.Uint64()
	} else {
		addr = l.guestAddress()
	}
	var b []byte
	switch how := l.s.Uint8(); {
	case how == exactly, how < 0x80:
		b = l.s.Bytes(int(l.s.Uint8()))
	case how < 0xc0:
		b = l.data(8)
	case how < 0xe0:
		b = make([]byte, 16*int(l.s.Uint8()))
	default:
		b = l.data(uint32(l.s.Uint16() & 0x3ff))
	}
	if g := l.c.find(addr, uint64(len(b))); g != nil && g.fd != 0 {
		_, _ = unix.Pwrite(g.fd, b, int64(g.offset+addr-g.iova)) // what does not fit is lost
	}
}

// doSettle waits for all replies.
func (l *life) doSettle() { l.c.settle() }

// The things that a client can wait for.
const (
	awaitRegister = iota // of 4 bytes
	awaitMemory          // likewise
)

// doAwait looks at something until some of its bits have a value, or until that takes too long.
func (l *life) doAwait() {
	memory := l.s.Intn(2) == awaitMemory
	var p place
	var addr uint64
	if memory {
		addr = l.s.Uint64()
	} else {
		p = l.place()
	}
	mask, want := l.s.Uint32(), l.s.Uint32()
	l.deaf = false
	begin := time.Now().Add(-l.awaited)
	defer func() { l.awaited = time.Since(begin) }()
	for time.Since(begin) < maxAwait && !l.c.main.over {
		var got uint32
		var ok bool
		if memory {
			got, ok = l.memory32(addr)
		} else {
			got, ok = l.register32(p)
		}
		if !ok || got&mask == want&mask {
			return
		}
		time.Sleep(20 * time.Microsecond) // polls
	}
}

// memory32 is what memory holds that the client has mapped.
func (l *life) memory32(addr uint64) (v uint32, ok bool) {
	l.c.answerAll()
	l.c.pump()
	g := l.c.find(addr, 4)
	if g == nil || g.fd == 0 {
		return 0, false
	}
	var b [4]byte
	_, _ = unix.Pread(g.fd, b[:], int64(g.offset+addr-g.iova)) // what is not there is 0
	return binary.LittleEndian.Uint32(b[:]), true
}

// register32 reads a register.
func (l *life) register32(p place) (v uint32, ok bool) {
	a := codec.RegionAccess{Offset: p.offset, Region: p.region, Count: 4}
	l.awaiting = &awaited{id: l.c.id + 1}
	l.c.call(codec.CmdRegionRead, a.AppendHead(nil))
	l.c.settle()
	got := l.awaiting
	l.awaiting = nil
	return got.value, got.came
}

// awaited is a read whose value is looked at.
type awaited struct {
	id    uint16
	came  bool
	value uint32
}

// look takes the value of a read that is awaited.
func (l *life) look(id uint16, payload []byte) {
	var a codec.RegionAccess
	if l.awaiting == nil || l.awaiting.id != id || a.DecodeReadReply(payload) != nil {
		return
	}
	if len(a.Data) == 4 {
		l.awaiting.came, l.awaiting.value = true, binary.LittleEndian.Uint32(a.Data)
	}
}
