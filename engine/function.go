package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/pci"
)

// errNoHandler is for an access to a part of a region that the device does not serve.
var errNoHandler = fmt.Errorf("the device does not serve this: %w", unix.EINVAL)

// readConfig is a client's read of the configuration space.
func (ep *Endpoint) readConfig(off uint64, p []byte) error {
	if s := ep.session; s != nil {
		s.showPending()
	}
	return ep.desc.Config.Read(int(off), p)
}

// writeConfig is a client's write to the configuration space.
func (ep *Endpoint) writeConfig(off uint64, p []byte) error {
	changed, err := ep.desc.Config.Write(int(off), p)
	if s := ep.session; s != nil {
		s.resetAsked = s.resetAsked || changed&pci.RequestedReset != 0
		s.followConfig(changed)
	}
	if changed != 0 && ep.desc.ConfigWritten != nil {
		ep.desc.ConfigWritten(changed)
	}
	return err
}

// placeROM makes the region of the expansion ROM from its bytes.
func (d *Description) placeROM() error {
	size, r := uint64(d.Config.ROMSize()), &d.Regions[RegionROM]
	switch {
	case d.ROM == nil:
		return checkSize("expansion ROM", size, r.Size)
	case r.Size != 0:
		return errors.New("the expansion ROM is given twice, as bytes and as a region")
	case uint64(len(d.ROM)) > size:
		return fmt.Errorf("%d bytes of expansion ROM, %d in the configuration space", len(d.ROM), size)
	}
	*r = Region{Size: size, Read: d.readROM}
	return nil
}

// readROM reads ones behind the ROM's bytes, and everywhere while the function does not
// answer to the ROM's addresses, as the bus does then.
func (d *Description) readROM(off uint64, p []byte) error {
	n := 0
	if d.Config.ROMEnabled() && off < uint64(len(d.ROM)) {
		n = copy(p, d.ROM[off:])
	}
	for i := range p[n:] {
		p[n+i] = 0xff
	}
	return nil
}

// checkBARs compares the regions with the base addresses in the configuration space.
func (d *Description) checkBARs() error {
	for i := range pci.NumBARs {
		if err := checkSize(fmt.Sprintf("BAR %d", i), d.Config.BAR(i).Size, d.Regions[i].Size); err != nil {
			return err
		}
	}
	return nil
}

func checkSize(what string, config, region uint64) error {
	if config != region {
		return fmt.Errorf("%s has %#x bytes in the configuration space, its region has %#x", what, config, region)
	}
	return nil
}
