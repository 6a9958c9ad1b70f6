package client

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// Prot says what a device may do with memory: the flags of DMA_MAP. codec.DMAFlagMmap and codec.DMAFlagFileIO, one of which
// may be added, tell the server how to use the descriptor.
type Prot = codec.DMAFlags

// Protection bits.
const (
	ProtRead  = codec.DMAFlagRead
	ProtWrite = codec.DMAFlagWrite
)

// Mapping describes memory at an address (IOVA) of a device. Memory.At makes one; the zero value is of no use.
type Mapping struct {
	IOVA uint64
	Size uint64 // bytes
	// Prot is what the device may do; 0 means that it may read and write.
	Prot Prot
	// FD is passed to the server, which maps it from Offset. It stays the caller's, who may close it once MapDMA has
	// returned. -1: the server cannot map the memory and has to ask for it by message.
	FD     int
	Offset uint64
	// Local is the memory in this process, Size bytes: where messages read and write. It must stay mapped until
	// UnmapDMA or Close has returned. It may be nil if FD is there: messages are then refused.
	Local []byte

	memory *Memory
	kept   *int // our duplicate of FD, for Reattach; nil: there is none
	again  bool // Reattach maps it, which has it mapped already
}

// ByMessage is the same mapping without the descriptor.
func (m Mapping) ByMessage() Mapping {
	m.FD, m.Offset = -1, 0
	return m
}

// Slice is the part of the mapping that begins off bytes into it, size bytes long. It panics if there is no such part.
func (m Mapping) Slice(off, size uint64) Mapping {
	if off > m.Size || size > m.Size-off {
		panic("client: part of a mapping is out of bounds")
	}
	m.IOVA += off
	m.Size = size
	if m.FD >= 0 {
		m.Offset += off
	}
	if m.Local != nil {
		m.Local = m.Local[off : off+size : off+size]
	}
	return m
}

func (m *Mapping) check() error {
	switch {
	case m.Size == 0:
		return invalid("mapping of 0 bytes")
	case m.IOVA+m.Size-1 < m.IOVA:
		return invalid("mapping of %#x bytes at %#x exceeds the address space", m.Size, m.IOVA)
	case m.FD < 0 && m.Local == nil:
		return invalid("mapping with neither a descriptor nor bytes")
	case m.Local != nil && uint64(len(m.Local)) != m.Size:
		return invalid("mapping of %d bytes with %d local ones", m.Size, len(m.Local))
	}
	return nil
}

// end is the last address.
func (m *Mapping) end() uint64 { return m.IOVA + m.Size - 1 }

const (
	// mapWindow is how many DMA_MAP are under way at a time.
	mapWindow = 64
	// undoTime is how long a server may take to take back mappings after one of them has failed.
	undoTime = 10 * time.Second
)

// dmaTable is what the server may access, in ascending order.
type dmaTable struct {
	device   *Device
	mu       sync.Mutex // held while a message is served: unmapped memory is not touched any more
	maps     []Mapping
	messages int // mappings without descriptor
	undoTime time.Duration
}

// find returns the index of the first mapping that ends at iova or behind it.
func (t *dmaTable) find(iova uint64) int {
	i, _ := slices.BinarySearchFunc(t.maps, iova, func(m Mapping, iova uint64) int {
		if m.end() < iova {
			return -1
		}
		return 1
	})
	return i
}

// add enters all mappings or none.
func (t *dmaTable) add(maps []Mapping) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	for i, m := range maps {
		err := m.check()
		at := t.find(m.IOVA)
		if err == nil && at < len(t.maps) && t.maps[at].IOVA <= m.end() {
			err = ErrOverlap
		}
		if err == nil && m.memory != nil {
			err = m.memory.retain(m.again)
		}
		if err == nil {
			if err = t.keep(&m); err != nil && m.memory != nil {
				m.memory.release()
			}
		}
		if err != nil {
			for _, done := range maps[:i] {
				t.drop(done.IOVA, done.Size)
			}
			return err
		}
		if m.Prot&(ProtRead|ProtWrite) == 0 {
			m.Prot |= ProtRead | ProtWrite
		}
		m.again = false
		if m.FD < 0 {
			t.messages++
		}
		t.maps = slices.Insert(t.maps, at, m)
	}
	t.update()
	return nil
}

// drop removes a mapping; mu is held.
func (t *dmaTable) drop(iova, size uint64) {
	i := t.find(iova)
	if i == len(t.maps) || t.maps[i].IOVA != iova || t.maps[i].Size != size {
		return
	}
	m := t.maps[i]
	t.maps = slices.Delete(t.maps, i, i+1)
	if m.FD < 0 {
		t.messages--
	}
	if m.kept != nil {
		_ = unix.Close(*m.kept)
	}
	if m.memory != nil {
		m.memory.release()
	}
}

// keep duplicates a mapping's descriptor if Reattach may need it.
func (t *dmaTable) keep(m *Mapping) error {
	m.kept = nil
	if t.device.keep == nil || m.FD < 0 {
		return nil
	}
	own, err := duplicate([]int{m.FD})
	if err == nil {
		m.kept = &own[0]
	}
	return err
}

// kept is all mappings, for another device, with descriptors that are certainly there.
func (t *dmaTable) kept() []Mapping {
	t.mu.Lock()
	defer t.mu.Unlock()
	maps := slices.Clone(t.maps)
	for i := range maps {
		if maps[i].kept != nil {
			maps[i].FD = *maps[i].kept
		}
		maps[i].again = true
	}
	return maps
}

func (t *dmaTable) remove(iova, size uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.drop(iova, size)
	t.update()
}

func (t *dmaTable) clear() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for len(t.maps) > 0 {
		m := &t.maps[len(t.maps)-1]
		t.drop(m.IOVA, m.Size)
	}
	t.update()
}

// update has the reactor read at all times while the server depends on messages, which come here.
func (t *dmaTable) update() { t.device.conn.setEager(t.messages > 0 && t.device.twin == nil) }

// MapDMA shares memory with the device, all mappings or none: if one fails, those that succeeded are unmapped again. The
// requests are pipelined. From the first one on the server may access the memory.
//
// Errors: ErrOverlap, ErrInvalid, what the server answered (EEXIST, EINVAL, ENOSPC), ctx's. If mappings
// cannot be undone, because the server does not answer, the session ends with ErrUndo.
func (d *Device) MapDMA(ctx context.Context, maps ...Mapping) error {
	if err := d.dma.add(maps); err != nil {
		return err
	}
	sent, err := d.mapAll(ctx, maps)
	if err == nil {
		return nil
	}
	for _, m := range maps[sent:] {
		d.dma.remove(m.IOVA, m.Size)
	}
	d.undo(ctx, maps[:sent])
	return err
}

// mapAll returns how many requests may have reached the server, and the first error.
func (d *Device) mapAll(ctx context.Context, maps []Mapping) (sent int, err error) {
	calls := make([]*call, 0, min(len(maps), mapWindow))
	for err == nil && sent < len(maps) {
		calls = calls[:0]
		for err == nil && sent < len(maps) && len(calls) < mapWindow {
			var k *call
			if k, err = d.startMap(ctx, &maps[sent]); err == nil {
				calls = append(calls, k)
				sent++
			}
		}
		for _, k := range calls {
			if e := d.conn.wait(ctx, k); e != nil {
				if err == nil {
					err = e
				}
				continue
			}
			d.conn.release(k)
		}
	}
	return sent, err
}

func (d *Device) startMap(ctx context.Context, m *Mapping) (*call, error) {
	k, err := d.conn.begin(ctx, codec.CmdDMAMap)
	if err != nil {
		return nil, err
	}
	prot := m.Prot
	if prot&(ProtRead|ProtWrite) == 0 {
		prot |= ProtRead | ProtWrite
	}
	ask := codec.DMAMap{ArgSz: codec.DMAMapSize, Flags: prot, Offset: m.Offset, Addr: m.IOVA, Size: m.Size}
	var fds []int
	if m.FD >= 0 {
		fds = []int{m.FD}
	}
	return k, d.conn.start(ctx, k, ask.Append(k.payload()), nil, fds)
}

// undo takes back mappings of which some may not exist.
func (d *Device) undo(ctx context.Context, maps []Mapping) {
	if len(maps) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), d.dma.undoTime)
	defer cancel()
	for i, m := range maps {
		err := d.UnmapDMA(ctx, m.IOVA, m.Size)
		var refused *codec.Error
		switch {
		case err == nil:
		case errors.As(err, &refused) && refused.Kind == codec.ErrRemote:
			d.dma.remove(m.IOVA, m.Size) // it was not mapped
		default:
			d.conn.fail(ErrUndo)
			for _, m := range maps[i:] {
				d.dma.remove(m.IOVA, m.Size) // the server has lost them with the session
			}
			return
		}
	}
}

// UnmapDMA takes memory away from the device; address and size are those of a mapping. When it returns without error
// the server has let go of it.
func (d *Device) UnmapDMA(ctx context.Context, iova, size uint64) error {
	_, err := d.unmapRegion(ctx, &codec.DMAUnmap{ArgSz: codec.DMAUnmapSize, Addr: iova, Size: size})
	return err
}

// unmapRegion also forgets a mapping that the server does not know.
func (d *Device) unmapRegion(ctx context.Context, ask *codec.DMAUnmap) (codec.DMAUnmap, error) {
	got, err := d.unmap(ctx, ask)
	if err == nil || errors.Is(err, codec.ErrRemote) && errors.Is(err, unix.ENOENT) {
		d.dma.remove(ask.Addr, ask.Size)
	}
	return got, err
}

// UnmapAllDMA takes all memory away from the device.
func (d *Device) UnmapAllDMA(ctx context.Context) error {
	_, err := d.unmap(ctx, &codec.DMAUnmap{ArgSz: codec.DMAUnmapSize, Flags: codec.UnmapFlagAll})
	if err == nil {
		d.dma.clear()
	}
	return err
}

// unmap returns the reply, which is the request again, with the bitmap if one was asked for.
func (d *Device) unmap(ctx context.Context, ask *codec.DMAUnmap) (got codec.DMAUnmap, err error) {
	k, err := d.conn.begin(ctx, codec.CmdDMAUnmap)
	if err != nil {
		return got, err
	}
	answer := k.head[:codec.DMAUnmapSize]
	if ask.Flags&codec.UnmapFlagGetDirtyBitmap != 0 {
		answer = make([]byte, ask.ArgSz)
	}
	k.expect(0, answer)
	if err := d.conn.request(ctx, k, ask.Append(k.payload())); err != nil {
		return got, err
	}
	err = got.DecodeReply(answer[:k.n])
	d.conn.release(k)
	same := got.Flags == ask.Flags && got.Addr == ask.Addr && got.Size == ask.Size &&
		got.Bitmap.PgSize == ask.Bitmap.PgSize && got.Bitmap.Size == ask.Bitmap.Size
	if err != nil || !same {
		return got, d.breakOff(codec.CmdDMAUnmap, err, "the reply is not the request again")
	}
	return got, nil
}

// Mappings are all mappings, in ascending order. Their descriptors may have been closed by whoever opened them.
func (d *Device) Mappings() []Mapping {
	d.dma.mu.Lock()
	defer d.dma.mu.Unlock()
	return slices.Clone(d.dma.maps)
}

// MappingOf finds where memory is mapped to the device.
func (d *Device) MappingOf(m *Memory) (Mapping, bool) {
	d.dma.mu.Lock()
	defer d.dma.mu.Unlock()
	for _, at := range d.dma.maps {
		if at.memory == m {
			return at, true
		}
	}
	return Mapping{}, false
}
