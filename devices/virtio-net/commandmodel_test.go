package virtionet

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"

	"vfiouser/devices/virtio-net/spec"
	"vfiouser/fuzz/choice"
	"vfiouser/link/vnet"
)

// answer does what a command says, as 5.1.6.5 has it, and returns what is written.
func (m *commandModel) answer(b []byte) []byte {
	if len(b) < 2 || len(b) > 64<<10 {
		return []byte{1}
	}
	class, number, data := b[0], b[1], b[2:]
	if class == 6 && number == 3 {
		return m.tellCoalescing(data)
	}
	if m.run(class, number, data) {
		return []byte{0}
	}
	return []byte{1}
}

func (m *commandModel) has(feature uint64) bool { return m.features&feature != 0 }

func (m *commandModel) run(class, number uint8, data []byte) bool {
	switch class {
	case 0:
		return m.setMode(number, data)
	case 1:
		return number == 0 && m.has(spec.FeatureCtrlRx) && m.setTables(data) ||
			number == 1 && m.has(spec.FeatureCtrlMACAddr) && m.setOwn(data)
	case 2:
		if !m.has(spec.FeatureCtrlVLAN) || number > 1 || len(data) != 2 || binary.LittleEndian.Uint16(data) > 4095 {
			return false
		}
		m.vlans[binary.LittleEndian.Uint16(data)] = number == 0
		return true
	case 3:
		return m.has(spec.FeatureGuestAnnounce) && number == 0 && len(data) == 0
	case 4:
		return number == 0 && m.has(spec.FeatureMQ) && m.setPairs(data) ||
			number == 1 && m.has(spec.FeatureRSS) && m.setRSS(data) ||
			number == 2 && m.has(spec.FeatureHashReport) && m.setHash(data)
	case 5:
		if !m.has(spec.FeatureCtrlGuestOffloads) || number != 0 || len(data) != 8 {
			return false
		}
		offloads := binary.LittleEndian.Uint64(data)
		if offloads&^(m.features&spec.GuestOffloads) != 0 {
			return false
		}
		m.offloads = offloads
		return true
	case 6:
		return m.setCoalescing(number, data)
	}
	return false
}

func (m *commandModel) setMode(number uint8, data []byte) bool {
	feature := uint64(spec.FeatureCtrlRx)
	if number > 1 {
		feature = spec.FeatureCtrlRxExtra
	}
	if number > 5 || !m.has(feature) || len(data) != 1 || data[0] > 1 {
		return false
	}
	m.modes[number] = data[0] == 1
	return true
}

func (m *commandModel) setOwn(data []byte) bool {
	if len(data) != 6 || data[0]&1 != 0 {
		return false
	}
	m.own = string(data)
	return true
}

func (m *commandModel) setTables(data []byte) bool {
	var lists [2][]string
	for i := range lists {
		if len(data) < 4 {
			return false
		}
		n := uint64(binary.LittleEndian.Uint32(data))
		if data = data[4:]; n*6 > uint64(len(data)) {
			return false
		}
		for ; n > 0; n-- {
			lists[i] = append(lists[i], string(data[:6]))
			data = data[6:]
		}
	}
	if len(data) > 0 {
		return false
	}
	m.unicast, m.multi = lists[0], lists[1]
	return true
}

func (m *commandModel) setPairs(data []byte) bool {
	if len(data) != 2 {
		return false
	}
	n := int(binary.LittleEndian.Uint16(data))
	if n < 1 || n > len(m.c.pairs) {
		return false
	}
	m.pairs, m.table = n, nil
	return true
}

// keyed takes a length of one byte and a key from the end of a command, behind which padding is
// allowed.
func keyed(data []byte) (key []byte, ok bool) {
	if len(data) < 1 || len(data) < 1+int(data[0]) || data[0] > 40 {
		return nil, false
	}
	return data[1 : 1+data[0]], true
}

func (m *commandModel) setHash(data []byte) bool {
	if len(data) < 13 {
		return false
	}
	types := binary.LittleEndian.Uint32(data)
	key, ok := keyed(data[12:])
	if !ok || types >= 1<<9 {
		return false
	}
	m.hashes, m.types, m.key = true, types, slices.Clone(key)
	return true
}

func (m *commandModel) setRSS(data []byte) bool {
	if len(data) < 8 {
		return false
	}
	types, entries := binary.LittleEndian.Uint32(data), int(binary.LittleEndian.Uint16(data[4:]))+1
	queues := []uint16{binary.LittleEndian.Uint16(data[6:])}
	if data = data[8:]; entries > 128 || 128%entries != 0 || len(data) < 2*entries+3 {
		return false
	}
	for i := range entries {
		queues = append(queues, binary.LittleEndian.Uint16(data[2*i:]))
	}
	data = data[2*entries:]
	transmit := int(binary.LittleEndian.Uint16(data))
	key, ok := keyed(data[2:])
	if !ok || types >= 1<<9 || transmit < 1 || max(transmit, int(slices.Max(queues))+1) > len(m.c.pairs) {
		return false
	}
	m.hashes, m.types, m.key = true, types, slices.Clone(key)
	m.other, m.table, m.pairs = queues[0], queues[1:], int(slices.Max(queues))+1
	return true
}

func (m *commandModel) setCoalescing(number uint8, data []byte) bool {
	var c spec.Coalesce
	switch {
	case number < 2 && m.has(spec.FeatureNotfCoal) && len(data) == 8:
		c.Get(data)
		for i := range m.enabled {
			if i%2 == 1-int(number) { // command 0 is for transmit queues, which are odd
				m.enabled[i] = c
			}
		}
		return true
	case number == 2 && m.has(spec.FeatureVQNotfCoal) && len(data) == 12:
		c.Get(data[4:])
		i := int(binary.LittleEndian.Uint16(data))
		if _, ok := m.enabled[i]; !ok {
			return false
		}
		m.enabled[i] = c
		return true
	}
	return false
}

func (m *commandModel) tellCoalescing(data []byte) []byte {
	reply := make([]byte, 9)
	reply[8] = 1
	if m.has(spec.FeatureVQNotfCoal) && len(data) == 4 {
		if c, ok := m.enabled[int(binary.LittleEndian.Uint16(data))]; ok {
			c.Put(reply)
			reply[8] = 0
		}
	}
	return reply
}

// passes says whether a frame is received (5.1.6.5.1 to 5.1.6.5.3).
func (m *commandModel) passes(to string, vlan uint16, tagged bool) bool {
	const all, multi, uni, noMulti, noUni, noBcast = 0, 1, 2, 3, 4, 5
	if m.modes[all] {
		return true
	}
	mac := true
	switch listed := func(list []string) bool { return len(list) > 64 || slices.Contains(list, to) }; {
	case !m.has(spec.FeatureCtrlRx):
	case to == "\xff\xff\xff\xff\xff\xff":
		mac = !m.modes[noBcast]
	case to[0]&1 != 0:
		mac = !m.modes[noMulti] && (m.modes[multi] || listed(m.multi))
	default:
		mac = !m.modes[noUni] && (m.modes[uni] || to == m.own || listed(m.unicast))
	}
	return mac && (!tagged || !m.has(spec.FeatureCtrlVLAN) || m.vlans[vlan])
}

// frame has one arrive, and compares where it goes and what hash is reported.
func (m *commandModel) frame() {
	src := m.src
	p := packet{dst: m.address(), payload: 20, proto: choice.Pick[uint8](src, protoTCP, protoUDP, 1)}
	if src.Odds(3) {
		p.vlan = choice.Pick(src, 1, 2, 3, 4095, 0x3000+2) // the upper bits are the priority
	}
	switch src.Intn(4) {
	case 0:
		p.kind = 0x806
	case 1:
		p.from = fmt.Sprintf("[2001:db8::%x]:%d", src.Uint16(), src.Intn(3))
		p.to = fmt.Sprintf("[2001:db8::%x]:%d", src.Uint16(), src.Intn(3))
	default:
		p.from, p.to = fmt.Sprintf("10.0.0.%d:%d", src.Uint8(), src.Uint16()), fmt.Sprintf("10.0.0.%d:7", src.Uint8())
	}
	q := src.Intn(len(m.c.pairs))
	data := p.frame()
	if src.Odds(10) {
		data = data[:src.Intn(20)]
	}
	frame := cut(data, src.Intn(60), src.Intn(60))
	r := m.c.reception.Load()
	var s sorter
	if !r.straight {
		s.look(m.c, r, q, []vnet.Frame{frame})
	}
	want, report := m.where(&p, q, len(data))
	if s.to[0] != want {
		m.t.Fatalf("%+v goes to %d, want %d", p, s.to[0], want)
	}
	if r.report && want != nowhere && s.reports[0] != report {
		m.t.Fatalf("%+v has the hash %+v, want %+v", p, s.reports[0], report)
	}
}

// where says to which queue a frame of so many bytes goes, and with what hash. Of less than 20
// bytes none has addresses.
func (m *commandModel) where(p *packet, q, length int) (queue uint8, report spec.HashReport) {
	open := m.modes[0] || !m.has(spec.FeatureCtrlRx) && !m.has(spec.FeatureCtrlVLAN)
	if !open && (length < 14 || !m.passes(p.dst, uint16(p.vlan)&0xfff, p.vlan > 0 && length >= 18)) {
		return nowhere, report
	}
	if m.hashes && length > 20 {
		report = m.hash(p)
	}
	switch {
	case m.pairs == 1:
		return 0, report
	case m.table == nil:
		return uint8(q % m.pairs), report
	case report.Report == 0:
		return uint8(m.other), report
	}
	return uint8(m.table[int(report.Value)%len(m.table)]), report
}

// hash is what 5.1.6.4.3 says, bit by bit.
func (m *commandModel) hash(p *packet) spec.HashReport {
	if p.from == "" {
		return spec.HashReport{}
	}
	from, to := netip.MustParseAddrPort(p.from), netip.MustParseAddrPort(p.to)
	input := append(from.Addr().AsSlice(), to.Addr().AsSlice()...)
	ports := binary.BigEndian.AppendUint16(binary.BigEndian.AppendUint16(nil, from.Port()), to.Port())
	first := uint32(1) // IPv4, then with TCP and with UDP
	if from.Addr().Is6() {
		first = 1 << 3
	}
	kind := first
	switch {
	case p.proto == protoTCP && m.types&(first<<1) != 0:
		kind, input = first<<1, append(input, ports...)
	case p.proto == protoUDP && m.types&(first<<2) != 0:
		kind, input = first<<2, append(input, ports...)
	case m.types&first == 0:
		return spec.HashReport{}
	}
	key := make([]byte, 44)
	copy(key, m.key)
	return spec.HashReport{Value: bitwise(key, input), Report: spec.Report(kind)}
}
