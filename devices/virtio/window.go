package virtio

import (
	"encoding/binary"

	"vfiouser/devices/virtio/spec"
	"vfiouser/pci"
)

// window is the capability through which a driver reaches the structures without the BAR,
// in accesses to the configuration space (4.1.4.9): firmware does that.
type window struct {
	f   *Function
	off int // of the capability in the configuration space
}

func (w *window) add(f *Function) error {
	w.f = f
	c := spec.Capability{Type: spec.CapPCI}
	data := c.Data()
	mask := make([]byte, len(data))
	for _, r := range [][2]int{{spec.CapOffsetBAR, 1}, {spec.CapOffsetOffset, 4}, {spec.CapOffsetSize, 4}, {spec.CapOffsetWindow, 4}} {
		for i := range r[1] {
			mask[r[0]-2+i] = 0xff
		}
	}
	var err error
	w.off, err = f.space.AddRaw(pci.RawCapability{ID: 0x09, Data: data, Masks: pci.Masks{Writable: mask}})
	if err != nil {
		return err
	}
	return f.space.AddWindow(w.off+spec.CapOffsetWindow, 4, pci.Window{Read: w.read, Written: w.written})
}

// reset makes the window point nowhere, for the next client.
func (w *window) reset() {
	var zero [spec.CapPCISize - spec.CapOffsetBAR]byte
	_ = w.f.space.Set(w.off+spec.CapOffsetBAR, zero[:]) // it lies in the space
}

// target is what the window shows; false if that is no aligned access to a structure.
func (w *window) target() (off uint64, n int, ok bool) {
	var b [spec.CapOffsetWindow]byte
	_ = w.f.space.Read(w.off, b[:]) // likewise
	off = uint64(binary.LittleEndian.Uint32(b[spec.CapOffsetOffset:]))
	size := binary.LittleEndian.Uint32(b[spec.CapOffsetSize:])
	if b[spec.CapOffsetBAR] != structBAR || size != 1 && size != 2 && size != 4 || off%uint64(size) != 0 || off >= barSize {
		return 0, 0, false
	}
	return off, int(size), true
}

func (w *window) read(data []byte) {
	if off, n, ok := w.target(); ok && w.f.host.Load() != nil {
		_ = w.f.readBAR(off, data[:n]) // never fails
	}
}

func (w *window) written(data []byte) {
	if off, n, ok := w.target(); ok && w.f.host.Load() != nil {
		_ = w.f.writeBAR(off, data[:n]) // likewise
	}
}
