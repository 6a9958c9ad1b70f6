package codec

// text writes a payload; the message is broken if it returns an error.
type text func(l *line, b []byte) error

// texts is the one table of how payloads read.
var texts = [NumCommands]struct{ request, reply text }{
	CmdVersion:          {versionText, versionText},
	CmdDMAMap:           {dmaMapText, nil},
	CmdDMAUnmap:         {dmaUnmapRequestText, dmaUnmapReplyText},
	CmdGetInfo:          {deviceInfoRequestText, deviceInfoReplyText},
	CmdGetRegionInfo:    {regionInfoRequestText, regionInfoReplyText},
	CmdGetRegionIOFDs:   {ioFDsRequestText, ioFDsReplyText},
	CmdGetIRQInfo:       {irqInfoRequestText, irqInfoReplyText},
	CmdSetIRQs:          {setIRQsText, nil},
	CmdRegionRead:       {regionText((*RegionAccess).DecodeReadRequest), regionText((*RegionAccess).DecodeReadReply)},
	CmdRegionWrite:      {regionText((*RegionAccess).DecodeWriteRequest), regionText((*RegionAccess).DecodeWriteReply)},
	CmdDMARead:          {dmaText((*DMAAccess).DecodeReadRequest), dmaText((*DMAAccess).DecodeReadReply)},
	CmdDMAWrite:         {dmaText((*DMAAccess).DecodeWriteRequest), dmaText((*DMAAccess).DecodeWriteReply)},
	CmdRegionWriteMulti: {writeMultiRequestText, writeMultiReplyText},
	CmdDeviceFeature:    {featureRequestText, featureReplyText},
	CmdMigDataRead:      {migDataText((*MigData).DecodeReadRequest), migDataText((*MigData).DecodeReadReply)},
	CmdMigDataWrite:     {migDataText((*MigData).DecodeWriteRequest), nil},
}

func versionText(l *line, b []byte) error {
	var m VersionMsg
	if err := m.Decode(b); err != nil {
		return err
	}
	l.add(" ").number(uint64(m.Major)).add(".").number(uint64(m.Minor))
	for _, f := range m.Caps.numbers() {
		if m.Caps.Present&f.bit != 0 {
			l.value(f.name, *f.value)
		}
	}
	if m.Caps.WriteMultiple {
		l.add(" write_multiple")
	}
	if t := m.Caps.TwinSocket; t != nil {
		l.add(" twin_socket")
		switch {
		case !t.Supported:
			l.add(" no")
		case t.FDIndex != nil:
			l.value("fd_index", *t.FDIndex)
		}
	}
	if g := m.Caps.Migration; g != nil {
		l.value("migration pgsize", g.PgSize)
		if g.MaxBitmapSize != 0 {
			l.value("max_bitmap_size", g.MaxBitmapSize)
		}
	}
	return nil
}

func dmaMapText(l *line, b []byte) error {
	var m DMAMap
	if err := m.Decode(b); err != nil {
		return err
	}
	l.span(m.Addr, m.Size).flags(uint64(m.Flags), "READ", "WRITE", "MMAP", "FILE_IO").add(" offset ").hex(m.Offset).rest(b[DMAMapSize:])
	return nil
}

func dmaUnmapRequestText(l *line, b []byte) error {
	var m DMAUnmap
	if err := m.DecodeRequest(b); err != nil {
		return err
	}
	l.unmap(&m)
	if m.Flags&UnmapFlagGetDirtyBitmap != 0 {
		l.value("size", m.Bitmap.Size)
	}
	return nil
}

func dmaUnmapReplyText(l *line, b []byte) error {
	var m DMAUnmap
	if err := m.DecodeReply(b); err != nil {
		return err
	}
	l.unmap(&m)
	if m.Flags&UnmapFlagGetDirtyBitmap != 0 {
		l.data(m.Bitmap.Data)
	}
	return nil
}

func (l *line) unmap(m *DMAUnmap) {
	if m.Flags&UnmapFlagAll != 0 {
		l.add(" ALL")
		return
	}
	l.span(m.Addr, m.Size)
	if m.Flags&UnmapFlagGetDirtyBitmap != 0 {
		l.add(" GET_DIRTY_BITMAP").value("pgsize", m.Bitmap.PgSize)
	}
}

func deviceInfoRequestText(l *line, b []byte) error {
	var m DeviceInfo
	if err := m.Decode(b); err != nil {
		return err
	}
	l.value("argsz", uint64(m.ArgSz)).rest(b[DeviceInfoSize:])
	return nil
}

func deviceInfoReplyText(l *line, b []byte) error {
	var m DeviceInfo
	if err := m.Decode(b); err != nil {
		return err
	}
	l.flags(uint64(m.Flags), "RESET", "PCI").value("regions", uint64(m.NumRegions)).value("irqs", uint64(m.NumIRQs)).rest(b[DeviceInfoSize:])
	return nil
}

func regionInfoRequestText(l *line, b []byte) error {
	var m RegionInfo
	if err := m.DecodeRequest(b); err != nil {
		return err
	}
	l.region(m.Index).value("argsz", uint64(m.ArgSz))
	return nil
}

func regionInfoReplyText(l *line, b []byte) error {
	var m RegionInfo
	if err := m.DecodeReply(b); err != nil {
		return err
	}
	l.region(m.Index).add(" size ").hex(m.Size).flags(uint64(m.Flags), "READ", "WRITE", "MMAP", "CAPS").add(" offset ").hex(m.Offset)
	if m.Truncated(len(b)) {
		l.add(" cut,").value("argsz", uint64(m.ArgSz))
		return nil
	}
	if len(m.Sparse) > 0 {
		l.add(" sparse")
	}
	for _, a := range m.Sparse[:min(len(m.Sparse), maxTextList)] {
		l.span(a.Offset, a.Size)
	}
	l.more(len(m.Sparse))
	if m.Type != (RegionType{}) {
		l.add(" type ").hex(uint64(m.Type.Type)).add(":").hex(uint64(m.Type.Subtype))
	}
	return nil
}

// more says that a list of n has members which are not shown.
func (l *line) more(n int) {
	if n > maxTextList {
		l.add(" and ").number(uint64(n - maxTextList)).add(" more")
	}
}

func ioFDsRequestText(l *line, b []byte) error {
	var m IOFDs
	if err := m.DecodeRequest(b); err != nil {
		return err
	}
	l.region(m.Index).value("argsz", uint64(m.ArgSz)).rest(b[IOFDsSize:])
	return nil
}

func ioFDsReplyText(l *line, b []byte) error {
	var m IOFDs
	if err := m.DecodeReply(b); err != nil {
		return err
	}
	l.region(m.Index).value("count", uint64(m.Count))
	if m.Truncated(len(b)) {
		l.add(" cut,").value("argsz", uint64(m.ArgSz))
		return nil
	}
	for i := range m.Regions[:min(len(m.Regions), maxTextList)] {
		r := &m.Regions[i]
		l.span(r.Offset, r.Size).name(uint32(r.Type), "type", "IOEVENTFD", "IOREGIONFD", "IOEVENTFD_SHADOW").value("fd", uint64(r.FDIndex))
		switch {
		case r.Type == IORegionfd:
			l.add(" user_data ").hex(r.Data)
		case r.Flags&IOEventfdDatamatch != 0:
			l.add(" datamatch ").hex(r.Data)
		}
		if r.Type == IOEventfdShadow {
			l.value("shadow fd", uint64(r.ShadowFDIndex)).add(" offset ").hex(r.ShadowOffset)
		}
	}
	l.more(len(m.Regions))
	return nil
}

func irqInfoRequestText(l *line, b []byte) error {
	var m IRQInfo
	if err := m.Decode(b); err != nil {
		return err
	}
	l.irq(m.Index).value("argsz", uint64(m.ArgSz)).rest(b[IRQInfoSize:])
	return nil
}

func irqInfoReplyText(l *line, b []byte) error {
	var m IRQInfo
	if err := m.Decode(b); err != nil {
		return err
	}
	l.irq(m.Index).value("count", uint64(m.Count)).flags(uint64(m.Flags), "EVENTFD", "MASKABLE", "AUTOMASKED", "NORESIZE").rest(b[IRQInfoSize:])
	return nil
}

func setIRQsText(l *line, b []byte) error {
	var m SetIRQs
	if err := m.Decode(b); err != nil {
		return err
	}
	l.irq(m.Index)
	switch m.Count {
	case 0:
		l.add(" all")
	case 1:
		l.value("vector", uint64(m.Start))
	default:
		l.value("vectors", uint64(m.Start)).add("-").number(uint64(m.Start + m.Count - 1))
	}
	l.flags(uint64(m.Flags), "NONE", "BOOL", "EVENTFD", "MASK", "UNMASK", "TRIGGER")
	if m.Data != nil {
		l.data(m.Data)
		return nil
	}
	l.rest(b[SetIRQsSize:])
	return nil
}

func regionText(decode func(*RegionAccess, []byte) error) text {
	return func(l *line, b []byte) error {
		var m RegionAccess
		if err := decode(&m, b); err != nil {
			return err
		}
		l.access(&m)
		if m.Data == nil {
			l.rest(b[RegionAccessSize:])
		}
		return nil
	}
}

// access is where, how much, and what.
func (l *line) access(m *RegionAccess) {
	l.region(m.Region).add("+").hex(m.Offset)
	if m.Data != nil {
		l.data(m.Data)
		return
	}
	l.add(" ").number(uint64(m.Count)).add(" bytes")
}

func dmaText(decode func(*DMAAccess, []byte) error) text {
	return func(l *line, b []byte) error {
		var m DMAAccess
		if err := decode(&m, b); err != nil {
			return err
		}
		l.add(" ").hex(m.Addr)
		if m.Data != nil {
			l.data(m.Data)
			return nil
		}
		l.add(" ").number(m.Count).add(" bytes").rest(b[min(len(b), DMAAccessSize):])
		return nil
	}
}

func writeMultiRequestText(l *line, b []byte) error {
	var m WriteMulti
	if err := m.DecodeRequest(b); err != nil {
		return err
	}
	l.add(" ").number(m.Count).add(" writes")
	n := int(m.Count)
	for i := range min(n, maxTextList) {
		if i > 0 {
			l.add(",")
		}
		a := m.Write(i)
		l.access(&a)
	}
	l.more(n)
	return nil
}

func writeMultiReplyText(l *line, b []byte) error {
	var m WriteMulti
	if err := m.DecodeReply(b); err != nil {
		return err
	}
	l.add(" ").number(m.Count).add(" writes").rest(b[WriteMultiSize:])
	return nil
}

func migDataText(decode func(*MigData, []byte) error) text {
	return func(l *line, b []byte) error {
		var m MigData
		if err := decode(&m, b); err != nil {
			return err
		}
		if m.Data != nil {
			l.data(m.Data).rest(b[MigDataSize+len(m.Data):])
			return nil
		}
		l.add(" ").number(uint64(m.Size)).add(" bytes").value("argsz", uint64(m.ArgSz)).rest(b[MigDataSize:])
		return nil
	}
}
