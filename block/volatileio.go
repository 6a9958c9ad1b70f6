package block

import (
	"math/bits"
	"syscall"
)

// CompleteBlock is for the inner backend.
func (v *Volatile) CompleteBlock(_ *Request, err error) { v.ended <- err }

// do has the inner backend do something, and waits.
func (v *Volatile) do(r Request) error {
	v.req = r
	v.req.Completer = v
	var done bool
	var err error
	submit := func() { done, err = v.inner.Submit(&v.req) }
	if v.direct {
		submit()
	} else if failed := touch(submit); failed != nil {
		return failed
	}
	if !done {
		err = <-v.ended
	}
	v.req = Request{}
	return err
}

// run does one request.
func (v *Volatile) run(r *Request) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.dark.Load() {
		return &Error{r.Op, r.Offset, r.Length, syscall.ENODEV}
	}
	defer v.note()
	// It may have become smaller since Submit.
	if err := r.check(v.Size(), v.info.ReadOnly); err != nil {
		return err
	}
	from, to := r.Offset, r.Offset+r.Length
	switch r.Op {
	case Flush:
		return v.flush()
	case Read:
		return v.read(r)
	case Discard:
		if err := v.writeOut(from, to, false); err != nil {
			return err
		}
		return v.do(Request{Op: Discard, Offset: from, Length: r.Length})
	case WriteZeroes:
		if r.Length > volatileZeroes {
			if err := v.writeOut(from, to, false); err != nil {
				return err
			}
			return v.do(Request{Op: WriteZeroes, Offset: from, Length: r.Length, FUA: r.FUA, Deallocate: r.Deallocate})
		}
	}
	v.spilt = false
	if err := v.write(r); err != nil || !r.FUA {
		return err
	}
	if err := v.writeOut(from, to, true); err != nil || !v.spilt {
		return err
	}
	// Some of its pages may have been written without FUA, as there were too many.
	return v.do(Request{Op: Flush})
}

func (v *Volatile) flush() error {
	if v.info.ReadOnly {
		return nil
	}
	if err := v.writeOut(0, v.Size(), false); err != nil {
		return err
	}
	return v.do(Request{Op: Flush})
}

// eachPage calls fn for each page that a range touches, with the part of it that is in the
// range and where that is in the request.
func eachPage(from, n int64, fn func(off int64, start, end int, at int64) error) error {
	for at := int64(0); at < n; {
		off := (from + at) &^ (volatilePage - 1)
		start := int(from + at - off)
		end := int(min(volatilePage, int64(start)+n-at))
		if err := fn(off, start, end, at); err != nil {
			return err
		}
		at += int64(end - start)
	}
	return nil
}

// sectors are the bits of the sectors that a part of a page touches.
func sectors(start, end int) uint8 {
	return uint8(1<<((end+SectorSize-1)/SectorSize) - 1<<(start/SectorSize))
}

// read takes from the cache what is there, and the rest from the inner backend.
func (v *Volatile) read(r *Request) error {
	if err := v.do(Request{Op: Read, Offset: r.Offset, Length: r.Length, Buffers: r.Buffers}); err != nil {
		return err
	}
	return eachPage(r.Offset, r.Length, func(off int64, start, end int, at int64) error {
		p := v.pages[off]
		if p == nil {
			return nil
		}
		for s := start; s < end; {
			next := min(end, (s/SectorSize+1)*SectorSize)
			if p.dirty>>(s/SectorSize)&1 != 0 {
				if err := fillBuffers(r.Buffers, at+int64(s-start), p.data[s:next]); err != nil {
					return err
				}
			}
			s = next
		}
		return nil
	})
}

// write puts data or zeroes into the cache.
func (v *Volatile) write(r *Request) error {
	return eachPage(r.Offset, r.Length, func(off int64, start, end int, at int64) error {
		p, err := v.page(off)
		if err != nil {
			return err
		}
		// Parts of sectors need the rest of them.
		for _, s := range [...]int{start, end} {
			if s%SectorSize != 0 && p.dirty>>(s/SectorSize)&1 == 0 {
				if err := v.load(p, off, s/SectorSize); err != nil {
					return err
				}
			}
		}
		to := p.data[start:end]
		if r.Op == WriteZeroes {
			clear(to)
		} else if err := drainBuffers(to, r.Buffers, at); err != nil {
			return err
		}
		p.dirty |= sectors(start, end)
		return nil
	})
}

// page finds a page of the cache or makes one. A cache that is full is written.
func (v *Volatile) page(off int64) (*page, error) {
	if p := v.pages[off]; p != nil {
		return p, nil
	}
	if int64(len(v.pages)+1)*volatilePage > v.opt.Size {
		v.spilt = true
		if err := v.writeOut(0, v.Size(), false); err != nil {
			return nil, err
		}
	}
	var p *page
	if n := len(v.free); n > 0 {
		p, v.free = v.free[n-1], v.free[:n-1]
	} else {
		p = new(page)
	}
	v.pages[off] = p
	return p, nil
}

// load reads a sector into a page.
func (v *Volatile) load(p *page, off int64, sector int) error {
	v.part[0] = p.data[sector*SectorSize:][:SectorSize]
	err := v.do(Request{Op: Read, Offset: off + int64(sector)*SectorSize, Length: SectorSize, Buffers: v.part[:]})
	if err == nil {
		p.dirty |= 1 << sector
	}
	return err
}

// writeOut gives the cached pages that touch a range to the inner backend.
func (v *Volatile) writeOut(from, to int64, fua bool) error {
	for _, off := range v.offsets(from, to) {
		if err := v.writePage(off, fua); err != nil {
			return err
		}
	}
	return nil
}

// writePage gives a page to the inner backend and takes it out of the cache.
func (v *Volatile) writePage(off int64, fua bool) error {
	p := v.pages[off]
	for p.dirty != 0 {
		first := bits.TrailingZeros8(p.dirty)
		n := bits.TrailingZeros8(^(p.dirty >> first))
		at := first * SectorSize
		v.part[0] = p.data[at : at+n*SectorSize]
		err := v.do(Request{Op: Write, FUA: fua, Offset: off + int64(at), Length: int64(n * SectorSize), Buffers: v.part[:]})
		if err != nil {
			return err
		}
		p.dirty &^= sectors(at, at+n*SectorSize)
	}
	v.drop(off)
	return nil
}
