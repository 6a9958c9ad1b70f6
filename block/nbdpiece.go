package block

import "syscall"

// piece is what one NBD command does of a request. Requests of more than the server takes at
// once are done piece after piece.
type piece struct {
	cmd, flags uint16
	off, n     int64 // bytes; n fits in 32 bits
}

// hasData tells whether the command's data follows its header.
func (p *piece) hasData() bool { return p.cmd == nbdCmdWrite }

// piece is the next thing to do for a request.
func (b *nbd) piece(r *Request) piece {
	if r.Op == Flush || r.done == r.Length {
		return piece{cmd: nbdCmdFlush}
	}
	p := piece{off: r.Offset + r.done, n: r.Length - r.done}
	can, limit := b.export.flags, b.export.maxPayload
	switch r.Op {
	case Read:
		p.cmd = nbdCmdRead
	case Write:
		p.cmd = nbdCmdWrite
	case WriteZeroes:
		if can&nbdSendWriteZeroes == 0 {
			p.cmd, limit = nbdCmdWrite, min(limit, nbdZeroPiece)
			break
		}
		p.cmd, limit = nbdCmdWriteZeroes, nbdMaxRange
		if !r.Deallocate {
			p.flags = nbdFlagNoHole
		}
	case Discard:
		p.cmd, limit = nbdCmdTrim, nbdMaxRange
		if b.info.CanDiscard {
			p.cmd, p.flags = nbdCmdWriteZeroes, nbdFlagFastZero
		}
	}
	p.n = min(p.n, limit)
	if r.FUA && (r.Op == Write || r.Op == WriteZeroes) && can&nbdSendFUA != 0 {
		p.flags |= nbdFlagFUA
	}
	return p
}

// advance takes a piece of a request as done, and tells whether there is more to do.
func (b *nbd) advance(r *Request, p *piece) (more bool) {
	if p.cmd == nbdCmdFlush {
		return false
	}
	if r.done += p.n; r.done < r.Length {
		return true
	}
	// Durability by a flush, where the server has nothing better.
	return r.FUA && (r.Op == Write || r.Op == WriteZeroes) && b.export.flags&(nbdSendFUA|nbdSendFlush) == nbdSendFlush
}

// outcome is the result of a request to which the server has answered with an error.
func outcome(r *Request, errno syscall.Errno) error {
	if r.Op == Discard && unsupported(errno) {
		return nil
	}
	return &Error{r.Op, r.Offset, r.Length, errno}
}
