package engine

import (
	"errors"
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// What this server negotiates at most.
const (
	protocolMajor = 0
	protocolMinor = 1
	maxMsgFDs     = 16      // QEMU refuses more
	maxDataXfer   = 1 << 20 // bytes of data in one message
	maxDMAMaps    = 65535
	maxVersion    = 64 << 10 // bytes of VERSION; more JSON takes too long to read
	pageSize      = 4096     // the granularity of DMA maps, bytes
)

// errPending says that the command was given to s.backlog.begin.
var errPending = errors.New("command is pending")

// command is how the server serves one command of a client.
type command struct {
	// serve appends the reply's payload to s.out, or returns the error to reply with;
	// errPending after it turned out to be a command that takes its time (see start).
	serve func(s *Session, m *message) error
	// start begins a command that may take its time. It calls s.backlog.begin, and
	// when the command is done, now or later, s.backlog.finish; or returns an error.
	start func(s *Session, m *message) error
	// early allows the command before VERSION.
	early bool
}

// commandTable is what the server serves. (A variable would refer to itself:
// serving one command may run those that waited for it.)
func commandTable() [codec.NumCommands]command {
	return [codec.NumCommands]command{
		codec.CmdVersion:          {serve: (*Session).serveVersion, early: true},
		codec.CmdDMAMap:           {start: (*Session).startDMAMap},
		codec.CmdDMAUnmap:         {start: (*Session).startDMAUnmap},
		codec.CmdGetInfo:          {serve: (*Session).serveGetInfo},
		codec.CmdGetRegionInfo:    {serve: (*Session).serveGetRegionInfo},
		codec.CmdGetRegionIOFDs:   {serve: (*Session).serveGetRegionIOFDs},
		codec.CmdGetIRQInfo:       {serve: (*Session).serveGetIRQInfo},
		codec.CmdSetIRQs:          {serve: (*Session).serveSetIRQs},
		codec.CmdRegionRead:       {serve: (*Session).serveRegionRead},
		codec.CmdRegionWrite:      {serve: (*Session).serveRegionWrite},
		codec.CmdReset:            {start: (*Session).startReset},
		codec.CmdRegionWriteMulti: {serve: (*Session).serveWriteMulti},
		codec.CmdDeviceFeature:    {start: (*Session).startDeviceFeature},
		codec.CmdMigDataRead:      {start: (*Session).startMigDataRead},
		codec.CmdMigDataWrite:     {start: (*Session).startMigDataWrite},
	}
}

// accept takes a message from the socket. Replies are served at once; commands run
// in the order of their arrival, and wait for one that is not finished.
func (s *Session) accept(m *message) {
	if m.IsReply() || m.Command != codec.CmdRegionRead {
		s.quiet = false
	}
	switch {
	case m.IsReply() && s.twin != nil:
		s.drop(fmt.Errorf("reply to %v beside the twin socket: %w", m.Command, errFrame))
	case m.IsReply():
		s.calls.answer(m)
	case s.backlog.blocked() || !s.backlog.empty():
		s.backlog.add(m)
	case s.turn.over():
		s.backlog.add(m)
		s.backlog.resume()
	default:
		s.dispatch(m)
	}
}

// dispatch runs one command.
func (s *Session) dispatch(m *message) {
	var c command
	if m.Command < codec.NumCommands {
		c = s.engine.commands[m.Command]
	}
	if c.start != nil && s.state == stateNegotiated && !m.flooded {
		err := c.start(s, m)
		if err == nil {
			return
		}
		s.reply(s.out.begin(), m.Header, err)
		return
	}
	start := s.out.begin()
	var err error
	switch {
	case c.serve == nil && c.start == nil:
		err = unix.EINVAL // as libvfio-user answers to a command that it does not know
	case !c.early && (m.flooded || s.state != stateNegotiated):
		err = unix.EINVAL
	default:
		err = c.serve(s, m)
	}
	switch {
	case s.state == stateDropped:
	case err == errPending:
		s.out.set(s.out.bytes()[:start])
	default:
		s.reply(start, m.Header, err)
	}
}

// serveGetInfo is VFIO_USER_DEVICE_GET_INFO.
func (s *Session) serveGetInfo(m *message) error {
	var info codec.DeviceInfo
	if err := info.Decode(m.payload); err != nil {
		return err
	}
	info = codec.DeviceInfo{
		ArgSz:      codec.DeviceInfoSize,
		Flags:      codec.DeviceFlagPCI | codec.DeviceFlagReset,
		NumRegions: uint32(len(s.ep.regions)),
		NumIRQs:    uint32(len(s.ep.desc.IRQs)),
	}
	if s.ep.desc.NoReset {
		info.Flags &^= codec.DeviceFlagReset
	}
	s.out.set(info.Append(s.out.bytes()))
	return nil
}

// startReset is VFIO_USER_DEVICE_RESET.
func (s *Session) startReset(m *message) error {
	if s.ep.desc.NoReset {
		return fmt.Errorf("RESET of a device that has none: %w", unix.ENOTSUP)
	}
	s.backlog.begin(m.Header)
	s.reset(func() { s.backlog.finish(nil, nil) })
	return nil
}

// reset returns the device to power-on for the pending command, and calls then when the
// data path may go on.
func (s *Session) reset(then func()) {
	if s.migration.sealed {
		s.events.forget()
	} else {
		s.events.collect()
	}
	s.migration.reset(func() {
		s.path.hold(func() {
			if s.state == stateDropped {
				return
			}
			s.powerOn()
			s.path.release(then)
		})
	})
}

// powerOn returns the device to its state at power-on while the data path is held.
func (s *Session) powerOn() {
	s.ep.desc.Config.Reset()
	s.irqs.ClearPending()
	s.settleGates()
	s.ep.device.ResetDevice(s)
}
