package fuzz

import (
	"slices"
	"testing"

	"vfiouser/codec"
	"vfiouser/engine"
	"vfiouser/fuzz/choice"
)

// stream sends the input as it is, in segments: two bytes say how long one is, one says which
// descriptors come with it, and what the client does before.
func (l *life) stream() {
	l.prompt = true
	l.c, l.connections = newConn(l), 1
	for l.s.More() {
		how, n := l.s.Uint8(), int(l.s.Uint16())
		if how&0x40 != 0 {
			l.c.settle()
		}
		if l.c.main.over || how&0xc0 == 0x80 {
			if !l.mayConnect() {
				break
			}
			l.disconnect()
			l.c = newConn(l)
			if l.lingers {
				l.connect()
			}
			l.connections++
		}
		var fds []int
		switch how & 7 {
		case 4:
			fds = []int{l.memory.file(l, int(how>>3&3))}
		case 5:
			fds = []int{l.eventfd()}
		case 6:
			fds = []int{l.eventfd(), l.eventfd(), l.eventfd()}
		case 7:
			fds = l.oddFDs()
		}
		if l.c.unsettled > maxUnsettled {
			l.c.settle()
		}
		if b := l.s.Bytes(n % (maxPayload / 8)); len(b) > 0 {
			l.c.write(b, fds...)
		}
		l.c.pump()
	}
	l.c.settle()
}

// segments puts messages into an input of stream.
type segments struct {
	input []byte
	id    uint16
}

func (s *segments) add(how uint8, b []byte) {
	s.input = append(s.input, how, byte(len(b)), byte(len(b)>>8))
	s.input = append(s.input, b...)
}

func (s *segments) message(how uint8, command codec.Command, payload []byte) {
	s.id++
	h := codec.Header{ID: s.id, Command: command, Size: uint32(codec.HeaderSize + len(payload))}
	s.add(how, append(h.Append(nil), payload...))
}

const withFile, withEventfd, withEventfds, withOdd, settled = 4, 5, 6, 7, 0x40

// sessions are streams that say all that can be said.
func sessions() [][]byte {
	version := (&codec.VersionMsg{Minor: 1, Caps: codec.Capabilities{MaxMsgFDs: 8, WriteMultiple: true,
		Migration: &codec.MigrationCaps{PgSize: 4096}}}).Append(nil)
	twin := (&codec.VersionMsg{Minor: 1, Caps: codec.Capabilities{MaxMsgFDs: 1, TwinSocket: &codec.TwinSocket{Supported: true}}}).Append(nil)
	mapped := (&codec.DMAMap{ArgSz: codec.DMAMapSize, Flags: 3, Addr: 0x10000, Size: 0x4000}).Append(nil)
	state := func(to codec.MigState) []byte {
		return (&codec.Feature{ArgSz: 16, Flags: codec.FeatureMigDeviceState | codec.FeatureSet, Data: to.Append(nil)}).Append(nil)
	}
	write := func(off uint64, data ...byte) []byte {
		return (&codec.RegionAccess{Offset: off, Count: uint32(len(data)), Data: data}).Append(nil)
	}
	play := func(steps ...func(s *segments)) []byte {
		s := &segments{}
		for _, step := range steps {
			step(s)
		}
		return s.input
	}
	m := func(how uint8, c codec.Command, payload []byte) func(*segments) {
		return func(s *segments) { s.message(how, c, payload) }
	}
	hello := m(0, codec.CmdVersion, version)
	return [][]byte{
		play(hello, m(0, codec.CmdGetInfo, (&codec.DeviceInfo{ArgSz: 16}).Append(nil)),
			m(0, codec.CmdGetRegionInfo, (&codec.RegionInfo{ArgSz: 256, Index: 2}).AppendRequest(nil)),
			m(0, codec.CmdGetRegionIOFDs, (&codec.IOFDs{ArgSz: 256}).AppendRequest(nil)),
			m(0, codec.CmdGetIRQInfo, (&codec.IRQInfo{ArgSz: 16, Index: 2}).Append(nil))),
		play(hello, m(withFile, codec.CmdDMAMap, mapped), m(0, codec.CmdRegionWrite, write(0, 0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 0, 0)),
			m(0, codec.CmdRegionWrite, write(12, 1, 0, 0, 0)), m(settled, codec.CmdDMAUnmap, (&codec.DMAUnmap{ArgSz: 24, Addr: 0x10000, Size: 0x4000}).Append(nil))),
		play(m(0, codec.CmdVersion, twin), m(0, codec.CmdDMAMap, mapped), m(0, codec.CmdRegionWrite, write(0, 0, 0, 1, 0, 0, 0, 0, 0, 64, 0, 0, 0)),
			m(0, codec.CmdRegionWrite, write(12, 2, 0, 0, 0)), m(settled, codec.CmdReset, nil)),
		play(hello, m(withEventfds, codec.CmdSetIRQs, (&codec.SetIRQs{ArgSz: 20, Flags: 4 | 32, Index: 2, Count: 3}).Append(nil)),
			m(withEventfd, codec.CmdSetIRQs, (&codec.SetIRQs{ArgSz: 20, Flags: 4 | 16, Count: 1}).Append(nil)),
			m(0, codec.CmdSetIRQs, (&codec.SetIRQs{ArgSz: 23, Flags: 2 | 32, Index: 2, Count: 3, Data: []byte{1, 0, 1}}).Append(nil)),
			m(0, codec.CmdSetIRQs, (&codec.SetIRQs{ArgSz: 20, Flags: 1 | 32, Index: 2}).Append(nil))),
		play(hello, m(0, codec.CmdDeviceFeature, state(codec.MigPreCopy)), m(0, codec.CmdMigDataRead, (&codec.MigData{ArgSz: 4104, Size: 4096}).AppendHead(nil)),
			m(0, codec.CmdDeviceFeature, state(codec.MigStopCopy)), m(0, codec.CmdMigDataRead, (&codec.MigData{ArgSz: 9008, Size: 9000}).AppendHead(nil)),
			m(0, codec.CmdDeviceFeature, state(codec.MigResuming)), m(0, codec.CmdMigDataWrite, (&codec.MigData{ArgSz: 12, Size: 4, Data: []byte("vfu-")}).Append(nil)),
			m(0, codec.CmdReset, nil)),
		play(hello, m(0, codec.CmdRegionWriteMulti, (&codec.WriteMulti{Count: 2, Writes: codec.AppendWrite(codec.AppendWrite(nil,
			codec.RegionAccess{Count: 4, Data: []byte{1, 2, 3, 4}}), codec.RegionAccess{Region: 7, Offset: 4, Count: 2, Data: []byte{6, 0}})}).Append(nil)),
			m(0, codec.CmdRegionRead, (&codec.RegionAccess{Count: 64}).AppendHead(nil))),
		play(hello, func(s *segments) { // a message in three segments, descriptors with the second
			s.message(0, codec.CmdDMAMap, mapped)
			b := append([]byte(nil), s.input[len(s.input)-48:]...)
			s.input = s.input[:len(s.input)-51]
			s.add(0, b[:7])
			s.add(withFile, b[7:20])
			s.add(withOdd, b[20:])
		}),
		play(hello, func(s *segments) { // garbage, and again
			s.add(0, []byte("GET / HTTP/1.1\r\n\r\n"))
			s.message(settled, codec.CmdVersion, version)
		}),
		play(m(0, codec.CmdReset, nil), m(0, codec.CmdVersion, []byte{0, 0, 0, 0}), m(0, codec.CmdVersion, version), m(0, 14, nil), m(0, 999, nil)),
	}
}

// FuzzSession sends a stream of bytes, with descriptors, to a server.
//
//fuzz:covers engine codec
func FuzzSession(f *testing.F) {
	r := newRig(f, config{hangAfter: defaultHang}, func() (engine.Device, error) { return newPlenty() })
	for _, input := range sessions() {
		f.Add(input)
	}
	f.Fuzz(func(t *testing.T, input []byte) { r.live(t, choice.FromBytes(input), (*life).stream) })
}

// writeSeveral is a REGION_WRITE_MULTI of two registers of 4 bytes.
func writeSeveral(a place, v uint32, b place, w uint32) Step {
	return step(opWriteMulti, uint8(0), uint8(2),
		uint8(exactly), uint8(a.region), uint32(a.offset), uint8(2), uint8(exactly), v,
		uint8(exactly), uint8(b.region), uint32(b.offset), uint8(2), uint8(exactly), w, uint8(0))
}

// FuzzDevice is the target of Device for a device that uses all of the engine.
//
//fuzz:covers engine codec dma irq pci
func FuzzDevice(f *testing.F) {
	base := uint64(0x10_0000)
	do := func(what uint64) Step { return Write(0, plentyGo, 4, what) }
	set := []Step{Write(0, plentyAddress, 8, base), Write(0, plentyLength, 4, 64)}
	play := func(steps ...Step) Option { return Seed(append(set[:2:2], steps...)...) }
	Device(f, newPlenty,
		Registers(0, plentyAddress, plentyLength, plentyGo, plentyGo, plentyBell, plentyBuffer), Registers(4, 0, 8, 12, 28, 2048),
		play(Map(0, 0, base, 0x4000), Store(base, []byte("hello")), Eventfds(2, 0, 8), do(1), do(2), do(3), do(4)),
		play(MapByMessage(0, 0, base, 0x4000), Store(base, []byte("hello")), Eventfds(2, 0, 8), do(1), do(2), do(3), do(4), Reset()),
		play(Reconnect(true), MapByMessage(0, 0, base, 0x4000), Eventfds(2, 0, 8), do(1), do(2), do(4), Unmap(base, 0x4000)),
		play(Migrate(codec.MigPreCopy), ReadState(), ReadState(), Migrate(codec.MigStopCopy), ReadState(), Settle(), Reconnect(false),
			Migrate(codec.MigResuming), WriteState(), Migrate(codec.MigRunning), Read(0, 0, 256)),
		play(Write(4, 0, 8, 0xfee00000), Write(4, 12, 4, 1), do(3), Write(4, 12, 4, 0)),
		play(IOEventfds(0), Signal(0), Signal(0), Write(0, plentyBell, 4, 1), Reset(), Signal(0), Read(0, plentyBell, 8)),
		play(append([]Step{step(opManner, uint8(2))}, slices.Repeat([]Step{Read(2, 0, 8192)}, 60)...)...),
		play(writeSeveral(place{codec.RegionConfig, 0x48}, 0x8000, place{0, 8}, 7), Read(0, 0, 16)), // a function level reset
		play(Write(7, 4, 2, 6), Write(7, 0x10, 4, 0xffffffff), Read(7, 0, 256), Read(6, 0, 64), Read(9, 0, 4)))
}
