package engine

import (
	"fmt"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
	"vfiouser/engine/reactor"
)

// serveVersion is VFIO_USER_VERSION, the first command of a client. "The server replies
// with a compatible version and set of capabilities it supports, or closes the
// connection" (specification, "Connection Initiation"); before that it says why.
func (s *Session) serveVersion(m *message) error {
	if s.state == stateNegotiated {
		return fmt.Errorf("VERSION came again: %w", unix.EINVAL)
	}
	err := s.negotiate(m)
	if err != nil {
		s.reply(len(s.out.bytes())-codec.HeaderSize, m.Header, err)
		s.flush()
		s.drop(err)
	}
	return err
}

// negotiate appends the reply's payload.
func (s *Session) negotiate(m *message) error {
	if m.flooded {
		return fmt.Errorf("VERSION with too many descriptors: %w", unix.EINVAL)
	}
	if len(m.payload) > maxVersion {
		return fmt.Errorf("VERSION of %d bytes: %w", len(m.payload), unix.EINVAL)
	}
	var v codec.VersionMsg
	if err := v.Decode(m.payload); err != nil {
		return err
	}
	if v.Major != protocolMajor {
		return fmt.Errorf("major version %d: %w", v.Major, unix.EINVAL)
	}
	v.Caps.Defaults()
	if v.Caps.MaxDataXferSize == 0 || v.Caps.PgSizes&pageSize == 0 {
		return fmt.Errorf("capabilities %+v leave nothing to work with: %w", v.Caps, unix.EINVAL)
	}
	v.Caps.MaxMsgFDs = min(v.Caps.MaxMsgFDs, reactor.MaxFDs)
	s.peer = v.Caps
	s.created = true
	if err := s.ep.device.NewDevice(s); err != nil {
		s.created = false
		s.log.Warn("device refuses the client", "err", err)
		return err
	}
	s.state = stateNegotiated
	s.silence.Stop()
	s.minor = min(v.Minor, protocolMinor)
	s.log.Info("client negotiated", "minor", s.minor)
	reply := codec.VersionMsg{
		Major: protocolMajor,
		Minor: s.minor,
		Caps:  s.capabilities(&v.Caps),
	}
	start := len(s.out.bytes()) - codec.HeaderSize
	if s.offersTwin(m, &v.Caps) {
		if fd := s.openTwin(); fd >= 0 {
			reply.Caps.TwinSocket = &codec.TwinSocket{Supported: true, FDIndex: new(uint64)}
			s.out.give(start, fd)
		}
	}
	s.out.set(reply.Append(s.out.bytes()))
	return nil
}

// capabilities answers a client's: what it offered and is served, and the limits of this
// server. Nothing is in the answer that the client did not send and might not know, and it
// is no longer than QEMU's own request, which is all the room that QEMU has.
func (s *Session) capabilities(client *codec.Capabilities) codec.Capabilities {
	caps := codec.Capabilities{
		MaxMsgFDs:       maxMsgFDs,
		MaxDataXferSize: maxDataXfer,
		MaxDMAMaps:      min(client.MaxDMAMaps, maxDMAMaps),
		PgSizes:         pageSize,
		WriteMultiple:   client.WriteMultiple && s.engine.cfg.WriteMultiple,
		Present:         codec.HasMaxDMAMaps,
	}
	if m := client.Migration; m != nil {
		// cloud-hypervisor takes no answer to it without pgsize.
		caps.Migration = &codec.MigrationCaps{PgSize: pageSize, MaxBitmapSize: min(m.MaxBitmapSize, maxDataXfer)}
	}
	return caps
}
