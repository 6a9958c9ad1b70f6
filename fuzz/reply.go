package fuzz

import (
	"errors"
	"fmt"

	"vfiouser/codec"
)

// shape is what a device tells of itself.
type shape struct {
	flags   codec.DeviceFlags
	regions []codec.RegionInfo
	irqs    []codec.IRQInfo
}

// region is what is known of a region; of a size of 0 if there is none.
func (s *shape) region(index uint32) codec.RegionInfo {
	if int(index) < len(s.regions) {
		return s.regions[index]
	}
	return codec.RegionInfo{Index: index}
}

const maxErrno = 4095

var errSucceeds = errors.New("a malformed command succeeds")

// checkReply holds a reply against its command.
func (c *conn) checkReply(r *request, m *incoming) error {
	if other := m.Flags &^ (codec.FlagTypeMask | codec.FlagError); other != 0 {
		return fmt.Errorf("it has flags %#x", other)
	}
	if m.IsError() {
		if m.Errno == 0 || m.Errno > maxErrno || len(m.payload) > 0 || len(m.fds) > 0 {
			return fmt.Errorf("it is an error with errno %d, %d bytes and %d descriptors", m.Errno, len(m.payload), len(m.fds))
		}
		return nil
	}
	op, known := codec.Lookup(r.Command)
	switch {
	case !known, op.Direction != codec.ToServer:
		return errSucceeds
	case m.Errno != 0:
		return fmt.Errorf("it has errno %d", m.Errno)
	case len(m.fds) > 0 && (!op.ReplyFDs || len(m.fds) > c.maxFDs && c.negotiated):
		return fmt.Errorf("it has %d descriptors, the client takes %d", len(m.fds), c.maxFDs)
	case !c.negotiated && !c.posted && r.Command != codec.CmdVersion:
		return errors.New("it succeeds before VERSION")
	}
	check := replyChecks[r.Command]
	return check(&c.l.r.shape, r, m)
}

var replyChecks = [codec.NumCommands]func(s *shape, r *request, m *incoming) error{
	codec.CmdVersion:          checkVersion,
	codec.CmdDMAMap:           checkMap,
	codec.CmdDMAUnmap:         checkUnmap,
	codec.CmdGetInfo:          checkInfo,
	codec.CmdGetRegionInfo:    checkRegionInfo,
	codec.CmdGetRegionIOFDs:   checkIOFDs,
	codec.CmdGetIRQInfo:       checkIRQInfo,
	codec.CmdSetIRQs:          checkSetIRQs,
	codec.CmdRegionRead:       checkRead,
	codec.CmdRegionWrite:      checkWrite,
	codec.CmdReset:            checkReset,
	codec.CmdRegionWriteMulti: checkMulti,
	codec.CmdDeviceFeature:    checkFeature,
	codec.CmdMigDataRead:      checkMigRead,
	codec.CmdMigDataWrite:     checkMigWrite,
}

// decodes says that a reply is to be held against a command that could be decoded (err).
func decodes(err, replyErr error) error {
	if err != nil {
		return fmt.Errorf("%w: %w", errSucceeds, err)
	}
	return replyErr
}

func empty(m *incoming) error {
	if len(m.payload) > 0 {
		return fmt.Errorf("it has %d bytes", len(m.payload))
	}
	return nil
}

func differs(what string, got, want any) error {
	return fmt.Errorf("its %s is %v, not %v", what, got, want)
}

func checkVersion(_ *shape, r *request, m *incoming) error {
	var asked, told codec.VersionMsg
	if err := decodes(asked.Decode(r.payload), told.Decode(m.payload)); err != nil {
		return err
	}
	twin := asked.Caps.TwinSocket != nil && asked.Caps.TwinSocket.Supported
	switch {
	case told.Major != asked.Major || told.Minor > asked.Minor:
		return differs("version", [2]uint16{told.Major, told.Minor}, [2]uint16{asked.Major, asked.Minor})
	case (told.Caps.TwinSocket != nil) != (len(m.fds) == 1):
		return fmt.Errorf("it has %d descriptors with a twin socket: %v", len(m.fds), told.Caps.TwinSocket != nil)
	case len(m.fds) > 0 && !twin:
		return errors.New("it has a twin socket that was not offered")
	}
	return nil
}

func checkMap(_ *shape, r *request, m *incoming) error {
	return decodes(new(codec.DMAMap).Decode(r.payload), empty(m))
}

func checkUnmap(_ *shape, r *request, m *incoming) error {
	var asked, told codec.DMAUnmap
	if err := decodes(asked.DecodeRequest(r.payload), told.DecodeReply(m.payload)); err != nil {
		return err
	}
	if told.Addr != asked.Addr {
		return differs("address", told.Addr, asked.Addr)
	}
	return nil
}

func checkInfo(s *shape, r *request, m *incoming) error {
	var told codec.DeviceInfo
	err := decodes(new(codec.DeviceInfo).Decode(r.payload), told.Decode(m.payload))
	switch {
	case err != nil:
		return err
	case s.regions != nil && (int(told.NumRegions) != len(s.regions) || int(told.NumIRQs) != len(s.irqs) || told.Flags != s.flags):
		return fmt.Errorf("the device has another shape: %+v", told)
	}
	return nil
}

func checkRegionInfo(s *shape, r *request, m *incoming) error {
	var asked, told codec.RegionInfo
	err := decodes(asked.DecodeRequest(r.payload), told.DecodeReply(m.payload))
	switch {
	case err != nil:
		return err
	case told.Index != asked.Index:
		return differs("region", told.Index, asked.Index)
	case s.regions != nil && told.Size != s.region(told.Index).Size:
		return differs("size", told.Size, s.region(told.Index).Size)
	case told.ArgSz > asked.ArgSz && len(m.fds) > 0:
		return errors.New("it has descriptors and is not complete")
	}
	return nil
}

func checkIOFDs(_ *shape, r *request, m *incoming) error {
	var asked, told codec.IOFDs
	err := decodes(asked.DecodeRequest(r.payload), told.DecodeReply(m.payload))
	switch {
	case err != nil:
		return err
	case told.Index != asked.Index:
		return differs("region", told.Index, asked.Index)
	}
	for _, a := range told.Regions {
		if int(a.FDIndex) >= len(m.fds) {
			return fmt.Errorf("an area has descriptor %d of %d", a.FDIndex, len(m.fds))
		}
	}
	return nil
}

func checkIRQInfo(s *shape, r *request, m *incoming) error {
	var asked, told codec.IRQInfo
	err := decodes(asked.Decode(r.payload), told.Decode(m.payload))
	switch {
	case err != nil:
		return err
	case told.Index != asked.Index:
		return differs("type of interrupt", told.Index, asked.Index)
	case int(told.Index) < len(s.irqs) && told.Count != s.irqs[told.Index].Count:
		return differs("count", told.Count, s.irqs[told.Index].Count)
	}
	return nil
}

func checkSetIRQs(_ *shape, r *request, m *incoming) error {
	return decodes(new(codec.SetIRQs).Decode(r.payload), empty(m))
}

func checkRead(s *shape, r *request, m *incoming) error {
	var asked, told codec.RegionAccess
	if err := decodes(asked.DecodeReadRequest(r.payload), told.DecodeReadReply(m.payload)); err != nil {
		return err
	}
	return checkAccess(s, &asked, &told)
}

func checkWrite(s *shape, r *request, m *incoming) error {
	var asked, told codec.RegionAccess
	if err := decodes(asked.DecodeWriteRequest(r.payload), told.DecodeWriteReply(m.payload)); err != nil {
		return err
	}
	return checkAccess(s, &asked, &told)
}

func checkAccess(s *shape, asked, told *codec.RegionAccess) error {
	size := s.region(asked.Region).Size
	switch {
	case told.Offset != asked.Offset || told.Region != asked.Region || told.Count != asked.Count:
		return errors.New("it is to another access")
	case s.regions != nil && (asked.Offset > size || uint64(asked.Count) > size-asked.Offset):
		return fmt.Errorf("an access beyond the region's %d bytes succeeds", size)
	}
	return nil
}

func checkReset(s *shape, _ *request, m *incoming) error {
	if s.regions != nil && s.flags&codec.DeviceFlagReset == 0 {
		return errors.New("a device that has no reset takes one")
	}
	return empty(m)
}

func checkMulti(_ *shape, r *request, m *incoming) error {
	var asked, told codec.WriteMulti
	err := decodes(asked.DecodeRequest(r.payload), told.DecodeReply(m.payload))
	if err == nil && told.Count > asked.Count {
		return differs("count", told.Count, asked.Count)
	}
	return err
}

func checkFeature(_ *shape, r *request, m *incoming) error {
	var asked, told codec.Feature
	err := decodes(asked.Decode(r.payload), told.Decode(m.payload))
	if err == nil && told.Flags != asked.Flags {
		return differs("feature", told.Flags, asked.Flags)
	}
	return err
}

func checkMigRead(_ *shape, r *request, m *incoming) error {
	var asked, told codec.MigData
	err := decodes(asked.DecodeReadRequest(r.payload), told.DecodeReadReply(m.payload))
	if err == nil && told.Size > asked.Size {
		return differs("size", told.Size, asked.Size)
	}
	return err
}

func checkMigWrite(_ *shape, r *request, m *incoming) error {
	return decodes(new(codec.MigData).DecodeWriteRequest(r.payload), empty(m))
}
