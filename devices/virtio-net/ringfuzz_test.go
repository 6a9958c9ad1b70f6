package virtionet

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"

	"vfiouser/devices/virtio"
	"vfiouser/devices/virtio/spec"
	"vfiouser/devices/virtio/virtqueue"
	"vfiouser/dma"
	"vfiouser/fuzz/choice"
	"vfiouser/link"
	"vfiouser/link/vnet"
)

// Where the parts of a fuzzRing are in its memory.
const (
	fuzzRingSize  = 64
	fuzzRingBase  = 0x10000
	fuzzAvail     = 0x1000
	fuzzUsed      = 0x2000
	fuzzBuffers   = 0x3000
	fuzzMemory    = 4 << 20
	fuzzInFlight  = 1 << 20 // bytes of buffers
	fuzzUntouched = 0xee    // what buffers to write hold
)

// fuzzRing is a queue in memory of its own, without a client, and its driver. It serves one
// program after the other.
type fuzzRing struct {
	mem    []byte
	table  *dma.Table
	reader *dma.Reader
	q      *virtqueue.Queue

	desc, avail, used uint16
	room              int // descriptors that are free
	at                int // where the next buffer goes
	chains            []fuzzChain
}

// fuzzChain is what the driver has made available and the device has not used.
type fuzzChain struct {
	parts [][]byte
	bytes int
}

func newFuzzRing(f *testing.F) *fuzzRing {
	fd, err := unix.MemfdCreate("fuzz-ring", unix.MFD_CLOEXEC)
	must(f, err)
	must(f, unix.Ftruncate(fd, fuzzMemory))
	r := &fuzzRing{table: dma.NewTable(dma.Config{})}
	r.mem, err = unix.Mmap(fd, 0, fuzzMemory, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(f, err)
	must(f, r.table.Map(dma.Mapping{IOVA: fuzzRingBase, Size: fuzzMemory, Prot: dma.ProtRead | dma.ProtWrite, FD: fd}))
	r.reader = r.table.NewReader()
	f.Cleanup(func() {
		r.reader.Close()
		closed := make(chan struct{})
		r.table.Close(func() { close(closed) })
		<-closed
		_ = unix.Munmap(r.mem)
	})
	return r
}

// begin makes a new queue, inside a section.
func (r *fuzzRing) begin(t *testing.T) *virtio.Queue {
	t.Helper()
	clear(r.mem[:fuzzBuffers])
	r.desc, r.avail, r.used, r.room, r.at, r.chains = 0, 0, 0, fuzzRingSize, fuzzBuffers, nil
	var err error
	r.q, err = virtqueue.New(virtqueue.Config{Size: fuzzRingSize, Desc: fuzzRingBase, Driver: fuzzRingBase + fuzzAvail, Device: fuzzRingBase + fuzzUsed})
	must(t, err)
	r.reader.Enter()
	must(t, r.q.Translate(r.reader))
	return &virtio.Queue{Queue: r.q}
}

// offer makes a chain available whose buffers have these sizes, and returns them; nil if there
// is no room.
func (r *fuzzRing) offer(write bool, sizes ...int) [][]byte {
	c := fuzzChain{}
	for _, n := range sizes {
		c.bytes += n
	}
	pending := 0
	for _, other := range r.chains {
		pending += other.bytes
	}
	if len(sizes) > r.room || pending+c.bytes > fuzzInFlight {
		return nil
	}
	if r.at+c.bytes > fuzzMemory {
		r.at = fuzzBuffers
	}
	head := r.desc
	for i, n := range sizes {
		part := r.mem[r.at:][:n:n]
		d := spec.Desc{Addr: fuzzRingBase + uint64(r.at), Len: uint32(n), Next: (r.desc + 1) % fuzzRingSize}
		if write {
			d.Flags |= spec.DescWrite
			copy(part, bytes.Repeat([]byte{fuzzUntouched}, n))
		}
		if i < len(sizes)-1 {
			d.Flags |= spec.DescNext
		}
		d.Put(r.mem[int(r.desc)*spec.DescSize:])
		r.desc, r.at = d.Next, r.at+n
		c.parts = append(c.parts, part)
	}
	binary.LittleEndian.PutUint16(r.mem[fuzzAvail+spec.AvailRing+2*int(r.avail%fuzzRingSize):], head)
	r.avail++
	binary.LittleEndian.PutUint16(r.mem[fuzzAvail+spec.AvailIndex:], r.avail)
	r.room -= len(sizes)
	r.chains = append(r.chains, c)
	return c.parts
}

// reap takes the chains that were used since the last time, with the bytes written to each. The
// card uses them in their order.
func (r *fuzzRing) reap() (chains []fuzzChain, written []int) {
	for ; r.used != binary.LittleEndian.Uint16(r.mem[fuzzUsed+spec.UsedIndex:]); r.used++ {
		e := r.mem[fuzzUsed+spec.UsedRing+spec.UsedEntrySize*int(r.used%fuzzRingSize):]
		written = append(written, int(binary.LittleEndian.Uint32(e[4:])))
		chains = append(chains, r.chains[0])
		r.room += len(r.chains[0].parts)
		r.chains = r.chains[1:]
	}
	return chains, written
}

// fuzzWire is a link that takes as many frames as the model says.
type fuzzWire struct {
	takes int
	sent  []wireFrame
}

// wireFrame is a frame that was sent.
type wireFrame struct {
	header vnet.Header
	data   []byte
}

func (w *fuzzWire) Send(_ int, frames []vnet.Frame) int {
	n := min(w.takes, len(frames))
	for i := range frames[:n] {
		w.sent = append(w.sent, wireFrame{frames[i].Header, bytes.Join(frames[i].Parts, nil)})
		if frames[i].Len != len(w.sent[len(w.sent)-1].data) {
			panic("a frame has other bytes than it says")
		}
	}
	return n
}

func (*fuzzWire) Poll(int) int                   { return 0 }
func (*fuzzWire) Arm(int) bool                   { return false }
func (*fuzzWire) SetOffloads(vnet.Offloads, int) {}
func (*fuzzWire) Close() error                   { return nil }

// fuzzPair is a pair of a card without a client.
func fuzzPair(t *testing.T, wire link.Port) *pair {
	t.Helper()
	cfg := Config{Link: link.Null()}
	must(t, cfg.complete())
	c := newCard(&cfg)
	c.port = wire
	return c.pairs[0]
}

// sizesOf cuts n bytes into a few parts.
func sizesOf(src *choice.Source, n int) (sizes []int) {
	for range src.Intn(4) {
		if n > 1 {
			k := 1 + src.Intn(min(n-1, 40))
			sizes, n = append(sizes, k), n-k
		}
	}
	return append(sizes, n)
}
