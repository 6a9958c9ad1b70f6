package dut

import (
	"errors"
	"io"
	"sync"

	"vfiouser/engine"
)

// scratch is a page of memory. It is what moves when the device is migrated.
type scratch struct {
	mu      sync.Mutex
	bytes   [page]byte
	changed bool // since it was saved last
}

func (m *scratch) read(off uint64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(p, m.bytes[off:])
	return nil
}

func (m *scratch) write(off uint64, p []byte) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	copy(m.bytes[off:], p)
	m.changed = true
	return nil
}

func (m *scratch) reset() { _ = m.write(0, make([]byte, page)) }

// image is the page, and whether it has changed since the last image.
func (m *scratch) image() (b [page]byte, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	changed, m.changed = m.changed, false
	return m.bytes, changed
}

// SaveState implements engine.Migrator: it writes the page.
func (d *Device) SaveState(_ *engine.Session, w io.Writer) error {
	b, _ := d.scratch.image()
	_, err := w.Write(b[:])
	return err
}

// LoadState implements engine.Migrator: the stream is the page, once or several times; the
// last counts.
func (d *Device) LoadState(_ *engine.Session, _ uint32, r io.Reader) error {
	for images := 0; ; images++ {
		var b [page]byte
		_, err := io.ReadFull(r, b[:])
		switch {
		case err == io.EOF && images > 0:
			return nil
		case err == io.EOF:
			return errors.New("there is no page")
		case err != nil:
			return err
		}
		_ = d.scratch.write(0, b[:])
	}
}

// PreCopy implements engine.PreCopier: it writes the page if it has changed.
func (d *Device) PreCopy(_ *engine.Session, round int, w io.Writer) error {
	b, changed := d.scratch.image()
	if round > 0 && !changed {
		return nil
	}
	_, err := w.Write(b[:])
	return err
}

// EndPreCopy implements engine.PreCopier.
func (d *Device) EndPreCopy(*engine.Session) {}

// plain has nothing of a device that it need not have.
type plain struct{ engine.Device }

// Describe implements engine.Device.
func (p plain) Describe() (engine.Description, error) {
	desc, err := p.Device.Describe()
	desc.NoReset = true
	return desc, err
}

// romSize is that of the expansion ROM in bytes.
const romSize = 2048

// Plain is a device that can be neither migrated nor reset, but has an expansion ROM.
func (d *Device) Plain() engine.Device {
	d.rom = make([]byte, romSize)
	for i := range d.rom {
		d.rom[i] = byte(i)
	}
	return plain{d}
}

// StopCopy is a device that can be migrated only while it stands.
func (d *Device) StopCopy() engine.Device { return struct{ engine.Migrator }{d} }
