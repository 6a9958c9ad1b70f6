package fuzz

import (
	"encoding/binary"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/fuzz/choice"
)

// doQuery asks what the device is.
func (l *life) doQuery() {
	flags := l.flags()
	index := uint32(l.s.Uint8()) % 10
	if l.s.Odds(8) {
		index = uint32(l.s.Edge(16))
	}
	switch l.s.Intn(4) {
	case 0:
		l.c.write(l.c.message(codec.CmdGetInfo, flags, (&codec.DeviceInfo{ArgSz: l.argsz(codec.DeviceInfoSize)}).Append(nil)))
	case 1:
		m := codec.RegionInfo{ArgSz: l.argsz(1024), Index: index}
		l.c.write(l.c.message(codec.CmdGetRegionInfo, flags, m.AppendRequest(nil)))
	case 2:
		m := codec.IOFDs{ArgSz: l.argsz(1024), Index: index}
		l.c.write(l.c.message(codec.CmdGetRegionIOFDs, flags, m.AppendRequest(nil)))
	case 3:
		m := codec.IRQInfo{ArgSz: l.argsz(codec.IRQInfoSize), Index: codec.IRQIndex(index)}
		l.c.write(l.c.message(codec.CmdGetIRQInfo, flags, m.Append(nil)))
	}
}

// doReset resets the device.
func (l *life) doReset() { l.c.write(l.c.message(codec.CmdReset, l.flags(), nil)) }

// doFeature gets, sets or probes any feature with anything.
func (l *life) doFeature() {
	f := codec.Feature{Flags: codec.FeatureFlags(l.s.Uint8() % 12)}
	f.Flags |= codec.FeatureFlags(choice.Pick(l.s, 1, 2, 5, 6, 4, 3, 7, 0)) << 16
	switch f.Flags.Number() {
	case codec.FeatureDMALoggingStart:
		log := codec.DMALogging{PageSize: choice.Pick(l.s, uint64(4096), 0, 1, 8192)}
		for range l.s.Intn(4) {
			log.Ranges = codec.AppendIOVARange(log.Ranges, codec.IOVARange{IOVA: l.guestAddress() &^ 4095, Length: uint64(l.s.Uint8()) << 12})
			log.Count++
		}
		if l.s.Odds(8) {
			log.Count = uint32(l.s.Edge(uint64(log.Count)))
		}
		f.Data = log.Append(nil)
	case codec.FeatureDMALoggingReport:
		report := codec.DMALoggingReport{IOVA: l.guestAddress() &^ 4095, Length: uint64(l.s.Uint8()) << 12, PageSize: choice.Pick(l.s, uint64(4096), 0, 1, 8192)}
		f.Data = report.AppendHead(nil)
	default:
		f.Data = l.s.Bytes(choice.Pick(l.s, 8, 0, 4, 24, 1))
	}
	if l.s.Odds(8) && len(f.Data) > 0 {
		f.Data = f.Data[:l.s.Intn(len(f.Data)&0xff+1)]
	}
	f.ArgSz = l.argsz(1 << 16)
	l.c.write(l.c.message(codec.CmdDeviceFeature, l.flags(), f.Append(nil)))
}

// doMigrate asks for a state of migration.
func (l *life) doMigrate() {
	state := codec.MigState(l.s.Uint8() & 15)
	f := codec.Feature{
		ArgSz: codec.FeatureSize + 8, Flags: codec.FeatureMigDeviceState | codec.FeatureSet, Data: state.Append(nil),
	}
	l.c.call(codec.CmdDeviceFeature, f.Append(nil))
}

// doMigRead reads the device's state.
func (l *life) doMigRead() {
	m := codec.MigData{ArgSz: codec.MigDataSize, Size: choice.Pick(l.s, uint32(maxPayload), 4096, 100, 1)}
	if l.s.Odds(8) {
		m.Size = uint32(l.s.Edge(1 << 20))
	}
	m.ArgSz = l.argsz(codec.MigDataSize + m.Size)
	l.c.write(l.c.message(codec.CmdMigDataRead, l.flags(), m.AppendHead(nil)))
}

// doMigWrite writes what was read before, or something like it.
func (l *life) doMigWrite() {
	state := l.state
	switch sel := l.s.Uint8(); {
	case sel < 0x60 || sel == exactly:
		l.state = nil // what is read next begins anew
	case sel < 0x80 && len(state) > 0:
		state = state[:l.s.Edge(uint64(len(state)))%uint64(len(state)+1)]
	case sel < 0xe0:
		state = l.forge(state)
	default:
		state = l.s.Bytes(int(l.s.Uint8()))
	}
	for {
		part := state[:min(len(state), maxPayload)]
		state = state[len(part):]
		m := codec.MigData{ArgSz: codec.MigDataSize + uint32(len(part)), Size: uint32(len(part)), Data: part}
		l.c.write(l.c.message(codec.CmdMigDataWrite, 0, m.Append(nil)))
		if len(state) == 0 {
			return
		}
		l.c.settle()
	}
}

// doOdd sends a command with a payload, a length, flags and descriptors that have nothing to do
// with it.
func (l *life) doOdd() {
	command := codec.Command(l.s.Uint8() % (codec.NumCommands + 2))
	if l.s.Odds(16) {
		command = codec.Command(l.s.Uint16())
	}
	payload := l.s.Bytes(int(l.s.Uint8()) & 0x7f)
	b := l.c.message(command, l.flags(), payload)
	switch l.s.Intn(16) {
	case 1:
		binary.NativeEndian.PutUint32(b[4:], uint32(l.s.Edge(uint64(len(b))))) // the size
	case 2:
		binary.NativeEndian.PutUint32(b[8:], l.s.Uint32()) // flags
	case 3:
		binary.NativeEndian.PutUint32(b[8:], uint32(codec.FlagReply))
	case 4:
		binary.NativeEndian.PutUint16(b, l.s.Uint16()) // the id
	}
	var fds []int
	if l.s.Odds(3) {
		fds = l.oddFDs()
	}
	l.c.write(b, fds...)
}

// doRaw sends bytes.
func (l *life) doRaw() {
	if b := l.s.Bytes(int(l.s.Uint8())); len(b) > 0 {
		l.c.write(b)
	}
}

// doManner changes how the client behaves from now on.
func (l *life) doManner() {
	switch l.s.Intn(4) {
	case 0:
		l.cut = int(l.s.Uint8())
	case 1:
		l.prompt = !l.prompt
	case 2:
		l.deaf = !l.deaf
	case 3:
		l.cut, l.prompt, l.deaf = 0, true, false
	}
}

// doAnswer answers one of the server's commands, perhaps badly.
func (l *life) doAnswer() {
	c := l.c
	how := l.s.Intn(8)
	if len(c.asks) == 0 || c.must {
		l.prompt = how&1 == 0
		return
	}
	a := c.asks[l.s.Intn(min(len(c.asks), 256))]
	payload := c.truth(a)
	switch how {
	case 1, 2:
		c.refuse(a, choice.Pick(l.s, uint32(unix.EFAULT), 0, 4095, 4096, 1<<31))
		return
	case 3:
		payload = payload[:l.s.Edge(uint64(len(payload)))%uint64(len(payload)+1)]
	case 4:
		payload[l.s.Intn(codec.DMAAccessSize/2)] ^= l.s.Uint8()
	case 5:
		a.ID += uint16(l.s.Uint8())
	}
	c.answer(a, payload)
}

// doReconnect leaves and comes back, perhaps with an odd VERSION.
func (l *life) doReconnect() {
	if !l.mayConnect() {
		return
	}
	how := l.s.Uint8()
	if how&0x80 != 0 {
		l.c.settle()
	}
	if how&0x40 != 0 && !l.c.main.over { // the server sees the end, and can still answer
		_ = unix.Shutdown(l.c.main.fd, unix.SHUT_WR)
		l.c.may, l.c.must = "the client has hung up", true
		l.c.partial = nil
		l.c.settle()
	}
	if l.lingers {
		l.connect()
		return
	}
	l.disconnect()
	l.connections++
	l.c = newConn(l)
	switch how & 15 {
	case 0, 1, 2:
		l.c.version(false)
	case 3, 4, 5, 6:
		l.c.version(true)
	case 7:
		// No VERSION: the next command comes before it.
	case 8:
		version := binary.NativeEndian.AppendUint16(binary.NativeEndian.AppendUint16(nil, l.s.Uint16()&3), l.s.Uint16()&3)
		l.c.write(l.c.message(codec.CmdVersion, l.flags(), append(version, l.json()...)))
	case 9:
		l.c.write(l.c.message(codec.CmdVersion, l.flags(), l.s.Bytes(int(l.s.Uint8()))))
	case 10:
		l.c.write(l.c.message(codec.CmdVersion, 0, []byte("\x00\x00\x01\x00{}\x00")), l.oddFDs()...)
	default:
		l.c.write(l.c.message(codec.CmdVersion, 0, append([]byte{0, 0, 1, 0}, l.json()...)))
	}
}

// json is version data: capabilities with a value of which one is odd, perhaps.
func (l *life) json() []byte {
	b := []byte(`{"capabilities":{`)
	for i, n := 0, l.s.Intn(6); i < n; i++ {
		if i > 0 {
			b = append(b, ',')
		}
		b = append(b, '"')
		b = append(b, choice.Pick(l.s, "max_msg_fds", "max_data_xfer_size", "max_dma_maps", "pgsizes", "write_multiple", "twin_socket", "migration", "other")...)
		b = append(b, `":`...)
		b = append(b, choice.Pick(l.s, "1", "0", "4096", "true", `{"supported":true}`, `{"supported":true,"fd_index":0}`, "{}", `{"pgsize":4096}`,
			"16", "1048576", "18446744073709551615", "-1", "1e3", "null", "[]", `"x"`)...)
	}
	return append(b, "}}\x00"...)
}

// doSecond connects beside the client: the second one is turned away at once.
func (l *life) doSecond() {
	l.c.settle()
	if l.c.main.over || l.c.may != "" || !l.c.negotiated {
		return
	}
	other, err := dial(l.address)
	if err != nil {
		l.t.Fatal(err)
	}
	defer other.close()
	for !other.over {
		if _, err := other.receive(); err != nil || len(other.in) > 0 {
			l.fail("a second client is told %d bytes: %v", len(other.in), err)
		}
		if !other.over && !waitFor(l.r.hangAfter, nil, other) {
			l.hang("a second client is not turned away")
		}
	}
}

// doNeighbour uses the other device.
func (l *life) doNeighbour() { l.r.neighbour.check(l) }
