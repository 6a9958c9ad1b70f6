package bench

import (
	"vfiouser/codec"
)

// codecForm is one direction of one message: its payload written from a message, and read
// into another one.
type codecForm struct {
	name   string
	quick  bool
	encode func(dst []byte) []byte
	decode func(payload []byte) error
}

// codecForms are all directions of all messages, each with messages of its own.
func codecForms() []codecForm {
	header := codec.Header{ID: 1, Command: codec.CmdRegionRead, Size: 32}
	region := codec.RegionAccess{Offset: 8, Region: codec.RegionBAR0, Count: 4, Data: make([]byte, 4)}
	guest := codec.DMAAccess{Addr: 0x1000, Count: 4, Data: make([]byte, 4)}
	version := codec.VersionMsg{Minor: 1, Caps: codec.Capabilities{MaxMsgFDs: 8, MaxDataXferSize: 1 << 20, PgSizes: 4096}}
	dmaMap := codec.DMAMap{ArgSz: codec.DMAMapSize, Flags: codec.DMAFlagRead | codec.DMAFlagWrite, Addr: 1 << 32, Size: 1 << 30}
	unmap := codec.DMAUnmap{ArgSz: codec.DMAUnmapSize, Addr: 1 << 32, Size: 1 << 30}
	askDirty := codec.DMAUnmap{ArgSz: codec.DMAUnmapSize + codec.BitmapSize + 8, Flags: codec.UnmapFlagGetDirtyBitmap,
		Addr: 1 << 32, Size: 64 << 12, Bitmap: codec.Bitmap{PgSize: 4096, Size: 8}}
	dirty := codec.DMAUnmap{ArgSz: codec.DMAUnmapSize + codec.BitmapSize + 8, Flags: codec.UnmapFlagGetDirtyBitmap,
		Addr: 1 << 32, Size: 64 << 12, Bitmap: codec.Bitmap{PgSize: 4096, Size: 8, Data: make([]byte, 8)}}
	device := codec.DeviceInfo{ArgSz: codec.DeviceInfoSize, NumRegions: 9, NumIRQs: 5}
	askRegion := codec.RegionInfo{ArgSz: codec.RegionInfoSize}
	tellRegion := codec.RegionInfo{Size: 1 << 14, Flags: codec.RegionFlagRead | codec.RegionFlagWrite,
		Sparse: []codec.Area{{Offset: 1 << 12, Size: 1 << 12}}}
	irqInfo := codec.IRQInfo{ArgSz: 16, Index: codec.IRQMSIX, Count: 65}
	setIRQs := codec.SetIRQs{ArgSz: codec.SetIRQsSize, Flags: codec.IRQSetDataNone | codec.IRQSetActionMask, Index: codec.IRQMSIX, Count: 1}
	setSome := codec.SetIRQs{ArgSz: codec.SetIRQsSize + 4, Flags: codec.IRQSetDataBool | codec.IRQSetActionTrigger, Index: codec.IRQMSIX, Count: 4,
		Data: make([]byte, 4)}
	multi := codec.WriteMulti{Count: 1, Writes: codec.AppendWrite(nil, region)}
	ioFDs := codec.IOFDs{ArgSz: 256, Regions: []codec.IOFD{{Offset: 0x1000, Size: 4, Type: codec.IOEventfd}}}
	feature := codec.Feature{ArgSz: codec.FeatureSize + 8, Flags: codec.FeatureGet | codec.FeatureMigration, Data: make([]byte, 8)}
	logging := codec.DMALogging{PageSize: 4096, Count: 1, Ranges: codec.AppendIOVARange(nil, codec.IOVARange{IOVA: 1 << 32, Length: 1 << 30})}
	report := codec.DMALoggingReport{IOVA: 1 << 32, Length: 64 << 12, PageSize: 4096, Bitmap: make([]byte, 8)}
	migration := codec.MigData{ArgSz: codec.MigDataSize + 4, Size: 4, Data: make([]byte, 4)}
	var in struct {
		header    codec.Header
		version   codec.VersionMsg
		dmaMap    codec.DMAMap
		unmap     codec.DMAUnmap
		device    codec.DeviceInfo
		region    codec.RegionInfo
		irqInfo   codec.IRQInfo
		setIRQs   codec.SetIRQs
		access    codec.RegionAccess
		guest     codec.DMAAccess
		multi     codec.WriteMulti
		ioFDs     codec.IOFDs
		feature   codec.Feature
		logging   codec.DMALogging
		report    codec.DMALoggingReport
		migration codec.MigData

		migrationFlags codec.MigrationFlags
		migrationState codec.MigState
	}
	return []codecForm{
		{"header", true, header.Append, func(b []byte) (err error) { in.header, err = codec.DecodeHeader(b); return err }},
		{"version", false, version.Append, in.version.Decode},
		{"dma-map-request", true, dmaMap.Append, in.dmaMap.Decode},
		{"dma-unmap-request", false, unmap.Append, in.unmap.DecodeRequest},
		{"dma-unmap-request-bitmap", false, askDirty.Append, in.unmap.DecodeRequest},
		{"dma-unmap-reply", false, unmap.Append, in.unmap.DecodeReply},
		{"dma-unmap-reply-bitmap", false, dirty.Append, in.unmap.DecodeReply},
		{"get-info", false, device.Append, in.device.Decode},
		{"get-region-info-request", false, askRegion.AppendRequest, in.region.DecodeRequest},
		{"get-region-info-reply", false, func(dst []byte) []byte { return tellRegion.AppendReply(dst, ^uint32(0)) }, in.region.DecodeReply},
		{"get-irq-info", false, irqInfo.Append, in.irqInfo.Decode},
		{"set-irqs-request", false, setIRQs.Append, in.setIRQs.Decode},
		{"set-irqs-request-bool", false, setSome.Append, in.setIRQs.Decode},
		{"region-read-request", true, region.AppendHead, in.access.DecodeReadRequest},
		{"region-read-reply", false, region.Append, in.access.DecodeReadReply},
		{"region-write-request", true, region.Append, in.access.DecodeWriteRequest},
		{"region-write-reply", false, region.AppendHead, in.access.DecodeWriteReply},
		{"region-write-multi-request", false, multi.Append, in.multi.DecodeRequest},
		{"region-write-multi-reply", false, multi.AppendHead, in.multi.DecodeReply},
		{"get-region-io-fds-request", false, ioFDs.AppendRequest, in.ioFDs.DecodeRequest},
		{"get-region-io-fds-reply", false, func(dst []byte) []byte { return ioFDs.AppendReply(dst, ^uint32(0)) }, in.ioFDs.DecodeReply},
		{"dma-read-request", false, guest.AppendHead, in.guest.DecodeReadRequest},
		{"dma-read-reply", false, guest.Append, in.guest.DecodeReadReply},
		{"dma-write-request", false, guest.Append, in.guest.DecodeWriteRequest},
		{"dma-write-reply", false, guest.AppendHead, in.guest.DecodeWriteReply},
		{"device-feature", false, feature.Append, in.feature.Decode},
		{"migration-flags", false, codec.MigrationStopCopy.Append, in.migrationFlags.Decode},
		{"migration-state", false, codec.MigRunning.Append, in.migrationState.Decode},
		{"dma-logging-start", false, logging.Append, in.logging.Decode},
		{"dma-logging-report-request", false, report.AppendHead, in.report.DecodeRequest},
		{"dma-logging-report-reply", false, report.Append, in.report.DecodeReply},
		{"mig-data-read-request", false, migration.AppendHead, in.migration.DecodeReadRequest},
		{"mig-data-read-reply", false, migration.Append, in.migration.DecodeReadReply},
		{"mig-data-write-request", false, migration.Append, in.migration.DecodeWriteRequest},
	}
}

// codecCases hold every message against a move of as many bytes; VERSION, which is text, against
// what text takes.
func codecCases() (cases []Case) {
	for i, f := range codecForms() {
		size := len(f.encode(nil))
		encodeLimit, decodeLimit := moveLimit(size), moveLimit(size)
		if f.name == "version" {
			encodeLimit, decodeLimit = textWrite, textRead
		}
		cases = append(cases,
			Case{Name: "codec/encode/" + f.name, Quick: f.quick, Bytes: size, Limit: encodeLimit, Setup: func(*Env) (Subject, error) {
				return writes(codecForms()[i].encode), nil
			}},
			Case{Name: "codec/decode/" + f.name, Quick: f.quick, Bytes: size, Limit: decodeLimit, Setup: func(*Env) (Subject, error) {
				form := codecForms()[i]
				return reads(form.decode, form.encode(nil)), nil
			}})
	}
	return cases
}

// writes has a payload written again and again.
func writes(encode func(dst []byte) []byte) Subject {
	buf := make([]byte, 0, 1024)
	return Subject{Run: func(n int) error {
		for range n {
			encode(buf)
		}
		return nil
	}}
}

// reads has a payload read again and again.
func reads(decode func(payload []byte) error, payload []byte) Subject {
	return Subject{Run: func(n int) error {
		for range n {
			if err := decode(payload); err != nil {
				return err
			}
		}
		return nil
	}}
}
