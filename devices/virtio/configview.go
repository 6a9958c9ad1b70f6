package virtio

import "bytes"

// configView is the device-specific configuration as the driver has seen it. The
// generation has to change if a driver reads a value that has changed since it read any of
// the configuration (4.1.4.3.1), so every read looks at all of it. It is the reactor's.
type configView struct {
	device    Device
	now, seen []byte
	read      bool // seen was filled
}

func (c *configView) init(f *Function) {
	c.device = f.device
	c.now, c.seen = make([]byte, f.cfg.ConfigSize), make([]byte, f.cfg.ConfigSize)
}

// readConfig fills p from off on; what lies behind reads 0.
func (h *host) readConfig(off uint64, p []byte) {
	c := &h.config
	if len(c.now) == 0 {
		return
	}
	c.device.ReadConfig(0, c.now)
	if c.read && !bytes.Equal(c.now, c.seen) {
		h.regs.set(func(r *registers) { r.generation++ })
	}
	c.read = true
	copy(c.seen, c.now)
	if off < uint64(len(c.now)) {
		copy(p, c.now[off:])
	}
}
