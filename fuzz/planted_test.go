package fuzz

import (
	"encoding/binary"
	"io"
	"strings"
	"testing"

	"vfiouser/engine"
	"vfiouser/pci"
	"vfiouser/test/holdings"
)

// copier takes data from memory, from where its registers say or a record in memory that they point
// to. It believes what it is told.
type copier struct {
	engine.BaseDevice
	session *engine.Session
	regs    [8]uint64
	count   uint32 // is moved
	buffer  [512]byte

	width   int // of an access
	records bool
	trusts  trust
}

// trust is what a copier does not check.
type trust uint8

const (
	nothing trust = iota
	lengths
	state
)

const (
	copierAddress  = 0
	copierLength   = 1
	copierDoorbell = 2
)

func (c *copier) Describe() (engine.Description, error) {
	config, err := pci.NewSpace(pci.Config{Vendor: 0x1b36, Device: 0x0001, Class: 0xff0000, BARs: [6]pci.BAR{{Size: 4096, Type: pci.Mem32}}})
	d := engine.Description{Config: config}
	d.Regions[engine.RegionBAR0] = engine.Region{Size: 4096, Write: c.write}
	return d, err
}

func (c *copier) NewDevice(s *engine.Session) error { c.session = s; return nil }

func (c *copier) write(off uint64, p []byte) error {
	i, half := off/8, off%8
	if len(p) != c.width || off%uint64(c.width) != 0 || i >= uint64(len(c.regs)) {
		return nil
	}
	var reg [8]byte
	binary.LittleEndian.PutUint64(reg[:], c.regs[i])
	copy(reg[half:], p)
	c.regs[i] = binary.LittleEndian.Uint64(reg[:])
	if i == copierDoorbell && half == 0 {
		c.ring()
	}
	return nil
}

func (c *copier) ring() {
	if !c.records {
		c.take(c.regs[copierAddress], c.regs[copierLength])
		return
	}
	record := make([]byte, 16)
	c.session.StartReadDMA(c.regs[copierAddress], record, func(err error) {
		if err == nil {
			c.take(binary.LittleEndian.Uint64(record), uint64(binary.LittleEndian.Uint32(record[8:])))
		}
	})
}

// take reads what fits, and then looks at the end of it.
func (c *copier) take(address, n uint64) {
	fits := min(n, uint64(len(c.buffer)))
	c.session.StartReadDMA(address, c.buffer[:fits], func(err error) {
		if err == nil && c.trusts == lengths && n > 0 {
			c.count += uint32(c.buffer[n-1])
		}
	})
}

func (c *copier) SaveState(_ *engine.Session, w io.Writer) error {
	return binary.Write(w, binary.LittleEndian, c.count%uint32(len(c.buffer)))
}

func (c *copier) LoadState(_ *engine.Session, _ uint32, r io.Reader) error {
	if err := binary.Read(r, binary.LittleEndian, &c.count); err != nil {
		return err
	}
	if c.trusts == state {
		c.buffer[c.count]++
	}
	return nil
}

// What a device trusts it is told wrongly by the inputs that fuzzing begins with.
func TestUsualInputsReachWhatDevicesTrust(t *testing.T) {
	holdings.CheckLeaks(t)
	for _, c := range []struct {
		name   string
		device copier
		finds  string // "": nothing
	}{
		{"nothing", copier{width: 4, records: true}, ""},
		{"the length in a register", copier{width: 8, trusts: lengths}, "index out of range"},
		{"the length in two halves of a register", copier{width: 4, trusts: lengths}, "index out of range"},
		{"the length in a record", copier{width: 8, records: true, trusts: lengths}, "index out of range"},
		{"the length in a record, whose address has two halves", copier{width: 4, records: true, trusts: lengths}, "index out of range"},
		{"the state that is moved", copier{width: 4, trusts: state}, "index out of range"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t, config{hangAfter: defaultHang}, func() (engine.Device, error) { d := c.device; return &d, nil })
			found := ""
			for _, input := range usualInputs() {
				if found = r.verdict(input); found != "" {
					break
				}
			}
			if (found == "") != (c.finds == "") || !strings.Contains(found, c.finds) {
				t.Errorf("the inputs find %q, want %q", found, c.finds)
			}
		})
	}
}
