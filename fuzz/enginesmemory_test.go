package fuzz

import (
	"fmt"
	"slices"

	"vfiouser/client"
	"vfiouser/codec"
)

// mapped is a mapping, and where it lies in the client's memory.
type mapped struct {
	client.Mapping
	at uint64
}

// mapMemory maps a few pages, mostly where nothing is.
func (w *world) mapMemory() {
	iova := uint64(1+w.s.Intn(24)) << 12
	pages := 1 + w.s.Intn(4)
	at := uint64(w.s.Intn(worldRAM>>12-pages+1)) << 12
	m := w.mem.At(iova-at).Slice(at, uint64(pages)<<12)
	m.Prot = [...]client.Prot{client.ProtRead | client.ProtWrite, client.ProtRead, client.ProtWrite, 0}[w.s.Intn(4)]
	if w.s.Bool() {
		m = m.ByMessage()
	}
	aligned := true
	if w.s.Odds(16) {
		m = m.Slice(0, m.Size-1)
		aligned = false
	}
	free := !slices.ContainsFunc(w.maps, func(o mapped) bool { return o.IOVA < m.IOVA+m.Size && m.IOVA < o.IOVA+o.Size })
	w.agree(fmt.Sprintf("map %#x bytes at %#x (%v, fd %v)", m.Size, m.IOVA, m.Prot, m.FD >= 0), w.dev.MapDMA(w.ctx, m), aligned && free)
	if aligned && free {
		w.maps = append(w.maps, mapped{m, at})
	}
}

// some is a mapping, or one that is not there.
func (w *world) some() (m mapped, there bool) {
	if len(w.maps) == 0 || w.s.Odds(8) {
		iova := uint64(1+w.s.Intn(24)) << 12
		there = slices.ContainsFunc(w.maps, func(o mapped) bool { return o.IOVA == iova && o.Size == 4096 })
		return mapped{Mapping: client.Mapping{IOVA: iova, Size: 4096}}, there
	}
	return w.maps[w.s.Intn(len(w.maps))], true
}

func (w *world) forget(m mapped) {
	w.maps = slices.DeleteFunc(w.maps, func(o mapped) bool { return o.IOVA == m.IOVA })
}

func (w *world) unmap() {
	m, there := w.some()
	w.agree(fmt.Sprintf("unmap %#x", m.IOVA), w.dev.UnmapDMA(w.ctx, m.IOVA, m.Size), there)
	if there {
		w.forget(m)
	}
}

func (w *world) unmapAll() {
	if w.s.Odds(4) {
		w.must("unmap all", w.dev.UnmapAllDMA(w.ctx))
		w.maps = nil
	}
}

// store changes memory; the device does nothing meanwhile.
func (w *world) store() {
	off, n := w.span(worldRAM)
	off = min(off, worldRAM-uint64(n))
	data := w.s.Bytes(n)
	copy(w.mem.Bytes()[off:], data)
	copy(w.ram[off:], data)
}

// address chooses memory for the device to access.
func (w *world) address() (addr uint64, n int) {
	n = w.s.Intn(2048)
	if w.s.Bool() {
		n %= 64
	}
	if m, there := w.some(); there && len(w.maps) > 0 {
		return m.IOVA + uint64(w.s.Uint16())%m.Size, n
	}
	return uint64(w.s.Uint32() % (32 << 12)), n
}

// walk calls f with the parts of a range that a device may access, until one is missing.
func (w *world) walk(addr uint64, n int, prot client.Prot, f func(ram []byte, at int)) (whole bool) {
	for at := 0; at < n; {
		i := slices.IndexFunc(w.maps, func(m mapped) bool { return addr >= m.IOVA && addr-m.IOVA < m.Size })
		if i < 0 || w.maps[i].Prot != 0 && w.maps[i].Prot&prot == 0 {
			return false
		}
		m := w.maps[i]
		k := min(n-at, int(m.Size-(addr-m.IOVA)))
		f(w.ram[m.at+addr-m.IOVA:][:k], at)
		addr, at = addr+uint64(k), at+k
	}
	return true
}

func (w *world) deviceReads() {
	addr, n := w.address()
	err := w.do(echoReads, 0, addr, n)
	buf := make([]byte, n)
	whole := w.walk(addr, n, client.ProtRead, func(ram []byte, at int) { copy(buf[at:], ram) })
	w.agree(fmt.Sprintf("the device reads %d bytes at %#x", n, addr), err, whole)
	if whole {
		copy(w.page[:], buf)
	}
}

func (w *world) deviceWrites() {
	addr, n := w.address()
	err := w.do(echoWrites, 0, addr, n)
	whole := w.walk(addr, n, client.ProtWrite, func(ram []byte, at int) {
		copy(ram, w.page[at:])
		first := addr + uint64(at)
		for page := first &^ 4095; page < first+uint64(len(ram)); page += 4096 {
			if w.logs(page) {
				w.dirty[page] = true
			}
		}
	})
	w.agree(fmt.Sprintf("the device writes %d bytes at %#x", n, addr), err, whole)
}

// logs says whether writes to a page are logged.
func (w *world) logs(page uint64) bool {
	return slices.ContainsFunc(w.logged, func(r codec.IOVARange) bool { return page >= r.IOVA && page-r.IOVA < r.Length })
}

func (w *world) startLogging() {
	ranges := []codec.IOVARange{{IOVA: uint64(w.s.Intn(16)) << 12, Length: uint64(1+w.s.Intn(16)) << 12}}
	if w.s.Bool() {
		ranges = nil
	}
	size, err := w.dev.StartDMALogging(w.ctx, 4096, ranges...)
	w.must("start logging", err)
	if size != 4096 {
		w.fail("pages of %d bytes are logged", size)
	}
	if ranges == nil {
		ranges = []codec.IOVARange{{Length: 1 << 63}}
	}
	if w.logged == nil {
		w.dirty = map[uint64]bool{}
	}
	w.logged = append(w.logged, ranges...)
}

func (w *world) stopLogging() {
	w.must("stop logging", w.dev.StopDMALogging(w.ctx))
	w.logged, w.dirty = nil, nil
}

// checkDirty holds a report against the model, which forgets what was reported.
func (w *world) checkDirty(b *client.DirtyBitmap, iova, size uint64) {
	for page := iova; page < iova+size; page += 4096 {
		if got, want := b.Contains(page), w.dirty[page]; got != want {
			w.fail("the page at %#x was written: %v, not %v", page, got, want)
		}
		delete(w.dirty, page)
	}
}

func (w *world) reportDirty() {
	iova, size := uint64(w.s.Intn(16))<<12, uint64(1+w.s.Intn(16))<<12
	b, err := w.dev.DirtyBitmap(w.ctx, iova, size, 4096)
	w.agree(fmt.Sprintf("report %#x at %#x", size, iova), err, w.logged != nil)
	if err == nil {
		w.checkDirty(b, iova, size)
	}
}

func (w *world) unmapDirty() {
	m, there := w.some()
	b, err := w.dev.UnmapDirtyDMA(w.ctx, m.IOVA, m.Size, 4096)
	w.agree(fmt.Sprintf("unmap %#x and report", m.IOVA), err, there && w.logged != nil)
	if err == nil {
		w.checkDirty(b, m.IOVA, m.Size)
		w.forget(m)
	}
}
