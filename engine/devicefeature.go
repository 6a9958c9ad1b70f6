package engine

import (
	"fmt"
	"slices"

	"golang.org/x/sys/unix"

	"vfiouser/codec"
)

// feature is what can be done with one feature of the device. The operations call reply
// once, now or later, on the reactor, with what follows the head of the reply; data is
// theirs.
type feature struct {
	get, set func(s *Session, req *codec.Feature, reply func(data []byte, err error))
	// migrator: only devices have it that can be migrated.
	migrator bool
}

// featureTable is the features by number.
func featureTable() map[codec.FeatureFlags]feature {
	return map[codec.FeatureFlags]feature{
		codec.FeatureMigration:        {get: (*Session).getMigration, migrator: true},
		codec.FeatureMigDeviceState:   {get: (*Session).getMigState, set: (*Session).setMigState, migrator: true},
		codec.FeatureDMALoggingStart:  {set: (*Session).startDMALogging},
		codec.FeatureDMALoggingStop:   {set: (*Session).stopDMALogging},
		codec.FeatureDMALoggingReport: {get: (*Session).reportDMALogging},
	}
}

// ops are the operations that the feature has.
func (f *feature) ops() (ops codec.FeatureFlags) {
	if f.get != nil {
		ops |= codec.FeatureGet
	}
	if f.set != nil {
		ops |= codec.FeatureSet
	}
	if ops != 0 {
		ops |= codec.FeatureProbe
	}
	return ops
}

// startDeviceFeature is VFIO_USER_DEVICE_FEATURE. The specification has no errno for a
// feature or an operation that is not there: EINVAL, as libvfio-user has it, where Linux'
// ioctl has ENOTTY.
func (s *Session) startDeviceFeature(m *message) error {
	var req codec.Feature
	if err := req.Decode(m.payload); err != nil {
		return err
	}
	f := s.engine.features[req.Flags.Number()]
	if f.migrator && s.migration.device == nil {
		f = feature{}
	}
	if ops := req.Flags & codec.FeatureOps; ops&^f.ops() != 0 {
		return fmt.Errorf("feature %d, flags %#x: %w", req.Flags.Number(), ops, unix.EINVAL)
	}
	get := req.Flags&(codec.FeatureGet|codec.FeatureProbe) == codec.FeatureGet
	if !get && uint64(req.ArgSz) < uint64(len(m.payload)) {
		return fmt.Errorf("argsz %d of a feature has no room for the request: %w", req.ArgSz, unix.EINVAL)
	}
	req.Data = slices.Clone(req.Data)
	s.backlog.begin(m.Header)
	reply := func(data []byte, err error) {
		if err == nil && get {
			if uint64(req.ArgSz) < codec.FeatureSize+uint64(len(data)) {
				err = fmt.Errorf("argsz %d of a feature has no room for %d bytes of data: %w", req.ArgSz, len(data), unix.EINVAL)
			}
			req.ArgSz = codec.FeatureSize + uint32(len(data))
		}
		req.Data = data
		s.backlog.finish(err, req.Append)
	}
	switch {
	case req.Flags&codec.FeatureProbe != 0:
		reply(req.Data, nil)
	case get:
		f.get(s, &req, reply)
	default:
		f.set(s, &req, reply)
	}
	return nil
}

func (s *Session) getMigration(_ *codec.Feature, reply func([]byte, error)) {
	reply(s.migration.flags().Append(nil), nil)
}

func (s *Session) getMigState(_ *codec.Feature, reply func([]byte, error)) {
	reply(s.migration.state.Append(nil), nil)
}

func (s *Session) setMigState(req *codec.Feature, reply func([]byte, error)) {
	var to codec.MigState
	if err := to.Decode(req.Data); err != nil {
		reply(nil, err)
		return
	}
	s.migration.set(to, func(err error) { reply(req.Data, err) })
}
