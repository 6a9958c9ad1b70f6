package conformance

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// facts are what a case can need, with what the number of each means.
var facts = map[string]string{
	// Regions: $NAME is the index, $NAME.size the size in bytes, which is what is needed.
	"scratch":   "region that keeps what is written to it, and does nothing else; not mappable",
	"big":       "such a region of more than max_data_xfer_size, 1 MiB",
	"control":   "region with the registers of package dut",
	"config":    "PCI configuration space",
	"readonly":  "region that can be read but not written",
	"writeonly": "region that can be written but not read",
	"mappable":  "region that can be mapped as a whole",
	"sparse":    "region with mappable areas",
	"rom":       "expansion ROM",
	"typed":     "device-specific region with a type capability",
	"iofds":     "region with file descriptors for I/O",
	// Numbers of interrupts.
	"intx": "INTx", "msi": "MSI", "msix": "MSI-X", "err": "ERR", "req": "REQ",
	// Capabilities in the configuration space: their offsets.
	"cap_pm": "power management", "cap_msi": "MSI", "cap_msix": "MSI-X", "cap_express": "PCI Express",
	"cap_vendor": "vendor-specific capability", "ext_serial": "device serial number", "ext_aer": "advanced error reporting",
	// The rest is there or not, 1 or 0.
	"empty":          "index of a region of size 0, in $empty",
	"regions":        "regions, in $regions",
	"reset":          "RESET is supported",
	"no_reset":       "RESET is not supported",
	"migration":      "migration",
	"precopy":        "migration with PRE_COPY",
	"no_precopy":     "migration without PRE_COPY",
	"dma_logging":    "logging of DMA writes",
	"twin_socket":    "a second socket for the server's commands is offered to a client that supports it",
	"write_multi":    "REGION_WRITE_MULTI is offered to a client that supports it",
	"fresh":          "a device that nobody has used before",
	"no_twin_socket": "a second socket is not offered",
	"reconnect":      "a client can come when another has left",
	"dma_timeout":    "a client is dropped soon that does not answer a command",
	"no_migration":   "no migration at all",
	"no_write_multi": "REGION_WRITE_MULTI is not offered",
}

// Facts lists what a case can need.
func Facts() []string { return slices.Sorted(maps.Keys(facts)) }

func known(fact string) bool { return facts[fact] != "" }

// Roles says which regions of a device are what the protocol cannot tell: scratch, big
// and control.
type Roles map[string]uint64

// Survey asks a server what its device has. A device of which nothing is known but the
// protocol has no scratch memory: who writes to an unknown register does not know what
// it does.
func Survey(dial func() (int, error), roles Roles) (map[string]uint64, error) {
	r := &run{target: &Target{Dial: dial}, vars: map[string]uint64{}, conns: map[string]*conn{}, fds: map[string]int{}}
	defer r.close()
	s := &survey{run: r, has: map[string]uint64{}}
	if err := r.connect(step{}); err != nil {
		return nil, err
	}
	s.c = r.conns["c"]
	for _, ask := range []func() error{s.version, s.info, s.capabilities, s.interrupts, s.features} {
		if err := ask(); err != nil {
			return nil, fmt.Errorf("survey: %w", err)
		}
	}
	if err := s.again(); err != nil {
		return nil, fmt.Errorf("survey: %w", err)
	}
	for name, index := range roles {
		if s.sizes[index] == 0 {
			return nil, fmt.Errorf("survey: region %d is to be %s, but is empty", index, name)
		}
		s.has[name], s.has[name+".size"] = index, s.sizes[index]
	}
	return s.has, nil
}

// survey asks one question after the other.
type survey struct {
	run   *run
	c     *conn
	has   map[string]uint64
	sizes map[uint64]uint64
}

// ask sends a command of 32-bit numbers and returns the payload of the reply, nil if the
// server refuses.
func (s *survey) ask(command string, numbers ...uint32) ([]byte, error) {
	var b []byte
	for _, n := range numbers {
		b = binary.NativeEndian.AppendUint32(b, n)
	}
	return s.askBytes(command, b)
}

func (s *survey) askBytes(command string, b []byte) ([]byte, error) {
	h := header{id: 1, command: layouts[command].command, size: uint32(headerSize + len(b))}
	if err := s.c.sendAll(append(h.append(nil), b...), 0, nil); err != nil {
		return nil, err
	}
	m, err := s.c.receive()
	for i, fd := range m.fds { // one can be a socket that the server wants open
		s.run.fds[fmt.Sprint(command, len(s.run.fds), i)] = fd
	}
	switch {
	case err != nil:
		return nil, fmt.Errorf("%s: %w", command, err)
	case m.flags&flagError != 0:
		return nil, nil
	case len(m.payload) < layouts[command].size():
		return nil, fmt.Errorf("%s: reply of %d bytes", command, len(m.payload))
	}
	return m.payload, nil
}

func (s *survey) version() error {
	const caps = `{"capabilities":{"max_msg_fds":16,"max_data_xfer_size":1048576,"write_multiple":true,"twin_socket":{"supported":true}}}`
	b := append([]byte{}, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, 1)
	b = append(append(b, caps...), 0)
	reply, err := s.askBytes("VERSION", b)
	if err != nil || reply == nil {
		return fmt.Errorf("VERSION is refused: %w", err)
	}
	offered := func(member string) uint64 {
		w := words{caps: []string{member + "=true"}, fields: map[string]string{"minor": "_"}}
		if w.matchVersion(reply, s.run.scope()) == nil {
			return 1
		}
		return 0
	}
	s.has["write_multi"] = offered("write_multiple")
	s.has["no_write_multi"] = 1 - s.has["write_multi"]
	s.has["twin_socket"] = offered("twin_socket.supported")
	s.has["no_twin_socket"] = 1 - s.has["twin_socket"]
	return nil
}

// again leaves and comes back. That the server ends with its first client is allowed.
func (s *survey) again() error {
	_ = unix.Close(s.c.fd)
	s.c.fd = -1
	r := s.run
	if err := r.connect(step{}); err != nil {
		return nil
	}
	s.c = r.conns["c"]
	first := maps.Clone(s.has)
	if err := s.version(); err != nil && errors.Is(err, errEOF) {
		return nil
	} else if err != nil {
		return err
	}
	s.has = first
	s.has["reconnect"] = 1
	return nil
}

// info asks for the device and its regions.
func (s *survey) info() error {
	b, err := s.ask("GET_INFO", 16, 0, 0, 0)
	if err != nil || b == nil {
		return fmt.Errorf("GET_INFO is refused: %w", err)
	}
	s.has["reset"] = uint64(binary.NativeEndian.Uint32(b[4:])) & deviceInfo["RESET"]
	s.has["no_reset"] = 1 - s.has["reset"]
	s.has["regions"] = uint64(binary.NativeEndian.Uint32(b[8:]))
	s.sizes = map[uint64]uint64{}
	for index := range s.has["regions"] {
		if err := s.region(index); err != nil {
			return err
		}
	}
	return nil
}

// region finds out what a region is good for.
func (s *survey) region(index uint64) error {
	b, err := s.ask("GET_REGION_INFO", 4096, 0, uint32(index), 0, 0, 0, 0, 0)
	if err != nil || b == nil {
		return err
	}
	flags := uint64(binary.NativeEndian.Uint32(b[4:]))
	size := binary.NativeEndian.Uint64(b[16:])
	s.sizes[index] = size
	is := func(role string) {
		if _, there := s.has[role]; !there {
			s.has[role], s.has[role+".size"] = index, size
		}
	}
	if size == 0 {
		if _, there := s.has["empty.size"]; !there {
			s.has["empty"], s.has["empty.size"] = index, 1
		}
		return nil
	}
	sparse := false
	if flags&regionInfo["CAPS"] != 0 {
		for at := binary.NativeEndian.Uint32(b[12:]); at != 0 && int(at)+8 <= len(b); at = binary.NativeEndian.Uint32(b[at+4:]) {
			switch binary.NativeEndian.Uint16(b[at:]) {
			case 1:
				sparse = true
			case 2:
				is("typed")
			}
		}
	}
	mappable := flags&regionInfo["MMAP"] != 0
	access := flags & (regionInfo["READ"] | regionInfo["WRITE"])
	for role, yes := range map[string]bool{
		"config":    index == symbols["CONFIG"],
		"rom":       index == symbols["ROM"],
		"sparse":    mappable && sparse,
		"mappable":  mappable && !sparse,
		"readonly":  index != symbols["ROM"] && !mappable && access == regionInfo["READ"],
		"writeonly": access == regionInfo["WRITE"],
	} {
		if yes {
			is(role)
		}
	}
	if b, err = s.ask("GET_REGION_IO_FDS", 16, 0, uint32(index), 0); err != nil {
		return err
	}
	if b != nil && binary.NativeEndian.Uint32(b[12:]) > 0 {
		is("iofds")
	}
	return nil
}

// capabilities walks the lists in the configuration space.
func (s *survey) capabilities() error {
	size := min(s.sizes[symbols["CONFIG"]], 4096)
	b, err := s.ask("REGION_READ", 0, 0, uint32(symbols["CONFIG"]), uint32(size))
	if err != nil || uint64(len(b)) != 16+size || size < 256 {
		return err
	}
	b = b[16:]
	standard := map[byte]string{0x01: "cap_pm", 0x05: "cap_msi", 0x09: "cap_vendor", 0x10: "cap_express", 0x11: "cap_msix"}
	extended := map[uint32]string{0x01: "ext_aer", 0x03: "ext_serial"}
	found := func(name string, at int) {
		if _, there := s.has[name]; name != "" && !there {
			s.has[name] = uint64(at)
		}
	}
	at, steps := int(b[0x34]&^3), 0
	for ; at >= 0x40 && at <= 0xfc && steps < 48; steps++ {
		found(standard[b[at]], at)
		at = int(b[at+1] &^ 3)
	}
	for at = 256; at >= 256 && at+4 <= len(b) && steps < 1000; steps++ {
		h := binary.LittleEndian.Uint32(b[at:])
		found(extended[h&0xffff], at)
		at = int(h>>20) &^ 3
	}
	return nil
}

func (s *survey) interrupts() error {
	for name, index := range map[string]uint32{"intx": 0, "msi": 1, "msix": 2, "err": 3, "req": 4} {
		b, err := s.ask("GET_IRQ_INFO", 16, 0, index, 0)
		if err != nil {
			return err
		}
		if b != nil {
			s.has[name] = uint64(binary.NativeEndian.Uint32(b[12:]))
		}
	}
	return nil
}

func (s *survey) features() error {
	b, err := s.ask("DEVICE_FEATURE", 16, uint32(feature["GET"]|feature["MIGRATION"]))
	if err != nil {
		return err
	}
	s.has["no_migration"] = 1
	if len(b) >= 16 {
		s.has["migration"], s.has["no_migration"] = 1, 0
		s.has["precopy"] = binary.NativeEndian.Uint64(b[8:]) >> 2 & 1
		s.has["no_precopy"] = 1 - s.has["precopy"]
	}
	b, err = s.ask("DEVICE_FEATURE", 8, uint32(feature["PROBE"]|feature["SET"]|feature["DMA_LOGGING_START"]))
	if b != nil {
		s.has["dma_logging"] = 1
	}
	return err
}
