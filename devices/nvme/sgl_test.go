package nvme

import (
	"bytes"
	"testing"

	"vfiouser/devices/nvme/spec"
)

// sglIO is an I/O command whose data pointer is the descriptor d.
func sglIO(op uint8, lba uint64, blocks int, d spec.SGLDescriptor) spec.SubmissionEntry {
	e := rw(op, 1, lba, blocks, d.Address, d.Word)
	e.Flags = spec.PSDTSGL << 6
	return e
}

// putSGL writes a segment and returns a descriptor of the given type for it.
func (g *guest) putSGL(iova uint64, kind uint8, list ...spec.SGLDescriptor) spec.SGLDescriptor {
	b := g.bytes(iova, len(list)*spec.SGLDescriptorSize)
	for i, d := range list {
		d.Put(b[i*spec.SGLDescriptorSize:])
	}
	return spec.NewSGLDescriptor(kind, iova, uint32(len(b)))
}

func TestSGLMovesData(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		data, back, lists := g.alloc(4), g.alloc(4), g.alloc(4)
		block := func(at uint64, n uint32) spec.SGLDescriptor {
			return spec.NewSGLDescriptor(spec.SGLDataBlock, at, n)
		}
		for i := range 4 * pageSize {
			g.bytes(data, 4*pageSize)[i] = byte(i>>8) ^ byte(i)
		}
		last := g.putSGL(lists+pageSize, spec.SGLLastSegment, block(data+4096, 3000), block(data+7096, 1096))
		long := make([]spec.SGLDescriptor, 300) // more than a page of descriptors
		for i := range long {
			long[i] = block(data+uint64(i)*16, 16)
		}
		for _, c := range []struct {
			name   string
			blocks int
			d      spec.SGLDescriptor
		}{
			{"one data block", 16, block(data, 8192)},
			{"data block at an odd address", 1, block(data+1, 512)},
			{"data block longer than the data", 1, block(data, 8192)},
			{"last segment", 8, g.putSGL(lists, spec.SGLLastSegment, block(data, 1), block(data+1, 4095))},
			{"segment and last segment", 16, g.putSGL(lists+256, spec.SGLSegment, block(data, 4096), last)},
			{"empty data block in between", 8, g.putSGL(lists+512, spec.SGLLastSegment, block(data, 96), block(0, 0), block(data+96, 4000))},
			{"more descriptors than a page has", 8, g.putSGL(lists+2*pageSize, spec.SGLLastSegment, long...)},
		} {
			t.Run(c.name, func(t *testing.T) {
				if st := q.status(sglIO(spec.NVMWrite, 0, c.blocks, c.d)); !st.OK() {
					t.Fatal(st)
				}
				n := c.blocks * 512
				if st := q.status(rw(spec.NVMRead, 1, 0, c.blocks, back, back+pageSize)); !st.OK() {
					t.Fatal(st)
				}
				from := data
				if c.d.Address == data+1 {
					from++
				}
				if !bytes.Equal(g.bytes(back, n), g.bytes(from, n)) {
					t.Error("other data came back")
				}
				clear(g.bytes(back, n))
				d := block(back+3, uint32(n))
				if st := q.status(sglIO(spec.NVMRead, 0, c.blocks, d)); !st.OK() {
					t.Fatal(st)
				}
				if !bytes.Equal(g.bytes(back+3, n), g.bytes(from, n)) {
					t.Error("other data was read through an SGL")
				}
			})
		}
	})
}

func TestBadSGLIsRefused(t *testing.T) {
	variants(t, func(t *testing.T, r rig) {
		g, q := started(t, r)
		data, lists := g.alloc(2), g.alloc(2)
		const nowhere = 1 << 50
		d := spec.NewSGLDescriptor
		small := d(spec.SGLDataBlock, data, 100)
		self := d(spec.SGLSegment, lists+1024, 32)
		g.putSGL(lists+1024, spec.SGLSegment, d(spec.SGLDataBlock, data, 0), self)
		subtype := small
		subtype.Word |= 1 << 56
		for _, c := range []struct {
			name string
			d    spec.SGLDescriptor
			want spec.Status
		}{
			{"data block too short", small, spec.DataSGLLengthInvalid},
			{"segment of length 0", d(spec.SGLSegment, lists, 0), spec.InvalidSGLSegment},
			{"segment of an odd length", d(spec.SGLLastSegment, lists, 24), spec.InvalidSGLSegment},
			{"segment nowhere", d(spec.SGLLastSegment, nowhere, 32), spec.DataTransferError},
			{"data nowhere", d(spec.SGLDataBlock, nowhere, 4096), spec.DataTransferError},
			{"data at the end of the address space", d(spec.SGLDataBlock, ^uint64(0)-100, 4096), spec.DataTransferError},
			{"unknown type", d(5, data, 4096), spec.SGLDescriptorTypeInvalid},
			{"bit bucket too short", d(spec.SGLBitBucket, data, 4095), spec.DataSGLLengthInvalid},
			{"sub type of fabrics", subtype, spec.SGLDescriptorTypeInvalid},
			{"unknown type in a segment", g.putSGL(lists, spec.SGLLastSegment, small, d(7, 0, 0)), spec.SGLDescriptorTypeInvalid},
			{"last segment ends early", g.putSGL(lists+64, spec.SGLLastSegment, small, small), spec.DataSGLLengthInvalid},
			{"segment that leads nowhere", g.putSGL(lists+128, spec.SGLSegment, small, small), spec.InvalidSGLSegment},
			{"segment inside a last segment", g.putSGL(lists+192, spec.SGLLastSegment, small, self), spec.InvalidSGLSegment},
			{"segment in the middle of one", g.putSGL(lists+256, spec.SGLSegment, self, small), spec.InvalidSGLSegment},
			{"segment that leads to itself", self, spec.InvalidNumberOfSGLDescriptors},
			{"segment of 4 GiB", d(spec.SGLLastSegment, lists, 0xfffffff0), spec.InvalidNumberOfSGLDescriptors},
		} {
			t.Run(c.name, func(t *testing.T) {
				if st := q.status(sglIO(spec.NVMWrite, 0, 8, c.d)); st != c.want|spec.StatusDNR {
					t.Errorf("%v, want %v", st, c.want)
				}
				if st := q.status(rw(spec.NVMRead, 1, 0, 8, data, 0)); !st.OK() {
					t.Errorf("the queue is broken: %v", st)
				}
			})
		}
	})
}
